"""The rows of a table of one's own in two parts, its columns looked at one by one and made what a network reads."""

from __future__ import annotations

__all__ = ["load_table", "targets_of"]

from typing import TYPE_CHECKING, Any

import numpy
import torch

from liouville.columns import Columns
from liouville.data.cells import number
from liouville.data.headers import listed
from liouville.data.kinds import Column, Fault, look, require_usable
from liouville.data.raw import Raw
from liouville.data.split import Split
from liouville.table import Table

if TYPE_CHECKING:
    from liouville.data.own import TableFile

_LEAST = 10  # rows, for training, validation and test part
_FEW = 20  # whole numbers that may be names of classes


def load_table(file: TableFile, dtype: torch.dtype = torch.float32, notes: list[str] | None = None) -> Split:
    """What `TableFile.load` gives."""
    raw = file.raw()
    targets = targets_of(raw, file)
    inputs, words, told = _columns(raw, file, [y.name for y in targets])
    faults: list[Fault] = []
    found = []
    for name, cells in zip(inputs, raw.cells(inputs), strict=True):
        try:
            column = _looked(raw, name, cells, name in words)
            if name not in words:
                require_usable(column, raw.rows)
            found.append(column)
        except Fault as fault:
            faults.append(fault)
    _raise(raw, faults)
    split = _split(raw, file, found, targets, dtype, told)
    if notes is not None:
        notes += [*raw.notes, *told]
    return split


def targets_of(raw: Raw, file: TableFile) -> list[Column]:
    """The columns to predict, fit for it: one, several of numbers, or several of classes.

    Raises:
        ValueError: there is no such column, or nothing can be learned of it.
    """
    found = [_target_of(raw, file, word) for word in file.targets]
    names = [y.name for y in found]
    if not names:
        raise ValueError(f"{raw.name}: there is no target; name a column.")
    twice = next((name for k, name in enumerate(names) if name in names[:k]), None)
    if twice is not None:
        raise ValueError(f"{raw.name}: {twice!r} is named as a target twice; name it once.")
    words, numbers = (next((y for y in found if (y.kind == "numbers") is real), None) for real in (False, True))
    if words is not None and numbers is not None:
        raise ValueError(
            f"{raw.name}: the target {words.name!r} has classes and {numbers.name!r} has numbers; targets are all of "
            f"one kind, so say --category {numbers.name!r}, or predict one of them by a network of its own."
        )
    return found


def _target_of(raw: Raw, file: TableFile, word: str) -> Column:
    name = raw.column(word, "--target")
    if raw.rows < _LEAST:
        rows = "1 row" if raw.rows == 1 else f"{raw.rows} rows"
        raise ValueError(f"{raw.name} has {rows}; training, validation and test part need at least {_LEAST}.")
    words = _words(raw, file)
    try:
        y = _looked(raw, name, raw.cells([name])[0], name in words)
    except Fault as fault:
        _raise(raw, [Fault(name, fault.what, "correct it, or name another target")])
        raise
    _require_target(raw, y, name in words)
    return y


def _words(raw: Raw, file: TableFile) -> set[str]:
    """The columns that are declared to be categories, by the user or by the file."""
    return {raw.column(word, "--category") for word in file.categories} | raw.words


def _columns(raw: Raw, file: TableFile, targets: list[str]) -> tuple[list[str], set[str], list[str]]:
    """The inputs, those declared to be categories, and notes."""
    told = []
    ids = [raw.column(word, "--id") for word in file.ids]
    for target in targets:
        if target in ids:
            raise ValueError(f"{target!r} is the target, and --id leaves it out; name another column.")
    if raw.index is not None and raw.index not in (*targets, *ids):
        told.append(f"{raw.name}: the first column has no name, and is left out as an index.")
        ids.append(raw.index)
    numbered = [name for name in raw.names if number(name) is not None]
    if raw.named and numbered and file.header == "auto":
        told.append(
            f"{raw.name}: {listed(numbered)} are taken for names of columns; if they are data, say --header no."
        )
    inputs = [name for name in raw.names if name not in (*targets, *ids)]
    if not inputs:
        left = ", ".join((*targets, *ids))
        raise ValueError(f"{raw.name} has no column besides {left}; there is nothing to learn from.")
    return inputs, _words(raw, file), told


def _looked(raw: Raw, name: str, cells: list[str], words: bool) -> Column:
    """The column, or a `Fault`."""
    if name in raw.times:
        advice = "give numbers made of them (year, month, days since a day), or leave them out with --id COLUMN"
        raise Fault(name, "has dates or times", advice)
    return look(name, cells, words, raw.where, "--category COLUMN")


def _raise(raw: Raw, faults: list[Fault]) -> None:
    """One sentence for the first fault, with the other columns that it advises the same for."""
    if not faults:
        return
    same = [f for f in faults if f.advice == faults[0].advice]
    shown = [f"column {f.column!r} {f.what}" for f in same[:3]]
    others = [f.column for f in same[3:]]
    if others:
        shown.append(f"and so have {listed(others)}")
    raise ValueError(f"{raw.name}: {', '.join(shown)}; {same[0].advice}.")


def _require_target(raw: Raw, y: Column, declared: bool) -> None:
    what = f"{raw.name}: the target {y.name!r}"
    if y.kind == "empty":
        raise ValueError(f"{what} is empty in every row; name another column.")
    if y.missing:
        k = next(k for k, value in enumerate(y.values) if value is None or value != value)
        place = raw.where(k).split(", ", 1)[1]
        raise ValueError(
            f"{what} is missing in {y.missing:,} of {raw.rows:,} rows, the first is {place}; fill or remove these rows."
        )
    if y.different == 1:
        value = y.values[0]
        shown = f"{value:g}" if y.kind == "numbers" else repr(value)
        kind = "" if y.kind == "numbers" else " class"
        raise ValueError(
            f"{what} has one{kind or ' value'} only, {shown}; there is nothing to learn, name another column."
        )
    if y.kind == "numbers":
        return
    if y.different > _FEW and 2 * y.different > raw.rows and not declared:
        raise ValueError(
            f"{what} has {y.different:,} different texts in {raw.rows:,} rows, too many for classes; name another "
            "column."
        )
    counts: dict[str, int] = {}
    for value in y.values:
        counts[value] = counts.get(value, 0) + 1
    single = [name for name, n in counts.items() if n == 1]
    if single:
        rows = "has the class" if len(single) == 1 else "has the classes"
        raise ValueError(
            f"{what} {rows} {listed(single)} in one row only, and training and test part need one each; merge such "
            "classes or remove these rows."
        )


def _split(
    raw: Raw, file: TableFile, found: list[Column], targets: list[Column], dtype: torch.dtype, told: list[str]
) -> Split:
    labels, names = _labels(targets)
    several = len(targets) > 1
    one = labels is not None and not several
    train, test = _parts(raw.rows, labels if one else None, len(names) if one else 0, file, raw.name)
    if labels is not None and several:
        _require_seen(raw, targets, labels[train], names)
    cells = {column.name: column.values for column in found if column.kind != "empty"}
    rule = _fitted(raw, {name: values[train] for name, values in cells.items()})
    used = {column.name for column in rule.columns}
    left = [column.name for column in found if column.name not in used]
    if left:
        told.append(f"{raw.name}: left out, as nothing varies in it in the training part: {listed(left)}.")
    told += _hints(raw, [column for column in found if column.name in used], targets)
    names_of = rule.features()
    rows = Table.of({column.name: cells[column.name] for column in rule.columns})
    x = torch.from_numpy(rule.transform(rows)).to(dtype)
    if not x.isfinite().all():
        bad = names_of[int((~x.isfinite()).any(0).nonzero()[0])]
        raise ValueError(f"{raw.name}: column {bad!r} has numbers too far apart for {dtype}; take their logarithm.")
    maps: dict[str, Any] = {}
    if names:
        target = torch.from_numpy(labels)
    else:
        columns = [numpy.asarray(y.values, dtype=numpy.float64) for y in targets]
        values = torch.from_numpy(numpy.stack(columns, 1))
        scale, offset = torch.std_mean(values[train], dim=0, correction=0)
        for k, y in enumerate(targets):
            if not (scale[k].isfinite() and offset[k].isfinite()):
                raise ValueError(f"{raw.name}: the target {y.name!r} has numbers too large; take another unit.")
            if not scale[k]:
                raise ValueError(
                    f"{raw.name}: the target {y.name!r} has one value only in the training part; more rows?"
                )
        maps = {"target_offset": offset, "target_scale": scale}
        target = ((values - offset) / scale).to(dtype)
    return Split(
        x[train],
        target[train],
        x[test],
        target[test],
        file.name,
        tuple(map(len, names)) if several and names else len(names),
        label_names=names or None,
        column_names=tuple(names_of) if len(set(names_of)) == len(names_of) else None,
        preprocessing=rule,
        target=targets[0].name if len(targets) == 1 else None,
        targets=tuple(y.name for y in targets) if len(targets) > 1 else None,
        **maps,
    )


def _fitted(raw: Raw, cells: dict[str, Any]) -> Columns:
    """What the columns become, learned from the training rows; columns without two different values are left out."""
    varied = {name: values for name, values in cells.items() if _varies(values)}
    if not varied:
        raise ValueError(
            f"{raw.name}: no column besides the target has two different values; there is nothing to learn."
        )
    try:
        return Columns.fit(Table.of(varied))
    except ValueError as error:
        raise ValueError(f"{raw.name}: {error}") from None


def _varies(values: Any) -> bool:
    """Whether there are two different values, a missing one among them."""
    if values.dtype == object:
        return len(set(values.tolist())) > 1
    known = values[~numpy.isnan(values)]
    return len(known) > 0 and bool(len(known) < len(values) or (known != known[0]).any())


def _labels(targets: list[Column]) -> tuple[Any, tuple[Any, ...]]:
    """The number of each row's class, and the names of the classes in their order, of several targets for each, side
    by side; none for real targets."""
    if targets[0].kind == "numbers":
        return None, ()
    found, known = [], []
    for y in targets:
        names = sorted(set(y.values), key=_order)
        places = {name: k for k, name in enumerate(names)}
        found.append(numpy.array([places[value] for value in y.values], dtype=numpy.int64))
        known.append(tuple(names))
    return (found[0], known[0]) if len(targets) == 1 else (numpy.stack(found, 1), tuple(known))


def _require_seen(raw: Raw, targets: list[Column], labels: Any, names: tuple[Any, ...]) -> None:
    """Raise where a class is in the test part only, which is drawn without regard to classes of several targets."""
    for y, own, column in zip(targets, names, labels.T, strict=True):
        unseen = sorted(set(range(len(own))) - set(column.tolist()))
        if unseen:
            raise ValueError(
                f"{raw.name}: the target {y.name!r} has the class {own[unseen[0]]!r} in too few rows, none of which is "
                "in the training part; merge such classes or remove these rows."
            )


def _order(name: str) -> tuple[bool, float, str]:
    """Numbers first, in the order of their size."""
    value = number(name)
    return value is None, value or 0.0, name


def _parts(rows: int, labels: Any, classes: int, file: TableFile, name: str) -> tuple[Any, Any]:
    """The rows of the training part and of the test part, in the order of the table."""
    try:
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ImportError("training on a table needs scikit-learn: pip install 'liouville[data]'") from error
    least = max(classes, 1)
    number = max(round(file.test_fraction * rows), least) if 0 < file.test_fraction < 1 else 0
    if not least <= number <= rows - max(least, 2):
        raise ValueError(
            f"test_fraction {file.test_fraction} of the {rows} rows of {name} leaves too few for training or test; "
            f"each class needs a row in both parts, and the default is 0.2."
        )
    train, test = train_test_split(range(rows), test_size=number, random_state=file.seed, stratify=labels)
    return sorted(train), sorted(test)


def _hints(raw: Raw, found: list[Column], targets: list[Column]) -> list[str]:
    """What a user may have meant otherwise."""
    told = []
    y = targets[0]
    few = y.kind == "numbers" and y.different <= _FEW and (y.values == numpy.floor(y.values)).all()
    if len(targets) == 1 and few:
        told.append(
            f"{raw.name}: the target {y.name!r} has {y.different} different whole numbers, and is taken as a quantity "
            f"(regression); --category {y.name} makes classes of them."
        )
    for column in found:
        if column.kind == "numbers" and raw.rows > _FEW and not column.missing:
            steps = numpy.diff(column.values)
            if (steps == 1).all() and column.values[0] in (0, 1):
                told.append(
                    f"{raw.name}: column {column.name!r} counts the rows, and is an input; --id {column.name} leaves "
                    "it out."
                )
    return told
