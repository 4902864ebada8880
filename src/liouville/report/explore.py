"""A figure for notebooks in which the features move with a slider through the depth."""

from __future__ import annotations

__all__ = ["explore"]

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from liouville.network import Network
from liouville.report.depths import Depths, through_depths
from liouville.report.page.blocks import chart_text
from liouville.report.page.marks import marker
from liouville.report.style import DARK, colours

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def explore(
    network: Network, x: Tensor, y: Tensor, label_names: Sequence[str] | None = None, *, samples: int = 300
) -> Figure:
    """The features of some samples in the plane, and in space where there are three axes; a slider goes through depth.

    All positions of the slider have the same axes and the same window; `liouville.report.depths.through_depths` says
    which axes. In a notebook the figure shows itself; ``figure.write_html("depth.html")`` keeps it.

    Args:
        network: any network with a flow.
        x: inputs, scaled as in training.
        y: their classes, whole numbers, or their real targets.
        label_names: one for each class; their numbers if None.
        samples: how many samples are drawn at most.

    Raises:
        ValueError: there is no flow, or x and y do not fit each other.
        ImportError: plotly is not installed.

    Examples:
        >>> import liouville as lv
        >>> split = lv.data.load("swiss-roll", points=200)
        >>> net = lv.classifier("h2", inputs=2, classes=2, features=4, layers=8, T=1.0)
        >>> figure = explore(net, split.x_test, split.y_test, split.label_names)
        >>> len(figure.frames), len(figure.layout.sliders[0].steps)
        (9, 9)
    """
    try:
        from plotly import graph_objects as go
    except ImportError as error:
        raise ImportError("explore needs plotly; install it: pip install 'liouville[report]'") from error
    found = through_depths(network, x, y, samples=samples)
    if found.points.shape[-1] < 2:
        raise ValueError("the state has one feature, which does not move in a plane; take a network of two or more.")
    groups, names = _groups(found, label_names)
    frames = [go.Frame(data=_traces(found, k, groups, names), name=str(k)) for k in range(len(found.labels))]
    figure = go.Figure(data=frames[0].data, frames=frames, layout=_layout(found))
    figure.update_layout(sliders=[_slider(found)], updatemenus=[_player()])
    return figure


def _groups(found: Depths, label_names: Sequence[str] | None) -> tuple[list[Tensor], list[str]]:
    """Which samples belong together, and what they are called."""
    if found.classes is None:
        return [torch.ones(found.points.shape[1], dtype=torch.bool)], ["samples"]
    classes = max(int(found.classes.max()) + 1, len(label_names or ()))
    names = label_names or [f"class {k}" for k in range(classes)]
    if len(names) < classes:
        raise ValueError(f"expected a name for each of {classes} classes, got {len(names)}; give label_names for all.")
    return [found.classes == k for k in range(classes)], [chart_text(name) for name in names]


def _traces(found: Depths, position: int, groups: Sequence[Tensor], names: Sequence[str]) -> list[dict[str, Any]]:
    traces = []
    for space in (False, True)[: found.points.shape[-1] - 1]:
        for k, (group, name) in enumerate(zip(groups, names, strict=True)):
            points = found.points[position, group].float().numpy()
            axes = {"x": points[:, 0], "y": points[:, 1], **({"z": points[:, 2]} if space else {})}
            kind = "scatter3d" if space else "scatter"
            more = {"type": kind, "mode": "markers", "name": name, "showlegend": not space, "legendgroup": name}
            traces.append({**more, **axes, "marker": _mark(found, k, len(names), space)})
    return traces


def _mark(found: Depths, k: int, classes: int, space: bool) -> dict[str, Any]:
    size = 3 if space else 6
    if found.targets is not None:
        return {"size": size, "color": found.targets.numpy(), "colorscale": "Viridis", "showscale": not space}
    return {**marker(k, classes, size, space=space), "color": colours(classes)[k]}


def _layout(found: Depths) -> dict[str, Any]:
    low, high = found.points.flatten(0, 1).amin(0), found.points.flatten(0, 1).amax(0)
    pad = 0.05 * (high - low).clamp_min(1e-9)
    windows = torch.stack((low - pad, high + pad), 1).tolist()
    space = len(windows) > 2
    layout: dict[str, Any] = {
        "template": "plotly_white",
        "height": 480,
        "xaxis": {"title": {"text": found.axes[0]}, "range": windows[0], "domain": [0, 0.46 if space else 1]},
        "yaxis": {"title": {"text": found.axes[1]}, "range": windows[1]},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        "margin": {"l": 50, "r": 10, "t": 30, "b": 40},
    }
    if space:
        axes = {
            f"{name}axis": {"title": {"text": title}, "range": window}
            for name, title, window in zip("xyz", found.axes, windows, strict=True)
        }
        layout["scene"] = {**axes, "aspectmode": "cube", "domain": {"x": [0.5, 1], "y": [0, 1]}}
    if found.plane is not None:
        line = {"type": "line", "x0": found.plane, "x1": found.plane, "yref": "paper", "y0": 0, "y1": 1}
        layout["shapes"] = [{**line, "line": {"color": DARK, "dash": "dash", "width": 1}}]
    return layout


_AT_ONCE = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}


def _slider(found: Depths) -> dict[str, Any]:
    steps = [
        {"method": "animate", "args": [[str(k)], _AT_ONCE], "label": label} for k, label in enumerate(found.labels)
    ]
    here = {"prefix": "after ", "font": {"size": 13, "color": DARK}}
    unseen = {"ticklen": 0, "minorticklen": 0, "font": {"size": 1, "color": "rgba(0,0,0,0)"}}  # a label for each layer
    return {"steps": steps, "currentvalue": here, "pad": {"t": 50}, "x": 0.14, "len": 0.86, **unseen}


def _player() -> dict[str, Any]:
    play = {"mode": "immediate", "fromcurrent": True, "frame": {"duration": 100, "redraw": True}}
    buttons = [
        {"label": "Play", "method": "animate", "args": [None, {**play, "transition": {"duration": 0}}]},
        {"label": "Pause", "method": "animate", "args": [[None], _AT_ONCE]},
    ]
    return {"type": "buttons", "direction": "right", "buttons": buttons, "x": 0, "y": -0.22, "yanchor": "top"}
