"""A table of one's own: which file, which column is predicted, and how it becomes training and test part."""

from __future__ import annotations

__all__ = ["TableFile", "is_file_name", "load_table"]

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from liouville.data import preprocessing
from liouville.data.headers import listed
from liouville.data.kinds import Column, Fault, look, require_usable
from liouville.data.raw import Raw, read_raw
from liouville.data.split import Split, real_number, whole_number

_LEAST = 10  # rows, for training, validation and test part
_FEW = 20  # whole numbers that may be names of classes
_SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".dat", ".data", ".parquet", ".pq", ".gz")


@dataclass(frozen=True)
class TableFile:
    """A table in a file, and what is to be learned from it; `load_table` reads it.

    Args:
        path: of a table of text, or of a Parquet file.
        target: the column to predict: real numbers, or text, which are classes.
        ids: columns that are no inputs.
        categories: columns of numbers that are categories; the target among them has classes.
        header: whether the first row of a table of text has the names of the columns; "auto" sees.
        test_fraction: share of the rows in the test part.
        seed: of the division into training and test part.

    Raises:
        ValueError: a value out of range.
    """

    path: str
    target: str
    ids: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    header: Literal["auto", "yes", "no"] = "auto"
    test_fraction: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        real_number("test_fraction", self.test_fraction, low=0.0, high=1.0)
        whole_number("seed", self.seed, low=0, high=2**32 - 1)

    @property
    def name(self) -> str:
        """What the data set is called: the file's name without its endings."""
        stem = re.sub(r"(\.[A-Za-z]+)+$", "", Path(self.path).name) or Path(self.path).name
        return stem if stem.isprintable() else "table"

    def load(self, dtype: torch.dtype = torch.float32, notes: list[str] | None = None) -> Split:
        """As `load_table`."""
        return load_table(self, dtype, notes)

    def rows(self) -> int:
        """How many there are; no cell is looked at."""
        return self.raw().rows

    def raw(self) -> Raw:
        """What is in the file, which messages call by its place below the present folder, if it is there."""
        path = Path(self.path)
        below = path.is_absolute() and path.is_relative_to(Path.cwd())
        return read_raw(path, str(path.relative_to(Path.cwd()) if below else path), self.header, (self.target,))

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> TableFile:
        """The one that `dataclasses.asdict` made a JSON value of."""
        given: dict[str, Any] = {key: tuple(part) if isinstance(part, list) else part for key, part in value.items()}
        return cls(**given)


def is_file_name(word: str) -> bool:
    """Whether ``word`` names a file rather than a data set.

    Examples:
        >>> is_file_name("my.csv"), is_file_name("../flowers"), is_file_name("iris")
        (True, True, False)
    """
    return Path(word).suffix.lower() in _SUFFIXES or "/" in word or "\\" in word or Path(word).is_file()


def load_table(file: TableFile, dtype: torch.dtype = torch.float32, notes: list[str] | None = None) -> Split:
    """The rows of a table in two parts, their columns as a network reads them.

    Numbers have mean 0 and standard deviation 1 in the training part, the median stands for missing ones, and a column
    says where; categories have an input for each level. Real targets are standardised too. Classes keep their
    proportions in both parts.

    Args:
        file: where it is, and what is predicted.
        dtype: of the inputs.
        notes: takes sentences on what had to be guessed or left out.

    Raises:
        OSError: the file cannot be read.
        ImportError: pandas or scikit-learn is not installed.
        ValueError: whatever cannot be learned from, in one sentence that names row or column.
    """
    raw = file.raw()
    target, inputs, words, told = _columns(raw, file)
    faults: list[Fault] = []
    cells = dict(zip((*inputs, target), raw.cells((*inputs, target)), strict=True))
    found = [c for name in inputs if (c := _looked(raw, name, cells.pop(name), name in words, faults)) is not None]
    y = _looked(raw, target, cells.pop(target), target in words, faults, target=True)
    for column in found:
        try:
            require_usable([column], raw.rows) if column.name not in words else None
        except Fault as fault:
            faults.append(fault)
    _raise(raw, faults)
    assert y is not None
    _require_target(raw, y, target in words)
    split = _split(raw, file, found, y, dtype, told)
    if notes is not None:
        notes += [*raw.notes, *told]
    return split


def _columns(raw: Raw, file: TableFile) -> tuple[str, list[str], set[str], list[str]]:
    """The target, the inputs, those declared to be categories, and notes."""
    told = []
    target = raw.column(file.target, "--target")
    ids = [raw.column(word, "--id") for word in file.ids]
    words = {raw.column(word, "--category") for word in file.categories} | raw.words
    if target in ids:
        raise ValueError(f"{target!r} is the target, and --id leaves it out; name another column.")
    index = raw.index
    if index is not None and index not in (target, *ids):
        told.append(f"{raw.name}: the first column has no name, and is left out as an index.")
        ids.append(index)
    inputs = [name for name in raw.names if name not in (target, *ids)]
    if not inputs:
        raise ValueError(
            f"{raw.name} has no column besides {', '.join((target, *ids))}; there is nothing to learn from."
        )
    if raw.rows < _LEAST:
        rows = "1 row" if raw.rows == 1 else f"{raw.rows} rows"
        raise ValueError(f"{raw.name} has {rows}; training, validation and test part need at least {_LEAST}.")
    return target, inputs, words, told


def _looked(
    raw: Raw, name: str, cells: list[str], words: bool, faults: list[Fault], target: bool = False
) -> Column | None:
    """The column, or None and a fault."""
    try:
        if name in raw.times:
            advice = "give numbers made of them (year, month, days since a day), or leave them out with --id COLUMN"
            raise Fault(name, "has dates or times", advice)
        return look(name, cells, words, raw.where, "--category COLUMN")
    except Fault as fault:
        faults.append(Fault(name, fault.what, "correct it, or name another target") if target else fault)
        return None


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


def _split(raw: Raw, file: TableFile, found: list[Column], y: Column, dtype: torch.dtype, told: list[str]) -> Split:
    import numpy

    labels, names = _labels(y)
    train, test = _parts(raw.rows, labels, len(names), file, raw.name)
    cells = {column.name: _taken(column, range(raw.rows)) for column in found if column.kind != "empty"}
    rule = _fitted(raw, {name: _taken(c, train) for name, c in cells.items()} if cells else {})
    used = {column.name for column in rule.columns}
    left = [column.name for column in found if column.name not in used]
    if left:
        told.append(f"{raw.name}: left out, as nothing varies in it in the training part: {listed(left)}.")
    told += _hints(raw, [column for column in found if column.name in used], y)
    x = rule.transform(cells).to(dtype)
    if not x.isfinite().all():
        bad = rule.names[int((~x.isfinite()).any(0).nonzero()[0])]
        raise ValueError(f"{raw.name}: column {bad!r} has numbers too far apart for {dtype}; take their logarithm.")
    maps: dict[str, Any] = {}
    if names:
        target = torch.from_numpy(labels)
    else:
        values = torch.from_numpy(numpy.asarray(y.values, dtype=numpy.float64))[:, None]
        scale, offset = torch.std_mean(values[train], dim=0, correction=0)
        if not (scale.isfinite().all() and offset.isfinite().all()):
            raise ValueError(f"{raw.name}: the target {y.name!r} has numbers too large; take another unit.")
        if not scale.all():
            raise ValueError(f"{raw.name}: the target {y.name!r} has one value only in the training part; more rows?")
        maps = {"target_offset": offset, "target_scale": scale}
        target = ((values - offset) / scale).to(dtype)
    return Split(
        x[train],
        target[train],
        x[test],
        target[test],
        file.name,
        len(names),
        label_names=names or None,
        column_names=rule.names,
        preprocessing=rule,
        target=y.name,
        **maps,
    )


def _fitted(raw: Raw, cells: dict[str, Any]) -> Any:
    if not cells:
        raise ValueError(f"{raw.name}: all columns besides the target are empty; there is nothing to learn from.")
    try:
        return preprocessing.fitted(cells)
    except ValueError as error:
        raise ValueError(f"{raw.name}: {error}") from error


def _taken(column: Any, rows: Iterable[int]) -> Any:
    values = column.values if isinstance(column, Column) else column
    return [values[k] for k in rows] if isinstance(values, list) else values[list(rows)]


def _labels(y: Column) -> tuple[Any, tuple[str, ...]]:
    """The number of each row's class, and the names of the classes in their order; none for real targets."""
    import numpy

    if y.kind == "numbers":
        return None, ()
    names = sorted(set(y.values), key=_order)
    places = {name: k for k, name in enumerate(names)}
    return numpy.array([places[value] for value in y.values], dtype=numpy.int64), tuple(names)


def _order(name: str) -> tuple[bool, float, str]:
    """Numbers first, in the order of their size."""
    from liouville.data.cells import number

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


def _hints(raw: Raw, found: list[Column], y: Column) -> list[str]:
    """What a user may have meant otherwise."""
    import numpy

    told = []
    if y.kind == "numbers" and y.different <= _FEW and (y.values == numpy.floor(y.values)).all():
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
