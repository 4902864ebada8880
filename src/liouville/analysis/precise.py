r"""The gate of analysis: what a statement is evaluated in.

A statement is about the map that the weights define in exact arithmetic. So 16-bit weights, inputs and matrices are
widened to float32 (the same numbers), and autocast, which would round every product to 16 bits, is switched off; the
result is float32, or float64 for float64 weights.
"""

from __future__ import annotations

__all__ = ["precisely"]

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from liouville.precision import in_working_precision, widened, working

P = ParamSpec("P")
R = TypeVar("R")


def precisely(function: Callable[P, R]) -> Callable[P, R]:
    """``function`` with every module and tensor among its arguments in the working precision, and without autocast."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with _without_autocast():
            return function(*map(_wide, args), **{name: _wide(value) for name, value in kwargs.items()})  # type: ignore

    return wrapped


def _wide(value: Any) -> Any:
    if isinstance(value, nn.Module):
        return widened(value)
    if isinstance(value, Tensor):
        return value if value.dtype == working(value.dtype) else in_working_precision(value)
    return type(value)(map(_wide, value)) if type(value) in (list, tuple) else value


@contextlib.contextmanager
def _without_autocast() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield
