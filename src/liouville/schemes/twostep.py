r"""The two-step midpoint scheme: reversible for any field, stable on a piece of the imaginary axis."""

from __future__ import annotations

__all__ = ["Midpoint"]

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from liouville.fields.base import Theta, VectorField
from liouville.schemes.base import Shear, ShearScheme, State


@dataclass(frozen=True)
class Midpoint(ShearScheme):
    r"""y_{j+1} = y_{j-1} + 2 h f(y_j; theta_j), started by one forward Euler step (the leapfrog in time).

    The state is the pair (y_{j-1}, y_j), 2n numbers per sample: dy_{j+1}/dy_j alone is not a step of anything. With
    y_{-1} = y_0 - h f(y_0; theta_0) the first step is y_1 = y_0 + h f(y_0; theta_0).

    Properties: order 2, explicit, reversible for every field; stable for a frozen imaginary rate i omega while
    h omega < 1. It fits the antisymmetric field, which forward Euler does not.

    Reference: Chang et al. 2018 (1709.03698).

    Examples:
        >>> Midpoint().order
        2
    """

    order: ClassVar[int] = 2
    swaps: ClassVar[bool] = True

    def init(self, field: VectorField, y: Tensor, theta_0: Theta, h: float) -> State:
        return torch.add(y, field(y, theta_0), alpha=-h), y

    def shears(self, field: VectorField, theta_j: Theta, h: float) -> tuple[Shear, ...]:
        return (Shear(0, lambda y: field(y, theta_j), 2 * h),)

    def final(self, field: VectorField, state: State) -> Tensor:
        return state[1]

    def terminal(self, field: VectorField, y: Tensor) -> State:
        raise ValueError(
            "the two-step Midpoint scheme carries (y_{N-1}, y_N), and y_N alone does not determine y_0; "
            "use flow.final_state and flow.inverse_state."
        )
