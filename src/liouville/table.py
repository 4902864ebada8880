"""A table in memory: rows of named columns, from a frame, an array or records, each column numbers or words."""

from __future__ import annotations

__all__ = ["Table", "Value", "as_numbers", "as_words", "found_by_name", "level", "sortable", "truths", "words"]

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

Value = str | int | float | bool
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
            words(column, name) if k in chosen else _read(column, name)
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
        return words(column, name)
    if getattr(column.dtype, "kind", "O") in "mM" or kind.startswith(("datetime", "timedelta", "period")):
        raise ValueError(f"column {name!r} holds dates; make numbers of them: the year, the month, days since a day.")
    if getattr(column.dtype, "kind", "O") == "c":
        raise ValueError(f"Complex data not supported: column {name!r} holds complex numbers.")
    if getattr(column.dtype, "kind", "O") in "biuf":
        return _finite(_plain(column), name)
    cells = as_words(np.asarray(column, dtype=object))
    there = [cell for cell in cells if cell is not None]
    count = sum(isinstance(cell, str) for cell in there)
    if there and count == len(there):
        return cells
    if count:
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


def words(column: Any, name: str) -> np.ndarray:
    """A column as words, or as the numbers that stand for categories; missing ones are None."""
    cells = as_words(np.asarray(column, dtype=object))
    for cell in cells:
        if not isinstance(cell, Value | None) or (isinstance(cell, float) and math.isinf(cell)):
            raise TypeError(f"column {name!r}: a category must be a string or a number, got {type(cell).__name__}.")
    return cells


def as_words(values: np.ndarray) -> np.ndarray:
    """Plain Python values; missing ones are None."""
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


def found_by_name(raw: Any, names: Sequence[str]) -> dict[str, Any]:
    """The cells of each of these columns in a frame, a mapping, records, or rows whose cells are in order."""
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


def as_numbers(cells: Any, name: str) -> _Numbers:
    """Float64, missing cells as nan; text is read."""
    if getattr(getattr(cells, "dtype", None), "kind", "O") in "biuf":
        return _finite(_plain(cells), name)
    if (values := truths(cells)) is not None:
        return values
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


def truths(cells: Any) -> _Numbers | None:
    """1 and 0 where all cells are the text True or False, as programs write bool, or missing; else None.

    Examples:
        >>> truths(["True", "false", ""]), truths(["True", "1"])
        (array([ 1.,  0., nan]), None)
    """
    known = {"true": 1.0, "false": 0.0}
    values = np.empty(len(cells))
    found = False
    for k, cell in enumerate(cells):
        word = level(cell)
        value = math.nan if word is None else known.get(word.casefold())
        if value is None:
            return None
        values[k], found = value, found or word is not None
    return values if found else None


def sortable(value: Value) -> tuple[bool, float, str]:
    """A key by which numbers come first."""
    return (True, 0.0, value) if isinstance(value, str) else (False, float(value), "")


def _key(column: np.ndarray) -> _Numbers:
    if column.dtype.kind == "f":
        return np.where(np.isnan(column), np.inf, column)
    values = sorted({value for value in column if value is not None}, key=sortable)
    place = {value: float(k) for k, value in enumerate(values)}
    return np.array([np.inf if value is None else place[value] for value in column])
