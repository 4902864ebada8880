r"""Floating-point dtypes of networks, and the precision in which norms, spectra and inverses are computed.

Networks run in the dtype of their weights, including 16 bits. *Statements* about a network need more: a norm to two
digits bounds nothing, and LAPACK has no 16-bit routines. So weights, inputs and matrices of bfloat16 or float16 are
widened to float32, which changes no number. The statement is about the map that these weights define in exact
arithmetic, evaluated with the rounding of float32; wider numbers are unchanged.
"""

from __future__ import annotations

__all__ = [
    "FLOATS",
    "in_working_precision",
    "name_of",
    "require_autocast",
    "require_digits",
    "require_floating",
    "rounding_of",
    "solve",
    "widened",
    "working",
]

import copy
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
"""The dtypes of networks; float8, complex and whole numbers are for storage or other uses."""

_HALVES = (torch.bfloat16, torch.float16)
M = TypeVar("M", bound=nn.Module)


def working(dtype: torch.dtype) -> torch.dtype:
    """The dtype for statements about numbers of ``dtype``: float32 for 16 bits, else ``dtype``.

    Examples:
        >>> working(torch.bfloat16), working(torch.float64)
        (torch.float32, torch.float64)
    """
    return torch.float32 if dtype in _HALVES else dtype


def in_working_precision(x: Tensor) -> Tensor:
    """x, in float32 if it has 16 bits: the same numbers, differentiable.

    Raises:
        ValueError: for float8, whole and complex numbers.

    Examples:
        >>> in_working_precision(torch.ones(2, dtype=torch.float16)).dtype
        torch.float32
    """
    require_floating(x.dtype, "weights, inputs and matrices")
    return x.to(working(x.dtype))


def widened(module: M) -> M:
    """The module, or a copy whose 16-bit parameters and buffers are the same numbers in float32.

    Examples:
        >>> widened(nn.Linear(2, 2).bfloat16()).weight.dtype
        torch.float32
    """
    if not any(t.dtype in _HALVES for t in _tensors(module)):
        return module
    module = copy.deepcopy(module)
    for tensor in _tensors(module):
        tensor.data = tensor.data.to(working(tensor.dtype))
        if tensor.grad is not None:
            tensor.grad = None
    return module


def solve(matrix: Tensor, right: Tensor) -> Tensor:
    """M^-1 B, solved in the working precision and rounded to the dtype of B."""
    return torch.linalg.solve(in_working_precision(matrix), in_working_precision(right)).to(right.dtype)


def rounding_of(dtype: torch.dtype) -> float:
    """u, the largest relative error of rounding a number to ``dtype``: 2^-24 for float32, 2^-8 for bfloat16.

    Examples:
        >>> rounding_of(torch.float32) == 2**-24
        True
    """
    return 0.5 * torch.finfo(dtype).eps


def require_floating(dtype: torch.dtype, what: str) -> None:
    """Raise a `ValueError` unless this is a dtype of networks."""
    if dtype not in FLOATS:
        cure = "take the real part" if dtype.is_complex else "convert them with .float()"
        raise ValueError(f"{what} must be float32, float64, bfloat16 or float16, got {name_of(dtype)}; {cure}.")


def require_autocast(dtypes: Iterable[torch.dtype], device: str) -> None:
    """Raise a `ValueError` where autocast is on and meets 16-bit numbers of the other kind."""
    own = torch.get_autocast_dtype(device)
    for dtype in dtypes:
        if dtype not in (own, torch.float32, torch.float64):
            raise ValueError(
                f"autocast is on with {name_of(own)}, but the weights or the input are {name_of(dtype)}; convert them "
                f"to float32 or {name_of(own)}, or switch autocast off."
            )


def require_digits(dtype: torch.dtype, what: str) -> None:
    """Raise a `ValueError` where ``what`` compares numbers more precisely than ``dtype`` holds them."""
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"{what} needs float32 or float64, since rounding to fewer digits hides the gain of a step; got "
            f"{name_of(dtype)}. Convert with network.float(), and back after training."
        )


def name_of(dtype: torch.dtype) -> str:
    """``bfloat16`` for torch.bfloat16."""
    return str(dtype).removeprefix("torch.")


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
