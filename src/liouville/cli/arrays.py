"""Arrays that `liouville predict` reads: .npy files of NumPy, and IDX files of images."""

from __future__ import annotations

__all__ = ["IDX", "NPY", "idx", "npy"]

import io
import math
from typing import Any

import torch
from torch import Tensor

NPY = b"\x93NUMPY"
IDX = tuple(bytes((0, 0, kind)) for kind in (8, 9, 11, 12, 13, 14))
_KINDS = {9: "signed bytes", 11: "16-bit integers", 12: "32-bit integers", 13: "32-bit floats", 14: "64-bit floats"}
_HEADER = 1 << 16  # bytes; numpy reads no header of more than 10,000
_KNOWN = {"b1", "i1", "i2", "i4", "i8", "u1", "f2", "f4", "f8"}
_NO_NUMBERS = {
    "O": "Python objects",
    "V": "records with fields",
    "S": "text",
    "U": "text",
    "M": "dates",
    "m": "time spans",
    "c": "complex numbers",
}


def npy(content: bytes, name: str) -> Tensor:
    """The array in a .npy file, in float64 where torch does not know its type.

    Raises:
        ImportError: numpy is not installed.
        ValueError: it is damaged, holds several arrays, or no real numbers.
    """
    try:
        import numpy
    except ImportError as error:
        raise ImportError("reading .npy files needs numpy: pip install 'liouville[data]'.") from error
    shape, fortran, dtype, start = _npy_header(content, name)
    if dtype.hasobject:
        raise ValueError(f"{name} is not an array of numbers that can be read (its values are Python objects).")
    if dtype.kind in _NO_NUMBERS:
        what = {"c": "its numbers are complex"}.get(dtype.kind, f"it holds {_NO_NUMBERS[dtype.kind]}")
        raise ValueError(f"{name} is not an array of numbers that can be read ({what}).")
    size, rest = math.prod(shape) * dtype.itemsize, len(content) - start
    if rest < size:
        raise ValueError(
            f"{name} is not an array of numbers that can be read (it has {rest:,} of the {size:,} bytes that its "
            "header says)."
        )
    if rest > size:
        raise ValueError(
            f"{name} has {rest - size} bytes after its array, another array perhaps; save one array in a file."
        )
    array = numpy.frombuffer(content, dtype, offset=start).reshape(shape, order="F" if fortran else "C")
    if dtype.isnative and dtype.str[1:] in _KNOWN:
        return torch.from_numpy(numpy.array(array, order="C"))  # of its own memory, which may be written to
    with numpy.errstate(over="ignore"):  # what is too large for float64 is infinite, and refused as such
        return torch.from_numpy(numpy.ascontiguousarray(array, dtype=numpy.float64))


def _npy_header(content: bytes, name: str) -> tuple[tuple[int, ...], bool, Any, int]:
    """What a .npy file says of itself: shape, order, type, and where its numbers begin."""
    from numpy.lib import format as numpys

    file = io.BytesIO(content[:_HEADER])
    try:
        version = numpys.read_magic(file)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise ValueError(f"its version {version} is not known")
        # numpy has no public name for reading the third version's, which differs from the second's in its encoding
        read = numpys.read_array_header_1_0 if version == (1, 0) else numpys.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except Exception as error:  # whatever a parser of foreign headers raises: SyntaxError, TokenError, RecursionError
        why = " ".join(str(error).split())[:200] if isinstance(error, ValueError) else "its header is damaged"
        raise ValueError(f"{name} is not an array of numbers that can be read ({why}).") from error
    if any(not isinstance(n, int) or n < 0 for n in shape):
        raise ValueError(f"{name} is not an array of numbers that can be read (its shape is {shape}).")
    return shape, fortran, dtype, file.tell()


def idx(content: bytes, name: str) -> Tensor:
    """The images in an IDX file of unsigned bytes, as such.

    Raises:
        ValueError: it is damaged, or holds something else.
    """
    kind, axes = content[2], content[3] if len(content) > 3 else 0
    if kind != 8:
        raise ValueError(f"{name} is an IDX file of {_KINDS[kind]}; expected unsigned bytes, as images have.")
    if axes < 2:
        raise ValueError(
            f"{name} is an IDX file of {'1 axis' if axes else 'no axis'}, labels perhaps; expected images."
        )
    sizes = [int.from_bytes(content[4 + 4 * k : 8 + 4 * k], "big") for k in range(axes)]
    start = 4 + 4 * axes
    pixels = max(0, len(content) - start)
    if len(content) < start or pixels != math.prod(sizes):
        raise ValueError(f"{name} is damaged: {pixels} bytes of pixels, expected {math.prod(sizes)}.")
    if not pixels:
        raise ValueError(f"{name} is empty; expected one image for each sample.")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).reshape(sizes)
