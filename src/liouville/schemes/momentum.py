r"""Momentum: the step of a residual network, damped so that a few stored bits can undo it."""

from __future__ import annotations

__all__ = ["Momentum"]

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from liouville.fields.base import Lipschitz, Theta, VectorField
from liouville.schemes.base import Shear, ShearScheme, State, larger_root

_BITS = (1, 2, 4, 8)  # these numbers of bits fill bytes


@dataclass(frozen=True)
class Momentum(ShearScheme):
    r"""v_{j+1} = gamma v_j + (1 - gamma) h f(y_j; theta_j), then y_{j+1} = y_j + v_{j+1}; gamma = 2^-bits, v_0 = 0.

    Properties: order 1, for every field; the more bits, the closer to forward Euler, y + h f(y), which is a residual
    network for h = 1. A trained one keeps its function, except that a part gamma of each step comes a layer later.
    The step is a bijection of (y, v), but its inverse multiplies by 2^bits: rounding errors grow by that factor in
    every layer. Engines that invert run it only on a grid of integers: v / 2^bits is a shift there, and the ``bits``
    dropped bits of each entry are kept, so the inverse is exact. Determinant gamma^n: no lower bound on gradients
    holds; like forward Euler it amplifies every oscillation.

    ``sign=-1`` takes gamma = -2^-bits, BDIA with a fixed gamma: y_{j+1} = |gamma| y_{j-1} + (1 - |gamma|) y_j +
    (1 + |gamma|) h f(y_j), between forward Euler and the midpoint rule (|gamma| = 1).

    Reference: Sander et al. 2021 (2102.07870), momentum residual networks; Maclaurin et al. 2015 (1502.03492) for the
    stored bits; Zhang et al. 2024 (2407.09093), BDIA.

    Args:
        bits: 1, 2, 4 or 8.
        sign: 1, or -1 for BDIA.

    Raises:
        ValueError: for other numbers; from a `Flow`, for an engine that inverts without the grid.

    Examples:
        >>> Momentum(bits=4).kept_bits, Momentum(2, -1).gamma
        (4, -0.25)
    """

    order: ClassVar[int] = 1
    carries: ClassVar[str] = "(y, v)"
    bits: int = 4
    sign: int = 1

    def __post_init__(self) -> None:
        if self.bits not in _BITS or isinstance(self.bits, bool):
            raise ValueError(f"bits must be 1, 2, 4 or 8 for each entry of the state, got {self.bits!r}.")
        if self.sign not in (1, -1):
            raise ValueError(f"sign must be 1, for momentum, or -1, for BDIA, got {self.sign!r}.")

    @property
    def gamma(self) -> float:
        """+-2^-bits."""
        return self.sign * 2.0**-self.bits

    @property
    def kept_bits(self) -> int:
        return self.bits

    def init(self, field: VectorField, y: Tensor, theta_0: Theta, h: float) -> State:
        return y, torch.zeros_like(y)

    def shears(self, field: VectorField, theta_j: Theta, h: float) -> tuple[Shear, ...]:
        kick = Shear(1, lambda y: field(y, theta_j), (1 - self.gamma) * h, self.bits, self.sign)
        return kick, Shear(0, None, 1.0)

    def log_growth(self, lipschitz: Lipschitz, h: float) -> Tensor:
        """The largest singular value of v' = gamma v + (1 - gamma) h f(y), times the norm of the shear y' = y + v'."""
        z, c = h * lipschitz.whole, self.gamma**2
        size = 1 + ((1 - self.gamma) * z).square() + c
        return math.asinh(0.5) + 0.5 * torch.log(0.5 * (size + (size.square() - 4 * c).sqrt()))

    def amplification(self, z: Tensor) -> Tensor:
        """The roots of r^2 - (1 + gamma + (1 - gamma) z) r + gamma = 0."""
        half = 0.5 * (1 + self.gamma + (1 - self.gamma) * z)
        return larger_root(half, (half.square() - self.gamma).sqrt())
