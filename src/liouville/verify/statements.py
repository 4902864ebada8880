r"""Statements, their measurements, and the list of all statements.

A check is a function without arguments that measures `Number`s, each with the interval that the statement allows. A
statement that is wrong as printed has two sets of numbers: the numbers of the correction must lie inside, and one
number of the printed statement must lie outside, so that the error is demonstrated.
"""

from __future__ import annotations

__all__ = ["STATEMENTS", "Finding", "Number", "Record", "Statement", "at_least", "at_most", "near", "statement"]

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from liouville.files import without_nan
from liouville.verify.measuring import float64


@dataclass(frozen=True)
class Number:
    """A measured value and the interval that the statement allows, ends included.

    Examples:
        >>> print(at_most("defect", 2.5e-16, 1e-12))
        defect 2.5e-16 (<= 1e-12)
        >>> Number("norm", float("nan")).inside
        False
    """

    what: str
    value: float
    low: float = -math.inf
    high: float = math.inf

    @property
    def inside(self) -> bool:
        """Whether the value lies in the interval; NaN never does."""
        return self.low <= self.value <= self.high

    @property
    def expected(self) -> str:
        """The interval in words."""
        if self.low == self.high:
            return f"= {_short(self.low)}"
        if math.isinf(self.low) and math.isinf(self.high):
            return "a number"
        if math.isinf(self.low):
            return f"<= {_short(self.high)}"
        if math.isinf(self.high):
            return f">= {_short(self.low)}"
        if _short(self.low) == _short(self.high):
            return f"= {_short(0.5 * (self.low + self.high))} +- {_short(0.5 * (self.high - self.low))}"
        return f"in [{_short(self.low)}, {_short(self.high)}]"

    def __str__(self) -> str:
        return f"{self.what} {_short(self.value)} ({self.expected})"


def at_most(what: str, value: object, high: float) -> Number:
    """A value that may not exceed ``high``."""
    return Number(what, _real(value), high=high)


def at_least(what: str, value: object, low: float) -> Number:
    """A value that may not fall below ``low``."""
    return Number(what, _real(value), low=low)


def near(what: str, value: object, target: float, distance: float) -> Number:
    """A value within ``distance`` of ``target``."""
    return Number(what, _real(value), target - distance, target + distance)


@dataclass(frozen=True)
class Finding:
    """The measurements of a check: numbers of the valid statement, and of the printed one where it differs."""

    holding: tuple[Number, ...]
    printed: tuple[Number, ...] = ()


@dataclass(frozen=True)
class Record:
    """One statement and its measurements.

    ``holds`` is the verdict: every number lies in its interval, and where a correction is given, the printed statement
    fails.
    """

    name: str
    source: str
    statement: str
    measured: tuple[Number, ...]
    holds: bool
    as_printed: tuple[Number, ...] = ()
    correction: str = ""

    @property
    def expected(self) -> str:
        """The intervals of all numbers, in words."""
        return "; ".join(f"{number.what} {number.expected}" for number in self.measured)

    def as_dict(self) -> dict[str, Any]:
        """The record for JSON, where infinity and NaN become None."""
        return {**without_nan(asdict(self)), "expected": self.expected}

    def __str__(self) -> str:
        numbers = "; ".join(str(number) for number in self.measured)
        if not self.correction:
            return f"{self.source}: {self.statement}: {numbers}"
        printed = "; ".join(str(number) for number in self.as_printed)
        word = "holds" if all(number.inside for number in self.as_printed) else "fails"
        return (
            f"{self.source}: {self.statement}: as printed: {word} ({printed}); corrected: {self.correction}: {numbers}"
        )


@dataclass(frozen=True)
class Statement:
    """A statement of a paper and the function that measures it."""

    name: str
    source: str
    text: str
    check: Callable[[], Finding]
    correction: str = ""

    def verify(self) -> Record:
        """Measure it, in float64; a check that raises does not hold, and the others still run."""
        with float64():
            try:
                finding = self.check()
            except (ArithmeticError, RuntimeError, ValueError) as error:
                finding = Finding((Number(f"{type(error).__name__}: {error}", math.nan),))
        corrected = bool(self.correction)
        shown = not all(number.inside for number in finding.printed)
        holds = bool(finding.holding) and all(n.inside for n in finding.holding) and shown == corrected
        return Record(
            self.name, self.source, self.text, finding.holding, holds, finding.printed, correction=self.correction
        )


STATEMENTS: dict[str, Statement] = {}
"""All statements by name, in the order of the papers."""

Check = Callable[[], Finding | tuple[Number, ...] | Number]


def statement(name: str, source: str, text: str, *, correction: str = "") -> Callable[[Check], Check]:
    """Register the decorated check in the list of statements.

    Args:
        name: its name in the command: the paper, then the subject.
        source: paper and number.
        text: the statement; with a correction, as printed in the paper.
        correction: the valid statement, where the printed one fails.

    Raises:
        ValueError: if the name is taken.
    """

    def enter(check: Check) -> Check:
        if name in STATEMENTS:
            raise ValueError(f"the statement {name!r} exists already; choose another name.")
        STATEMENTS[name] = Statement(name, source, text, lambda: _finding(check()), correction)
        return check

    return enter


def _finding(found: Finding | tuple[Number, ...] | Number) -> Finding:
    if isinstance(found, Finding):
        return found
    return Finding((found,) if isinstance(found, Number) else found)


def _real(value: Any) -> float:
    return float(value.detach() if hasattr(value, "detach") else value)


def _short(value: float) -> str:
    """Six digits, so that 0.999999 is not 1."""
    return f"{value:.6g}" if 1e-3 <= abs(value) < 1e6 else f"{value:.2g}"
