r"""The port-Hamiltonian field: a Hamiltonian field that loses energy inside and exchanges it through ports."""

from __future__ import annotations

__all__ = ["PortHamiltonianField", "PortTheta", "PortThetaG"]

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from liouville.activations import Activation
from liouville.fields.activated import ActivatedField, weighted
from liouville.fields.base import Degrees, Lipschitz, Scaling, Spectrum
from liouville.fields.given import PerLayer
from liouville.fields.initial import Initial, Smooth
from liouville.fields.signatures import named
from liouville.fields.skew import copied, require_structure, skew_matrix
from liouville.norms import spectral_norm
from liouville.operators import Dense, Operator


class PortTheta(NamedTuple):
    """K (N, m, n, ...), b (N, m), L (N or 1, n, r)."""

    K: Tensor
    b: Tensor
    L: Tensor


class PortThetaG(NamedTuple):
    """K (N, m, n, ...), b (N, m), L (N or 1, n, r), G (N, n, inputs): a field with inputs."""

    K: Tensor
    b: Tensor
    L: Tensor
    G: Tensor


class PortHamiltonianField(ActivatedField):
    r"""y' = (J - R) grad H(y) + G u, with R = L L^T >= 0 and H(y) = 1^T sigma_int(K y + b) + (quadratic / 2) |y|^2.

    Properties: dH/dt = -|L^T grad H|^2 + u^T G^T grad H: a frozen layer stores at most what flows in (passivity), and
    without an input H never grows. `DiscreteGradient` keeps this balance exactly in every step. The norm of a
    sensitivity has a lower bound from the weights, `liouville.analysis.log_lower_bound`. Where R = 0 and u = 0 it is
    `HamiltonianField`, with all of its laws.

    Reference: van der Schaft & Jeltsema 2014, sec. 2; Furieri et al. 2022 (2112.09046), for controllers.

    Args:
        features: n.
        layers: N.
        J: ``"canonical"``, ``"full"`` or any skew (n, n) matrix, as for `HamiltonianField`.
        rank: r, columns of L; n by default. The ``structure`` of a `Graph` masks L: by default a node damps only
            its own features.
        damping: R = damping I at the start, on the first r features. 0 starts at L = 0, where L has no gradient.
        shared_damping: one L for all layers.
        inputs: width of u; 0 for a field without ports. ``flow(y, u=u)`` gives the input, of shape (inputs,) or
            (batch, inputs), to all layers, and ``flow(y, u=PerLayer(u))`` a value to each; no input is u = 0.
        quadratic: alpha >= 0; with alpha > 0 H has compact level sets, so that a trajectory without input is bounded.
        hidden, operator, activation, shared, init, generator: as for `HamiltonianField`.

    Raises:
        ValueError: if J is not skew or n is odd for the canonical J, or a number is out of its range.

    Examples:
        >>> field = PortHamiltonianField(4, layers=8, inputs=2)
        >>> y, u = torch.randn(10, 4), torch.randn(10, 2)
        >>> field(y, PortThetaG(*(w[0] for w in field.theta())), u=u).shape
        torch.Size([10, 4])
    """

    J: Tensor
    biases = (("b",),)

    def __init__(
        self,
        features: int,
        layers: int,
        *,
        J: str | Tensor = "canonical",
        rank: int | None = None,
        damping: float = 0.1,
        shared_damping: bool = False,
        inputs: int = 0,
        quadratic: float = 0.0,
        hidden: int | None = None,
        operator: Operator = Dense(),
        activation: str | Activation = "tanh",
        shared: bool = False,
        init: Initial = Smooth(),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(features, layers, operator, activation, shared, init)
        for name, value in (("damping", damping), ("quadratic", quadratic)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be a finite number of at least 0, got {value}.")
        if inputs < 0 or (rank is not None and rank < 1):
            raise ValueError(f"inputs must be at least 0 and rank at least 1, got {inputs} and {rank}.")
        matrix = skew_matrix(J, features, layers)
        if matrix.dim() == 3:
            raise ValueError(
                f"a port-Hamiltonian field has one J, ({features}, {features}), got {tuple(matrix.shape)}."
            )
        require_structure(operator, matrix, "J")
        self.hidden = features if hidden is None else hidden
        self.rank = features if rank is None else rank
        self.damping, self.shared_damping, self.inputs, self.quadratic = damping, shared_damping, inputs, quadratic
        self.K = self._weight(self.hidden, features, generator)
        self.b = self._bias(self.hidden, generator)
        count = 1 if shared or shared_damping else layers
        self.constant = ("L",) if shared_damping else ()
        self.L = nn.Parameter(
            operator.constrain_structure(damping**0.5 * torch.eye(features, self.rank)).repeat(count, 1, 1)
        )
        if inputs:
            scale = inputs**-0.5 * torch.randn(features, inputs, generator=generator)
            self.G = nn.Parameter(scale.repeat(1 if shared else layers, 1, 1))
        self.J_name = J if isinstance(J, str) else None
        self.register_buffer("J", copied(matrix, self.K))

    @property
    def spectrum(self) -> Spectrum:
        """(J - R) P with P = K^T D K + alpha I >= 0 is similar to P^(1/2) (J - R) P^(1/2), and -R <= 0."""
        return self._where_monotone("damped")

    @property
    def scaling(self) -> Scaling | None:  # type: ignore[override]
        """That of the Hamiltonian field, without a quadratic part."""
        return None if self.quadratic else Scaling(("K",), 2)

    @property
    def degrees(self) -> Degrees | None:  # type: ignore[override]
        """Those of the Hamiltonian field, without a quadratic part or inputs, which are counted in other units."""
        return None if self.quadratic or self.inputs else Degrees(("K",), rate=2)

    def theta(self) -> PortTheta | PortThetaG:
        """K, b, L and, with inputs, G; a `Graph` masks K and L."""
        K, L = self._constrained(self.K), self.operator.constrain_structure(self.L)
        return PortThetaG(K, self.b, L, self.G) if self.inputs else PortTheta(K, self.b, L)

    def resistance(self, theta: PortTheta | PortThetaG) -> Tensor:
        """R = L L^T, (..., n, n)."""
        return theta.L @ theta.L.mT

    def interconnection(self, theta: PortTheta | PortThetaG) -> Tensor:
        """J - R, (..., n, n)."""
        return self.J - self.resistance(theta)

    def storage(self, y: Tensor, theta_j: PortTheta | PortThetaG) -> Tensor:
        """H(y; theta_j), one number per sample; conserved only where R = 0 and u = 0, so it is no ``energy``."""
        own = self.energy_density(self.operator.apply(theta_j.K, y, theta_j.b))
        return own + 0.5 * self.quadratic * y.square().sum(tuple(range(-self.sample_ndim, 0)))

    def gradient(self, y: Tensor, theta_j: PortTheta | PortThetaG) -> Tensor:
        """grad H = K^T sigma(K y + b) + alpha y."""
        return self.mean_gradient(y, None, theta_j)

    def mean_gradient(self, y: Tensor, z: Tensor | None, theta_j: PortTheta | PortThetaG) -> Tensor:
        """The mean g of grad H between y and z: <g, z - y> = H(z) - H(y). At z = None, grad H(y)."""
        pre = self.operator.apply(theta_j.K, y, theta_j.b)
        if z is None:
            hidden, middle = self.activation(pre), y
        else:
            hidden = self.activation.mean(pre, self.operator.apply(theta_j.K, z, theta_j.b))
            middle = 0.5 * (y + z)
        own = self.operator.apply_transpose(theta_j.K, hidden)
        return own + self.quadratic * middle if self.quadratic else own

    def forward(self, y: Tensor, theta_j: PortTheta | PortThetaG, u: Tensor | None = None) -> Tensor:
        """y' = (J - R) grad H + G u."""
        return self._driven(self.gradient(y, theta_j), theta_j, u)

    def mean_velocity(self, y: Tensor, z: Tensor, theta_j: PortTheta | PortThetaG, u: Tensor | None = None) -> Tensor:
        """(J - R) g + G u with the mean gradient g."""
        return self._driven(self.mean_gradient(y, z, theta_j), theta_j, u)

    def _driven(self, gradient: Tensor, theta_j: PortTheta | PortThetaG, u: Tensor | None) -> Tensor:
        velocity = self.operator.mix(self.interconnection(theta_j), gradient)
        if not isinstance(theta_j, PortThetaG):
            return velocity
        if u is None:  # 0, so that G has a gradient, of 0
            u = theta_j.G.new_zeros(self.inputs, *(1,) * (-1 - self.feature_axis))
        return velocity + self.operator.mix(theta_j.G, u)

    def jacobian(self, y: Tensor, theta: PortTheta | PortThetaG) -> Tensor | None:
        """(J - R) (K^T D K + alpha I), D = diag(sigma'(K y + b)); the input adds a constant."""
        K = self.operator.matrix(theta.K)
        if K is None:
            return None
        S = self.interconnection(theta)
        return weighted(S @ K.mT, self.slope(K, y, theta.b), K) + self.quadratic * S.unsqueeze(-3)

    def structure(self, theta: PortTheta | PortThetaG) -> Tensor | None:
        """J where L = 0, with which f = J grad H; else None."""
        return None if theta.L.any() else self.J

    def energy(self, state: Tensor | tuple[Tensor, ...], theta_j: PortTheta | PortThetaG) -> Tensor:
        """The storage where L = 0; a field that loses energy states no conserved one."""
        if theta_j.L.any():
            raise NotImplementedError(
                "PortHamiltonianField with L != 0 loses energy and conserves none; storage(y, theta_j) is its H."
            )
        return self.storage(state if isinstance(state, Tensor) else torch.cat(state, self.feature_axis), theta_j)

    def rate(self, theta: PortTheta | PortThetaG) -> Tensor:
        """||J - R|| (s_max ||K||^2 + alpha) of each layer."""
        P = self.activation.lipschitz * self.operator.norm(theta.K).square() + self.quadratic
        return spectral_norm(self.interconnection(theta)) * P

    def lipschitz(self, theta: PortTheta | PortThetaG) -> Lipschitz:
        r"""||f'|| <= ||J - R|| (s_max ||K||^2 + alpha); the one-sided constant of (J - R) P, P = K^T D K + alpha I.

        With p = s_max ||K||^2, the symmetric part of J P is at most ||J|| p / 2, and the symmetric part of -R P at most
        ||R|| p / 8, the least eigenvalue of a symmetrised product of two matrices in [0, ||R||] and [0, p] being at
        least -||R|| p / 8 (Strang 1962); both for sigma' >= 0, else twice and eight times as much.
        """
        p = self.activation.lipschitz * self.operator.norm(theta.K).square()
        share = 1 / 8 if self.activation.monotone else 1.0
        mu = self.skewed(p * spectral_norm(self.J)) + share * p * spectral_norm(self.resistance(theta))
        return Lipschitz((self.rate(theta),), mu)

    def check_arguments(self, args: Sequence[Any], context: Mapping[str, Any]) -> None:
        if not self.inputs and (args or context):
            raise TypeError(
                f"PortHamiltonianField without ports takes no arguments beside its input, got {named(args, context)}; "
                "build it with inputs=, the width of u, to give flow(y, u=u)."
            )
        super().check_arguments(args, context)
        for u in (*args, *context.values()):
            u = u.values if isinstance(u, PerLayer) else u
            axis = self.feature_axis
            if u is not None and not isinstance(u, Tensor):
                raise TypeError(f"u must be a tensor with {self.inputs} features, got {type(u).__name__}.")
            if isinstance(u, Tensor) and (u.dim() < -axis or u.shape[axis] != self.inputs):
                raise TypeError(f"u must have {self.inputs} features along axis {axis}, got shape {tuple(u.shape)}.")

    def extra_repr(self) -> str:
        parts = [super().extra_repr(), f"rank={self.rank}"]
        parts += [f"{name}={value}" for name in ("inputs", "quadratic") if (value := getattr(self, name))]
        return ", ".join(parts)
