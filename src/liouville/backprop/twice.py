r"""Second derivatives of an engine that keeps its first state: the gradients once more, by the plain loop.

An engine's own backward pass is no sequence of operations that autograd could differentiate. Where its gradients are to
be differentiated (``create_graph=True``), they are computed by `Stored` instead: the same numbers to rounding, and all
that the plain loop keeps is kept.
"""

from __future__ import annotations

__all__ = ["are_differentiated", "by_the_plain_loop"]

from collections.abc import Sequence

import torch
from torch import Tensor

from liouville.backprop.base import Stored
from liouville.fields.base import Theta, VectorField
from liouville.schemes.base import Scheme, State


def are_differentiated() -> bool:
    """Whether the backward pass that is running was asked for gradients that can be differentiated."""
    return torch.is_grad_enabled()


def by_the_plain_loop(
    scheme: Scheme,
    field: VectorField,
    h: float,
    state: State,
    theta: Theta,
    costate: Sequence[Tensor | None],
    needed: Sequence[bool],
    along: Tensor | None = None,
) -> list[Tensor | None]:
    """The gradients of state and theta, each None if it is not needed, with a graph of their own.

    Args:
        scheme, field, h: of the run.
        state: its first state.
        theta: its weights.
        costate: gradients at the last state, one for each part; None where it is 0.
        needed: for each part of the state, then each weight.
        along: gradient at the trajectory, of a run that gave one.
    """
    inputs = (*state, *theta)
    # views, since one input may be computed from another, and each gradient counts its own way only
    own = [x.view_as(x) if n else x.detach() for x, n in zip(inputs, needed, strict=True)]
    start, weights = tuple(own[: len(state)]), type(theta)(*own[len(state) :])
    if along is None:
        ends = [*Stored().run(scheme, field, start, weights, h)]
    else:
        last, trajectory = Stored().trajectory(scheme, field, start, weights, h)
        ends, costate = [*last, trajectory], [*costate, along]
    reached = [(x, g) for x, g in zip(ends, costate, strict=True) if g is not None and x.requires_grad]
    wanted = [x for x, n in zip(own, needed, strict=True) if n]
    found = iter(
        torch.autograd.grad(
            [x for x, _ in reached], wanted, [g for _, g in reached], create_graph=True, materialize_grads=True
        )
    )
    return [next(found) if n else None for n in needed]
