r"""The gated antisymmetric field: each feature's velocity is multiplied by a gate in (0, 1)."""

from __future__ import annotations

__all__ = ["GatedAntisymmetricField", "GatedTheta"]

import math
from typing import NamedTuple

import torch
from torch import Tensor

from liouville.compilers import advanced
from liouville.fields.activated import ActivatedField, quarter_turn
from liouville.fields.base import Degrees, Lipschitz
from liouville.fields.initial import Initial, Smooth
from liouville.operators import Dense, Operator


class GatedTheta(NamedTuple):
    """A (N, n, n, ...) skew, b and c (N, n)."""

    A: Tensor
    b: Tensor
    c: Tensor


class GatedAntisymmetricField(ActivatedField):
    r"""y' = s(M y + c) * tanh(M y + b), M = A - gamma I, A = W - W^T, s the logistic function, * entry by entry.

    The gate lets a feature stand still for some inputs. f' = D M with a diagonal D of entries in [-1/4, 1]: unlike
    the ungated field's, D can be negative where the gate closes as the state moves, so no bound from below is known.

    Reference: Chang, Chen, Haber & Chi, AntisymmetricRNN, ICLR 2019 (1902.09689), eq. (12) and (13).

    Args:
        features, layers, gamma, operator, shared, init, generator: as for `AntisymmetricField`.

    Raises:
        ValueError: if gamma < 0, or not finite.

    Examples:
        >>> GatedAntisymmetricField(4, layers=8).theta()._fields
        ('A', 'b', 'c')
    """

    biases = (("b", "c"),)

    def __init__(
        self,
        features: int,
        layers: int,
        *,
        gamma: float = 0.0,
        operator: Operator = Dense(),
        shared: bool = False,
        init: Initial = Smooth(),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(features, layers, operator, "tanh", shared, init)
        if not 0 <= gamma < math.inf:
            raise ValueError(f"gamma must be >= 0 and finite (it is diffusion; below 0 the field grows), got {gamma}.")
        self.gamma = gamma
        self.W = self._weight(features, features, generator)
        self.b = self._bias(features, generator)
        self.c = self._bias(features, generator)

    @property
    def degrees(self) -> Degrees | None:  # type: ignore[override]
        """1 and 1, without diffusion, which is a rate of its own."""
        return None if self.gamma else Degrees(("A",), rate=1, raw=("W",))

    def theta(self) -> GatedTheta:
        """A = W - W^T, b, c."""
        W = self._constrained(self.W)
        return GatedTheta(W - self.operator.transpose(W), self.b, self.c)

    def forward(self, y: Tensor, theta_j: GatedTheta) -> Tensor:
        """y' = s(M y + c) * tanh(M y + b)."""
        My = self.operator.apply(theta_j.A, y)
        if self.gamma:
            My = advanced(My, y, -self.gamma)
        gate, moved = (self.operator.broadcast(bias) + My for bias in (theta_j.c, theta_j.b))
        return torch.sigmoid(gate) * torch.tanh(moved)

    def jacobian(self, y: Tensor, theta: GatedTheta) -> Tensor | None:
        """D M, D = diag(s' tanh + s tanh')."""
        A = self.operator.matrix(theta.A)
        if A is None:
            return None
        M = A - self.gamma * torch.eye(self.features).to(A)
        My = y @ M.mT
        s, t = torch.sigmoid(My + theta.c.unsqueeze(-2)), torch.tanh(My + theta.b.unsqueeze(-2))
        slope = s * (1 - s) * t + s * (1 - t.square())
        return slope.unsqueeze(-1) * M.unsqueeze(-3)

    def _mean(self, outputs: int, inputs: int) -> Tensor:
        """A quarter turn, as for `AntisymmetricField`."""
        return 0.5 * quarter_turn(inputs)

    def rate(self, theta: GatedTheta) -> Tensor:
        """||A - gamma I|| of each layer, (||A||^2 + gamma^2)^(1/2), as A is normal."""
        return (self.operator.norm(theta.A).square() + self.gamma**2).sqrt()

    def lipschitz(self, theta: GatedTheta) -> Lipschitz:
        """||f'|| <= ||M||, as |s (1 - s) t + s (1 - t^2)| <= 1 for s in [0, 1] and t in [-1, 1]."""
        L = self.rate(theta) if self.gamma else self.operator.norm(theta.A)  # no derivative of the root at 0
        return Lipschitz((L,), L)
