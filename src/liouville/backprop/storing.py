r"""The engine that leaves the backward pass to autograd."""

from __future__ import annotations

__all__ = ["Stored"]

from dataclasses import dataclass

from liouville.backprop.base import Backprop, slices
from liouville.fields.base import Theta, VectorField
from liouville.schemes.base import Scheme, State


@dataclass(frozen=True, repr=False)
class Stored(Backprop):
    """Ordinary autograd: every layer's intermediates are kept. Memory grows like N; nothing is computed twice.

    Examples:
        >>> Stored() == Stored()
        True
    """

    def run(self, scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float) -> State:
        for j, theta_j in enumerate(slices(theta, field.layers)):
            state = scheme.step(field.at_layer(j), state, theta_j, h)
        return state
