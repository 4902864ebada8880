"""Marks of classes in plotly: the colours and shapes of `liouville.report.style`, in two dimensions and in three."""

from __future__ import annotations

__all__ = ["by_pointing", "group", "listing", "marker"]

from typing import Any

from torch import Tensor

_LISTED = 12  # classes that a legend has room for beside the plot, on a phone too
_FLAT = ("circle", "triangle-up", "square", "diamond", "triangle-down", "cross", "x", "triangle-left", "triangle-right")
_SOLID = ("circle", "cross", "square", "diamond", "circle-open", "x", "square-open", "diamond-open")


def marker(k: int, classes: int, size: float, *, space: bool = False) -> dict[str, Any]:
    """Of class k; its colour ``@ck/classes`` is the page's."""
    shapes = _SOLID if space else _FLAT
    return {"color": f"@c{k}/{classes}", "symbol": shapes[k % len(shapes)], "size": size, "opacity": 0.85}


def group(name: str, points: Tensor, mark: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The points (samples, 2) of one class; ``more`` as plotly has it."""
    x, y = ([float(f"{v:.4g}") for v in column] for column in points.double().mT.tolist())
    return {"type": "scatter", "mode": "markers", "name": name, "x": x, "y": y, "marker": mark, **more}


def listing(classes: int) -> dict[str, Any]:
    """Whether the points of one of so many classes stand in the legend; as plotly has it where nothing is said."""
    return {} if classes <= _LISTED else {"showlegend": False}


def by_pointing(classes: int) -> str:
    """How to learn the class of a point where the legend has no room for all; empty where it has.

    Examples:
        >>> by_pointing(12), by_pointing(50)
        ('', ' Point at a mark for its class: the 50 names would fill the figure.')
    """
    return "" if classes <= _LISTED else f" Point at a mark for its class: the {classes} names would fill the figure."
