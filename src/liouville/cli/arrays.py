"""Arrays that `liouville predict` reads: .npy files of NumPy, and IDX files of images."""

from __future__ import annotations

__all__ = ["IDX", "NPY", "idx", "npy"]

import io
import math

import torch
from torch import Tensor

NPY = b"\x93NUMPY"
IDX = tuple(bytes((0, 0, kind)) for kind in (8, 9, 11, 12, 13, 14))
_KINDS = {9: "signed bytes", 11: "16-bit integers", 12: "32-bit integers", 13: "32-bit floats", 14: "64-bit floats"}
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
    """The array in a .npy file, in float64.

    Raises:
        ImportError: numpy is not installed.
        ValueError: it is damaged, holds several arrays, or no real numbers.
    """
    try:
        import numpy
    except ImportError as error:
        raise ImportError("reading .npy files needs numpy: pip install 'liouville[data]'.") from error
    file = io.BytesIO(content)
    try:
        array = numpy.load(file, allow_pickle=False)
    except Exception as error:  # whatever a parser of foreign headers raises: SyntaxError, TokenError, RecursionError
        why = (
            " ".join(str(error).split())[:200] if isinstance(error, ValueError | EOFError) else "its header is damaged"
        )
        why = "its values are Python objects" if "pickle" in why else why
        raise ValueError(f"{name} is not an array of numbers that can be read ({why}).") from error
    if array.dtype.kind in _NO_NUMBERS:
        what = {"c": "its numbers are complex"}.get(array.dtype.kind, f"it holds {_NO_NUMBERS[array.dtype.kind]}")
        raise ValueError(f"{name} is not an array of numbers that can be read ({what}).")
    if rest := len(content) - file.tell():
        raise ValueError(f"{name} has {rest} bytes after its array, another array perhaps; save one array in a file.")
    with numpy.errstate(over="ignore"):  # what is too large for float64 is infinite, and refused as such
        return torch.from_numpy(numpy.ascontiguousarray(array, dtype=numpy.float64))


def idx(content: bytes, name: str) -> Tensor:
    """The images in an IDX file of unsigned bytes, in float64.

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
    data = content[4 + 4 * axes :]
    if len(content) < 4 + 4 * axes or len(data) != math.prod(sizes):
        raise ValueError(f"{name} is damaged: {len(data)} bytes of pixels, expected {math.prod(sizes)}.")
    if not data:
        raise ValueError(f"{name} is empty; expected one image for each sample.")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).reshape(sizes).double()
