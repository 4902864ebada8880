r"""Explicit Runge-Kutta: accurate, and stable on an interval of the imaginary axis, but not reversible."""

from __future__ import annotations

__all__ = ["RK4"]

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from liouville.compilers import advanced
from liouville.fields.base import Lipschitz, Theta, VectorField
from liouville.schemes.base import Scheme, State


@dataclass(frozen=True)
class RK4(Scheme):
    r"""The classical Runge-Kutta scheme of four evaluations, with the weight of a layer frozen over its step.

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

    def log_growth(self, lipschitz: Lipschitz, h: float) -> Tensor:
        """log (1 + z + z^2/2 + z^3/6 + z^4/24), z = h L."""
        z = h * lipschitz.whole
        return (z * (1 + z / 2 * (1 + z / 3 * (1 + z / 4)))).log1p()

    def amplification(self, z: Tensor) -> Tensor:
        """The modulus of the exponential's first five terms."""
        return (1 + z * (1 + z / 2 * (1 + z / 3 * (1 + z / 4)))).abs()
