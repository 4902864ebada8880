r"""The gated antisymmetric field: each feature's velocity is multiplied by a gate in (0, 1)."""

from __future__ import annotations

__all__ = ["GatedAntisymmetricField", "GatedTheta"]

from typing import Any, NamedTuple

import torch
from torch import Tensor

from liouville.compilers import advanced
from liouville.fields.antisymmetric import AntisymmetricField
from liouville.fields.base import Factors, Lipschitz, Spectrum
from liouville.fields.initial import Initial, Smooth
from liouville.operators import Dense, Operator


class GatedTheta(NamedTuple):
    """A (N, n, n, ...) skew, b and c (N, n)."""

    A: Tensor
    b: Tensor
    c: Tensor


class GatedAntisymmetricField(AntisymmetricField):
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
    spectrum: Spectrum = "any"
    scaling = AntisymmetricField.scaling
    degrees = AntisymmetricField.degrees

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
        more = {"gamma": gamma, "operator": operator, "shared": shared, "init": init, "generator": generator}
        super().__init__(features, layers, **more)  # type: ignore[arg-type]
        self.c = self._bias(features, generator)

    def theta(self) -> GatedTheta:  # type: ignore[override]
        """A = W - W^T, b, c."""
        return GatedTheta(*super().theta(), self.c)

    def forward(self, y: Tensor, theta_j: GatedTheta) -> Tensor:  # type: ignore[override]
        """y' = s(M y + c) * tanh(M y + b)."""
        My = self.operator.apply(theta_j.A, y)
        if self.gamma:
            My = advanced(My, y, -self.gamma)
        gate, moved = (self.operator.broadcast(bias) + My for bias in (theta_j.c, theta_j.b))
        return torch.sigmoid(gate) * torch.tanh(moved)

    def jacobian(self, y: Tensor, theta: GatedTheta) -> Tensor | None:  # type: ignore[override]
        """D M, D = diag(s' tanh + s tanh')."""
        A = self.operator.matrix(theta.A)
        if A is None:
            return None
        M = A - self.gamma * torch.eye(self.features).to(A)
        My = y @ M.mT
        s, t = torch.sigmoid(My + theta.c.unsqueeze(-2)), torch.tanh(My + theta.b.unsqueeze(-2))
        slope = s * (1 - s) * t + s * (1 - t.square())
        return slope.unsqueeze(-1) * M.unsqueeze(-3)

    def factors(self, theta: GatedTheta) -> tuple[Factors, ...] | None:  # type: ignore[override]
        """None: a product of two activations has another form."""
        return None

    def lipschitz(self, theta: GatedTheta) -> Lipschitz:  # type: ignore[override]
        """||f'|| <= ||M||, as |s (1 - s) t + s (1 - t^2)| <= 1 for s in [0, 1] and t in [-1, 1]."""
        plain: Any = theta
        L = self.rate(plain) if self.gamma else self.operator.norm(theta.A)
        return Lipschitz((L,), L)
