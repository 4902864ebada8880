"""Twice the layers: weights (N, ...) -> (2N, ...), by a rule of interpolation in depth."""

from __future__ import annotations

__all__ = ["prolongation"]

from collections.abc import Callable

import torch
from torch import Tensor


def prolongation(how: str) -> Callable[[Tensor], Tensor]:
    """(N, ...) -> (2N, ...), as `liouville.Flow.refined` describes it."""
    if how not in _PROLONGATIONS:
        raise ValueError(f"how must be one of {', '.join(map(repr, _PROLONGATIONS))}, got {how!r}.")
    return _PROLONGATIONS[how]


def _constant(theta: Tensor) -> Tensor:
    return theta.repeat_interleave(2, dim=0)


def _linear(theta: Tensor) -> Tensor:
    """theta at t_j -+ h/4, between the layer mid-points t_j; constant beyond the first and last of them."""
    before = torch.cat((theta[:1], theta[:-1]))
    after = torch.cat((theta[1:], theta[-1:]))
    fine = torch.stack((0.75 * theta + 0.25 * before, 0.75 * theta + 0.25 * after), dim=1)
    return fine.flatten(0, 1)


def _linear_left(theta: Tensor) -> Tensor:
    """Nodes at the left ends: theta_j, then the mean of theta_j and theta_{j+1}; the last layer is repeated."""
    after = torch.cat((theta[1:], theta[-1:]))
    return torch.stack((theta, 0.5 * (theta + after)), dim=1).flatten(0, 1)


_PROLONGATIONS = {"constant": _constant, "linear": _linear, "linear-left": _linear_left}
