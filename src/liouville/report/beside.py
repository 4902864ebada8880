"""Several networks on points of the plane, side by side: their decision regions, and features by depth."""

from __future__ import annotations

__all__ = ["features_beside", "planes_beside"]

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from liouville.network import Network
from liouville.report.style import DARK, blend, canvas, cloud, heading, key, name_classes, percent, styled
from liouville.train import Task
from liouville.train.varpro import linear_head

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIDE = 120  # points of the grid along the longer side
_SHOWN = 500  # points drawn


@torch.no_grad()
def planes_beside(
    networks: Mapping[str, Network], x: Tensor, y: Tensor, task: Task, title: str, names: Sequence[str] | None = None
) -> Figure:
    """The decision regions of each network, with the points on top; one panel each, with its name and its accuracy.

    Args:
        networks: networks by name, each with two inputs.
        x, y: points of the plane, (samples, 2), and their labels.
        task: turns scores into probabilities.
        title: what is shown; the title of the figure adds how many points are on the right side.
        names: one for each class; their numbers if None.
    """
    low, high = x.amin(0), x.amax(0)
    pad = 0.06 * float((high - low).max())
    left, bottom, right, top = *(low - pad).tolist(), *(high + pad).tolist()
    step = max(right - left, top - bottom) / _SIDE
    columns, rows = (torch.arange(a, b, step, dtype=x.dtype) for a, b in ((left, right), (bottom, top)))
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)
    shares: dict[str, float] = {}
    with styled():
        side = min(3.5, 10.0 / len(networks))  # inches
        figure = canvas(side * len(networks), 0.94 * side * (top - bottom) / (right - left) + 0.95)
        panels = figure.subplots(1, len(networks), squeeze=False)[0]
        for axes, (name, network) in zip(panels, networks.items(), strict=True):
            probabilities = task.probabilities(network(grid.reshape(-1, 2))).reshape(len(rows), len(columns), -1)
            axes.imshow(
                blend(probabilities).numpy(),
                extent=(left, right, bottom, top),
                origin="lower",
                interpolation="bilinear",
            )
            _points(axes, x, y, task.classes)
            axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
            shares[name] = task.score(network(x), y)
            axes.set_title(f"{name}: {percent(shares[name])}")
            _bare(axes)
        name_classes(panels[0], names or [f"class {k}" for k in range(task.classes)])
        worst, best = percent(min(shares.values())), percent(max(shares.values()))
        title += f": {best if worst == best else f'{worst} to {best}'} of the points on the right side"
        key(figure, f"all panels: {left:.3g} to {right:.3g} across, {bottom:.3g} to {top:.3g} up")
        heading(figure, title)
    return figure


@torch.no_grad()
def features_beside(
    networks: Mapping[str, Network],
    x: Tensor,
    y: Tensor,
    task: Task,
    title: str,
    names: Sequence[str] | None = None,
    panels: int = 5,
) -> Figure:
    """The features of the points after some layers, one row for each network, from its lift to its head.

    Each row uses one projection for all its panels. For two classes its horizontal axis is the normal of the head's
    plane, which is dashed, and the vertical one the first principal component orthogonal to it after the last layer;
    for more classes they are the first two components.

    Args:
        networks: networks by name, each with one flow.
        x, y, task, title, names: as for `planes_beside`.
        panels: number of depths to show, including the lift's output.
    """
    with styled():
        figure = canvas(1.75 * panels + 0.4, 1.9 * len(networks) + 0.95)
        grid = figure.subplots(len(networks), panels, squeeze=False)
        for row, (name, network) in zip(grid, networks.items(), strict=True):
            flow = next(iter(network.flows()))
            depths = torch.linspace(0, flow.layers, panels).round().long().tolist()
            states = flow.states(network.lift(x))
            read = {j: _read(network, flow.scheme.final(flow.field, s)) for j, s in enumerate(states) if j in depths}
            basis, plane = _basis(network, read[flow.layers])
            for axes, j in zip(row, depths, strict=True):
                _points(axes, read[j] @ basis, y, task.classes)
                if plane is not None:
                    axes.axvline(plane, color=DARK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
                axes.set_title(f"layer {j}", fontsize=8.5)
                axes.margins(0.06)
                _bare(axes)
            row[0].set_ylabel(name)
        name_classes(grid[0][0], names or [f"class {k}" for k in range(task.classes)])
        across = "the normal of the head's plane (dashed)" if task.kind == "logistic" else "the first component"
        key(figure, f"across: {across}; up: the next principal component; each panel has its own scale")
        heading(figure, title)
    return figure


def _read(network: Network, features: Tensor) -> Tensor:
    """The input of the head's last layer."""
    for module in linear_head(network)[0]:
        features = module(features)
    return features


def _basis(network: Network, features: Tensor) -> tuple[Tensor, float | None]:
    """Two orthonormal directions, (n, 2), and where the head's plane crosses the first one, given one score."""
    linear = linear_head(network)[1]
    spread = features - features.mean(0)
    if linear.out_features > 1:
        return torch.linalg.svd(spread, full_matrices=False)[2][:2].mT, None
    length = linear.weight.norm()
    normal = linear.weight[0] / length
    rest = spread - (spread @ normal)[:, None] * normal
    second = torch.linalg.svd(rest, full_matrices=False)[2][0]
    return torch.stack((normal, second), 1), float(-linear.bias / length)


def _points(axes: Axes, points: Tensor, y: Tensor, classes: int) -> None:
    """Some of the points in a random order, so that no class lies on top."""
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:_SHOWN]
    cloud(axes, points[order].cpu(), y[order].cpu(), classes, 5, rasterized=True)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(visible=True, color="#CCCCCC")
