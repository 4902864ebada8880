"""Marks of classes in plotly: the colours and shapes of `liouville.report.style`, in two dimensions and in three."""

from __future__ import annotations

__all__ = ["group", "marker"]

from typing import Any

from torch import Tensor

_FLAT = ("circle", "triangle-up", "square", "diamond", "triangle-down", "cross", "x", "triangle-left", "triangle-right")
_SOLID = ("circle", "cross", "square", "diamond", "circle-open", "x", "square-open", "diamond-open")


def marker(k: int, classes: int, size: float, *, space: bool = False) -> dict[str, Any]:
    """Of class k; its colour ``@ck/classes`` is the page's."""
    shapes = _SOLID if space else _FLAT
    return {"color": f"@c{k}/{classes}", "symbol": shapes[k % len(shapes)], "size": size, "opacity": 0.85}


def group(name: str, points: Tensor, mark: dict[str, Any]) -> dict[str, Any]:
    """The points (samples, 2) of one class."""
    x, y = ([float(f"{v:.4g}") for v in column] for column in points.double().mT.tolist())
    return {"type": "scatter", "mode": "markers", "name": name, "x": x, "y": y, "marker": mark}
