"""Rows of a raw table for a network that was trained on such a table: its columns by name, the others left aside."""

from __future__ import annotations

__all__ = ["read_rows"]

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from liouville.cli.exits import BadInput
from liouville.cli.inputs import Inputs, read_bytes

if TYPE_CHECKING:
    from liouville.data.raw import Raw
    from liouville.facts import Facts

_SHOWN = 20  # names in a note


def read_rows(name: str, facts: Facts, header: str, ids: Sequence[str], unpack: float) -> Inputs:
    """The columns of a table that the network reads, by name, and those to copy.

    Args:
        name: of the file, a table of text or Parquet; ``-`` reads standard input.
        facts: of the network; it has a preprocessing.
        header: whether the first row of a table of text has the names: "yes", "no", or "auto" to see.
        ids: names or numbers (from 1) of columns to copy.
        unpack: how many times its own size a gzip file may unpack to.

    Returns:
        The network's inputs, and what is copied.

    Raises:
        OSError: the file cannot be read.
        ValueError: columns are missing, or cells are no numbers where there must be some.
    """
    from liouville.columns import Number
    from liouville.data.content import unpacked
    from liouville.data.kinds import numeric
    from liouville.data.raw import read_raw

    rule = facts.preprocessing
    assert rule is not None
    shown = "standard input" if name == "-" else name
    wanted = [column.name for column in rule.columns]
    raw = read_raw(unpacked(read_bytes(name), shown, unpack), shown, header, wanted)
    targets = facts.targets or (facts.target,)
    raw = _with_names(raw, wanted)
    copied = [_column(raw, word) for word in ids]
    places = _places(raw, wanted)
    cells: dict[str, Any] = dict(zip(wanted, raw.cells([places[column] for column in wanted]), strict=True))
    for column in rule.columns:
        if isinstance(column, Number):
            cells[column.name] = numeric(cells[column.name], column.name, raw.where)
    notes = [*raw.notes, _used(raw, wanted, set(places.values()), copied, targets)]
    rows = rule.by_name(cells)
    notes += [_unseen(raw, column, found) for column, found in rule.unseen(rows).items()]
    names = [column if raw.named else f"column_{raw.names.index(column) + 1}" for column in copied]
    texts = [[cell.strip() for cell in column] for column in raw.cells(copied)] if copied else []
    return Inputs(torch.from_numpy(rule.transform(rows)), names, texts, notes)


def _with_names(raw: Raw, wanted: Sequence[str]) -> Raw:
    """A table without a header has the network's columns in their order, or all those of its training table."""
    if raw.named or set(wanted) <= set(raw.names):
        return raw
    if len(raw.names) == len(wanted):
        return raw.renamed(wanted)
    raise ValueError(
        f"{raw.name} has no header and {len(raw.names)} columns; the network reads {len(wanted)}: give a header with "
        f"their names, {_listed(wanted)}, or these columns in this order."
    )


def _places(raw: Raw, wanted: Sequence[str]) -> dict[str, str]:
    """The name in the table of each column that is wanted; case, blanks and marks do not matter where none is alike."""
    from liouville.data.headers import plain

    alike = Counter(map(plain, raw.names))
    loose = {plain(name): name for name in raw.names if alike[plain(name)] == 1}
    twins = Counter(map(plain, wanted))
    found = {}
    for name in wanted:
        if name in raw.names:
            found[name] = name
        elif twins[plain(name)] == 1 and plain(name) in loose:
            found[name] = loose[plain(name)]
    lacking = [name for name in wanted if name not in found]
    if lacking:
        raise ValueError(
            f"{raw.name} lacks {_listed(lacking)}; its columns are {_listed(raw.names)}, and the network reads "
            f"{_listed(wanted)}."
        )
    return found


def _column(raw: Raw, word: str) -> str:
    try:
        return raw.column(word, "--id")
    except ValueError as error:
        raise BadInput(str(error)) from None


def _used(raw: Raw, wanted: Sequence[str], used: set[str], copied: Sequence[str], targets: Sequence[str | None]) -> str:
    """Which columns were read, and which were not."""
    left = [
        f"{name} (the target)" if name in targets else name or "the first"
        for name in raw.names
        if name not in {*used, *copied}
    ]
    count = f"{len(wanted)} columns" if len(wanted) > 1 else "the column"
    return f"{raw.name}: used {count} {_listed(wanted)}" + (f"; left aside {_listed(left)}." if left else ".")


def _unseen(raw: Raw, column: str, found: Sequence[Any]) -> str:
    """What has no input in a column, as training did not have it, or rarely."""
    counts = Counter("missing" if cell is None else repr(cell)[:40] for cell in found)
    shown = [f"{cell} in {n:,} row{'s' * (n > 1)}" for cell, n in list(counts.items())[:3]]
    more = f" and {len(counts) - 3} more" if len(counts) > 3 else ""
    return f"{raw.name}: column {column!r} has values that the network does not know: {', '.join(shown)}{more}."


def _listed(names: Any) -> str:
    shown = [name if len(name) <= 40 else f"{name[:37]}..." for name in names[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
