"""Networks on images: misclassified test images, the most confident mistakes first."""

from __future__ import annotations

__all__ = ["hardest_mistakes"]

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from liouville.network import Network
from liouville.report.answered import task_or
from liouville.report.style import canvas, colours, heading, percent, styled
from liouville.train import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@torch.no_grad()
def hardest_mistakes(
    network: Network,
    x: Tensor,
    y: Tensor,
    task: Task | None = None,
    label_names: Sequence[str] | None = None,
    columns: int = 10,
    rows: int = 4,
) -> Figure:
    """A sheet of misclassified test images, by decreasing probability of the wrong answer.

    Without mistakes, it shows the images with the least certain answers.

    Args:
        network: a network on images (samples, channels, height, width).
        x: the images.
        y: their labels.
        task: turns scores into probabilities; that of classes if None.
        label_names: one for each class; their numbers if None.
        columns, rows: size of the sheet.
    """
    task = task_or(task, network, x)
    names = label_names or [str(k) for k in range(task.classes)]
    p = torch.cat([task.probabilities(network(part).float()).cpu() for part in x.split(1000)])
    y = y.cpu()
    sure, guess = p.max(1)
    wrong = (guess != y).nonzero().flatten()
    chosen = wrong[sure[wrong].argsort(descending=True)] if len(wrong) else sure.argsort()
    chosen = chosen[: columns * rows]
    used = -(-len(chosen) // columns)
    good, bad = colours(2)
    with styled():
        figure = canvas(1.05 * columns, 1.36 * used + 0.8)
        grid = figure.subplots(used, columns, squeeze=False).flatten()
        for axes in grid:
            axes.axis("off")
        low, high = float(x.min()), float(x.max())
        for axes, i in zip(grid, chosen.tolist(), strict=False):
            image = x[i].cpu().float()
            image = image[0] if image.shape[0] != 3 else ((image - low) / (high - low)).permute(1, 2, 0)
            axes.imshow(image.numpy(), cmap="gray_r", vmin=low, vmax=high, interpolation="nearest")
            colour = good if guess[i] == y[i] else bad
            answer = f"{names[int(guess[i])]} · {min(99.9, 100 * float(sure[i])):.1f} %"
            axes.set_title(answer, fontsize=8.5, color=colour, loc="center", pad=3, fontweight="bold")
            axes.text(
                0.5, -0.04, f"is {names[int(y[i])]}", transform=axes.transAxes, ha="center", va="top", fontsize=8.5
            )
        share = f"{len(wrong):,} of {len(y):,} test images are wrong ({percent(len(wrong) / len(y))})"
        if not len(wrong):
            title = f"All {len(y):,} test images are right; the {len(chosen)} least certain ones"
        elif len(chosen) < len(wrong):
            title = f"{share}; the {len(chosen)} surest mistakes"
        else:
            title = f"{share}; the surest mistakes first"
        heading(figure, title, "above: the answer and its probability; below: the label")
    return figure
