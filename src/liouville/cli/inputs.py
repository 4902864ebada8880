"""What `liouville predict` reads: tables as text, arrays as .npy, images as IDX files; told apart by their content."""

from __future__ import annotations

__all__ = ["Inputs", "read_bytes", "read_inputs"]

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from liouville.cli import arrays
from liouville.cli.exits import BadInput
from liouville.data import content

_AT_ONCE = 2000  # samples
Shape = Sequence[int | None]  # of one sample; None: any number


class Inputs(NamedTuple):
    """What was read.

    samples: (samples, *shape), in the type in which they were kept.
    names: of the columns that are copied.
    copied: their text, a list for each.
    notes: sentences on what had to be guessed.
    """

    samples: Tensor
    names: list[str]
    copied: list[list[str]]
    notes: list[str]


def read_inputs(
    name: str,
    shape: Shape,
    *,
    known: Sequence[str] | None = None,
    header: str = "auto",
    ids: Sequence[str] = (),
    unpack: float = content.RATIO,
) -> Inputs:
    """The samples in a file, and the columns to copy.

    Args:
        name: path of a table of text (commas, semicolons, tabs, vertical bars or blanks), of a .npy or an IDX file,
            gzipped or not; ``-`` reads standard input.
        shape: of one sample; what is read may also be flat.
        known: the names that a table's columns should have, if it has a header.
        header: whether a table's first row is one: "yes", "no", or "auto" to see.
        ids: names or numbers (from 1) of columns to copy.
        unpack: how many times its own size a gzip file may unpack to.

    Raises:
        OSError: the file cannot be read.
        ImportError: a table of text is given, and pandas is not installed.
        ValueError: it is empty or broken, of another width, or holds NaN or infinite values; the row is named.
    """
    shown = "standard input" if name == "-" else name
    data = content.unpacked(read_bytes(name), shown, unpack)
    if not data.strip(b"\r\n "):
        raise ValueError(f"{shown} is empty; expected one row for each sample.")
    if not data.startswith((arrays.NPY, *arrays.IDX)):
        return _table(data, shown, shape, known, header, ids)
    if ids:
        raise BadInput(f"{shown} is an array, whose columns have no names; --id copies a column of a table.")
    read = arrays.npy if data.startswith(arrays.NPY) else arrays.idx
    return Inputs(_fitted(read(data, shown), shape, shown), [], [], [])


def read_bytes(name: str) -> bytes:
    """What is in a file, or comes from standard input."""
    if name == "-":
        if sys.stdin is None or sys.stdin.closed:
            raise ValueError("standard input is closed; give the name of a file.")
        return sys.stdin.buffer.read()
    path = Path(name)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {name}.")
    if path.is_dir():
        raise IsADirectoryError(f"{name} is a folder; expected a CSV, .npy or IDX file.")
    try:
        return path.read_bytes()
    except OSError as error:
        raise OSError(f"cannot read {name}: {error.strerror}.") from error


def _table(
    data: bytes, name: str, shape: Shape, known: Sequence[str] | None, header: str, ids: Sequence[str]
) -> Inputs:
    try:
        import pandas  # noqa: F401
    except ImportError as error:
        raise ImportError("reading a table of text needs pandas: pip install 'liouville[data]'.") from error
    from liouville.cli.columns import choose
    from liouville.data.delimited import read

    sizes = [n for n in shape if n is not None]
    if len(sizes) < len(shape):
        raise ValueError(f"{name} is text, but the size of this network's images is not known; give .npy or IDX.")
    if header == "auto" and any(not word.isdecimal() for word in ids):
        header = "yes"
    table = read(data, name, math.prod(sizes), known, header, len(ids))
    columns = choose(table, math.prod(sizes), known, ids)
    values, copied = table.columns(columns.inputs, columns.copied)
    notes = [*table.notes, *([columns.note] if columns.note else [])]
    return Inputs(torch.from_numpy(values).reshape(-1, *sizes), columns.names, copied, notes)


def _fitted(array: Tensor, shape: Shape, name: str) -> Tensor:
    """(samples, *shape), from that shape, from flat samples, or from images without their one channel."""
    if array.ndim == 0:
        raise ValueError(f"{name} holds a single number; expected samples of shape {_shown(shape)}.")
    if len(array) == 0:
        raise ValueError(f"{name} is empty; expected one row for each sample.")
    wanted = tuple(array.shape[1:])
    if not _matches(wanted, shape):
        sizes = [n for n in shape if n is not None]
        flat = math.prod(sizes)
        if len(sizes) == len(shape) and (wanted == (flat,) or (flat == 1 and wanted == ())):
            array = array.reshape(len(array), *sizes)
        elif len(shape) == 3 and shape[0] == 1 and _matches(wanted, shape[1:]):
            array = array.unsqueeze(1)
        else:
            raise ValueError(f"{name} has samples of shape {_shown(wanted)}, expected {_shown(shape)}.")
    bad = _not_finite(array)
    if len(bad):
        raise ValueError(
            f"{name} has NaN or infinite values in {len(bad)} of {len(array)} rows, the first is row "
            f"{int(bad[0]) + 1} (counted from 1); remove or fill these rows."
        )
    return array


def _not_finite(array: Tensor) -> Tensor:
    """The rows with NaN or infinite values."""
    if not array.is_floating_point():
        return torch.empty(0, dtype=torch.int64)
    finite = [part.isfinite().flatten(1).all(1) for part in array.split(_AT_ONCE)]
    return (~torch.cat(finite)).nonzero().flatten()


def _matches(got: Sequence[int], expected: Shape) -> bool:
    return len(got) == len(expected) and all(e is None or g == e for g, e in zip(got, expected, strict=True))


def _shown(shape: Shape) -> str:
    return "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
