"""Tools of the checks: velocities of (p, q) or (y,), Jacobians, the size of rounding, and errors that name a law."""

from __future__ import annotations

__all__ = ["CANCELLATION", "EPS", "fail", "jacobian", "near", "rounding", "same", "start", "velocity"]

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from liouville.fields import PartitionedField
from liouville.fields.base import Theta
from liouville.fields.bound import original
from liouville.schemes import State

EPS = torch.finfo(torch.float64).eps
# Two evaluations of one formula in different order differ by at most `terms` roundings, each of a term that may exceed
# the result by cancellation: a factor of 100 allows for that.
CANCELLATION = 100.0


def velocity(field: Any, state: State, theta_j: Theta) -> State:
    """The time derivative of (p, q), or of (y,)."""
    if len(state) == 2:
        return field.p_dot(state[1], theta_j), field.q_dot(state[0], theta_j)
    return (field(state[0], theta_j),)


def start(field: Any, y: Tensor, theta_0: Theta, h: float) -> State:
    """The initial (p, q) of an input y, or (y,)."""
    if isinstance(original(field), PartitionedField):
        return field.enter(y, lambda q: field.p_dot(q, theta_0), h)
    return (y,)


def jacobian(f: Callable[..., State], state: State) -> Tensor:
    """d f / d state of one sample, numerator layout, all tensors flattened and joined."""
    blocks: Any = torch.autograd.functional.jacobian(lambda *s: f(*s), tuple(s.detach() for s in state))
    rows = zip(blocks, f(*state), strict=True)
    return torch.cat([torch.cat([b.reshape(out.numel(), -1) for b in row], 1) for row, out in rows]).detach()


def rounding(x: Tensor) -> float:
    """The allowed difference of two evaluations of x: one rounding per entry of a sample, and cancellation."""
    per_sample = x[0].numel() if x.dim() > 1 else x.numel()
    return CANCELLATION * max(1, per_sample) * EPS * max(1.0, float(x.detach().abs().max()))


def same(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    """Whether two lists of tensors are equal bit by bit."""
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def near(law: str, difference: Tensor, allowed: float, hint: str) -> None:
    """Raise unless the largest entry of ``difference`` is at most ``allowed``; NaN fails."""
    measured = float(difference.detach().abs().max())
    if not measured <= allowed:
        raise AssertionError(f"{law}: measured a difference of {measured:.3g}, allowed {allowed:.3g}; {hint}.")


def fail(law: str, found: str, hint: str) -> NoReturn:
    """Raise the `AssertionError` with the law, the finding and a hint."""
    raise AssertionError(f"{law}: {found}; {hint}.")
