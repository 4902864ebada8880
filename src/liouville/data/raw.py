"""A table of one's own as it is in its file: columns of text by name, from CSV and its relatives or from Parquet."""

from __future__ import annotations

__all__ = ["Raw", "read_raw"]

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from liouville.data import content, delimited
from liouville.data.headers import UNNAMED, listed
from liouville.names import suggestion

PARQUET = b"PAR1"
_CELLS = 1 << 28  # of one table
_ARRAYS = (b"\x93NUMPY", b"\0\0\x08\x03", b"\0\0\x08\x01")


@dataclass(frozen=True)
class Raw:
    """A table whose columns have names.

    Args:
        name: of the file, for messages.
        names: of the columns; ``column_1``, ``column_2``, ... where the file has none.
        rows: how many.
        named: whether the file names them.
        notes: sentences on what had to be guessed.
        words: columns that the file declares to be text, whatever stands in them.
        times: columns that it declares to be dates or times.
    """

    name: str
    names: tuple[str, ...]
    rows: int
    named: bool = True
    notes: tuple[str, ...] = ()
    words: frozenset[str] = frozenset()
    times: frozenset[str] = frozenset()
    _table: delimited.Table | None = field(default=None, repr=False)
    _frame: Any = field(default=None, repr=False)

    def cells(self, wanted: Sequence[str]) -> list[list[str]]:
        """The text of some columns, a list for each; a missing value is empty."""
        places = [self.names.index(name) for name in wanted]
        if self._table is not None:
            return self._table.columns((), places)[1]
        return [_as_text(self._frame.iloc[:, k]) for k in places]

    def where(self, k: int) -> str:
        """The place of row k, in words."""
        return f"{self.name}, row {k + 1}" if self._table is None else self._table.where(k)

    def column(self, word: str, option: str) -> str:
        """The name of the column that ``word`` names, or numbers from 1.

        Raises:
            ValueError: there is none; the nearest one is suggested.
        """
        word = " ".join(word.split())
        if word in self.names:
            return word
        if word.isascii() and word.isdecimal() and 1 <= int(word[:9]) <= len(self.names):
            return self.names[int(word[:9]) - 1]
        near = suggestion(word, self.names)
        has = "has no header, and" if not self.named else "has"
        raise ValueError(
            f"{self.name} {has} no column {word!r} for {option}; {near}{'I' if near else 'i'}ts columns are "
            f"{listed(self.names)}."
        )

    @property
    def index(self) -> str | None:
        """The first column where it has no name, as programs write an index."""
        return self.names[0] if self.names[0] in UNNAMED else None

    def renamed(self, names: Sequence[str]) -> Raw:
        """The same with other names."""
        return replace(self, names=tuple(names))


def read_raw(
    path: str | os.PathLike[str] | bytes, name: str | None = None, header: str = "auto", known: Sequence[str] = ()
) -> Raw:
    """The table in a file.

    Args:
        path: of a table of text (commas, semicolons, tabs, vertical bars or blanks; gzipped or not) or of a Parquet
            file; or its bytes.
        name: what messages call it; the path if None.
        header: whether the first row of a table of text has the names of the columns: "yes", "no", or "auto" to see.
        known: names that the columns may have.

    Raises:
        OSError: the file cannot be read.
        ImportError: pandas is not installed, or nothing that reads Parquet.
        ValueError: it is no table, or has no rows, or two columns of one name, or a name that cannot be printed.
    """
    try:
        import pandas  # noqa: F401
    except ImportError as error:
        raise ImportError("reading a table needs pandas: pip install 'liouville[data]'.") from error
    shown = name or str(path)
    data = content.unpacked(path if isinstance(path, bytes) else _bytes(path, shown), shown)
    if not data.strip(b"\r\n "):
        raise ValueError(f"{shown} is empty; expected a table with a row for each sample.")
    if data.startswith(_ARRAYS):
        raise ValueError(f"{shown} is an array without names; expected a table of text (CSV) or a Parquet file.")
    raw = _parquet(data, shown) if data.startswith(PARQUET) else _text(data, shown, header, known)
    _check_names(raw)
    return raw


def _bytes(path: str | os.PathLike[str], shown: str) -> bytes:
    file = Path(path)
    if not os.path.lexists(file):
        raise FileNotFoundError(f"there is no file {shown}.")
    if file.is_dir():
        raise IsADirectoryError(f"{shown} is a folder; expected a table of text (CSV) or a Parquet file.")
    if not file.is_file():
        raise ValueError(f"{shown} is no regular file, and could not be read again; save the table to a file.")
    try:
        return file.read_bytes()
    except OSError as error:
        raise OSError(f"cannot read {shown}: {error.strerror}.") from error


def _text(data: bytes, name: str, header: str, known: Sequence[str]) -> Raw:
    if (what := content.foreign(data)) is not None:
        raise ValueError(f"{name} is {what}; expected a table of text (CSV) or a Parquet file.")
    table = delimited.read(data, name, 0, known, header)
    if (
        any("Windows-1252" in note for note in table.notes)
        and "\N{REPLACEMENT CHARACTER}".encode() in table.records.text
    ):
        raise ValueError(f"{name} is neither UTF-8 nor Windows-1252; save it as UTF-8.")
    if table.header is None:
        names = tuple(f"column_{k + 1}" for k in range(table.width))
    else:
        names = tuple(" ".join(cell.split()) for cell in table.header)
    return Raw(name, names, len(table), table.header is not None, table.notes, _table=table)


def _parquet(data: bytes, name: str) -> Raw:
    import pandas

    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ImportError(
            f"{name} is a Parquet file, which needs pyarrow: pip install 'liouville[parquet]'."
        ) from error
    try:
        size = parquet.read_metadata(io.BytesIO(data))
        if size.num_rows * max(size.num_columns, 1) > _CELLS:
            raise ValueError(f"{name} has {size.num_rows:,} rows of {size.num_columns:,} columns; take a part of it.")
        frame = pandas.read_parquet(io.BytesIO(data), engine="pyarrow")
    except (ArrowException, OSError) as error:
        raise ValueError(
            f"{name} is a damaged Parquet file ({' '.join(str(error).split())}); write it again."
        ) from error
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    if not len(frame):
        raise ValueError(f"{name} has no rows; expected one for each sample.")
    types = pandas.api.types
    names = [" ".join(str(column).split()) for column in frame.columns]
    kinds = dict(zip(names, frame.dtypes, strict=True))
    times = {n for n, k in kinds.items() if k.kind in "mM" or isinstance(k, pandas.PeriodDtype)}
    words = {n for n, k in kinds.items() if n not in times and not types.is_numeric_dtype(k)}
    words |= {n for n, k in kinds.items() if types.is_bool_dtype(k)}
    for k, column in enumerate(names):
        example = next(iter(frame.iloc[:, k].dropna()), None) if column in words else None
        if column in words and not isinstance(example, str | bool | int | float | type(None)):
            if type(example).__name__ in ("date", "time", "datetime", "Timestamp"):
                times, words = times | {column}, words - {column}
            elif type(example).__name__ == "Decimal":
                words -= {column}
            elif not types.is_bool_dtype(frame.dtypes.iloc[k]):
                what = type(example).__name__
                raise ValueError(f"{name}: column {column!r} holds values of type {what}; write numbers or text there.")
    return Raw(name, tuple(names), len(frame), True, (), frozenset(words), frozenset(times), _frame=frame)


def _as_text(column: Any) -> list[str]:
    lost = column.isna().tolist()
    return ["" if no else str(cell) for cell, no in zip(column.tolist(), lost, strict=True)]


def _check_names(raw: Raw) -> None:
    unnamed = [k for k, name in enumerate(raw.names) if not name and k]
    if unnamed:
        raise ValueError(f"{raw.name}: the header ({listed(raw.names)}) has no name for column {unnamed[0] + 1}.")
    twice = next((name for k, name in enumerate(raw.names) if name in raw.names[:k]), None)
    if twice is not None:
        raise ValueError(f"{raw.name}: the header names {twice!r} twice; give each column one name.")
    if not all(map(str.isprintable, raw.names)):
        bad = next(name for name in raw.names if not name.isprintable())
        raise ValueError(f"{raw.name}: the name {bad!a} of a column cannot be printed; give it another one.")
