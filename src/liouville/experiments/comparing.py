"""Ours beside theirs: medians and ranges over seeds, and what a paper printed, with its source or not at all."""

from __future__ import annotations

__all__ = ["NOT_AVAILABLE", "met", "percents", "spread", "verdict"]

import statistics
from collections.abc import Sequence

from liouville.experiments.records import Record

NOT_AVAILABLE = "not available"


def percents(records: Sequence[Record], name: str) -> list[float]:
    """A share of every record that has it, in percent; a training that diverged counts as zero.

    Examples:
        >>> percents([Record(None, {"accuracy": 0.5}, 1.0, {}), Record(None, {"diverged": "..."}, 1.0, {})], "accuracy")
        [50.0, 0.0]
    """
    return [0.0 if r.diverged else 100 * r.values[name] for r in records]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, and the range where there are several.

    Examples:
        >>> spread([1.0, 3.0, 2.0]), spread([1.0]), spread([])
        ('2.00 (1.00–3.00)', '1.00', '—')
    """
    if not values:
        return "—"
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def met(values: Sequence[float], published: float, points: float) -> bool:
    """Whether a published number lies within our range, or at most ``points`` above our median.

    Examples:
        >>> met([97.0, 98.0, 99.0], 99.5, points=2), met([97.0, 98.0, 99.0], 100.5, points=2)
        (True, False)
    """
    return published <= max(max(values), statistics.median(values) + points)


def verdict(values: Sequence[float], published: float | None, points: float) -> str:
    """What stands between our number and theirs: a word, or the points that are missing to their number."""
    if published is None:
        return NOT_AVAILABLE
    if not values:
        return "—"
    short = published - statistics.median(values)
    return "met" if met(values, published, points) else f"{short:.1f} points below"
