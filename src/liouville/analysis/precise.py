r"""The gate of analysis: the precision in which a statement is evaluated.

A statement concerns the map that the weights define in exact arithmetic. So 16-bit weights, inputs and matrices are
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

from liouville.precision import require_floating, widened, working
from liouville.sequences import Sequences

P = ParamSpec("P")
R = TypeVar("R")


def precisely(function: Callable[P, R]) -> Callable[P, R]:
    """Run ``function`` with every module and tensor argument in the working precision, and without autocast.

    Without a module that checks its inputs, tensors of whole numbers or float8 are refused.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        if args and not _has_module(args[0]):
            _require_matrices(args[0])
        with _without_autocast():
            return function(*map(_wide, args), **{name: _wide(value) for name, value in kwargs.items()})

    return wrapped


def _has_module(value: Any) -> bool:
    parts = value if isinstance(value, list | tuple) else [value]
    return any(isinstance(part, nn.Module) for part in parts)


def _require_matrices(value: Any) -> None:
    for part in value if isinstance(value, list | tuple) else [value]:
        if isinstance(part, Tensor) and not part.is_complex():
            require_floating(part.dtype, "matrices")


def _wide(value: Any) -> Any:
    if isinstance(value, nn.Module):
        return widened(value)
    if isinstance(value, Tensor | Sequences):
        return value.to(working(value.dtype))
    return type(value)(map(_wide, value)) if type(value) in (list, tuple) else value


@contextlib.contextmanager
def _without_autocast() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield
