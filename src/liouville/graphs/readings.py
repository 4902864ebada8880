r"""Readings of a table of text: links or an adjacency matrix.

A table is read in every way that its shape admits: links with or without a header and a third column of weights, a
matrix with or without names of its rows and columns. If the readings differ it is refused, with advice how to decide.
"""

from __future__ import annotations

__all__ = ["Row", "pattern_of", "values"]

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from liouville.graphs.pattern import LARGEST, Pattern, linked
from liouville.graphs.tables import MISSING, Edge, Fault, ends_of, number, of_edges, same_names, two_by_two

_WORDS = {"true": 1.0, "false": 0.0}
_NODES = {"id", "node", "name", "vertex", "index"}  # first column in the header of a table of nodes


class Row(NamedTuple):
    """The cells of one line."""

    line: int
    cells: list[str]


def pattern_of(rows: Sequence[Row]) -> Pattern:
    """The only reading of a table, or the first of several equal ones."""
    width, header = len(rows[0].cells), rows[0].cells
    ends = ends_of(header)
    links = _READINGS_OF_LINKS if width in (2, 3) else []
    if ends:
        links = [lambda rows: _links(rows[1:], ends, header)]
    found = []
    fault: Fault | None = None
    for reading in (*_MATRICES, *links):
        try:
            found.append(reading(rows))
        except _NotSo:
            continue
        except Fault as reason:
            fault = fault or reason
    if not found:
        raise fault or Fault(
            f"line {rows[0].line}",
            f"{_count(len(rows), 'line')} of {values(header)} are neither links nor a square matrix; a table of links "
            "with more columns has a header with source and target",
        )
    if any(pattern != found[0] for pattern in found):
        raise Fault(
            "",
            f"{_count(len(rows), 'line')} of {values(header)} may be links or a matrix; begin links with a line "
            "source,target (and weight), a matrix with a line of its nodes' names",
        )
    return found[-1] if ends else found[0]


class _NotSo(Exception):
    """A table without the shape of a reading."""


# --- links


def _links(rows: Sequence[Row], ends: tuple[int, int], header: Sequence[str] = ()) -> Pattern:
    at = next((i for i, word in enumerate(header) if word.lower() == "type"), None)
    edges = [
        Edge(
            str(row.line),
            row.cells[ends[0]],
            row.cells[ends[1]],
            at is not None and row.cells[at].lower() == "directed",
        )
        for row in rows
    ]
    if len(edges) > 2 and all(edge.source == edge.target for edge in edges):
        raise Fault(
            f"line {edges[0].place}",
            "every link leads from a node to itself; if the first column only numbers the lines, remove it",
        )
    others = "its other columns are not used" if len(header or rows[0].cells) > 2 + (at is not None) else ""
    return of_edges(edges, "line", [others] if others else [])


def _plain_links(rows: Sequence[Row]) -> Pattern:
    if _counts(rows):
        raise Fault(
            f"line {rows[0].line}",
            "the first line may be a link, or count nodes and links as in METIS and Matrix Market files; remove it, or "
            "begin links with a line source,target",
        )
    if len(rows[0].cells) == 2:
        cells = [[number(cell) for cell in row.cells] for row in rows]
        if len(rows) == 2 and all(_whole(value) for pair in cells for value in pair):
            (a, b), (c, d) = ([int(value or 0) for value in pair] for pair in cells)
            if 1 < max(a, b, c, d) < LARGEST:
                return _two_lines([[a, b], [c, d]])
        if len(rows) == 1 and not any(value is not None for value in cells[0]):
            raise Fault(
                f"line {rows[0].line}", "one line of words may be a header without links; expected two nodes a line"
            )
        return _links(rows, (0, 1))
    weights = [number(row.cells[2]) for row in rows]
    for row, value in zip(rows, weights, strict=True):
        if not value:
            what = "a link of weight 0 is no link; leave the line out" if value == 0 else "expected a weight"
            raise Fault(f"line {row.line}", f"{what}, got {row.cells[2]!r} in the third column")
    if len(rows) == 3 and _binary(rows):
        raise _NotSo
    return _links(rows, (0, 1))


def _counts(rows: Sequence[Row]) -> bool:
    """Whether a first line n, m, or n, n, m, counts the nodes and the lines below."""
    found = [[number(cell) for cell in row.cells[: 3 if row is rows[0] else 2]] for row in rows]
    if len(rows) < 3 or not all(_whole(value) for row in found for value in row):
        return False
    (*size, lines), ends = found[0], [value or 0 for row in found[1:] for value in row]
    n = size[0] or 0
    return lines == len(rows) - 1 and set(size) == {n} and (0 < min(ends) <= max(ends) <= n or max(ends) < n)


def _two_lines(rows: Sequence[Sequence[float]]) -> Pattern:
    try:
        return two_by_two([[int(value) for value in row] for row in rows], rows_only=True)
    except ValueError:
        raise Fault(
            "", "two lines of two numbers may be links or a matrix; begin links with a line source,target"
        ) from None


def _links_with_header(rows: Sequence[Row]) -> Pattern:
    if len(rows) < 2 or any(_entry(cell) is not None or cell.lower() in MISSING for cell in rows[0].cells[:2]):
        raise _NotSo
    if any(number(cell) is None for row in rows[1:] for cell in row.cells[:2]):
        raise _NotSo
    if rows[0].cells[0].lower() in _NODES and rows[0].cells[1].lower() not in _NODES:
        raise Fault(
            f"line {rows[0].line}",
            f"the header ({', '.join(rows[0].cells)}) belongs to a table of nodes; links begin with a line "
            "source,target",
        )
    pattern = _plain_links(rows[1:]) if len(rows[0].cells) == 3 else _links(rows[1:], (0, 1))
    words = ", ".join(rows[0].cells)
    return Pattern(pattern, pattern.names, (*pattern.notes, f"its first line ({words}) is taken for a header"))


_READINGS_OF_LINKS: list[Callable[[Sequence[Row]], Pattern]] = [_links_with_header, _plain_links]


# --- matrices


def _matrix(rows: Sequence[Row]) -> Pattern:
    if len(rows) == 2 and any((number(cell) or 0) > 1 and _whole(number(cell)) for row in rows for cell in row.cells):
        raise _NotSo
    if len(rows) == 3 and not _like_a_matrix(rows):
        raise _NotSo
    return _square(rows, 0, 0, [str(i) for i in range(len(rows))])


def _like_a_matrix(rows: Sequence[Row]) -> bool:
    """Whether 3 x 3 numbers are symmetric, have one number on the diagonal, or make no sensible links."""
    A = [[_entry(cell) for cell in row.cells] for row in rows]
    transposed = [list(column) for column in zip(*A, strict=True)]
    if len(transposed) != 3 or transposed == A or len({A[i][i] for i in range(3)}) == 1:
        return True
    nodes = {row[end] for row in A for end in (0, 1)}
    return not any(nodes == set(range(first, first + len(nodes))) for first in (0, 1))


def _matrix_with_header(rows: Sequence[Row]) -> Pattern:
    names = rows[0].cells
    counted = _counted(names)
    if not counted and any(_entry(name) is not None for name in names):
        raise _NotSo
    as_links = len(names) < 4 and (counted or len(names) == 2 or ends_of(names))
    if as_links and not _binary(rows[1:]):
        raise _NotSo
    return _square(rows, 1, 0, names)


def _matrix_with_names(rows: Sequence[Row]) -> Pattern:
    names = [row.cells[0] for row in rows]
    if any(_entry(name) is not None for name in names) and (len(names) < 3 or not _counted(names)):
        raise _NotSo
    return _square(rows, 0, 1, names)


def _matrix_with_both(rows: Sequence[Row]) -> Pattern:
    corner, *columns = rows[0].cells
    names = [row.cells[0] for row in rows[1:]]
    if names == [str(i + 1) for i in range(len(names))] and columns == [f"V{name}" for name in names]:
        names = columns  # R names the columns of a matrix without names
    if sorted(columns) != sorted(names) or _entry(corner) is not None:
        raise _NotSo
    pattern = _square(rows, 1, 1, same_names(columns, names))
    if len(names) == 2 and _counted(names):  # numbered rows and columns as from pandas, possibly two links
        inner = [[_entry(cell) or 0 for cell in row.cells[1:]] for row in rows[1:]]
        if all(_whole(value) for row in inner for value in row) and _two_lines(inner) != pattern:
            raise Fault("", "two numbered lines may be links or a matrix; begin links with a line source,target")
    return pattern


_MATRICES: list[Callable[[Sequence[Row]], Pattern]] = [
    _matrix_with_both,
    _matrix_with_header,
    _matrix_with_names,
    _matrix,
]


def _square(rows: Sequence[Row], top: int, left: int, names: Sequence[str]) -> Pattern:
    """The pattern of the numbers below ``top`` lines and right of ``left`` columns."""
    size = len(rows) - top
    if size < 1 or len(rows[0].cells) - left != size or (left and size < 2):
        raise _NotSo
    same_names(names, names)
    odd = next(
        ((row, cell) for row in rows[top:] for cell in row.cells[left:] if _entry(cell) is None),
        None,
    )
    if odd:
        if size < 4 and not (top and left):
            raise _NotSo
        raise Fault(f"line {odd[0].line}", f"a matrix has numbers as entries, got {odd[1]!r}")
    used = torch.tensor([[_entry(cell) != 0 for cell in row.cells[left:]] for row in rows[top:]])
    return linked(names, [(k, i) for i, k in used.nonzero().tolist()])


def _binary(rows: Sequence[Row]) -> bool:
    """Whether all cells are 0 or 1."""
    return all(_entry(cell) in (0, 1) for row in rows for cell in row.cells)


def _entry(cell: str) -> float | None:
    value = number(cell)
    return _WORDS.get(cell.lower()) if value is None else value


def _whole(value: float | None) -> bool:
    return value is not None and value >= 0 and value % 1 == 0  # infinity % 1 is NaN


def _counted(names: Sequence[str]) -> bool:
    """Whether the names are 0, 1, 2, ... or 1, 2, 3, ..., the default column names of programs."""
    return any(list(names) == [str(first + i) for i in range(len(names))] for first in (0, 1))


def values(cells: Sequence[str]) -> str:
    """The number of cells, in words."""
    return _count(len(cells), "value")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
