r"""Jacobians of any function that treats the samples of a batch independently, by a single backward pass.

The batch is repeated once per output; copy i is pulled back along the i-th unit vector and so holds row i of every
sample's matrix. Unlike a vectorised map over backward passes this has no requirements: implicit layers, custom
derivatives and modules of other libraries all work.
"""

from __future__ import annotations

__all__ = ["allocate", "rows"]

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_NUMBERS = 2**22  # in one repeated state, 32 MiB in float64: a few dozen states are alive at once in a deep graph


def rows(function: Callable[..., Any], *parts: Tensor) -> Tensor:
    """d function / d parts of every sample, (B, m, n): outputs and parts flattened and concatenated.

    Args:
        function: takes tensors like ``parts`` with any number of samples, returns a tensor or a tuple of them.
        parts: (B, ...) each.

    Examples:
        >>> rows(torch.sin, torch.zeros(3, 2)).shape
        torch.Size([3, 2, 2])
    """
    B = len(parts[0])
    with torch.no_grad():
        m = sum(out.numel() for out in _tuple(function(*parts))) // B
    n = sum(part.numel() for part in parts) // B
    matrix = parts[0].new_zeros(B, m, n)
    for some in torch.arange(m).split(copies(m, B * max(m, n))):
        repeated = [repeat(part, len(some)).requires_grad_() for part in parts]
        with torch.enable_grad():
            out = torch.cat([o.reshape(len(some) * B, -1) for o in _tuple(function(*repeated))], -1)
        if out.requires_grad:
            matrix[:, some] = pull_back(out, repeated, some, B)
    return matrix


def pull_back(out: Tensor, inputs: Sequence[Tensor], some: Tensor, B: int) -> Tensor:
    """Rows ``some`` of the Jacobian of ``out`` (copies x B, m), (B, rows, n): copy i is pulled back along e_some[i]."""
    units = torch.eye(out.shape[-1], dtype=out.dtype, device=out.device)[some.to(out.device)]
    gradients = torch.autograd.grad(out, inputs, units.repeat_interleave(B, 0), allow_unused=True)
    flat = [
        torch.zeros_like(x).flatten(1) if g is None else g.flatten(1) for g, x in zip(gradients, inputs, strict=True)
    ]
    return torch.cat(flat, -1).unflatten(0, (len(some), B)).transpose(0, 1)


def repeat(part: Tensor, times: int) -> Tensor:
    """(times * B, ...): the whole batch, repeated ``times`` times."""
    return part.detach().expand(times, *part.shape).flatten(0, 1).clone()


def copies(m: int, numbers: int) -> int:
    """How many copies of ``numbers`` numbers to work on at once, at most m."""
    return max(1, min(m, _NUMBERS // max(1, numbers)))


def allocate(shape: tuple[int, ...], like: Tensor, memory: int) -> Tensor:
    """Memory for the result, or an error with the size that it would take."""
    size = math.prod(shape) * like.element_size()
    require_memory(size, memory, f"the matrices {tuple(shape)}")
    return like.new_empty(shape)


def require_memory(size: int, memory: int, what: str) -> None:
    """Raise unless ``size`` bytes are allowed."""
    if size > memory:
        raise ValueError(
            f"{what} would take {size / 2**30:,.3g} GiB, more than the {memory / 2**30:.3g} GiB that memory= allows; "
            "give fewer samples, allow more, or use liouville.analysis.extreme_singular_values, which needs only "
            "products with vectors."
        )


def _tuple(out: Any) -> tuple[Tensor, ...]:
    return out if isinstance(out, tuple) else (out,)
