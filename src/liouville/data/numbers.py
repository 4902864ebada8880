"""Numbers that a loader takes as its options, each within its range."""

from __future__ import annotations

__all__ = ["real_number", "whole_number"]

import math
from typing import Any


def whole_number(name: str, value: Any, low: int, high: int | None = None, multiple_of: int = 1) -> int:
    """Return ``value`` if it is an int in [low, high] and a multiple as asked; else raise a `ValueError`."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and low <= value and (high is None or value <= high) and value % multiple_of == 0:
        return value
    wanted = "a whole number" if multiple_of == 1 else f"a multiple of {multiple_of}"
    limits = f"of at least {low}" if high is None else f"from {low} to {high}"
    raise ValueError(f"{name} must be {wanted} {limits}, got {value!r}.")


def real_number(name: str, value: Any, low: float, high: float = math.inf) -> float:
    """Return ``value`` if it is a finite number in [low, high]; else raise a `ValueError`."""
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if real and low <= value <= high and math.isfinite(value):
        return float(value)
    limits = f"of at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
    raise ValueError(f"{name} must be a number {limits}, got {value!r}.")
