"""Preprocessing of a table: how raw columns, numbers and categories, become what a network reads.

It is data: names and numbers, which JSON holds and which travel with a network under the hash of its file.
`liouville.data.preprocessing` fits it.
"""

from __future__ import annotations

__all__ = ["Categorical", "Numeric", "Preprocessing", "level"]

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from liouville.documents import Name, conform

OTHER = "(other)"
_MISSING = frozenset(("", "na", "n/a", "#n/a", "<na>", "nan", "null", "nat"))
_WHOLE = re.compile(r"([+-]?[0-9]+)\.0+")


@dataclass(frozen=True)
class Numeric:
    """A column of numbers: x -> (x - offset) / scale, and 1 or 0 beside it where a missing value is told from others.

    Args:
        name: of the column.
        offset, scale: mean and standard deviation of the column in training.
        fill: what stands for a missing value, before scaling.
        missing: whether there is a second output, 1 for a missing value and else 0.
    """

    name: Name
    offset: float
    scale: float
    fill: float
    missing: bool = False

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.offset, self.scale, self.fill))) or not self.scale:
            raise ValueError(f"column {self.name!r}: offset, scale and fill must be finite, and scale not 0.")

    @property
    def outputs(self) -> tuple[str, ...]:
        """A name for each output."""
        return (self.name, f"{self.name} is missing") if self.missing else (self.name,)

    def encoded(self, cells: Any) -> Tensor:
        """(rows, outputs) in float64."""
        values = _numbers(cells, self.name)
        lost = values.isnan()
        scaled = (values.where(~lost, torch.tensor(self.fill, dtype=values.dtype)) - self.offset) / self.scale
        return torch.stack((scaled, lost.double()) if self.missing else (scaled,), 1)

    def unseen(self, cells: Any) -> list[str]:
        """The cells of a kind that training did not have, as text: missing ones, where none were."""
        return [] if self.missing else ["missing"] * int(_numbers(cells, self.name).isnan().sum())


@dataclass(frozen=True)
class Categorical:
    """A column of categories: one output for each level, 1 where the cell has it and else 0.

    A cell of another level has 0 everywhere, or 1 in the output that rare levels share, if there is one.

    Args:
        name: of the column.
        levels: those that have an output.
        missing: whether a missing value has one, too; else it counts as another level.
        other: whether all other levels share one.
    """

    name: Name
    levels: tuple[Name, ...]
    missing: bool = False
    other: bool = False

    def __post_init__(self) -> None:
        if len(set(self.levels)) < len(self.levels):
            raise ValueError(f"column {self.name!r}: a level stands twice in {list(self.levels)!r}.")

    @property
    def outputs(self) -> tuple[str, ...]:
        """A name for each output."""
        more = [f"{self.name} is missing"] * self.missing + [f"{self.name}={OTHER}"] * self.other
        return (*(f"{self.name}={one}" for one in self.levels), *more)

    def encoded(self, cells: Any) -> Tensor:
        """(rows, outputs) in float64."""
        known: dict[str | None, int] = {one: k for k, one in enumerate(self.levels)}
        if self.missing:
            known[None] = len(known)
        rest = len(known)
        places = torch.tensor([known.get(one, rest) for one in _levels(cells)], dtype=torch.int64)
        hot = torch.nn.functional.one_hot(places, rest + 1).double()
        return hot if self.other else hot[:, :rest]

    def unseen(self, cells: Any) -> list[str]:
        """The cells of a kind that training did not have, as text."""
        known = {*self.levels, *([None] if self.missing else [])}
        found = [one for one in _levels(cells) if one not in known] if not self.other else []
        return ["missing" if one is None else repr(one) for one in found]


Column = Numeric | Categorical


@dataclass(frozen=True)
class Preprocessing:
    """Raw columns -> the inputs of a network, column after column.

    Args:
        columns: in the order of the network's inputs.

    Raises:
        ValueError: no columns, names that are there twice, or parts of another kind.

    Examples:
        >>> rule = Preprocessing((Numeric("age", 40.0, 10.0, 38.0), Categorical("city", ("Bonn", "Rome"))))
        >>> rule.names
        ('age', 'city=Bonn', 'city=Rome')
        >>> rule.transform([{"city": "Rome", "age": 50}, {"age": None, "city": "Oslo"}]).tolist()
        [[1.0, 0.0, 1.0], [-0.2, 0.0, 0.0]]
    """

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        conform(self.as_dict(), _Written, "preprocessing")
        names = [column.name for column in self.columns]
        if len(set(names)) < len(names) or not self.width:
            raise ValueError(f"preprocessing needs columns of different names with outputs, got {names!r}.")

    @property
    def width(self) -> int:
        """The number of the network's inputs."""
        return sum(len(column.outputs) for column in self.columns)

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each of the network's inputs; different ones."""
        found: list[str] = []
        taken: set[str] = set()
        for column in self.columns:
            for name in column.outputs:
                while name in taken:
                    name += "'"
                taken.add(name)
                found.append(name)
        return tuple(found)

    def transform(self, raw: Any) -> Tensor:
        """The network's inputs, (rows, width) in float64.

        Args:
            raw: a DataFrame, or a mapping from the names of columns to their cells, or a list of such mappings, one
                for each row: columns are found by name, others are left aside. Or rows of cells in the order of the
                columns. Numbers are numbers or text in ASCII, categories anything; None, NaN and empty text are
                missing.

        Raises:
            ValueError: a column is missing, or a cell of a column of numbers is no finite number.
        """
        return torch.cat([column.encoded(cells) for column, cells in self._pairs(raw)], 1)

    def unseen(self, raw: Any) -> dict[str, list[str]]:
        """By column, what is in the rows and was not in training: other levels, missing values where none were."""
        found = {column.name: column.unseen(cells) for column, cells in self._pairs(raw)}
        return {name: cells for name, cells in found.items() if cells}

    def _pairs(self, raw: Any) -> Iterator[tuple[Column, Any]]:
        found = _by_name(raw, [column.name for column in self.columns])
        sizes = {len(cells) for cells in found.values()}
        if len(sizes) > 1:
            raise ValueError(f"all columns must have as many cells, got {', '.join(map(str, sorted(sizes)))}.")
        return ((column, found[column.name]) for column in self.columns)

    def as_dict(self) -> dict[str, Any]:
        """A JSON value that `from_dict` turns into an equal record."""
        columns = [dataclasses.asdict(column) for column in self.columns]
        return {"columns": [column | _listed(column) for column in columns]}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Preprocessing:
        """What `as_dict` wrote.

        Raises:
            ValueError: it is damaged.
        """
        conform(value, _Written, "preprocessing")
        made = [
            Categorical(**{**column, "levels": tuple(column["levels"])}) if "levels" in column else Numeric(**column)
            for column in value["columns"]
        ]
        return cls(tuple(made))


@dataclass(frozen=True)
class _Written:
    columns: list[Column]


def level(cell: Any) -> str | None:
    """A cell as the text of a level: blanks joined, whole numbers without a point; None where it is missing.

    Examples:
        >>> level(" New  York "), level(3.0), level("3.0"), level(True), level("NA"), level(float("nan"))
        ('New York', '3', '3', 'True', None, None)
    """
    if not isinstance(cell, str):
        if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
            return None
        cell = str(cell.item() if hasattr(cell, "item") else cell)
    text = " ".join(cell.split())
    if text.casefold() in _MISSING:
        return None
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text


def _levels(cells: Any) -> list[str | None]:
    values = cells.tolist() if hasattr(cells, "tolist") else cells
    known: dict[Any, str | None] = {}
    return [_remembered(level, cell, known) for cell in values]


def _numbers(cells: Any, name: str) -> Tensor:
    """The cells as float64, missing ones as NaN."""
    array = cells.to_numpy() if hasattr(cells, "to_numpy") else cells
    if getattr(getattr(array, "dtype", None), "kind", "") in tuple("iuf"):
        values = torch.from_numpy(array.astype("float64"))
    elif isinstance(array, Tensor):
        values = array.double().cpu()
    else:
        known: dict[Any, float | None] = {}
        listed = list(array)
        found = [_remembered(_number, cell, known) for cell in listed]
        if None in found:
            k = found.index(None)
            raise ValueError(f"column {name!r} has numbers, got {listed[k]!r} in row {k + 1}; correct or empty it.")
        values = torch.tensor(found, dtype=torch.float64)
    if values.isinf().any():
        row = int(values.isinf().nonzero()[0]) + 1
        raise ValueError(f"column {name!r} is infinite in row {row}; correct or empty it.")
    return values


def _number(cell: Any) -> float | None:
    """NaN for a missing cell, None for what is no number."""
    if isinstance(cell, str):
        text = cell.strip()
        if text.casefold() in _MISSING:
            return math.nan
        try:
            return float(text) if text.isascii() and "_" not in text else None
        except ValueError:
            return None
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return math.nan
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return None


def _remembered(function: Callable[[Any], Any], cell: Any, known: dict[Any, Any]) -> Any:
    """``function(cell)``, computed once for each text."""
    if not isinstance(cell, str):
        return function(cell)
    if cell not in known:
        known[cell] = function(cell)
    return known[cell]


def _by_name(raw: Any, names: Sequence[str]) -> dict[str, Any]:
    if hasattr(raw, "columns") and hasattr(raw, "__getitem__"):  # a data frame
        found = {str(name): raw[name] for name in raw.columns if str(name) in names}
        if any(getattr(cells, "ndim", 1) != 1 for cells in found.values()):
            raise ValueError("the table has two columns of one name; give each column one name.")
    elif isinstance(raw, Mapping):
        found = {str(name): cells for name, cells in raw.items()}
    elif isinstance(raw, Sequence) and raw and all(isinstance(row, Mapping) for row in raw):
        found = {name: [row[name] for row in raw] for name in names if all(name in row for row in raw)}
    else:
        return dict(zip(names, _in_order(raw, len(names)), strict=True))
    lacking = [name for name in names if name not in found]
    if lacking:
        raise ValueError(f"the table lacks {', '.join(map(repr, lacking))}; the inputs are {', '.join(names)}.")
    return {name: found[name] for name in names}


def _in_order(raw: Any, width: int) -> list[Any]:
    """The columns of rows whose cells stand in order."""
    rows = raw.tolist() if hasattr(raw, "tolist") else list(raw)
    if not all(isinstance(row, list | tuple) and len(row) == width for row in rows):
        raise ValueError(f"expected rows of {width} cells, in the order of the columns, or a table with their names.")
    return [list(cells) for cells in zip(*rows, strict=True)] or [[] for _ in range(width)]


def _listed(column: Mapping[str, Any]) -> dict[str, Any]:
    return {"levels": list(column["levels"])} if "levels" in column else {}
