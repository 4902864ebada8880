"""Gradients that have no second derivatives: an error for them, never a wrong number."""

from __future__ import annotations

__all__ = ["differentiable_once"]

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def differentiable_once(
    gradients: Sequence[Tensor | None], of: Sequence[Tensor | None], why: str
) -> Sequence[Tensor | None]:
    """The gradients; where autograd records operations on them, their own gradient is a `RuntimeError` that says why.

    They depend on ``of``: autograd going from a gradient towards any of these meets the error. (Torch's decorator
    ``once_differentiable`` ties its error to no input, and `torch.autograd.grad` goes past it to a wrong number.)
    """
    if not torch.is_grad_enabled():
        return gradients
    found = [g for g in gradients if g is not None]
    passed = iter(_Once.apply(why, len(found), *found, *of))
    return [None if g is None else next(passed) for g in gradients]


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, why: str, number: int, *tensors: Any) -> tuple[Tensor, ...]:
        ctx.why = why
        return tuple(g.view_as(g) for g in tensors[:number])

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:
        raise RuntimeError(ctx.why)
