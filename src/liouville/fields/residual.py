r"""Fields without skew structure: the residual network, and the symmetric fields that second-order networks use."""

from __future__ import annotations

__all__ = ["ResidualField", "ResidualTheta", "SemidefiniteField", "SemidefiniteTheta", "SymmetricField"]

from typing import NamedTuple

import torch
from torch import Tensor

from liouville.activations import Activation
from liouville.fields.activated import ActivatedField, quarter_turn, weighted
from liouville.fields.base import Degrees, Factors, Lipschitz, Scaling, Spectrum
from liouville.fields.initial import Initial, Smooth
from liouville.operators import Dense, Operator


class ResidualTheta(NamedTuple):
    """K (N, m, n, ...), b (N, m)."""

    K: Tensor
    b: Tensor


class SemidefiniteTheta(NamedTuple):
    """C (N, m, n, ...), b (N, n)."""

    C: Tensor
    b: Tensor


class ResidualField(ActivatedField):
    r"""y' = sigma(K y + b): the residual network as an ordinary differential equation. Nothing is guaranteed.

    Reference: Haber & Ruthotto 2017 (1705.03341), eq. (2.1) and (3.5).

    Args:
        features: n.
        layers: N.
        scalar_bias: one number per layer (the first paper) instead of a vector.
        operator, activation, shared, init, generator: as for `HamiltonianField`.

    Examples:
        >>> ResidualField(4, layers=8).theta().K.shape
        torch.Size([8, 4, 4])
    """

    biases = (("b",),)
    scaling = Scaling(("K",), 1)
    degrees = Degrees(("K",), rate=1)

    def __init__(
        self,
        features: int,
        layers: int,
        *,
        scalar_bias: bool = False,
        operator: Operator = Dense(),
        activation: str | Activation = "tanh",
        shared: bool = False,
        init: Initial = Smooth(),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(features, layers, operator, activation, shared, init)
        self.scalar_bias = scalar_bias
        self.K = self._weight(features, features, generator)
        self.b = self._bias(1 if scalar_bias else features, generator)

    def theta(self) -> ResidualTheta:
        """K, b."""
        return ResidualTheta(self._constrained(self.K), self.b.expand(-1, self.features))

    def forward(self, y: Tensor, theta_j: ResidualTheta) -> Tensor:
        """y' = sigma(K y + b)."""
        return self.activation(self.operator.apply(theta_j.K, y, theta_j.b))

    def jacobian(self, y: Tensor, theta: ResidualTheta) -> Tensor | None:
        """D K, D = diag(sigma'(K y + b))."""
        K = self.operator.matrix(theta.K)
        return None if K is None else self.slope(K, y, theta.b).unsqueeze(-1) * K.unsqueeze(-3)

    def factors(self, theta: ResidualTheta) -> tuple[Factors, ...]:
        """I and K."""
        one = torch.eye(self.features, dtype=theta.K.dtype, device=theta.K.device)[None]
        return (Factors((one,), theta.K, theta.b),)

    def _mean(self, outputs: int, inputs: int) -> Tensor:
        """Half of [[0, -I], [I, 0]]: a mean that is not skew would make every layer grow, or every layer decay."""
        return 0.5 * quarter_turn(inputs)[:outputs]

    def rate(self, theta: ResidualTheta) -> Tensor:
        """s_max ||K|| of each layer."""
        return self.activation.lipschitz * self.operator.norm(theta.K)

    def lipschitz(self, theta: ResidualTheta) -> Lipschitz:
        """||D K|| <= s_max ||K||, which bounds its symmetric part too."""
        L = self.rate(theta)
        return Lipschitz((L,), L)


class SymmetricField(ActivatedField):
    r"""y' = -K^T sigma(K y + b) = -grad V(y), V(y) = 1^T sigma_int(K y + b).

    Properties: the Jacobian -K^T D K is symmetric and, for sigma' >= 0, negative semidefinite. As a first-order
    field it smooths (a parabolic network); as the force of a `SecondOrderField` it oscillates and keeps its energy.

    Reference: Ruthotto & Haber 2018 (1804.04272); Chang et al. 2018 (1709.03698), the leapfrog network.

    Args:
        features: n.
        layers: N.
        hidden: m, rows of K; n by default.
        operator, activation, shared, init, generator: as for `HamiltonianField`.

    Examples:
        >>> SymmetricField(4, layers=8, hidden=6).theta().K.shape
        torch.Size([8, 6, 4])
    """

    biases = (("b",),)
    degrees = Degrees(("K",), rate=2)

    def __init__(
        self,
        features: int,
        layers: int,
        *,
        hidden: int | None = None,
        operator: Operator = Dense(),
        activation: str | Activation = "tanh",
        shared: bool = False,
        init: Initial = Smooth(),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(features, layers, operator, activation, shared, init)
        self.hidden = features if hidden is None else hidden
        self.K = self._weight(self.hidden, features, generator)
        self.b = self._bias(self.hidden, generator)

    @property
    def spectrum(self) -> Spectrum:
        """Real and not positive."""
        return self._where_monotone("damped")

    def theta(self) -> ResidualTheta:
        """K, b."""
        return ResidualTheta(self._constrained(self.K), self.b)

    def forward(self, y: Tensor, theta_j: ResidualTheta) -> Tensor:
        """y' = -K^T sigma(K y + b)."""
        return -self.operator.apply_transpose(theta_j.K, self.activation(self.operator.apply(theta_j.K, y, theta_j.b)))

    def jacobian(self, y: Tensor, theta: ResidualTheta) -> Tensor | None:
        """-K^T D K, D = diag(sigma'(K y + b))."""
        K = self.operator.matrix(theta.K)
        return None if K is None else weighted(-K.mT, self.slope(K, y, theta.b), K)

    def potential(self, y: Tensor, theta_j: ResidualTheta) -> Tensor:
        """V(y) = 1^T sigma_int(K y + b), one number per sample; the field is -grad V."""
        return self.energy_density(self.operator.apply(theta_j.K, y, theta_j.b))

    def rate(self, theta: ResidualTheta) -> Tensor:
        """s_max ||K||^2 of each layer."""
        return self.activation.lipschitz * self.operator.norm(theta.K).square()

    def lipschitz(self, theta: ResidualTheta) -> Lipschitz:
        """||K^T D K|| <= s_max ||K||^2; for sigma' >= 0 the field contracts, f' <= 0."""
        L = self.rate(theta)
        return Lipschitz((L,), 0.0 * L if self.activation.monotone else L)


class SemidefiniteField(ActivatedField):
    r"""y' = sigma(-C^T C y + b): the first paper's force for second-order networks.

    Properties: -D C^T C has a real non-positive spectrum for sigma' >= 0 and every C, so y'' = f(y) oscillates.
    It is not the gradient of a potential.

    Reference: Haber & Ruthotto 2017 (1705.03341), sec. 4.2, K(C) = -C^T C.

    Args:
        features: n.
        layers: N.
        hidden: rows of C; n by default.
        operator, activation, shared, init, generator: as for `HamiltonianField`.

    Examples:
        >>> SemidefiniteField(4, layers=8).theta().C.shape
        torch.Size([8, 4, 4])
    """

    biases = (("b",),)
    degrees = Degrees(("C",), rate=2, argument=2)

    def __init__(
        self,
        features: int,
        layers: int,
        *,
        hidden: int | None = None,
        operator: Operator = Dense(),
        activation: str | Activation = "tanh",
        shared: bool = False,
        init: Initial = Smooth(),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(features, layers, operator, activation, shared, init)
        self.hidden = features if hidden is None else hidden
        self.C = self._weight(self.hidden, features, generator)
        self.b = self._bias(features, generator)

    @property
    def spectrum(self) -> Spectrum:
        """Real and not positive."""
        return self._where_monotone("damped")

    def theta(self) -> SemidefiniteTheta:
        """C, b."""
        return SemidefiniteTheta(self._constrained(self.C), self.b)

    def forward(self, y: Tensor, theta_j: SemidefiniteTheta) -> Tensor:
        """y' = sigma(-C^T C y + b)."""
        CtC = self.operator.apply_transpose(theta_j.C, self.operator.apply(theta_j.C, y))
        return self.activation(self.operator.broadcast(theta_j.b) - CtC)

    def jacobian(self, y: Tensor, theta: SemidefiniteTheta) -> Tensor | None:
        """-D C^T C, D = diag(sigma'(b - C^T C y))."""
        C = self.operator.matrix(theta.C)
        if C is None:
            return None
        CtC = C.transpose(-2, -1) @ C
        return self.slope(-CtC, y, theta.b).unsqueeze(-1) * -CtC.unsqueeze(-3)

    def rate(self, theta: SemidefiniteTheta) -> Tensor:
        """s_max ||C||^2 of each layer."""
        return self.activation.lipschitz * self.operator.norm(theta.C).square()

    def lipschitz(self, theta: SemidefiniteTheta) -> Lipschitz:
        """||D C^T C|| <= s_max ||C||^2; -(D P + P D)/2 with P = C^T C is at most half of it for sigma' >= 0."""
        L = self.rate(theta)
        return Lipschitz((L,), self.skewed(L))
