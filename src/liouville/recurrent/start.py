r"""The step of a cell, from how many steps its sequences are expected to have.

A field's time is a unit (`liouville.zoo.scaled_start`): T, K and y_0 give the network that t^r T, K/t and t^a y_0 give,
for every input, as the biases stay what they are. What counts is Omega = T x rate, T = h x length: how far the
untrained cell turns over a whole sequence. So the weights are drawn at their natural size and h follows from Omega.
"""

from __future__ import annotations

__all__ = ["ACTION", "step_for"]

import math
from numbers import Real

import torch

from liouville.fields import VectorField
from liouville.schemes import Scheme

ACTION = 20.0
"""Omega over a sequence."""
_LONGEST = 0.5  # of h x rate: the weights of all steps are one, and training makes them larger


@torch.no_grad()
def step_for(field: VectorField, scheme: Scheme, length: int, action: float = ACTION) -> float:
    """h with length x h x rate = action, less where a step would be long: h x rate <= 1/2, or `Scheme.carried`.

    Args:
        field: with its initial weights.
        scheme: the discretisation.
        length: the expected number of steps, at least 1.
        action: Omega.

    Raises:
        ValueError: if the length or the action is not a positive number, or the field states no
            rate: then h must be given.

    Examples:
        >>> import liouville as lv
        >>> field = lv.SeparableHamiltonianField(8, layers=1)
        >>> h = step_for(field, lv.SymplecticEuler(), length=500)
        >>> round(500 * h * float(field.rate(field.theta())), 3)
        20.0
    """
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise ValueError(f"length must be the expected number of steps, a whole number of at least 1, got {length!r}.")
    if isinstance(action, bool) or not isinstance(action, Real) or not 0 < action < math.inf:
        raise ValueError(f"action must be a positive, finite number, got {action!r}.")
    try:
        rate = float(field.rate(field.theta()).mean())
    except NotImplementedError:
        rate = 0.0
    if not 0 < rate < math.inf:
        raise ValueError(f"{type(field).__name__} gives no rate to choose a step by; give h.")
    return min(action, scheme.carried(length), _LONGEST * length) / (length * rate)
