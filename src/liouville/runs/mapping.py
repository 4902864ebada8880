"""Which node of a graph each column of a table belongs to: by a file that says so, or by the columns' own names."""

from __future__ import annotations

__all__ = ["node_of_column", "nodes_of", "read_map", "targets_in"]

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from liouville.data.content import normalised
from liouville.data.headers import listed
from liouville.data.raw import Raw
from liouville.graphs import Pattern
from liouville.names import suggestion
from liouville.nodes import node_of

_BETWEEN = r"[.:/_|\- ]+"  # of a node's name and what it measures


def read_map(file: str, raw: Raw, graph: Pattern) -> dict[str, int]:
    """The node of each column, from a table of two columns called column and node.

    Args:
        file: its name.
        raw: the table whose columns these are.
        graph: whose nodes these are.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has other columns, or names a column or a node that there is not, or a column twice.
    """
    found: dict[str, int] = {}
    for where, column, node in _rows(file):
        name = " ".join(column.split())
        if name not in raw.names:
            near = suggestion(name, raw.names)
            raise ValueError(f"{where}: {raw.name} has no column {name!r}; {near}its columns are {listed(raw.names)}.")
        if name in found:
            raise ValueError(f"{where}: the column {name!r} stands here twice; give it one node.")
        try:
            found[name] = node_of(graph, node)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    return found


def _rows(file: str) -> Iterator[tuple[str, str, str]]:
    """Where, column and node of each row. The header says what separates cells, as names may have blanks in them."""
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {file}; --map names a table with the columns column and node.")
    lines = normalised(path.read_bytes(), file)[0].decode().splitlines()
    header = lines[0] if lines else ""
    separator = next((mark for mark in (",", ";", "\t", "|") if mark in header), ",")
    names = [cell.strip().casefold() for cell in next(csv.reader([header], delimiter=separator), [])]
    if {"column", "node"} - set(names):
        raise ValueError(f"{file} needs the columns 'column' and 'node', got {header!r}.")
    at = names.index("column"), names.index("node")
    for k, cells in enumerate(csv.reader(lines[1:], delimiter=separator), 2):
        if any(cell.strip() for cell in cells):
            if len(cells) < len(names):
                raise ValueError(f"{file}, line {k}: {len(cells)} cells, expected {len(names)}.")
            yield f"{file}, line {k}", cells[at[0]], cells[at[1]]


def node_of_column(name: str, graph: Pattern) -> tuple[int, str] | None:
    """The node that a column's name begins with, and the rest of the name; None where it begins with none.

    Names of nodes end at ``. : / _ | -`` or a blank, case does not matter, the longest one counts. A node without a
    name is called by its number, ``3`` or ``node 3``.

    Examples:
        >>> from liouville.graphs import adjacency
        >>> graph = adjacency([("tank", "tank 2"), ("tank 2", "pump")])
        >>> [node_of_column(name, graph) for name in ("tank 2.level", "Tank_level", "pump", "tanker.level")]
        [(1, 'level'), (0, 'level'), (2, ''), None]
        >>> node_of_column("node3: flow", adjacency([(0, 1), (1, 2), (2, 3)]))
        (3, 'flow')
    """
    names = graph.names or tuple(map(str, range(len(graph))))
    best: tuple[int, str] | None = None
    length = 0
    for i, node in enumerate(names):
        called = r"[\s_-]+".join(map(re.escape, re.split(r"\s+", node)))
        called = called if graph.names else rf"(?:node\s*)?{called}"
        match = re.fullmatch(rf"{called}(?:{_BETWEEN}(.*))?", name, re.IGNORECASE)
        if match and len(node) > length:
            best, length = (i, match[1] or ""), len(node)
    return best


def targets_in(raw: Raw, words: Sequence[str], graph: Pattern, option: str = "--target") -> list[str]:
    """The columns that are meant as targets: by their names, or ``u`` for the ``NODE.u`` of every node. Another
    ``option`` names its columns so, too.

    Raises:
        ValueError: there is no such column.
    """
    found: list[str] = []
    for word in words:
        plain = " ".join(word.split())
        if plain in raw.names:
            found.append(plain)
            continue
        places = {name: node_of_column(name, graph) for name in raw.names}
        every = [name for name, at in places.items() if at is not None and at[1].casefold() == plain.casefold() != ""]
        if not every and not _numbers_a_column(plain, raw):
            near = suggestion(plain, raw.names)
            names = graph.names or tuple(map(str, range(len(graph))))
            raise ValueError(
                f"{raw.name} has no column {plain!r}, and none is called NODE.{plain} after a node of the graph, "
                f"{listed(names)}; {near}{'I' if near else 'i'}ts columns are {listed(raw.names)}."
            )
        found += every or [raw.column(word, option)]
    return list(dict.fromkeys(found))


def _numbers_a_column(word: str, raw: Raw) -> bool:
    return word.isascii() and word.isdecimal() and 1 <= int(word[:9]) <= len(raw.names)


def nodes_of(
    raw: Raw, columns: Sequence[str], targets: Sequence[str], graph: Pattern, file: str | None
) -> dict[str, int]:
    """The node of each of these columns; of the targets all or none.

    Args:
        raw: the table.
        columns: its inputs.
        targets: what is predicted.
        graph: whose nodes these are.
        file: says which column belongs to which node; the columns' names do if None.

    Raises:
        ValueError: an input belongs to no node, or some targets do and some do not; or as `read_map`.
    """
    if file is not None:
        known = read_map(file, raw, graph)
    else:
        places = {name: node_of_column(name, graph) for name in (*columns, *targets)}
        known = {name: at[0] for name, at in places.items() if at is not None}
    nowhere = [name for name in columns if name not in known]
    if nowhere:
        example = graph.names[0] if graph.names else "0"
        cure = (
            f"call columns NODE.NAME, such as {example}.{nowhere[0]}, or give --map FILE, a table with the columns "
            "column and node"
        )
        if file is not None:
            cure = f"add {'it' if len(nowhere) == 1 else 'them'} to {file}"
        raise ValueError(
            f"{raw.name}: {listed(nowhere)} belong{'s' * (len(nowhere) == 1)} to no node of the graph; {cure}; --id "
            "COLUMN leaves a column out."
        )
    local = [name for name in targets if name in known]
    if local and len(local) < len(targets):
        odd = next(name for name in targets if name not in known)
        raise ValueError(
            f"{raw.name}: the target {local[0]!r} belongs to a node and {odd!r} to none; predict targets of nodes, or "
            "targets that all nodes know, by networks of their own."
        )
    return {name: known[name] for name in (*columns, *targets) if name in known}
