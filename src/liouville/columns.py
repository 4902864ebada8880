r"""Columns of a table as a network takes them: numbers scaled, words one-hot, missing values filled, all kept as data.

A column of numbers becomes (v - offset) / scale, with its median where a value is missing, and a second feature that
says so if the training rows lacked some. A column of words, or of categories, becomes one feature for each value that
is frequent enough; a value that was not there, or is missing, has zeros. What was learned is numbers and words, no
object of another library: it goes into a JSON document, and back.
"""

from __future__ import annotations

__all__ = ["Category", "Columns", "Number", "Table", "level"]

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from liouville.documents import conform

Value = str | int | float | bool
_MOST = 100  # values of a column of words that get a feature; rarer ones count as unknown
_Numbers = np.ndarray[Any, np.dtype[np.float64]]
_MISSING = frozenset(("", "na", "n/a", "#n/a", "<na>", "nan", "null", "nat"))
_WHOLE = re.compile(r"([+-]?[0-9]+)\.0+")


class Table:
    """Rows of named columns, each all numbers (float64, missing ones nan) or all words (objects, missing ones None).

    Args:
        data: a pandas DataFrame, another frame with ``to_pandas``, or an array (rows, columns) of numbers or objects.
        categorical: columns to take as words whatever they hold, by name or place; None or ``"from_dtype"`` goes by the
            dtype of each: category, string, and objects that are words.

    Raises:
        TypeError: a cell is neither number nor word.
        ValueError: an infinite number, dates, a column of both numbers and words, a name that is not there.

    Examples:
        >>> table = Table(np.array([[1.0, "red"], [2.0, None]], dtype=object))
        >>> table.names, [column.dtype.kind for column in table.columns], len(table)
        (('x0', 'x1'), ['f', 'O'], 2)
    """

    def __init__(self, data: Any, categorical: Sequence[str | int] | Literal["from_dtype"] | None = None) -> None:
        if not hasattr(data, "iloc") and hasattr(data, "to_pandas"):
            data = data.to_pandas()
        framed = hasattr(data, "iloc")
        data = data if framed else np.asarray(data)
        self.named = framed and all(isinstance(name, str) for name in data.columns)
        width = data.shape[1]
        self.names = tuple(map(str, data.columns)) if framed else tuple(f"x{k}" for k in range(width))
        chosen = _places(categorical, self.names)
        columns = [data.iloc[:, k] if framed else data[:, k] for k in range(width)]
        self.columns: list[np.ndarray] = [
            _words(column, name) if k in chosen else _read(column, name)
            for k, (name, column) in enumerate(zip(self.names, columns, strict=True))
        ]
        self._rows = int(data.shape[0])

    @classmethod
    def of(cls, columns: Mapping[str, np.ndarray]) -> Table:
        """Columns that are in order already, by their names: float64 with nan, or objects with None."""
        table = object.__new__(cls)
        table.named, table.names, table.columns = True, tuple(columns), list(columns.values())
        table._rows = len(table.columns[0]) if columns else 0
        if any(len(column) != table._rows for column in table.columns):
            raise ValueError(f"all columns must have as many cells, got {[len(c) for c in table.columns][:8]}.")
        return table

    def __len__(self) -> int:
        return self._rows

    def keys(self) -> _Numbers:
        """One number for each cell, equal where the cells are."""
        return np.column_stack([_key(column) for column in self.columns])

    def take(self, rows: np.ndarray) -> Table:
        """Some of the rows."""
        part = object.__new__(Table)
        part.named, part.names, part._rows = self.named, self.names, len(rows)
        part.columns = [column[rows] for column in self.columns]
        return part


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
        """What the training rows say; those without a value do not count."""
        there = ~np.isnan(values)
        if not there.any():
            return cls(name, 0.0, 1.0, 0.0, True)
        known = values[there]
        mean = float(np.average(known, weights=None if weight is None else weight[there]))
        spread = np.average((known - mean) ** 2, weights=None if weight is None else weight[there])
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
        frequent = sorted(counts, key=lambda value: (-counts[value], _sortable(value)))[:_MOST]
        return cls(name, tuple(sorted(frequent, key=_sortable)), any(value is None for value in values))

    def features(self) -> list[str]:
        """The names of its features."""
        return [f"{self.name} = {v}" for v in self.values] + ([f"{self.name} is missing"] if self.missing else [])

    def encode(self, values: np.ndarray) -> list[_Numbers]:
        """1 in the feature of its value, 0 in the others."""
        words = all(isinstance(value, str) for value in self.values)
        if words and self.values and any(not isinstance(value, str | None) for value in values):
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
        found = _by_name(raw, [column.name for column in self.columns])
        read = {}
        for column in self.columns:
            cells = found[column.name]
            if isinstance(column, Number):
                read[column.name] = _as_numbers(cells, column.name)
            elif all(isinstance(value, str) for value in column.values):
                read[column.name] = _as_words(np.array([level(cell) for cell in cells], dtype=object))
            else:
                read[column.name] = _words(cells, column.name)
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


def _places(categorical: Any, names: Sequence[str]) -> set[int]:
    """The places of the columns that somebody calls categorical."""
    if categorical is None or (isinstance(categorical, str) and categorical == "from_dtype"):
        return set()
    if isinstance(categorical, str) or not isinstance(categorical, Iterable):
        raise ValueError(f"categorical columns must be a list of names or places, got {categorical!r}.")
    found = set()
    for asked in categorical:
        place = names.index(asked) if asked in names else asked
        if isinstance(place, str | bool) or not -len(names) <= place < len(names):
            raise ValueError(f"there is no column {asked!r}; there are {len(names)}: {_listed(names)}.")
        found.add(int(place) % len(names))
    return found


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 8 else ", ".join([*names[:7], "..."])


def _read(column: Any, name: str) -> np.ndarray:
    """A column as float64 or as words, by its dtype and, for objects, by what they are."""
    kind = str(column.dtype)
    if kind == "category" or kind.startswith(("str", "<U")) or getattr(column.dtype, "kind", "O") in "US":
        return _words(column, name)
    if getattr(column.dtype, "kind", "O") in "mM" or kind.startswith(("datetime", "timedelta", "period")):
        raise ValueError(f"column {name!r} holds dates; make numbers of them: the year, the month, days since a day.")
    if getattr(column.dtype, "kind", "O") == "c":
        raise ValueError(f"Complex data not supported: column {name!r} holds complex numbers.")
    if getattr(column.dtype, "kind", "O") in "biuf":
        return _finite(_plain(column), name)
    cells = _as_words(np.asarray(column, dtype=object))
    there = [cell for cell in cells if cell is not None]
    words = sum(isinstance(cell, str) for cell in there)
    if there and words == len(there):
        return cells
    if words:
        word = next(cell for cell in there if isinstance(cell, str))
        raise ValueError(
            f"column {name!r} has numbers and words such as {word!r}; make all of one kind, or name it among the "
            "categorical columns."
        )
    if any(hasattr(cell, "year") for cell in there):
        raise ValueError(f"column {name!r} holds dates; make numbers of them: the year, the month, days since a day.")
    try:
        return _finite(np.array([math.nan if cell is None else float(cell) for cell in cells]), name)
    except TypeError as error:
        raise TypeError(f"column {name!r}: {error}.") from error


def _plain(column: Any) -> _Numbers:
    if hasattr(column, "to_numpy") and not isinstance(column.dtype, np.dtype):  # pandas' own, with pd.NA
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=math.nan))
    return np.asarray(column, dtype=np.float64)


def _finite(values: _Numbers, name: str) -> _Numbers:
    if np.isinf(values).any():
        row = int(np.isinf(values).argmax())
        raise ValueError(f"column {name!r} contains infinity, first in row {row}; correct it, or leave it empty.")
    return values + 0.0  # -0.0 is 0.0


def _words(column: Any, name: str) -> np.ndarray:
    """A column as words, or as the numbers that stand for categories; missing ones are None."""
    cells = _as_words(np.asarray(column, dtype=object))
    for cell in cells:
        if not isinstance(cell, Value | None) or (isinstance(cell, float) and math.isinf(cell)):
            raise TypeError(f"column {name!r}: a category must be a string or a number, got {type(cell).__name__}.")
    return cells


def _as_words(values: np.ndarray) -> np.ndarray:
    cells = np.empty(len(values), dtype=object)
    cells[:] = [_cell(value) for value in values]
    return cells


def _cell(value: Any) -> Any:
    """A plain Python value; None for nan, NaT and the like, which are not equal to themselves."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value):
        return None
    return value


def level(cell: Any) -> str | None:
    """A cell as the text of a category: blanks joined, whole numbers without a point; None where it is missing.

    Examples:
        >>> level(" New  York "), level(3.0), level("3.0"), level(True), level("NA"), level(float("nan"))
        ('New York', '3', '3', 'True', None, None)
    """
    cell = _cell(cell)
    text = "" if cell is None else " ".join(str(cell).split())
    if text.casefold() in _MISSING:
        return None
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text


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
        raise ValueError(f"the table lacks {', '.join(map(repr, lacking))}; the inputs are {_listed(names)}.")
    return found


def _in_order(raw: Any, width: int) -> list[Any]:
    """The columns of rows whose cells are in order."""
    rows = raw.tolist() if hasattr(raw, "tolist") else list(raw)
    if not all(isinstance(row, list | tuple) and len(row) == width for row in rows):
        raise ValueError(f"expected rows of {width} cells, in the order of the columns, or a table with their names.")
    return [list(cells) for cells in zip(*rows, strict=True)] or [[] for _ in range(width)]


def _as_numbers(cells: Any, name: str) -> _Numbers:
    """Float64, missing cells as nan; text is read."""
    if getattr(getattr(cells, "dtype", None), "kind", "O") in "biuf":
        return _finite(_plain(cells), name)
    values = np.empty(len(cells))
    for k, cell in enumerate(cells):
        plain = _cell(cell)
        text = plain.strip() if isinstance(plain, str) else plain
        try:
            if isinstance(text, str) and ("_" in text or not text.isascii()):
                raise ValueError
            missing = text is None or (isinstance(text, str) and text.casefold() in _MISSING)
            values[k] = math.nan if missing else float(text)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(
                f"column {name!r} has numbers, got {cell!r} in row {k + 1}; correct or empty it."
            ) from None
    return _finite(values, name)


def _sortable(value: Value) -> tuple[bool, float, str]:
    return (True, 0.0, value) if isinstance(value, str) else (False, float(value), "")


def _key(column: np.ndarray) -> _Numbers:
    if column.dtype.kind == "f":
        return np.where(np.isnan(column), np.inf, column)
    values = sorted({value for value in column if value is not None}, key=_sortable)
    place = {value: float(k) for k, value in enumerate(values)}
    return np.array([np.inf if value is None else place[value] for value in column])
