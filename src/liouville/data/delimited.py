"""Tables of text: one row of numbers for each record, or a sentence that names the row and the line.

pandas takes the records apart and is told that everything is text. What a number is, whether the first line is a
header, and how many rows there are is decided here, from what `liouville.data.records` saw before.
"""

from __future__ import annotations

__all__ = ["HEADERS", "Table", "read"]

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy

from liouville.data import content
from liouville.data.cells import missing, number, numbers
from liouville.data.headers import advice, is_header, listed
from liouville.data.records import SEPARATORS, Records, records

HEADERS = ("auto", "yes", "no")
_ROWS, _CELLS = 20_000, 400_000  # taken apart at once
_PIECE = 1 << 20  # bytes


@dataclass(frozen=True)
class Table:
    """A table of text: all its rows have one width, and it is known whether it has a header.

    Args:
        name: of the file, for messages.
        records: of the rows, without the header.
        header: the names of the columns, or None.
        width: the number of columns.
        notes: sentences on what had to be guessed.
    """

    name: str
    records: Records
    header: tuple[str, ...] | None
    width: int
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.records)

    def where(self, k: int) -> str:
        """The place of row k, in words."""
        return _where(self.name, k, self.records)

    def columns(self, numeric: Sequence[int], copied: Sequence[int] = ()) -> tuple[Any, list[list[str]]]:
        """The numbers in some columns, (rows, numeric) in float64, and the text of others, a list for each.

        Raises:
            ValueError: a cell is empty or no finite number; its row, line and column are named.
        """
        values = numpy.empty((len(self), len(numeric)))
        texts: list[list[str]] = [[] for _ in copied]
        start = 0
        for part in self._parts(sorted({*numeric, *copied})):
            stop = start + len(part)
            for j, column in enumerate(numeric):
                values[start:stop, j] = self._numbers(part[column].tolist(), start, column)
            for text, column in zip(texts, copied, strict=True):
                text.extend(cell.strip() for cell in part[column].tolist())
            start = stop
        return values, texts

    def _parts(self, wanted: list[int]) -> Iterator[Any]:
        """Some columns of the rows as data frames of text, some thousand rows at a time."""
        import pandas

        found = self.records
        rows = max(1, min(_ROWS, _CELLS // self.width))
        for first in range(0, len(self), rows):
            starts, ends = found.starts[first : first + rows], found.ends[first : first + rows]
            text = found.text[starts[0] : ends[-1]]
            if (starts[1:] != ends[:-1] + 1).any():  # there are blank lines between
                text = b"\n".join(found.text[a:b] for a, b in zip(starts, ends, strict=True))
            part = pandas.read_csv(
                io.BytesIO(text + b"\n"),
                sep=found.separator,
                header=None,
                names=range(int(found.cells[0])),
                usecols=wanted,
                index_col=False,
                dtype=str,
                na_filter=False,
                skip_blank_lines=False,
                skipinitialspace=True,
                encoding="utf-8",
            )
            if len(part) != len(starts):
                raise ValueError(f"{self.name} cannot be read row by row from {self.where(first)} on; write it again.")
            yield part

    def _numbers(self, cells: list[str], start: int, column: int) -> Any:
        found = numbers(cells)
        if None not in found and numpy.isfinite(values := numpy.array(found)).all():
            return values
        k = next(k for k, value in enumerate(found) if value is None or not math.isfinite(value))
        raise ValueError(f"{self.where(start + k)}: column {column + 1} {_refusal(cells[k])}")


def read(
    data: bytes, name: str, width: int, known: Sequence[str] | None = None, header: str = "auto", copied: int = 0
) -> Table:
    """Look at a table of text: its encoding, its separator, its rows and its header.

    Args:
        data: the file's bytes, unpacked.
        name: of the file, for messages.
        width: how many columns of numbers are expected, 0 where that is not known; separators at the end of all lines
            make none.
        known: the names that the columns should have.
        header: whether the first row has the names of the columns: "yes", "no", or "auto" to see.
        copied: how many other columns are expected.

    Raises:
        ValueError: it is no table of text, or ragged, or empty, or it cannot be said whether it has a header.
    """
    if (what := content.foreign(data)) is not None:
        raise ValueError(f"{name} is {what}; expected a table of text (CSV), a .npy array or an IDX file of images.")
    text, note = content.normalised(data, name)
    parts = (text[k : k + _PIECE] for k in range(0, len(text), _PIECE))
    if b"\t" not in text and not any(part.decode(errors="replace").strip() for part in parts):
        raise ValueError(f"{name} is empty; expected one row for each sample.")
    if not text.endswith(b"\n") or text.endswith(b"\n\n"):
        text = text.rstrip(b"\n") + b"\n"
    found = records(text, name, (width, width + copied) if width else _first_widths(text))
    notes = [note] if note else []
    if len(found.blank):
        notes.append(_blank(found, name))
    return _trimmed(_with_header(found, name, known, header, notes), width)


def _first_widths(text: bytes) -> set[int]:
    """How many cells the first line has, if one of the separators separates them; a header has them all."""
    first = text.lstrip(b"\n").split(b"\n", 1)[0]
    return {first.count(mark.encode()) + 1 for mark in SEPARATORS} - {1}


def _blank(found: Records, name: str) -> str:
    """A note on blank lines, which are no rows where a row has a separator in it."""
    if found.width == 1:
        raise ValueError(
            f"{name}, line {found.blank[0]}: the line is blank, which may be a missing value in a table of one column; "
            "remove or fill it."
        )
    shown = ", ".join(map(str, found.blank[:5])) + (", ..." if len(found.blank) > 5 else "")
    return f"{name} has blank lines, which are no rows: line{'s'[: len(found.blank) > 1]} {shown}."


def _with_header(found: Records, name: str, known: Sequence[str] | None, header: str, notes: list[str]) -> Table:
    """Decide on the header, and see that all rows have one width."""
    first, rest = tuple(cell.strip() for cell in found.row(0)), found.after_first()
    if header == "auto":
        named, note = is_header(first, rest, _where(name, 0, found), known)
        notes += [note] if note else []
    else:
        named = header == "yes"
    if not named:
        return _even(Table(name, found, None, found.width, tuple(notes)))
    if not len(rest):
        raise ValueError(f"{name} has a header and no rows; expected one row for each sample.")
    table = _even(Table(name, rest, first, rest.width, tuple(notes)))
    if len(first) == table.width - 1 and _names_rows(table):  # as R writes them
        return replace(table, header=("", *first))
    if len(first) != table.width:
        raise ValueError(
            f"{name}: the header (line {found.lines[0]}) names {len(first)} of {table.width} columns "
            f"({listed(first)}); give every column a name, and remove lines that are no table."
        )
    return table


def _even(table: Table) -> Table:
    """The table, whose rows all have as many cells."""
    if not table.records.even or int(table.records.cells[0]) != table.width:
        k = int((table.records.cells != table.width).argmax())
        values = "1 value" if table.width == 1 else f"{table.width} values"
        raise ValueError(f"{table.where(k)}: expected {values}, got {int(table.records.cells[k])}.")
    return table


def _names_rows(table: Table) -> bool:
    """Whether the first column, for which the header has no name, has names of the rows: words, or their numbers."""
    values = [number(table.records.row(k)[0]) for k in range(min(len(table), 1000))]
    return set(values) == {None} or values in (list(range(len(values))), list(range(1, len(values) + 1)))


def _trimmed(table: Table, width: int) -> Table:
    """Without a last column that has no name and nothing in it: what separators at the end of all lines make."""
    if table.width in (1, width) or table.records.row(0)[-1].strip() or (table.header and table.header[-1]):
        return table
    if any(table.columns((), (table.width - 1,))[1][0]):
        return table
    return replace(table, width=table.width - 1, header=table.header and table.header[:-1])


def _refusal(cell: str) -> str:
    """Why a cell is no finite number, and what to do."""
    text = cell.strip()
    if not text:
        return "is empty."
    shown = repr(text if len(text) <= 60 else text[:57] + "...")
    if number(cell) is not None:
        return f"is {shown}, too large for a number; remove or fill this row."
    if missing(text):
        plain = text if text.casefold().lstrip("+-") in ("nan", "inf", "infinity") else f"missing ({shown})"
        return f"is {plain}; remove or fill this row."
    return f"is not a number: {shown}{advice(cell)}."


def _where(name: str, k: int, found: Records) -> str:
    return f"{name}, row {k + 1} (line {found.lines[k]})"
