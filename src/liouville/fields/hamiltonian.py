r"""Hamiltonian fields y' = J grad H(y; theta): the family that contains every network of both papers.

H(y; theta) = 1^T sigma_int(K y + b), so grad H = K^T sigma(K y + b). With J skew, <grad H, y'> = 0: a frozen layer
keeps its energy. With K block-diagonal and J off-diagonal the energy separates, and the symplectic schemes are
explicit.
"""

from __future__ import annotations

__all__ = [
    "GeneralTheta",
    "GeneralThetaJ",
    "HamiltonianField",
    "SeparableHamiltonianField",
    "SeparableTheta",
]

from typing import NamedTuple

import torch
from torch import Tensor, nn

from liouville.activations import Activation
from liouville.fields.activated import ActivatedField, weighted
from liouville.fields.base import Degrees, Factors, Lipschitz, Scaling, Spectrum
from liouville.fields.initial import Initial, Smooth
from liouville.fields.partitioned import PartitionedField
from liouville.fields.skew import copied, require_structure, skew_matrix
from liouville.norms import spectral_norm
from liouville.operators import Dense, Operator


class GeneralTheta(NamedTuple):
    """K (N, m, n, ...), b (N, m)."""

    K: Tensor
    b: Tensor


class GeneralThetaJ(NamedTuple):
    """K (N, m, n, ...), b (N, m), J (N, n, n) skew: where J is trained or varies with the layer."""

    K: Tensor
    b: Tensor
    J: Tensor


class SeparableTheta(NamedTuple):
    """K_p (N, m, n_p, ...), K_q (N, m, n_q, ...), b_p (N, m), b_q (N, m)."""

    K_p: Tensor
    K_q: Tensor
    b_p: Tensor
    b_q: Tensor


class HamiltonianField(ActivatedField):
    r"""The general Hamiltonian field, y' = J K^T sigma(K y + b).

    Properties: <grad H, y'> = 0 for every skew J; the Jacobian J K^T D K has trace 0 and, where sigma' >= 0, a purely
    imaginary spectrum, so one forward Euler step has determinant prod(1 + h^2 mu_k^2) >= 1. Symplectic under
    `ImplicitMidpoint` for every constant J, and under `ImplicitSymplecticEuler` for J = [[0, -X^T], [X, 0]].

    Reference: Galimberti et al. 2023 (2105.13205), H1-DNN; Galimberti, Xu, Ferrari-Trecate 2021 (2104.13166), eq. (10).

    Args:
        features: n.
        layers: N.
        J: ``"canonical"`` ([[0, -I], [I, 0]], n even), ``"full"`` (+1 above, -1 below the diagonal) or any skew
            matrix, (n, n), or (N, n, n) for one per layer; it may be singular or of odd size. It is copied, and cast
            to torch's default dtype like all weights; call torch.set_default_dtype(torch.float64) first for exact
            float64.
        train_J: train J through J = B - B^T, B unconstrained and starting at J/2.
        hidden: m, rows of K; n by default.
        operator: `Dense` or `Conv`; with `Conv`, J acts on the channels of each pixel.
        activation: sigma.
        shared: one K, b for all layers.
        init: initial weights, smooth in depth by default.
        generator: random generator of the initial weights; torch's default stream if None.

    Raises:
        ValueError: if J is not skew, not (n, n) or (N, n, n), or n is odd for the canonical J.

    Examples:
        >>> field = HamiltonianField(4, layers=8)
        >>> y = torch.randn(10, 4)
        >>> field(y, GeneralTheta(*(w[0] for w in field.theta()))).shape
        torch.Size([10, 4])
    """

    J: Tensor
    J_raw: nn.Parameter
    biases = (("b",),)
    scaling = Scaling(("K",), 2)
    degrees = Degrees(("K",), rate=2)

    def __init__(
        self,
        features: int,
        layers: int,
        *,
        J: str | Tensor = "canonical",
        train_J: bool = False,
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
        self.train_J = train_J
        matrix = skew_matrix(J, features, layers)
        require_structure(operator, matrix, "J")
        self.J_name = J if isinstance(J, str) else None
        self.constant = ("J_raw",) if matrix.dim() == 2 else ()
        if train_J or matrix.dim() == 3:
            raw = 0.5 * matrix if matrix.dim() == 3 else 0.5 * matrix[None]
            self.J_raw = nn.Parameter(raw.to(self.K.dtype), requires_grad=train_J)
        else:
            self.register_buffer("J", copied(matrix, self.K))

    @property
    def constant_J(self) -> bool:
        """Whether one fixed J serves all layers; else theta carries J."""
        return "J" in self._buffers

    @property
    def spectrum(self) -> Spectrum:
        """J P with P = K^T D K >= 0 is similar to the skew P^(1/2) J P^(1/2)."""
        return self._where_monotone("imaginary")

    def theta(self) -> GeneralTheta | GeneralThetaJ:
        """K, b; J = B - B^T where it is trained or varies; a `Graph` masks K and J."""
        if self.constant_J:
            return GeneralTheta(self._constrained(self.K), self.b)
        J = self.operator.constrain_structure(self.J_raw - self.J_raw.transpose(-2, -1))
        return GeneralThetaJ(self._constrained(self.K), self.b, J)

    def gradient(self, y: Tensor, theta_j: GeneralTheta | GeneralThetaJ) -> Tensor:
        """grad H = K^T sigma(K y + b)."""
        return self.operator.apply_transpose(theta_j.K, self.activation(self.operator.apply(theta_j.K, y, theta_j.b)))

    def forward(self, y: Tensor, theta_j: GeneralTheta | GeneralThetaJ) -> Tensor:
        """y' = J K^T sigma(K y + b)."""
        return self.operator.mix(self.structure(theta_j), self.gradient(y, theta_j))

    def mean_velocity(self, y: Tensor, z: Tensor, theta_j: GeneralTheta | GeneralThetaJ) -> Tensor:
        """J K^T (the mean of sigma between K y + b and K z + b)."""
        y, z = (self.operator.apply(theta_j.K, x, theta_j.b) for x in (y, z))
        hidden = self.activation.mean(y, z)
        return self.operator.mix(self.structure(theta_j), self.operator.apply_transpose(theta_j.K, hidden))

    def jacobian(self, y: Tensor, theta: GeneralTheta | GeneralThetaJ) -> Tensor | None:
        """J K^T D K, D = diag(sigma'(K y + b))."""
        K = self.operator.matrix(theta.K)
        return None if K is None else weighted(self.structure(theta) @ K.mT, self.slope(K, y, theta.b), K)

    def factors(self, theta: GeneralTheta | GeneralThetaJ) -> tuple[Factors, ...]:
        """J, K^T and K."""
        return (Factors((self.structure(theta).to(theta.K), theta.K.mT), theta.K, theta.b),)

    def structure(self, theta: GeneralTheta | GeneralThetaJ) -> Tensor:
        """J, (n, n); theta's own, (N, n, n), where it is trained or varies."""
        return theta.J if isinstance(theta, GeneralThetaJ) else self.J

    def energy(self, state: Tensor | tuple[Tensor, ...], theta_j: GeneralTheta | GeneralThetaJ) -> Tensor:
        """H(y; theta_j) = 1^T sigma_int(K y + b), one number per sample."""
        y = state if isinstance(state, Tensor) else torch.cat(state, self.feature_axis)
        return self.energy_density(self.operator.apply(theta_j.K, y, theta_j.b))

    def rate(self, theta: GeneralTheta | GeneralThetaJ) -> Tensor:
        """s_max ||J|| ||K||^2 of each layer."""
        J = spectral_norm(self.structure(theta))
        return self.activation.lipschitz * J * self.operator.norm(theta.K).square()

    def lipschitz(self, theta: GeneralTheta | GeneralThetaJ) -> Lipschitz:
        """||f'|| <= L = s_max ||J|| ||K||^2; (J P - P J)/2 with P = K^T D K is at most L/2 for sigma' >= 0."""
        L = self.rate(theta)
        return Lipschitz((L,), self.skewed(L))


class SeparableHamiltonianField(PartitionedField, ActivatedField):
    r"""The separable Hamiltonian field: K = blkdiag(K_p, K_q), J = [[0, -X^T], [X, 0]].

        p' = -X^T K_q^T sigma(K_q q + b_q),        q' = X K_p^T sigma(K_p p + b_p)

    Properties: every splitting scheme is explicit, invertible and symplectic with respect to J, A J A^T = J, so each
    backward sensitivity matrix has norm >= 1 at any depth, for any weights and any step.

    Reference: Galimberti et al. 2023 (2105.13205), H2-DNN.

    Args:
        features: n = n_p + n_q.
        layers: N.
        X: n_q x n_p matrix, a number c for X = c I, or None for X = I. A matrix is copied, and cast to torch's
            default dtype like all weights; call torch.set_default_dtype(torch.float64) first for exact float64.
        p_features: n_p; half by default.
        hidden: rows of K_p and of K_q; n_p and n_q by default.
        operator, activation, shared, init, generator: as for `HamiltonianField`.

    Raises:
        ValueError: if features is odd and p_features is not given, or X does not have shape (n_q, n_p).

    Examples:
        >>> SeparableHamiltonianField(4, layers=8).theta().K_p.shape
        torch.Size([8, 2, 2])
    """

    X: Tensor | None
    biases = (("b_q",), ("b_p",))
    scaling = Scaling(("K_p", "K_q"), 2)
    degrees = Degrees(("K_p", "K_q"), rate=2)

    def __init__(
        self,
        features: int,
        layers: int,
        *,
        X: Tensor | float | None = None,
        p_features: int | None = None,
        hidden: int | None = None,
        operator: Operator = Dense(),
        activation: str | Activation = "tanh",
        shared: bool = False,
        init: Initial = Smooth(),
        generator: torch.Generator | None = None,
    ) -> None:
        ActivatedField.__init__(self, features, layers, operator, activation, shared, init)
        self._set_partition(p_features)
        n_p, n_q = self.p_features, features - self.p_features
        self.hidden = hidden
        self.K_p = self._weight(hidden or n_p, n_p, generator)
        self.K_q = self._weight(hidden or n_q, n_q, generator)
        self.b_p = self._bias(hidden or n_p, generator)
        self.b_q = self._bias(hidden or n_q, generator)
        self.sign = 1.0 if not isinstance(X, (int, float)) else float(X)
        if isinstance(X, Tensor) and X.shape != (n_q, n_p):
            raise ValueError(f"X must have shape (n_q, n_p) = ({n_q}, {n_p}), got {tuple(X.shape)}.")
        if not isinstance(X, Tensor) and n_p != n_q:
            raise ValueError(f"X = c I needs n_p = n_q, got {n_p} and {n_q}; give X as a {n_q} x {n_p} matrix.")
        if isinstance(X, Tensor):
            require_structure(operator, X, "X")
        self.register_buffer("X", copied(X, self.K_p) if isinstance(X, Tensor) else None)

    @property
    def spectrum(self) -> Spectrum:
        """Imaginary, as for the general field."""
        return self._where_monotone("imaginary")

    def theta(self) -> SeparableTheta:
        """The raw weights; a `Graph` masks K_p and K_q."""
        return SeparableTheta(self._constrained(self.K_p), self._constrained(self.K_q), self.b_p, self.b_q)

    def p_dot(self, q: Tensor, theta_j: SeparableTheta) -> Tensor:
        """p' = -dH/dq = -X^T K_q^T sigma(K_q q + b_q)."""
        force = self._gradient(q, theta_j.K_q, theta_j.b_q)
        if self.X is not None:
            force = self.operator.mix(self.X.transpose(-2, -1), force)
        return _times(-self.sign, force)

    def q_dot(self, p: Tensor, theta_j: SeparableTheta) -> Tensor:
        """q' = dH/dp = X K_p^T sigma(K_p p + b_p)."""
        velocity = self._gradient(p, theta_j.K_p, theta_j.b_p)
        if self.X is not None:
            velocity = self.operator.mix(self.X, velocity)
        return _times(self.sign, velocity)

    def p_jacobian(self, q: Tensor, theta: SeparableTheta) -> Tensor | None:
        """-X^T K_q^T D_q K_q."""
        K = self.operator.matrix(theta.K_q)
        if K is None:
            return None
        left = K.mT if self.X is None else self.X.mT @ K.mT
        return weighted(-self.sign * left, self.slope(K, q, theta.b_q), K)

    def q_jacobian(self, p: Tensor, theta: SeparableTheta) -> Tensor | None:
        """X K_p^T D_p K_p."""
        K = self.operator.matrix(theta.K_p)
        if K is None:
            return None
        left = K.mT if self.X is None else self.X @ K.mT
        return weighted(self.sign * left, self.slope(K, p, theta.b_p), K)

    def factors(self, theta: SeparableTheta) -> tuple[Factors, ...]:
        """-X^T, K_q^T and K_q; X, K_p^T and K_p. X = I and X = -I are only signs, as in the velocities."""
        left: list[tuple[Tensor, ...]]
        if self.X is None and abs(self.sign) == 1.0:
            left = [(-self.sign * theta.K_q.mT,), (self.sign * theta.K_p.mT,)]
        else:
            K, n_p = theta.K_p, self.p_features
            X = self.sign * torch.eye(n_p, dtype=K.dtype, device=K.device) if self.X is None else self.X.to(K)
            left = [(-X.mT, theta.K_q.mT), (X, K.mT)]
        return Factors(left[0], theta.K_q, theta.b_q), Factors(left[1], theta.K_p, theta.b_p)

    def energy(self, state: Tensor | tuple[Tensor, ...], theta_j: SeparableTheta) -> Tensor:
        """H = 1^T sigma_int(K_p p + b_p) + 1^T sigma_int(K_q q + b_q), one number per sample."""
        p, q = self.halves(state)
        return self.energy_density(self.operator.apply(theta_j.K_p, p, theta_j.b_p)) + self.energy_density(
            self.operator.apply(theta_j.K_q, q, theta_j.b_q)
        )

    def rate(self, theta: SeparableTheta) -> Tensor:
        """s_max ||X|| ||K_p|| ||K_q|| of each layer."""
        X = abs(self.sign) if self.X is None else spectral_norm(self.X)
        return self.activation.lipschitz * X * self.operator.norm(theta.K_p) * self.operator.norm(theta.K_q)

    def lipschitz(self, theta: SeparableTheta) -> Lipschitz:
        """s_max ||X|| ||K_q||^2 and s_max ||X|| ||K_p||^2; (X P_p - P_q X)/2 is at most half the larger one."""
        X = abs(self.sign) if self.X is None else spectral_norm(self.X)
        L_p, L_q = (self.activation.lipschitz * X * self.operator.norm(K).square() for K in (theta.K_q, theta.K_p))
        return Lipschitz((L_p, L_q), self.skewed(torch.maximum(L_p, L_q)))

    def structure(self, theta: SeparableTheta) -> Tensor:
        """J = [[0, -X^T], [X, 0]], (n, n)."""
        n_p, n_q = self.p_features, self.features - self.p_features
        X = self.sign * torch.eye(n_q, n_p).to(self.K_p) if self.X is None else self.X
        top = torch.cat((X.new_zeros(n_p, n_p), -X.mT), 1)
        return torch.cat((top, torch.cat((X, X.new_zeros(n_q, n_q)), 1)))

    def _gradient(self, half: Tensor, K: Tensor, b: Tensor) -> Tensor:
        """K^T sigma(K half + b)."""
        return self.operator.apply_transpose(K, self.activation(self.operator.apply(K, half, b)))


def _times(c: float, x: Tensor) -> Tensor:
    if c == 1.0:
        return x
    return -x if c == -1.0 else c * x
