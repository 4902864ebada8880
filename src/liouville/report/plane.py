"""Networks on points of the plane: their decision regions, and how the features move through the layers."""

from __future__ import annotations

__all__ = ["decision_regions", "features_at_depths", "head_plane"]

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from liouville.network import Network
from liouville.report.answered import task_or
from liouville.report.style import DARK, blend, canvas, cloud, heading, key, name_classes, percent, styled
from liouville.train import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN = 2000  # points drawn; more would hide each other
_CELLS = 8_000_000  # grid points times layers, which bounds the time of the shading


@torch.no_grad()
def decision_regions(
    network: Network, x: Tensor, y: Tensor, task: Task | None = None, label_names: Sequence[str] | None = None
) -> Figure:
    """The predicted probability of every class over the plane, with held-out points on top, the wrong ones marked.

    Args:
        network: a network with two inputs.
        x: points, (samples, 2).
        y: their labels.
        task: turns scores into probabilities; that of classes if None.
        label_names: one for each class; their numbers if None.

    Raises:
        ValueError: if the points do not lie in the plane.
    """
    _require_plane(x)
    task = task_or(task, network, x)
    names = _names(task, label_names)
    wrong = task.labels(_scores(network, x)) != y
    (low, high), (columns, rows), probabilities = shading(network, x, task)
    width, height = (high - low).tolist()
    with styled():
        figure = canvas(6.6, min(8.0, max(3.6, 5.7 * height / width + 1.0)))
        axes = figure.subplots()
        extent = (float(low[0]), float(high[0]), float(low[1]), float(high[1]))
        axes.imshow(blend(probabilities).numpy(), extent=extent, origin="lower", interpolation="bilinear")
        for k in range(task.classes if task.classes > 2 else 1):
            others = torch.cat((probabilities[..., :k], probabilities[..., k + 1 :]), -1).amax(-1)
            margin = (probabilities[..., k] - others).numpy()
            if margin.min() < 0 < margin.max():
                axes.contour(columns, rows, margin, levels=[0.0], colors=DARK, linewidths=0.7)
        _points(axes, x, y, names, size=8)
        _mark(axes, x, y, wrong, task.classes)
        axes.set(xlim=extent[:2], ylim=extent[2:], aspect="equal")
        axes.set_xlabel("$x_1$")
        axes.set_ylabel("$x_2$")
        key(figure)
        right = int((~wrong).sum())
        heading(figure, f"{right:,} of {len(x):,} test points are on the right side ({percent(right / len(x))})")
    return figure


@torch.no_grad()
def features_at_depths(
    network: Network,
    x: Tensor,
    y: Tensor,
    task: Task | None = None,
    label_names: Sequence[str] | None = None,
    panels: int = 6,
) -> Figure:
    """The features of held-out points after some layers, from the lift to the head, each panel a projection.

    For two classes the horizontal axis is the normal of the head's dividing plane, in all panels, and the vertical one
    the panel's first principal component orthogonal to it; for more classes they are its first two components.
    Raises:
        ValueError: if the network's body is not one flow.
    """
    flows = list(network.flows())
    if len(flows) != 1:
        raise ValueError(f"features at several depths need a network of one flow, got {len(flows)}.")
    task = task_or(task, network, x)
    flow, names = flows[0], _names(task, label_names)
    depths = torch.linspace(0, flow.layers, min(panels, flow.layers + 1)).round().long().tolist()
    states = flow.states(network.lift(x))
    features = {j: flow.scheme.final(flow.field, s).double() for j, s in enumerate(states) if j in depths}
    with styled():
        columns = min(3, len(depths))
        rows = -(-len(depths) // columns)
        figure = canvas(3.35 * columns, 3.2 * rows + 0.9)
        grid = figure.subplots(rows, columns, squeeze=False).flatten()
        for axes in grid[len(depths) :]:
            axes.remove()
        for axes, j in zip(grid, depths, strict=False):
            basis, plane = _basis(network, features[j], task)
            _points(axes, (features[j] @ basis).cpu(), y, names, size=6)
            axes.set_title(f"layer {j}, t = {j * flow.h:.3g}", fontsize=9.5)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.margins(0.06)
            axes.spines[:].set(visible=True, color="#CCCCCC")
            if plane is not None:
                axes.axvline(plane, color=DARK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        axis = "normal of the head's plane (dashed)" if task.kind == "logistic" else "first principal component"
        key(figure, f"across: {axis}; up: next principal component; each panel has its own scale")
        share = percent(task.score(network.head(features[flow.layers].to(x.dtype)), y))
        heading(figure, f"After {flow.layers} layers the head gets {share} of the test points right")
    return figure


def shading(
    network: Network, x: Tensor, task: Task, most: int = 400
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]:
    """The predicted probabilities over a window around some points of the plane.

    Args:
        network, x, task: as for `decision_regions`.
        most: maximum number of points along a side.

    Returns:
        The corners of the window; the grid's coordinates across and up; (rows, columns, classes) in float64.
    """
    low, high = x.amin(0), x.amax(0)
    pad = 0.06 * (high - low).max()
    low, high = low - pad, high + pad
    layers = sum(flow.layers for flow in network.flows())
    side = int(min(most, max(140, (_CELLS / max(layers, 1)) ** 0.5)))
    columns, rows = (torch.linspace(float(low[k]), float(high[k]), side, dtype=x.dtype) for k in (0, 1))
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1).reshape(-1, 2).to(x.device)
    return (
        (low, high),
        (columns, rows),
        task.probabilities(_scores(network, grid)).double().cpu().reshape(side, side, -1),
    )


def head_plane(network: Network, features: Tensor) -> tuple[Tensor, float]:
    """The unit normal of the head's dividing plane, towards class 1, at the features' mean, and the crossing point.

    Args:
        network: a network with one score.
        features: (samples, n), the head's inputs.
    """
    centre = features.mean(0).double()
    point = centre.to(next(network.head.parameters())).requires_grad_()
    with torch.enable_grad():
        score = network.head(point[None]).squeeze()
        (gradient,) = torch.autograd.grad(score, point)
    length = gradient.norm().clamp_min(1e-30)
    normal = (gradient / length).double()
    return normal, float(normal @ centre - score.detach() / length)


def _basis(network: Network, features: Tensor, task: Task) -> tuple[Tensor, float | None]:
    """Two orthonormal directions, (n, 2), and the point where the head's plane crosses the first, if it has one."""
    centre = features.mean(0)
    spread = features - centre
    if task.kind != "logistic":
        return torch.linalg.svd(spread, full_matrices=False)[2][:2].mT, None
    first, plane = head_plane(network, features)
    rest = spread - (spread @ first)[:, None] * first
    second = torch.linalg.svd(rest, full_matrices=False)[2][0]
    return torch.stack((first, second), 1), plane


def _scores(network: Network, x: Tensor) -> Tensor:
    return torch.cat([network(part) for part in x.split(20_000)])


def _points(axes: Axes, points: Tensor, y: Tensor, names: Sequence[str], size: float) -> None:
    """The points in random order, so that no class lies on top; one legend entry for each."""
    points, y = points[:_SHOWN].cpu(), y[:_SHOWN].cpu()
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
    cloud(axes, points[order], y[order], len(names), size, zorder=2, rasterized=True)  # for a small SVG
    name_classes(axes, names)


def _mark(axes: Axes, x: Tensor, y: Tensor, wrong: Tensor, classes: int) -> None:
    if not wrong.any():
        return
    dots = cloud(axes, x[wrong].cpu(), y[wrong].cpu(), classes, 26, zorder=4)
    dots.set(edgecolor=DARK, linewidth=0.9)
    label = "wrong side, ringed in its true colour"
    axes.scatter([], [], s=24, facecolors="none", edgecolors=DARK, linewidths=0.9, label=label)


def _names(task: Task, label_names: Sequence[str] | None) -> Sequence[str]:
    return label_names or [f"class {k}" for k in range(task.classes)]


def _require_plane(x: Tensor) -> None:
    if x.ndim != 2 or x.shape[1] != 2:
        raise ValueError(f"decision regions need points of the plane, (samples, 2), got shape {tuple(x.shape)}.")
