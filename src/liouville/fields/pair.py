r"""The pair field: two halves that move each other through one matrix K and its transpose."""

from __future__ import annotations

__all__ = ["PairField", "PairTheta"]

from typing import NamedTuple

import torch
from torch import Tensor

from liouville.activations import Activation
from liouville.fields.activated import ActivatedField
from liouville.fields.base import Degrees, Factors, Lipschitz, Scaling, Spectrum
from liouville.fields.initial import Initial, Smooth
from liouville.fields.partitioned import PartitionedField
from liouville.operators import Dense, Operator


class PairTheta(NamedTuple):
    """K (N, n_q, n_p, ...), b (N, n_q), c (N, n_p)."""

    K: Tensor
    b: Tensor
    c: Tensor


class PairField(PartitionedField, ActivatedField):
    r"""The pair field of the first paper's Verlet network, with p = z auxiliary and q = y the data.

        p' = -sigma(K^T q + c),        q' = sigma(K p + b)

    The block matrix [[0, -K^T], [K, 0]] is skew for every K, which may be rectangular. Splitting schemes on it
    have determinant 1, but no constant J makes them symplectic: its J would be K^-1 and change with the layer.

    Reference: Haber & Ruthotto 2017 (1705.03341), sec. 4.2 and 4.3; MS1 of 2104.13166.

    Args:
        features: n = n_p + n_q.
        layers: N.
        p_features: n_p, the width of the auxiliary half; half by default.
        scalar_bias: one number per layer, used in both halves (the first paper); else a vector per layer.
        operator, activation, shared, init, generator: as for `HamiltonianField`.

    Raises:
        ValueError: if features is odd and p_features is not given.

    Examples:
        >>> PairField(5, layers=3, p_features=2).theta().K.shape
        torch.Size([3, 3, 2])
    """

    biases = (("c",), ("b",))
    scaling = Scaling(("K",), 1)
    degrees = Degrees(("K",), rate=1)

    def __init__(
        self,
        features: int,
        layers: int,
        *,
        p_features: int | None = None,
        scalar_bias: bool = False,
        operator: Operator = Dense(),
        activation: str | Activation = "tanh",
        shared: bool = False,
        init: Initial = Smooth(),
        generator: torch.Generator | None = None,
    ) -> None:
        ActivatedField.__init__(self, features, layers, operator, activation, shared, init)
        self._set_partition(p_features)
        self.scalar_bias = scalar_bias
        self.K = self._weight(features - self.p_features, self.p_features, generator)
        self.b = self._bias(1 if scalar_bias else features - self.p_features, generator)
        if not scalar_bias:
            self.c = self._bias(self.p_features, generator)

    @property
    def spectrum(self) -> Spectrum:
        """D [[0, -K^T], [K, 0]] is similar to a skew matrix for D >= 0."""
        return self._where_monotone("imaginary")

    def theta(self) -> PairTheta:
        """K, b, c; a scalar bias is expanded to both halves."""
        K = self._constrained(self.K)
        if not self.scalar_bias:
            return PairTheta(K, self.b, self.c)
        return PairTheta(K, self.b.expand(-1, self.features - self.p_features), self.b.expand(-1, self.p_features))

    def p_dot(self, q: Tensor, theta_j: PairTheta) -> Tensor:
        """p' = -sigma(K^T q + c)."""
        pre = self.operator.apply_transpose(theta_j.K, q) + self.operator.broadcast(theta_j.c)
        return -self.activation(pre)

    def q_dot(self, p: Tensor, theta_j: PairTheta) -> Tensor:
        """q' = sigma(K p + b)."""
        return self.activation(self.operator.apply(theta_j.K, p, theta_j.b))

    def p_jacobian(self, q: Tensor, theta: PairTheta) -> Tensor | None:
        """-D K^T, D = diag(sigma'(K^T q + c))."""
        K = self.operator.matrix(theta.K)
        return None if K is None else -self.slope(K.mT, q, theta.c).unsqueeze(-1) * K.mT.unsqueeze(-3)

    def q_jacobian(self, p: Tensor, theta: PairTheta) -> Tensor | None:
        """D K, D = diag(sigma'(K p + b))."""
        K = self.operator.matrix(theta.K)
        return None if K is None else self.slope(K, p, theta.b).unsqueeze(-1) * K.unsqueeze(-3)

    def factors(self, theta: PairTheta) -> tuple[Factors, ...]:
        """-I and K^T; I and K."""
        K, n_p = theta.K, self.p_features
        p, q = (torch.eye(n, dtype=K.dtype, device=K.device)[None] for n in (n_p, self.features - n_p))
        return Factors((-p,), K.mT, theta.c), Factors((q,), K, theta.b)

    def rate(self, theta: PairTheta) -> Tensor:
        """s_max ||K|| of each layer."""
        return self.activation.lipschitz * self.operator.norm(theta.K)

    def lipschitz(self, theta: PairTheta) -> Lipschitz:
        """s_max ||K|| for both halves; (D K - K D')/2 is at most half of it for sigma' >= 0."""
        L = self.rate(theta)
        return Lipschitz((L, L), self.skewed(L))
