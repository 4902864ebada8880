"""Which columns of a table are a network's inputs, and which are copied beside its answers."""

from __future__ import annotations

__all__ = ["Columns", "choose"]

import itertools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from liouville.cli.exits import BadInput
from liouville.data.cells import is_name, number
from liouville.data.delimited import Table
from liouville.data.headers import UNNAMED, counted, listed, plain

_NO_INPUTS = frozenset(("id", "ids", "index", "key", "rowid", "label", "class", "target", "prediction"))


class Columns(NamedTuple):
    """Positions in the table, and a note where a column is left out.

    inputs: in the order of the network's inputs.
    copied: in the order asked for.
    names: of the copied ones.
    note: None, or a sentence.
    """

    inputs: list[int]
    copied: list[int]
    names: list[str]
    note: str | None


def choose(table: Table, width: int, known: Sequence[str] | None, ids: Sequence[str]) -> Columns:
    """The columns of ``table`` that are the network's ``width`` inputs, and those that ``ids`` names or numbers.

    Where the inputs have names that are ``known``, the header must have these, in this order; ``ids`` and an index
    without a name may stand beside them. Without names, all columns are inputs, or all but these.

    Raises:
        ValueError: names are missing, unknown, twice there or in another order, or the number of columns does not fit.
    """
    copied = [_position(table, word) for word in ids]
    if table.header is None:
        _look_for_a_header(table, copied)
        return Columns(_by_number(table, width, copied), copied, [f"column_{k + 1}" for k in copied], None)
    _check_distinct(table)
    index = [0] if table.header[0] in UNNAMED and 0 not in copied else []
    if known and not counted([name for k, name in enumerate(table.header) if k not in (*copied, *index)]):
        inputs = _by_name(table, known, {*copied, *index})
    else:
        inputs = _by_number(table, width, copied, index)
        _check_names(table, inputs)
    note = None
    if index and 0 not in inputs:
        note = f"{table.name}: the first column has no name, and is left out as an index; --id 1 copies it."
    return Columns(inputs, copied, [table.header[k] or f"column_{k + 1}" for k in copied], note)


def _position(table: Table, word: str) -> int:
    """A number from 1 to the table's width is a place, anything else a name."""
    if re.fullmatch("[0-9]{1,9}", word) and 1 <= int(word) <= table.width:
        return int(word) - 1
    if table.header and word.strip() and word.strip() in table.header:
        return table.header.index(word.strip())
    has = f"its columns are {listed(table.header)}" if table.header else f"it has {table.width} columns and no header"
    raise BadInput(f"{table.name} has no column {word!r} for --id; {has}.")


def _look_for_a_header(table: Table, copied: Sequence[int]) -> None:
    """A column to copy whose first cell only is a word: the first row is a header, whose other names are numbers."""
    sample = [table.records.row(k) for k in range(min(len(table), 1000))]
    for column in copied:
        first, *rest = (row[column] for row in sample)
        telling = plain(first) in ("id", "name", "index", "key", "label", "date", "time")
        if telling or (is_name(first) and rest and all(number(cell) is not None for cell in rest)):
            raise BadInput(
                f"{table.where(0)}: {first.strip()!r} looks like the name of column {column + 1}; say --header yes if "
                "this row has the names of the columns, and --header no if not."
            )


def _check_distinct(table: Table) -> None:
    header = table.header or ()
    unnamed = [k for k, name in enumerate(header) if not name and k]
    if unnamed:
        raise ValueError(f"{table.name}: the header ({listed(header)}) has no name for column {unnamed[0] + 1}.")
    twice = next((name for k, name in enumerate(header) if name in header[:k]), None)
    if twice is not None:
        raise ValueError(
            f"{table.name}: the header ({listed(header)}) names {twice!r} twice; give each column one name."
        )


def _by_number(table: Table, width: int, copied: Sequence[int], index: Sequence[int] = ()) -> list[int]:
    """All columns, or all but the index, or all but those that are copied."""
    everything = range(table.width)
    for left_out in (index, {*index, *copied}):
        inputs = [k for k in everything if k not in left_out]
        if len(inputs) == width:
            return inputs
    more = "a column that is no input is named with --id, and copied"
    if table.header is not None:
        beside = " besides the first, which has no name" if index else ""
        got = f"{table.width - len(index)} ({listed(table.header)})"
        raise ValueError(f"{table.name}: expected {width} columns{beside}, got {got}; {more}.")
    if table.width == 2 * width and table.records.separator == ",":
        more = "decimal commas must be points"
    elif table.width < width:
        more = "each input has its column"
    else:
        more = "a column that is no input is numbered with --id, and copied"
    raise ValueError(f"{table.where(0)}: expected {width} values, got {table.width}; {more}.")


def _by_name(table: Table, known: Sequence[str], beside: set[int]) -> list[int]:
    """The columns with the ``known`` names, which must be all of the table but those ``beside``."""
    header = table.header or ()
    same = plain if len({plain(name) for name in known}) == len(known) else str.strip
    places = {same(header[k]): k for k in range(len(header)) if k not in beside}
    places |= {same(header[k]): k for k in beside if same(header[k]) in {same(name) for name in known} and header[k]}
    missing = [name for name in known if same(name) not in places]
    wanted = {same(name) for name in known}
    extra = [header[k] for k in range(len(header)) if k not in beside and same(header[k]) not in wanted]
    if missing or extra:
        faults = [f"lacks {listed(missing)}"] if missing else []
        faults += [f"has {listed(extra)} besides"] if extra else []
        more = "; a column that is no input is named with --id, and copied" if extra and not missing else ""
        raise ValueError(
            f"{table.name}: the header ({listed(header)}) {' and '.join(faults)}; the network's inputs are "
            f"{listed(known)}{more or '; give the columns these names'}."
        )
    inputs = [places[same(name)] for name in known]
    if inputs != sorted(inputs):
        raise ValueError(
            f"{table.name} has its columns in another order: {listed([header[k] for k in sorted(inputs)])}; the "
            f"network's inputs are {listed(known)}; reorder the columns."
        )
    return inputs


def _check_names(table: Table, inputs: Sequence[int]) -> None:
    """Where no names are known: none tells of another thing, and numbers or x, y, z in them must be in order."""
    names = [(table.header or ())[k] for k in inputs]
    other = next((k for k in inputs if plain((table.header or ())[k]) in _NO_INPUTS), None)
    if other is not None:
        raise ValueError(
            f"{table.name}: column {other + 1} of the header ({listed(table.header or ())}) is no input by its name, "
            "and the network's inputs have no names; leave the column out, copy it with --id beside all inputs, or "
            "leave out the header if it is one."
        )
    numbers = [tuple(int(n) for n in re.findall("[0-9]+", name)) for name in names]
    before, after = _shared(names), _shared([name[::-1] for name in names])
    axes = [name[before : len(name) - after].casefold() for name in names]
    alike = len({re.sub("[0-9]+", "0", name) for name in names}) == 1
    keys: Sequence[Any] = numbers if alike and numbers[0] else axes if set(axes) <= set("xyzw") else []
    if any(a >= b for a, b in itertools.pairwise(keys)):
        raise ValueError(
            f"{table.name} has its columns in the order {listed(names)}; the network's inputs have no names, and are "
            "read in order: sort the columns, or leave out the header."
        )


def _shared(names: Sequence[str]) -> int:
    """How many letters all names begin with."""
    shortest = min(map(len, names), default=0)
    return next((k for k in range(shortest) if len({name[k] for name in names}) > 1), shortest)
