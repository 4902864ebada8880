r"""Explicit Runge-Kutta: accurate, and stable on a piece of the imaginary axis, but not reversible."""

from __future__ import annotations

__all__ = ["RK4"]

from dataclasses import dataclass
from typing import ClassVar

from liouville.compilers import advanced
from liouville.fields.base import Theta, VectorField
from liouville.schemes.base import Scheme, State


@dataclass(frozen=True)
class RK4(Scheme):
    r"""The classical Runge-Kutta scheme of four evaluations, the weight of a layer frozen over its step.

    Properties: order 4; stable for a frozen imaginary rate i omega while h omega <= 2 sqrt 2; neither reversible nor
    symplectic, and its determinant can fall below 1: no lower bound on gradients holds.

    Examples:
        >>> RK4().order
        4
    """

    order: ClassVar[int] = 4

    def step(self, field: VectorField, state: State, theta_j: Theta, h: float) -> State:
        (y,) = state
        k1 = field(y, theta_j)
        k2 = field(advanced(y, k1, h / 2), theta_j)
        k3 = field(advanced(y, k2, h / 2), theta_j)
        k4 = field(advanced(y, k3, h), theta_j)
        return (advanced(y, k1 + 2 * (k2 + k3) + k4, h / 6),)
