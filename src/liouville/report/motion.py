"""An animation of the features of held-out points from layer to layer."""

from __future__ import annotations

__all__ = ["features_in_motion"]

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from liouville.network import Network
from liouville.report.answered import task_or
from liouville.report.plane import head_plane
from liouville.report.style import DARK, canvas, cloud, heading, key, name_classes, percent, styled
from liouville.train import Task

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation
    from matplotlib.axes import Axes

_HELD = 10  # frames for the last layer


@torch.no_grad()
def features_in_motion(
    network: Network,
    x: Tensor,
    y: Tensor,
    task: Task | None = None,
    label_names: Sequence[str] | None = None,
    *,
    title: str = "",
    points: int = 400,
    frames: int = 60,
) -> FuncAnimation:
    """The features of held-out points, layer by layer, in one orthonormal basis and one window for all frames.

    The horizontal axis is the normal of the head's dividing plane. The vertical axis, and both axes of a second panel,
    are principal components orthogonal to it, of the features after all layers together. Four features are shown
    completely.

    Args:
        network: a classifier of two classes, with one flow as its body and at least two features.
        x: held-out points.
        y: their labels.
        task: decides which of them the head gets right; that of classes if None.
        label_names: one for each class; their numbers if None.
        title: text before the layer number.
        points: number of points drawn; the accuracy is over all points.
        frames: maximum number of frames; the last layer stays for ten of them.

    Raises:
        ValueError: if the network's body is not one flow, or there are more than two classes.
    """
    flows, task = list(network.flows()), task_or(task, network, x)
    if len(flows) != 1 or task.kind != "logistic":
        raise ValueError(f"motion needs one flow and two classes, got {len(flows)} flows and {task.classes} classes.")
    flow = flows[0]
    features = torch.stack([flow.scheme.final(flow.field, state) for state in flow.states(network.lift(x))])
    shares = [task.score(network.head(at), y) for at in features]
    normal, plane = head_plane(network, features[-1].double())
    features = features.double().cpu()
    some = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:points]
    seen = features[:, some] @ _basis(features.flatten(0, 1), normal.cpu())
    stride = -(-(flow.layers + 1) // max(1, frames - _HELD))
    layers = [*range(0, flow.layers, stride), *[flow.layers] * _HELD]
    titles = [
        f"{title}layer {j}, t = {j * flow.h:.2f}: the head gets {percent(share)} right"
        for j, share in enumerate(shares)
    ]
    return _animate(seen, y[some], plane, label_names, titles, layers)


def _basis(features: Tensor, normal: Tensor) -> Tensor:
    """(n, k), k <= 4: the normal, then principal components orthogonal to it, their largest entry positive."""
    spread = features - features.mean(0)
    spread = spread - (spread @ normal)[:, None] * normal
    count = min(3, len(normal) - 1)
    others = torch.linalg.eigh(spread.mT @ spread).eigenvectors.flip(1)[:, :count]
    signs = others.gather(0, others.abs().argmax(0, keepdim=True)).sign()
    return torch.cat((normal[:, None], others * signs), 1)


def _animate(
    seen: Tensor, y: Tensor, plane: float, names: Sequence[str] | None, titles: Sequence[str], layers: Sequence[int]
) -> FuncAnimation:
    from liouville.report.shown import Moving

    names = names or ["class 0", "class 1"]
    windows = [(0, 1), (2, 3)] if seen.shape[-1] == 4 else [(0, 1)]
    with styled():
        figure = canvas(3.3 * len(windows) + 0.2, 4.0)
        panels = figure.subplots(1, len(windows), squeeze=False)[0]
        dots = []
        for axes, window in zip(panels, windows, strict=True):
            dots.append(cloud(axes, seen[0][:, window], y, 2, 10))
            _frame(axes, seen[..., window].flatten(0, 1))
        panels[0].axvline(plane, color=DARK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        panels[0].set(xlabel="normal of the head's plane (dashed)", ylabel="1st component orthogonal to it")
        if len(windows) > 1:
            panels[1].set(xlabel="2nd component", ylabel="3rd component")
        name_classes(panels[0], names)
        key(figure)
        title = heading(figure, titles[0])
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # keep the layout in every frame

    def draw(j: int) -> list[object]:
        for shown, window in zip(dots, windows, strict=True):
            shown.set_offsets(seen[j][:, window].numpy())
        title.set_text(titles[j])
        return [*dots, title]

    return Moving(figure, draw, frames=list(layers), blit=False)  # type: ignore[arg-type]


def _frame(axes: Axes, points: Tensor) -> None:
    """No ticks, and one window that holds the points of all layers."""
    low, high = points.amin(0), points.amax(0)
    pad = 0.05 * (high - low)
    axes.set(xlim=(float(low[0] - pad[0]), float(high[0] + pad[0])), xticks=[], yticks=[])
    axes.set_ylim(float(low[1] - pad[1]), float(high[1] + pad[1]))
    axes.spines[:].set(visible=True, color="#CCCCCC")
