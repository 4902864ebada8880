"""Where the rows of a table of text are: the separator of its cells, found by evidence, and the lines of its records.

A record is what stands between two line ends outside quotes. All is done on the bytes of the text at once, so that a
hundred thousand lines take a fraction of a second, and says of each record on which line it begins and how many cells
it has: what no reader of tables tells, and what an answer for every row rests on.
"""

from __future__ import annotations

__all__ = ["Records", "records"]

import csv
import io
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy

from liouville.data.cells import number, spelling

SEPARATORS = ",;\t|"
NO_SEPARATOR = "\x1f"  # of one column; no text has it
_QUOTE, _LINE_END, _BLANK = b'"\n '
_PIECE, _AT_ONCE = 1 << 20, 1 << 16  # bytes, records


@dataclass(frozen=True)
class Records:
    """The records of a text that are not blank.

    Args:
        text: UTF-8, lines ended by LF.
        separator: one character.
        starts: (records,) where each begins in ``text``.
        ends: (records,) where the line end of each is.
        lines: (records,) the line on which each begins, counted from 1.
        cells: (records,) how many cells each has.
        blank: (blank records,) the lines of those that hold nothing, those at the end of the text left out, and
            those before a table of several columns.
    """

    text: bytes
    separator: str
    starts: Any
    ends: Any
    lines: Any
    cells: Any
    blank: Any

    def __len__(self) -> int:
        return len(self.starts)

    def row(self, k: int) -> list[str]:
        """The cells of record k."""
        return split(self.text[self.starts[k] : self.ends[k]].decode(), self.separator)

    def after_first(self) -> Records:
        """All but the first."""
        return replace(self, **{part: getattr(self, part)[1:] for part in ("starts", "ends", "lines", "cells")})

    @property
    def width(self) -> int:
        """The number of cells that most records have; the first record's where others are as frequent."""
        if self.even:
            return int(self.cells[0])
        widths, counts = numpy.unique(self.cells, return_counts=True)
        return int(self.cells[0] if counts[widths == self.cells[0]] == counts.max() else widths[counts.argmax()])

    @property
    def even(self) -> bool:
        """Whether all have as many cells."""
        return self.cells.strides == (0,) or bool((self.cells == self.cells[:1]).all())

    def evidence(self, widths: Collection[int]) -> float:
        """How well the separator suits: the share of records of one width, by the share of cells that are numbers.

        A number in an unusual spelling counts somewhat less, and a tab within a cell, or another separator before a
        blank, against it; the first record may be a header, and does not count. One of the expected ``widths`` makes
        it twice as good.
        """
        most = max(2, min(41, 20_000 // self.width))
        rows = [self.row(k) for k in range(min(len(self), 1), min(len(self), most))] or [self.row(0)]
        points = [self._points(cell.strip()) for row in rows for cell in row]
        share = (1.0 if self.even else float((self.cells == self.width).mean())) * (1 + (self.width in widths))
        return share * (0.01 + sum(points) / max(len(points), 1))

    def _points(self, cell: str) -> float:
        if number(cell) is not None:
            return 1.0
        if "\t" in cell or (self.separator == " " and cell.endswith(tuple(SEPARATORS))):
            return -1.0
        foreign = any(c in cell for c in ";|" if c != self.separator)
        return 0.0 if foreign or spelling(cell) is None else 0.9


def split(line: str, separator: str) -> list[str]:
    """The cells of one record, as pandas reads them."""
    limit = csv.field_size_limit(len(line) + 1)
    try:
        reader = csv.reader(io.StringIO(line, newline=""), delimiter=separator, skipinitialspace=True)
        return next(reader, [""])
    finally:
        csv.field_size_limit(limit)


def records(text: bytes, name: str, widths: Collection[int] = ()) -> Records:
    """The records of ``text``, with the separator that suits best: comma, semicolon, tab, vertical bar, or blanks.

    Args:
        text: UTF-8, lines ended by LF.
        name: of the file, for messages.
        widths: how many cells a record should have, if that is known.

    Raises:
        ValueError: a quote is opened and never closed, or stands within a cell; its line is named.
    """
    found, problem = [], None
    said = re.match(rb"sep=([,;\t|])\n", text)  # what Excel writes and reads
    text = b"\n" + text[len(said[0]) :] if said else text
    if said and said[1] not in text and 1 not in widths:
        raise ValueError(
            f"{name}: the first line says that {said[1].decode()!r} separates the cells, and no other line has one; "
            "correct that line, or remove it."
        )
    for separator in said[1].decode() if said else SEPARATORS:
        if separator.encode() in text:
            try:
                found.append(_records(text, separator, name, widths))
            except ValueError as error:
                problem = problem or error
    # what divides every line alike, the header too, goes before what stands in the text of the rows only
    best = max((r for r in found if r.width > 1), key=lambda r: (r.even, r.evidence(widths)), default=None)
    sure = best is not None and best.even and (said or best.separator == "\t" or best.evidence(widths) > 1)
    if not sure and (b" " in text or b"\t" in text):
        try:
            blanks = _records(_single_blanks(text), " ", name, widths)
        except ValueError as error:
            problem = problem or error
        else:
            most = 2 * (blanks.cells == blanks.width).sum() > len(blanks)
            worse = best is not None and (best.even > blanks.even or best.evidence(widths) >= blanks.evidence(widths))
            if blanks.width > 1 and most and not worse:
                best = blanks
    if best is not None:
        _check_blanks(best, text, name)
        return best
    if problem is not None:
        raise problem
    return _records(text, NO_SEPARATOR, name)


def _check_blanks(found: Records, text: bytes, name: str) -> None:
    """A line of blanks may be a row of empty cells where blanks separate them."""
    if found.separator == " " and (blank := re.search(rb"(?m)^[ \t]+$", text)):
        line = text.count(b"\n", 0, blank.start()) + 1
        raise ValueError(
            f"{name}, line {line}: the line is blank, which may be a row of missing "
            "values where blanks separate the cells; remove or fill it."
        )


def _single_blanks(text: bytes) -> bytes:
    """One blank between cells, where any number of blanks and tabs separates them; quoted cells stay."""
    return b"\n".join(map(_with_single_blanks, _pieces(text)))


def _pieces(text: bytes) -> Iterator[bytes]:
    """The text in pieces that begin and end with lines, outside quotes: as one, it would take many times its bytes."""
    start, quotes = 0, 0
    while start < len(text):
        end = text.find(b"\n", start + _PIECE)
        while end >= 0 and (quotes + text.count(b'"', start, end)) % 2:
            end = text.find(b"\n", end + 1)
        end = len(text) if end < 0 else end
        quotes += text.count(b'"', start, end)
        yield text[start:end]
        start = end + 1
    if text.endswith(b"\n"):
        yield b""


def _with_single_blanks(text: bytes) -> bytes:
    if b'"' in text:
        text = re.sub(rb'("[^"]*")|[ \t]+', lambda found: found[1] or b" ", text)
    else:
        text = re.sub(rb"[ \t]+", b" ", text)
    return b"\n".join(line.strip(b" ") for line in text.split(b"\n"))


def _records(text: bytes, separator: str, name: str, widths: Collection[int] = ()) -> Records:
    """The records with one separator. Places are kept in 4 bytes where they fit, and what is alike is kept once: a
    short line has few bytes, and memory is to be a few times theirs."""
    data = numpy.frombuffer(text, dtype=numpy.uint8)
    place = numpy.int32 if len(text) < 2**31 - 1 else numpy.int64
    breaks = ends = _places(data, _LINE_END, place)
    quotes, inside = numpy.flatnonzero(data == _QUOTE), None
    if len(quotes):
        _check_quotes(data, quotes, breaks, ord(separator), name)
        inside = numpy.logical_xor.accumulate(data == _QUOTE)
        ends = breaks[~inside[breaks]]
    if not len(ends) or ends[-1] != len(data) - 1:
        ends = numpy.append(ends, numpy.array([len(data)], place))
    starts = numpy.empty_like(ends)
    starts[0] = 0
    numpy.add(ends[:-1], 1, out=starts[1:])
    cells, full = _counted(data, inside, starts, ord(separator))
    del inside
    _check_width(cells, widths, name)
    lines: Any = range(1, len(starts) + 1)
    blank = numpy.zeros(0, numpy.int64)
    if len(ends) < len(breaks) or not full.all():
        lines = numpy.searchsorted(breaks, starts).astype(place)
        lines += 1
        last = numpy.flatnonzero(full)[-1] + 1 if full.any() else 0
        first = int((cells > 1).argmax())  # what is blank before a table is no row
        blank = lines[first:last][~full[first:last]]
        starts, ends, lines, cells = starts[full], ends[full], lines[full], cells[full]
    if len(cells) and (cells == cells[0]).all():
        cells = numpy.broadcast_to(cells[0], cells.shape)
    return Records(text, separator, starts, ends, lines, cells, blank)


def _counted(data: Any, inside: Any, starts: Any, separator: int) -> tuple[Any, Any]:
    """How many cells each record has, and whether there is anything in it; ``inside`` says where quotes are open."""
    cells, full = numpy.empty(len(starts), numpy.int32), numpy.empty(len(starts), bool)
    for first in range(0, len(starts), _AT_ONCE):
        rows = slice(first, first + _AT_ONCE)
        begin = int(starts[first])
        end = int(starts[first + _AT_ONCE]) if first + _AT_ONCE < len(starts) else len(data)
        part, own = data[begin:end], starts[rows] - begin
        if not len(part):  # one record without a byte, at the end
            cells[rows], full[rows] = 1, False
            continue
        cuts = part == separator
        if inside is not None:
            cuts &= ~inside[begin:end]
        cells[rows] = numpy.add.reduceat(cuts, own, dtype=numpy.int32) + 1
        full[rows] = numpy.maximum.reduceat(part, own) > _BLANK
    full |= cells > 1
    return cells, full


def _places(data: Any, byte: int, kind: Any) -> Any:
    """Where a byte stands."""
    parts = []
    for start in range(0, len(data), _PIECE):
        parts.append((numpy.flatnonzero(data[start : start + _PIECE] == byte) + start).astype(kind))
    return numpy.concatenate(parts)


def _check_width(cells: Any, widths: Collection[int], name: str) -> None:
    """A row of millions of cells is no table that anybody asked for, and takes a minute to find out why."""
    most = max(65_536, 4 * max(widths, default=0))
    if (widest := int(cells.max())) > most:
        raise ValueError(f"{name}: a row has {widest:,} cells, more than the {most:,} that are read.")


def _check_quotes(data: Any, quotes: Any, breaks: Any, separator: int, name: str) -> None:
    """Every quote opens at the beginning of a cell and closes at the end of one, or is doubled within."""
    opening, closing = quotes[0::2], quotes[1::2]
    bounds = (separator, _LINE_END)
    look = _beside if separator == _BLANK else _skip
    before, after = look(data, opening, -1), look(data, closing, 1)
    wrong = numpy.concatenate(
        (
            opening[~(numpy.isin(before, bounds) | (_beside(data, opening, -1) == _QUOTE))],
            closing[~(numpy.isin(after, bounds) | (_beside(data, closing, 1) == _QUOTE))],
        )
    )
    if len(wrong):
        line = int(numpy.searchsorted(breaks, wrong.min())) + 1
        raise ValueError(
            f"{name}, line {line}: a quote stands within a cell; put such a cell in quotes and double the ones in it."
        )
    if len(opening) > len(closing):
        line = int(numpy.searchsorted(breaks, opening[-1])) + 1
        raise ValueError(f"{name}, line {line}: a quote is opened and never closed.")


def _beside(data: Any, places: Any, step: int) -> Any:
    """The bytes next to ``places``; a line end outside the text."""
    places = places + step
    inside = (places >= 0) & (places < len(data))
    return numpy.where(inside, data[numpy.clip(places, 0, len(data) - 1)], _LINE_END)


def _skip(data: Any, places: Any, step: int) -> Any:
    """The first bytes next to ``places`` that are no blanks; a line end outside the text."""
    found = _beside(data, places, step)
    if (rest := numpy.flatnonzero(found == _BLANK)).size:
        full = numpy.flatnonzero(data != _BLANK)
        after = numpy.searchsorted(full, places[rest])  # where the place itself, a quote, stands among them
        found[rest] = _beside(data[full], after, step)
    return found
