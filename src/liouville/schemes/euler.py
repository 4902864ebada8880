r"""Forward Euler: the scheme of residual networks."""

from __future__ import annotations

__all__ = ["ForwardEuler"]

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from liouville.compilers import advanced
from liouville.fields.base import Lipschitz, Theta, VectorField
from liouville.schemes.base import Scheme, State


@dataclass(frozen=True)
class ForwardEuler(Scheme):
    r"""y_{j+1} = y_j + h f(y_j; theta_j).

    Properties: order 1; explicit; neither reversible nor symplectic; unstable on the whole imaginary axis,
    |1 + i h mu| > 1. On `HamiltonianField` and on `AntisymmetricField` with gamma = 0, and with sigma' >= 0, one step
    has determinant prod(1 + h^2 mu_k^2) >= 1, so the Jacobian between any two layers never contracts every direction.

    Reference: Haber & Ruthotto 2017 (1705.03341), eq. (2.1); H1-DNN of 2105.13205.

    Examples:
        >>> ForwardEuler().order
        1
    """

    order: ClassVar[int] = 1

    def step(self, field: VectorField, state: State, theta_j: Theta, h: float) -> State:
        (y,) = state
        return (advanced(y, field(y, theta_j), h),)

    def log_growth(self, lipschitz: Lipschitz, h: float) -> Tensor:
        """log (1 + 2 h mu + (h L)^2)^(1/2)."""
        return 0.5 * (2 * h * lipschitz.one_sided + (h * lipschitz.whole).square()).log1p()

    def amplification(self, z: Tensor) -> Tensor:
        """|1 + z|."""
        return (1 + z).abs()
