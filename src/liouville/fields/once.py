r"""Values computed once per training step and shared by all readers, chiefly theta().

A step reads the constrained weights several times (the forward pass, penalties in depth, bounds), and they may be
expensive: a budget solves for its rescaling in ``theta()``. Readers call `theta_of`, and a step runs inside `one_step`.
"""

from __future__ import annotations

__all__ = ["once", "one_step", "theta_of"]

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

import torch

from liouville.fields.base import Theta, VectorField

T = TypeVar("T")
_KNOWN: ContextVar[dict[Any, Any] | None] = ContextVar("values of the present step", default=None)


@contextlib.contextmanager
def one_step() -> Iterator[None]:
    """Inside the block, `once` and `theta_of` compute each value once; no weight may change before the block ends.

    Examples:
        >>> import liouville as lv
        >>> field = lv.SeparableHamiltonianField(4, layers=8)
        >>> with one_step():
        ...     theta_of(field) is theta_of(field)
        True
        >>> theta_of(field) is theta_of(field)
        False
    """
    token = _KNOWN.set({})
    try:
        yield
    finally:
        _KNOWN.reset(token)


def once(key: Any, made: Callable[[], T]) -> T:
    """``made()``; inside `one_step` the value already made under this key.

    Values with and without gradients, and values under autocast, are stored separately.
    """
    if torch.compiler.is_compiling():  # a compiler traces once, and cannot follow a dictionary of tensors
        return made()
    known = _KNOWN.get()
    if known is None:
        return made()
    key = (key, torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch._C._is_any_autocast_enabled())
    if key not in known:
        known[key] = made()
    found: T = known[key]
    return found


def theta_of(field: VectorField) -> Theta:
    """``field.theta()``; inside `one_step` it is computed once."""
    return once(field, field.theta)
