"""What `liouville predict` reads: tables as text, arrays as .npy, images as IDX files; told apart by their content."""

from __future__ import annotations

__all__ = ["read_inputs"]

import csv
import gzip
import io
import math
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

Shape = Sequence[int | None]  # of one sample; None: any number
_NPY, _GZIP = b"\x93NUMPY", b"\x1f\x8b"
_IDX = b"\x00\x00\x08"  # unsigned bytes


def read_inputs(name: str, shape: Shape) -> Tensor:
    """The samples in a file, (samples, *shape) in float64.

    Args:
        name: path of a CSV (commas, semicolons, tabs or spaces; with or without a header), .npy or IDX file, gzipped
            or not; ``-`` reads standard input.
        shape: of one sample; what is read may also be flat.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is empty or broken, of another width, or holds NaN or infinite values; the row is named.
    """
    content = _bytes(name)
    shown = "standard input" if name == "-" else name
    if not content.strip():
        raise ValueError(f"{shown} is empty; expected one row for each sample.")
    if content.startswith(_NPY):
        return _fitted(_npy(content, shown), shape, shown)
    if content.startswith(_IDX):
        return _fitted(_idx(content, shown), shape, shown)
    return _text(content, shape, shown)


def _bytes(name: str) -> bytes:
    if name == "-":
        content = sys.stdin.buffer.read()
    else:
        path = Path(name)
        if not path.exists():
            raise FileNotFoundError(f"there is no file {name}.")
        if path.is_dir():
            raise IsADirectoryError(f"{name} is a folder; expected a CSV, .npy or IDX file.")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise OSError(f"cannot read {name}: {error.strerror}.") from error
    if not content.startswith(_GZIP):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{name} is truncated or corrupted: its gzip data does not unpack ({error}).") from error


def _npy(content: bytes, name: str) -> Tensor:
    import numpy

    try:
        array = numpy.load(io.BytesIO(content), allow_pickle=False)
        if numpy.iscomplexobj(array):
            raise ValueError("its numbers are complex")
        return torch.from_numpy(array.astype(numpy.float64))
    except (ValueError, TypeError, EOFError) as error:
        raise ValueError(f"{name} is not an array of numbers that can be read ({error}).") from error


def _idx(content: bytes, name: str) -> Tensor:
    axes = content[3]
    sizes = [int.from_bytes(content[4 + 4 * k : 8 + 4 * k], "big") for k in range(axes)]
    if axes < 2:
        raise ValueError(f"{name} is an IDX file of {axes} axis, labels perhaps; expected images.")
    data = content[4 + 4 * axes :]
    if len(data) != math.prod(sizes):
        raise ValueError(f"{name} is damaged: {len(data)} bytes of pixels, expected {math.prod(sizes)}.")
    if not data:
        raise ValueError(f"{name} is empty; expected one image for each sample.")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).reshape(sizes).double()


def _fitted(array: Tensor, shape: Shape, name: str) -> Tensor:
    """(samples, *shape), from that shape, from flat samples, or from images without their one channel."""
    wanted = tuple(array.shape[1:])
    if array.ndim == 0 or len(array) == 0:
        raise ValueError(f"{name} is empty; expected one row for each sample.")
    if not _matches(wanted, shape):
        sizes = [n for n in shape if n is not None]
        if len(sizes) == len(shape) and wanted == (math.prod(sizes),):
            array = array.reshape(len(array), *sizes)
        elif len(shape) == 3 and shape[0] == 1 and _matches(wanted, shape[1:]):
            array = array.unsqueeze(1)
        else:
            raise ValueError(f"{name} has samples of shape {_shown(wanted)}, expected {_shown(shape)}.")
    bad = (~array.isfinite()).flatten(1).any(1).nonzero().flatten()
    if len(bad):
        raise ValueError(
            f"{name} has NaN or infinite values in {len(bad)} of {len(array)} rows, the first is row "
            f"{int(bad[0]) + 1} (counted from 1); remove or fill these rows."
        )
    return array


def _matches(got: Sequence[int], expected: Shape) -> bool:
    return len(got) == len(expected) and all(e is None or g == e for g, e in zip(got, expected, strict=True))


def _shown(shape: Shape) -> str:
    return "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"


def _text(content: bytes, shape: Shape, name: str) -> Tensor:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ValueError(f"{name} is neither text nor .npy nor an IDX file of unsigned bytes.")
    if None in shape:
        raise ValueError(f"{name} is text, but the size of this network's images is not known; give .npy or IDX.")
    width = math.prod(n for n in shape if n is not None)
    rows = _rows(text)
    first = rows[0][1]
    if all(_number(cell) is None for cell in first):
        rows = rows[1:]
        if not rows:
            raise ValueError(f"{name} has a header and no rows; expected one row for each sample.")
    return torch.tensor(
        [_values(cells, width, f"{name}, row {k} (line {line})") for k, (line, cells) in enumerate(rows, 1)],
        dtype=torch.float64,
    ).reshape(-1, *(n for n in shape if n is not None))


def _rows(text: str) -> list[tuple[int, list[str]]]:
    """Line numbers and cells; blank lines are left out."""
    sample = next(line for line in text.splitlines() if line.strip())
    separator = next((c for c in ",;\t" if c in sample), None)
    if separator is None:
        return [(i, line.split()) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)
    return [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]


def _values(cells: list[str], width: int, where: str) -> list[float]:
    if len(cells) != width:
        raise ValueError(f"{where}: expected {width} values, got {len(cells)}.")
    values = []
    for column, cell in enumerate(cells, 1):
        value = _number(cell)
        if value is None:
            what = "is empty" if not cell.strip() else f"is not a number: {cell.strip()!r}"
            raise ValueError(f"{where}: column {column} {what}.")
        if not math.isfinite(value):
            raise ValueError(f"{where}: column {column} is {value}; remove or fill this row.")
        values.append(value)
    return values


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
