"""Common code for tables of links, in a file or a DataFrame: columns, names and numbers, two readings."""

from __future__ import annotations

__all__ = ["MISSING", "Edge", "Fault", "ends_of", "number", "of_edges", "same_names", "two_by_two"]

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

import torch

from liouville.graphs.pattern import LARGEST, Pattern, as_pattern, linked, numbered

_ENDS = (
    ("source", "target"),
    ("from", "to"),
    ("src", "dst"),
    ("sender", "receiver"),
    ("start", "end"),
    ("u", "v"),
    ("i", "j"),
    ("i", "k"),
    ("node1", "node2"),
    ("nodea", "nodeb"),
)
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
MISSING = {"", "nan", "na", "n/a", "null", "none", "<na>"}


class Edge(NamedTuple):
    """One link of a table: its place, its ends, and whether it has only one direction."""

    place: str
    source: str
    target: str
    one_way: bool = False


class Fault(ValueError):
    """An error at one place of a table."""

    def __init__(self, place: str, what: str) -> None:
        super().__init__(what)
        self.place, self.what = place, what


def ends_of(header: Sequence[str]) -> tuple[int, int] | None:
    """The columns of a link's two ends, if a header names them."""
    words = [re.sub(r"[^a-z0-9]|ids?$", "", word.lower()) for word in header]
    words = [re.sub("^node(?=[a-z]{2})|node$", "", word) for word in words]
    for pair in _ENDS:
        if all(words.count(word) == 1 for word in pair):
            return words.index(pair[0]), words.index(pair[1])
    return None


@functools.lru_cache(1 << 16)
def number(cell: str) -> float | None:
    """The number in a cell, in ASCII digits; None for a word."""
    return float(cell) if _NUMBER.fullmatch(cell) else None


def of_edges(edges: Sequence[Edge], place: str, notes: Sequence[str] = ()) -> Pattern:
    """The graph of these links, with nodes all numbers or all names; undirected unless a link states otherwise.

    Raises:
        Fault: at a missing end, a number that is not a node, or where numbers and names are mixed.
    """
    if not edges:
        raise Fault("", "there are no links")
    first = number(edges[0].source)
    for edge in edges:
        for cell in (edge.source, edge.target):
            value = number(cell)
            if cell.strip().lower() in MISSING:
                raise Fault(f"{place} {edge.place}", f"a link has two ends, got {cell!r}")
            if (value is None) != (first is None):
                raise Fault(
                    f"{place} {edge.place}",
                    f"nodes are called by numbers or by names, not both; got {cell!r} after {edges[0].source!r}",
                )
            if value is not None and (value < 0 or value % 1 != 0):
                raise Fault(f"{place} {edge.place}", f"nodes are numbered 0, 1, 2, ..., got {cell}")
            if value is not None and value > LARGEST:
                raise Fault(
                    f"{place} {edge.place}",
                    f"nodes are numbered 0 to {LARGEST - 1}, got {cell}; give them names that are not numbers",
                )
    if first is None:
        names = list(dict.fromkeys(end for edge in edges for end in edge[1:3]))
        at = {name: i for i, name in enumerate(names)}
        return linked(names, [(at[u], at[v]) for u, v in _ways(edges)], notes=notes)
    return numbered([(int(float(u)), int(float(v))) for u, v in _ways(edges)], notes)


def _ways(edges: Sequence[Edge]) -> list[tuple[str, str]]:
    back = [(edge.target, edge.source) for edge in edges if not edge.one_way]
    return [(edge.source, edge.target) for edge in edges] + back


def same_names(columns: Sequence[str], rows: Sequence[str]) -> Sequence[str]:
    """The names of a matrix, in the same order for rows and columns.

    Raises:
        Fault: if they differ, or a name is repeated.
    """
    if len(set(columns)) < len(columns):
        raise Fault("", f"two nodes are called {next(name for name in columns if list(columns).count(name) > 1)!r}")
    for column, row in zip(columns, rows, strict=True):
        if column != row:
            raise Fault("", f"a row is called {row!r} where the column is called {column!r}; expected one order")
    return columns


def two_by_two(rows: Sequence[Sequence[int]], rows_only: bool) -> Pattern:
    """The reading of four whole numbers, two links or a 2 x 2 matrix, if only one makes sense.

    Args:
        rows: the numbers.
        rows_only: whether links are rows; else they may also be columns.

    Raises:
        ValueError: for two different readings.
    """
    (a, b), (c, d) = rows
    both = [(a, b), (b, a), (c, d), (d, c)]
    matrix = as_pattern((torch.tensor(rows) != 0) | torch.eye(2, dtype=torch.bool))
    if min(a, b, c, d) < 0:
        return matrix
    if max(a, b, c, d) <= 1:
        if numbered(both) == matrix:
            return matrix
    elif {a, b} == {c, d}:
        pass
    elif rows_only or b == c:
        return numbered(both)
    else:
        raise ValueError(
            f"[[{a}, {b}], [{c}, {d}]] may be the links ({a}, {b}) and ({c}, {d}), or ({a}, {c}) and ({b}, {d}) in "
            "columns, as in an edge_index; give a list of tuples, or more links."
        )
    raise ValueError(
        f"[[{a}, {b}], [{c}, {d}]] may be two links or a 2 x 2 matrix; give links as a list of tuples, a matrix as "
        "an array of 0 and 1 or of booleans."
    )
