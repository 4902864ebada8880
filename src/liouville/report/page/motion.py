"""Features of held-out samples as they move through the layers."""

from __future__ import annotations

__all__ = ["motion"]

import base64
from typing import Any

import torch
from torch import Tensor

from liouville.report.depths import Depths, through_depths
from liouville.report.page.blocks import Motion, Section, Table, axis, chart_text, number
from liouville.report.page.marks import by_pointing, listing, marker
from liouville.report.page.record import Record

_SAMPLES, _POSITIONS = 300, 49
_ROWS = 9  # of the table of the figure
# So far, and so low, that the titles of the axes lie inside from every side.
_CAMERA = {"eye": {"x": 1.95, "y": 1.95, "z": 1.0}, "center": {"x": 0, "y": 0, "z": -0.08}}


def motion(record: Record, share: float = 1.0) -> Section:
    """A slider through the depth.

    Args:
        record: of the run.
        share: of the samples that a page of one run shows, for a page of several.
    """
    title = "Features through the layers"
    network, split = record.network, record.split
    if network is None or split is None:
        return Section(title, f"Not applicable: {record.lacks}")
    samples = max(40, int(_SAMPLES * share))
    several = isinstance(split.classes, tuple)
    y = split.y_test[:, 0] if several else split.y_test
    try:
        found = through_depths(network, split.x_test, y, samples=samples, positions=_POSITIONS)
    except ValueError as error:
        return Section(title, f"Not applicable: {error}")
    if found.points.shape[-1] < 2:
        return Section(title, "Not applicable: the state has one feature, which does not move in a plane.")
    order, sizes, names = _groups(found, record)
    points = found.points[:, order]
    if points.shape[-1] == 2:
        points = torch.nn.functional.pad(points, (0, 1))
    space = found.points.shape[-1] > 2
    lead = (
        f"{len(order)} test samples, {_counted(found)}. Move the slider to go from the lift to the head; all "
        f"positions have the same axes and the same window.{by_pointing(len(names))}"
    )
    if several:
        lead += f" The colours are the classes of {(record.facts.targets or ('the first target',))[0]}."
    block = Motion(
        alt=f"The features of {len(order)} test samples as points that move with the depth. {_spread(found)[0]}",
        plane=_plane(points, sizes, names, found),
        space=_space(points, sizes, names, found) if space else None,
        labels=found.labels,
        sizes=sizes,
        points=base64.b64encode(points.float().contiguous().numpy().astype("<f4").tobytes()).decode("ascii"),
        numbers=_numbers(found, record),
    )
    return Section(title, lead, [block])


def _counted(found: Depths) -> str:
    width = found.points.shape[-1]
    return f"projected to {width} axes, the first of which is the {found.axes[0]}"


def _groups(found: Depths, record: Record) -> tuple[Tensor, list[int], list[str]]:
    """The samples group by group: classes, or all in one."""
    if found.classes is None:
        return torch.arange(found.points.shape[1]), [found.points.shape[1]], ["test samples"]
    classes = range(len(record.names))
    order = torch.cat([(found.classes == k).nonzero().flatten() for k in classes])
    return order, [int((found.classes == k).sum()) for k in classes], [chart_text(name) for name in record.names]


def _marks(k: int, names: list[str], found: Depths, size: float, space: bool) -> dict[str, Any]:
    if found.targets is None:
        return marker(k, len(names), size, space=space)
    bar = {"title": {"text": "target"}, "tickcolor": "@soft", "tickfont": {"color": "@ink"}, "thickness": 12}
    shown = {
        "color": [float(f"{v:.4g}") for v in found.targets.tolist()],
        "colorscale": "Viridis",
        "showscale": not space,
    }
    return {"size": size, "colorbar": bar, **shown}


def _traces(points: Tensor, sizes: list[int], names: list[str], found: Depths, space: bool) -> list[dict[str, Any]]:
    """One for each group; their coordinates come with the slider."""
    size = 3.5 if space else 7
    kind = "scatter3d" if space else "scatter"
    return [
        {
            "type": kind,
            "mode": "markers",
            "name": name,
            "x": [],
            "y": [],
            **({"z": []} if space else {}),
            "marker": _marks(k, names, found, size, space),
            "hoverinfo": "name",
            **listing(len(names)),
        }
        for k, name in enumerate(names)
    ]


def _window(points: Tensor) -> list[list[float]]:
    low, high = points.flatten(0, 1).amin(0), points.flatten(0, 1).amax(0)
    pad = 0.05 * (high - low).clamp_min(1e-9)
    return [[float(f"{a:.4g}"), float(f"{b:.4g}")] for a, b in zip(low - pad, high + pad, strict=True)]


def _plane(points: Tensor, sizes: list[int], names: list[str], found: Depths) -> dict[str, Any]:
    across, up, _ = _window(points)
    layout: dict[str, Any] = {
        "height": 420,
        "xaxis": axis(found.axes[0], range=across),
        "yaxis": axis(found.axes[1], range=up),
        "hovermode": "closest",
    }
    if found.plane is not None:
        line = {"type": "line", "x0": found.plane, "x1": found.plane, "yref": "paper", "y0": 0, "y1": 1}
        layout["shapes"] = [{**line, "line": {"color": "@ink", "dash": "dash", "width": 1}}]
    return {"data": _traces(points, sizes, names, found, False), "layout": layout}


def _space(points: Tensor, sizes: list[int], names: list[str], found: Depths) -> dict[str, Any]:
    axes = {}
    for name, title, window in zip("xyz", found.axes, _window(points), strict=True):
        plain = {"gridcolor": "@grid", "zerolinecolor": "@soft", "color": "@ink", "showbackground": False}
        short = title.replace("normal of the head's plane", "normal").replace(" component", "")
        axes[f"{name}axis"] = {"title": {"text": short}, "range": window, "tickfont": {"size": 10}, **plain}
    scene = {**axes, "aspectmode": "cube", "camera": _CAMERA}
    layout = {"height": 420, "scene": scene, "showlegend": False, "margin": {"l": 0, "r": 0, "t": 0, "b": 0}}
    return {"data": _traces(points, sizes, names, found, True), "layout": layout}


def _spread(found: Depths) -> tuple[str, list[tuple[str, float, float]]]:
    """The distance of the classes' means against the spread within, by depth, and a sentence on the first and last."""
    rows = []
    groups = [found.classes == k for k in found.classes.unique()] if found.classes is not None else []
    for label, points in zip(found.labels, found.points, strict=True):
        inside = [points[g] - points[g].mean(0) for g in groups] or [points - points.mean(0)]
        within = float(torch.cat(inside).square().sum(1).mean().sqrt())
        means = torch.stack([points[g].mean(0) for g in groups]) if groups else points[:0]
        between = float(torch.pdist(means).mean()) if len(means) > 1 else float("nan")
        rows.append((label, between, within))
    (_, b0, w0), (_, b1, w1) = rows[0], rows[-1]
    if len(groups) < 2:
        return f"Their spread goes from {number(w0)} to {number(w1)}.", rows
    first, last = (number(b / max(w, 1e-30)) for b, w in ((b0, w0), (b1, w1)))
    return f"The classes' means are {first} times the spread within a class apart at first, {last} times at last.", rows


def _numbers(found: Depths, record: Record) -> Table:
    rows = _spread(found)[1]
    chosen = torch.linspace(0, len(rows) - 1, min(_ROWS, len(rows))).round().long().tolist()
    head = ("depth", "mean distance of the classes' means", "spread within a class")
    if found.classes is None:
        return Table(
            "The cloud by depth",
            ("depth", "spread"),
            [(r[0], number(r[2])) for r in map(rows.__getitem__, chosen)],
            folded=True,
        )
    shown = [(label, number(between), number(within)) for label, between, within in map(rows.__getitem__, chosen)]
    return Table("The classes by depth, on the axes shown", head, shown, folded=True)
