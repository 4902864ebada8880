"""Comparison with published numbers: medians and ranges over seeds, and numbers printed in a paper."""

from __future__ import annotations

__all__ = [
    "EXCEEDED",
    "MET",
    "MISSED",
    "NOT_AVAILABLE",
    "beside",
    "binomial_points",
    "chance",
    "percents",
    "spread",
    "verdict",
]

import math
import statistics
from collections.abc import Sequence

from liouville.experiments.records import Record

NOT_AVAILABLE = "not available"
MET, EXCEEDED, MISSED = "met", "exceeded", "missed"
_ROUNDING = 1e-9  # percentages that print equal may differ by this


def percents(records: Sequence[Record], name: str) -> list[float]:
    """The fraction named ``key`` of every record that has it, in percent; a diverged training counts as zero.

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


def verdict(values: Sequence[float], published: float, points: float, in_range: bool = True) -> str:
    """Whether our runs meet, exceed or miss a published number.

    It is met if it is within the range of the runs, or at most ``points`` from their median; otherwise it is exceeded
    if it is below, and missed if it is above.

    Args:
        values: one for each run, at least one; larger is better.
        published: the paper's number.
        points: the tolerance.
        in_range: whether a number within the range is met at any distance from the median.

    Examples:
        >>> [verdict([97.0, 98.0, 99.0], published, points=2) for published in (96.0, 95.9, 100.0, 100.1)]
        ['met', 'exceeded', 'met', 'missed']
        >>> verdict([90.0, 98.0, 99.0], 91.0, points=2), verdict([90.0, 98.0, 99.0], 91.0, points=2, in_range=False)
        ('met', 'exceeded')
    """
    middle = statistics.median(values)
    inside = min(values) - _ROUNDING <= published <= max(values) + _ROUNDING
    if abs(published - middle) <= points + _ROUNDING or (in_range and inside):
        return MET
    return EXCEEDED if published < middle else MISSED


def beside(
    values: Sequence[float], published: float | None, points: float, in_range: bool = True, digits: int = 1
) -> str:
    """The verdict in words, with the distance of our median from the published number where it is not met.

    Examples:
        >>> beside([95.0], 99.0, 2.0), beside([95.0], 92.0, 2.0), beside([95.0], 94.0, 2.0), beside([95.0], None, 2.0)
        ('missed by 4.0', 'exceeded by 3.0', 'met', 'not available')
    """
    if published is None:
        return NOT_AVAILABLE
    if not values:
        return "—"
    found = verdict(values, published, points, in_range)
    return found if found == MET else f"{found} by {abs(published - statistics.median(values)):.{digits}f}"


def binomial_points(accuracies: Sequence[float], images: int) -> float:
    """Two binomial standard errors in percent, 200 sqrt(p (1 - p) / images): the largest over the accuracies 100 p.

    In 19 of 20 cases the accuracy of a classifier on a draw of ``images`` images lies within this distance of its
    expectation. The larger value for the published number and ours is taken: at 100 % it is 0.

    Examples:
        >>> round(binomial_points([98.05], 10_000), 3), binomial_points([100.0], 10_000)
        (0.277, 0.0)
    """
    return max(2 * math.sqrt(a * (100 - a) / images) for a in accuracies)


def chance(runs: int) -> str:
    """The probability that a further run of one procedure lies within the range of ``runs`` others, as a fraction.

    All ranks of identically distributed runs are equally likely, so it is neither the lowest nor the highest of all
    with probability (runs - 1)/(runs + 1); ties only increase it.

    Examples:
        >>> chance(5), chance(3)
        ('4/6', '2/4')
    """
    return f"{runs - 1}/{runs + 1}"
