r"""Columns of a table as a network takes them: numbers scaled, words one-hot, missing values filled, all kept as data.

A column of numbers becomes (v - offset) / scale, with its median where a value is missing, and a second feature that
says so if the training rows lacked some. A column of words, or of categories, becomes one feature for each value that
is frequent enough; a value that was not there, or is missing, has zeros. What was learned is numbers and words, no
object of another library: it goes into a JSON document, and back.
"""

from __future__ import annotations

__all__ = ["Category", "Columns", "Number"]

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from liouville.documents import conform
from liouville.table import Table, Value, as_numbers, as_words, found_by_name, level, sortable, words

_MOST = 100  # values of a column of words that get a feature; rarer ones count as unknown
_Numbers = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Number:
    """A column of numbers.

    Args:
        name: its name.
        offset, scale: mean and standard deviation of what is there; the scale is not 0.
        fill: the median, which stands for a missing value.
        missing: whether a second feature tells missing values.
    """

    name: str
    offset: float
    scale: float
    fill: float
    missing: bool = False

    kind = "number"

    @classmethod
    def of(cls, name: str, values: _Numbers, weight: _Numbers | None) -> Number:
        """What the training rows say; those without a value do not count.

        Raises:
            ValueError: the spread of the numbers is too large for float64.
        """
        there = ~np.isnan(values)
        if not there.any():
            return cls(name, 0.0, 1.0, 0.0, True)
        known = values[there]
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(np.average(known, weights=None if weight is None else weight[there]))
            spread = np.average((known - mean) ** 2, weights=None if weight is None else weight[there])
        if not np.isfinite(spread):
            raise ValueError(
                f"column {name!r} has numbers up to {np.abs(known).max():.3g}, whose spread is too large to compute; "
                "take their logarithm, or another unit."
            )
        scale = math.sqrt(float(spread))
        tiny = 10 * np.finfo(np.float64).eps * max(abs(mean), np.finfo(np.float64).tiny)
        return cls(name, mean, scale if scale > tiny else 1.0, float(np.median(known)), bool((~there).any()))

    def features(self) -> list[str]:
        """The names of its features."""
        return [self.name, f"{self.name} is missing"] if self.missing else [self.name]

    def encode(self, values: np.ndarray) -> list[_Numbers]:
        """(value - offset) / scale, and 1 where there is none."""
        if values.dtype.kind != "f":
            raise ValueError(f"column {self.name!r} was of numbers in training, and now has words.")
        absent = np.isnan(values)
        scaled = (np.where(absent, self.fill, values) - self.offset) / self.scale
        return [scaled, absent.astype(np.float64)] if self.missing else [scaled]


@dataclass(frozen=True)
class Category:
    """A column of words.

    Args:
        name: its name.
        values: those that have a feature, in this order.
        missing: whether missing values have one, too.
    """

    name: str
    values: tuple[Value, ...]
    missing: bool = False

    kind = "category"

    @classmethod
    def of(cls, name: str, values: np.ndarray, weight: _Numbers | None) -> Category:
        """The most frequent values of the training rows, sorted."""
        counts: dict[Value, float] = {}
        weights = np.ones(len(values)) if weight is None else weight
        for value, w in zip(values, weights, strict=True):
            if value is not None:
                counts[value] = counts.get(value, 0.0) + float(w)
        frequent = sorted(counts, key=lambda value: (-counts[value], sortable(value)))[:_MOST]
        return cls(name, tuple(sorted(frequent, key=sortable)), any(value is None for value in values))

    def features(self) -> list[str]:
        """The names of its features."""
        return [f"{self.name} = {v}" for v in self.values] + ([f"{self.name} is missing"] if self.missing else [])

    def encode(self, values: np.ndarray) -> list[_Numbers]:
        """1 in the feature of its value, 0 in the others."""
        texts = all(isinstance(value, str) for value in self.values)
        if texts and self.values and any(not isinstance(value, str | None) for value in values):
            raise ValueError(f"column {self.name!r} was of words in training, and now has numbers.")
        place: dict[Value | None, int] = {value: k for k, value in enumerate(self.values)}
        if self.missing:
            place[None] = len(place)
        codes = np.array([place.get(value, -1) for value in values], dtype=np.int64)
        return [(codes == k).astype(np.float64) for k in range(len(place))]


@dataclass(frozen=True)
class Columns:
    """What the columns of a table become, learned from its training rows.

    Args:
        columns: in their order.
        named: whether they have names of their own; else they are known by their places.

    Examples:
        >>> rows = np.array([[1.0, "red"], [3.0, "blue"], [None, "red"]], dtype=object)
        >>> columns = Columns.fit(Table(rows))
        >>> columns.features()
        ['x0', 'x0 is missing', 'x1 = blue', 'x1 = red']
        >>> columns.transform(np.array([[2.0, "green"]], dtype=object)).tolist()
        [[0.0, 0.0, 0.0, 0.0]]
        >>> Columns.from_dict(columns.as_dict()) == columns
        True
    """

    columns: tuple[Number | Category, ...]
    named: bool = False

    @classmethod
    def fit(cls, table: Table, weight: _Numbers | None = None) -> Columns:
        """From training rows, with a weight for each."""
        made = [
            (Number if values.dtype.kind == "f" else Category).of(name, values, weight)
            for name, values in zip(table.names, table.columns, strict=True)
        ]
        return cls(tuple(made), table.named)

    def features(self) -> list[str]:
        """The names of what the network gets."""
        return [name for column in self.columns for name in column.features()]

    @property
    def width(self) -> int:
        """How many features there are."""
        return len(self.features())

    def categorical(self) -> list[int]:
        """The places of the columns of words."""
        return [k for k, column in enumerate(self.columns) if isinstance(column, Category)]

    def transform(self, data: Any) -> _Numbers:
        """(rows, features) in float64.

        Args:
            data: as for `Table`, of these columns in this order.

        Raises:
            ValueError: another number of columns, words where there were numbers; or as `Table`.
        """
        width = len(data.columns) if isinstance(data, Table) else np.shape(data)[1]
        if width != len(self.columns):
            raise ValueError(f"expected {len(self.columns)} columns, got {width}.")
        table = data if isinstance(data, Table) else Table(data, self.categorical())
        parts: list[_Numbers] = []
        for column, values in zip(self.columns, table.columns, strict=True):
            parts += column.encode(values)
        return np.column_stack(parts) if parts else np.zeros((len(table), 0))

    def by_name(self, raw: Any) -> Table:
        """Rows whose columns are found by name, in any order, among others or not.

        Args:
            raw: a DataFrame, a mapping from names to cells, or mappings, one for each row. Rows without names have the
                cells of all columns in order. Numbers may be text; text of categories is compared without blanks
                around it, and None, NaN and empty text are missing.

        Raises:
            ValueError: a column is missing, or a cell of a column of numbers is no finite number.

        Examples:
            >>> columns = Columns((Number("age", 40.0, 10.0, 38.0), Category("city", ("Bonn", "Rome"))), named=True)
            >>> columns.transform(columns.by_name([{"city": "Rome", "age": "50"}, {"city": "", "age": None}])).tolist()
            [[1.0, 0.0, 1.0], [-0.2, 0.0, 0.0]]
        """
        found = found_by_name(raw, [column.name for column in self.columns])
        read = {}
        for column in self.columns:
            cells = found[column.name]
            if isinstance(column, Number):
                read[column.name] = as_numbers(cells, column.name)
            elif all(isinstance(value, str) for value in column.values):
                read[column.name] = as_words(np.array([level(cell) for cell in cells], dtype=object))
            else:
                read[column.name] = words(cells, column.name)
        return Table.of(read)

    def unseen(self, table: Table) -> dict[str, list[Value | None]]:
        """By column, the cells that training did not have: other categories, missing values (None) where none were."""
        found: dict[str, list[Value | None]] = {}
        for column, cells in zip(self.columns, table.columns, strict=True):
            if isinstance(column, Number):
                new: list[Value | None] = [] if column.missing else [None] * int(np.isnan(cells).sum())
            else:
                known = {*column.values, *([None] if column.missing else [])}
                new = [cell for cell in cells if cell not in known]
            if new:
                found[column.name] = new
        return found

    def as_dict(self) -> dict[str, Any]:
        """A JSON value that `from_dict` turns into equal columns."""
        made = [{"kind": column.kind} | dataclasses.asdict(column) for column in self.columns]
        return {"columns": [{k: list(v) if isinstance(v, tuple) else v for k, v in c.items()} for c in made]} | {
            "named": self.named
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Columns:
        """The columns that `as_dict` wrote.

        Raises:
            ValueError: they are damaged.
        """
        conform(value, dict[str, Any], "columns")
        conform(value.get("named"), bool, "columns.named")
        conform(value.get("columns"), list[dict[str, Any]], "columns.columns")
        made = []
        for k, given in enumerate(value["columns"]):
            kind = {"number": Number, "category": Category}.get(str(given.get("kind")))
            if kind is None:
                raise ValueError(
                    f"columns.columns[{k}].kind must be 'number' or 'category', got {given.get('kind')!r}."
                )
            rest = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items() if name != "kind"}
            conform({n: list(v) if isinstance(v, tuple) else v for n, v in rest.items()}, kind, f"columns.columns[{k}]")
            made.append(kind(**rest))
        if any(isinstance(column, Number) and not column.scale for column in made):
            raise ValueError("columns: a scale of 0, by which numbers would be divided.")
        return cls(tuple(made), value["named"])
