"""What a column of a table is: numbers, categories, nothing at all, or something to be refused with advice."""

from __future__ import annotations

__all__ = ["Column", "Fault", "look", "numeric", "require_usable"]

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy

from liouville.data.cells import missing, number, numbers, spelling
from liouville.table import level, truths

Kind = Literal["numbers", "categories", "empty"]
_FEW = 20  # levels that any column may have
_DATE = re.compile(
    r"\d{4}[-./]\d{1,2}[-./]\d{1,2}([T ].*)?|\d{1,2}[-./]\d{1,2}[-./](\d{4}|\d{2})( .*)?|\d{1,2}:\d{2}(:\d{2}.*)?"
    r"|(\d{1,2}[-. ]+)?(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mai|okt|dez)[a-z]*[-. ]+\d{1,4}(,? \d{4})?"
)
_LOOSE = ("a unit or other letters", "a date or time", "a fraction", "several points", "an apostrophe")


class Fault(ValueError):
    """What is wrong with a column, and what to do.

    Args:
        column: its name.
        what: after "column NAME".
        advice: a clause, the same for every column with this fault.
    """

    def __init__(self, column: str, what: str, advice: str) -> None:
        super().__init__(column, what, advice)
        self.column, self.what, self.advice = column, what, advice


@dataclass(frozen=True)
class Column:
    """A column that has been looked at.

    Args:
        name: of it.
        kind: what it is.
        values: float64 with NaN for missing values, or text (objects) with None for them; as long as the table.
    """

    name: str
    kind: Kind
    values: Any

    @property
    def different(self) -> int:
        """How many different values there are, missing ones left out."""
        if self.kind == "numbers":
            return len(numpy.unique(self.values[~numpy.isnan(self.values)]))
        return len({*self.values} - {None})

    @property
    def missing(self) -> int:
        """How many are missing."""
        if self.kind == "numbers":
            return int(numpy.isnan(self.values).sum())
        return sum(value is None for value in self.values)


def look(name: str, cells: Sequence[str], words: bool, where: Callable[[int], str], option: str) -> Column:
    """What a column is.

    Args:
        name: of it.
        cells: its text; empty where a value is missing.
        words: whether these are categories, whatever they look like.
        where: the place of a row, in words.
        option: how a user says that it is of categories.

    Raises:
        Fault: dates, numbers in another spelling, numbers and text mixed, infinite or much too large numbers.
    """
    if not words and None not in (fast := numbers(cells)):
        values = numpy.array(fast, dtype=numpy.float64)
        if numpy.isfinite(values).all():
            return Column(name, "numbers", values)
    counts: Counter[str] = Counter(map(str.strip, cells))
    kinds = {cell: "word" if words and level(cell) is not None else _kind(cell) for cell in counts}
    total: Counter[str] = Counter()
    for cell, n in counts.items():
        total[kinds[cell]] += n
    if not total["number"]:  # words for missing values in other columns are levels here
        total["word"] += total.pop("gap", 0)
    known = sum(total.values()) - total["missing"]
    if not known:
        return Column(name, "empty", numpy.full(len(cells), None))

    def first(kind: str) -> str:
        k = next(k for k, cell in enumerate(cells) if kinds[cell.strip()] == kind)
        text = cells[k].strip()
        return f"{text if len(text) <= 40 else text[:37] + '...'!r} in {where(k).split(', ', 1)[1]}"

    if not words:
        _refuse(name, total, known - total["gap"], first, option)
    if not words and total["number"] and total["word"] + total["spelled"] + total["date"] == 0:
        return Column(name, "numbers", numeric(cells, name, where))
    remembered = {cell: level(cell) for cell in counts}
    found = numpy.empty(len(cells), dtype=object)
    found[:] = [remembered[cell.strip()] for cell in cells]
    bad = next((one for one in remembered.values() if one is not None and not one.isprintable()), None)
    if bad is not None:
        raise Fault(name, f"has text that cannot be printed ({ascii(bad)[:60]})", "correct it")
    return Column(name, "categories", found)


def _kind(cell: str) -> str:
    """number, huge, gap (a word for a missing value that may be a level), missing, date, spelled, or word."""
    value = number(cell)
    if value is not None:
        return "number" if math.isfinite(value) else "huge"
    if level(cell) is None:
        return "missing"
    if re.fullmatch(r"[+-]?inf(inity)?", cell.casefold()):
        return "huge"
    if missing(cell):
        return "gap"
    if _DATE.fullmatch(cell):
        return "date"
    return "word" if (what := spelling(cell)) is None or what in _LOOSE else "spelled"


def _refuse(name: str, total: Counter[str], known: int, first: Callable[[str], str], option: str) -> None:
    """Raise where the cells are no clean numbers and no categories either."""
    if 2 * total["date"] > known:
        raise Fault(
            name,
            f"has dates or times ({first('date')})",
            "give numbers made of them (year, month, days since a day), or leave them out with --id COLUMN",
        )
    rest = total["word"] + total["spelled"] + total["date"]
    if total["huge"] and not rest:
        raise Fault(name, f"has {first('huge')}, infinite or too large", "remove or correct these rows")
    if total["spelled"] and 2 * (total["number"] + total["spelled"]) > known:
        what = spelling(first("spelled").rsplit(" in ", 1)[0].strip("'\"")) or "an unusual spelling"
        raise Fault(name, f"has numbers with {what} ({first('spelled')})", "write numbers like -1234.5")
    if total["number"] and rest and 2 * total["number"] >= known:
        kind = "word" if total["word"] else "date"
        raise Fault(
            name,
            f"mixes {total['number']:,} numbers with text ({first(kind)})",
            f"correct the text, leave the column out with --id COLUMN, or take it as categories with {option}",
        )


def numeric(cells: Sequence[str], name: str, where: Callable[[int], str]) -> Any:
    """Float64 values of a column of numbers, NaN for missing ones.

    Raises:
        ValueError: a cell is no finite number; its row is named.
    """
    if (told := truths(cells)) is not None:
        return told
    fast = numbers(cells)
    known: dict[str, float | None] = {}
    for cell, value in zip(cells, fast, strict=True):
        if value is None and cell not in known:
            infinite = "inf" in cell.casefold()
            known[cell] = math.nan if missing(cell) and not infinite else None
    found = [known[cell] if value is None else value for cell, value in zip(cells, fast, strict=True)]
    wrong = next((k for k, value in enumerate(found) if value is None or math.isinf(value)), None)
    if wrong is not None:
        text = cells[wrong].strip()
        unusual = spelling(text)
        more = f" ({unusual}; write it like -1234.5)" if unusual else ""
        raise ValueError(f"{where(wrong)}: column {name!r} has numbers, got {text[:60]!r}{more}; correct or empty it.")
    return numpy.array(found, dtype=numpy.float64)


def require_usable(column: Column, rows: int) -> None:
    """Raise where a column of text has a level for almost every row, from which nothing can be learned.

    Raises:
        Fault: it has.
    """
    if column.kind != "categories":
        return
    different, known = column.different, rows - column.missing
    if different > _FEW and 2 * different > known:
        raise Fault(
            column.name,
            f"has {different:,} different texts in {known:,} rows",
            "leave it out with --id COLUMN, or say --category COLUMN if these are categories",
        )
