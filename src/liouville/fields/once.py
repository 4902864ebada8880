r"""What is computed once for all who read it in one step of training: theta(), above all.

A step reads the constrained weights several times (the forward pass, penalties in depth, bounds), and they may be dear:
a budget solves for its rescaling in ``theta()``. Readers call `theta_of`, and a step goes on inside `one_step`.
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
_KNOWN: ContextVar[dict[Any, Any] | None] = ContextVar("what the present step has computed", default=None)


@contextlib.contextmanager
def one_step() -> Iterator[None]:
    """Inside, `once` and `theta_of` compute each thing once; no weight may change before it is left.

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
    """``made()``; inside `one_step` what was made under this key before.

    What is differentiated and what is not, and what is computed under autocast, is kept apart.
    """
    if torch.compiler.is_compiling():  # it traces once, and follows no dictionary of tensors
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
    """``field.theta()``, the one of this step inside `one_step`."""
    return once(field, field.theta)
