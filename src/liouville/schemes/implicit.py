r"""Implicit schemes: symplectic for every Hamiltonian field, at the price of a nonlinear equation per layer.

`liouville.schemes.solver` says how the equation is solved and differentiated, and where a solution is refused.
"""

from __future__ import annotations

__all__ = ["ImplicitMidpoint", "ImplicitSymplecticEuler"]

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from liouville.compilers import advanced
from liouville.fields.base import Lipschitz, Theta, VectorField
from liouville.fields.hamiltonian import HamiltonianField
from liouville.norms import spectral_norm
from liouville.schemes.base import ReversibleScheme, State, SymmetricScheme
from liouville.schemes.solver import full_precision, require_dense, solved


@dataclass(frozen=True)
class ImplicitMidpoint(SymmetricScheme):
    r"""y_{j+1} = y_j + h f((y_j + y_{j+1})/2; theta_j).

    Properties: order 2, symmetric, reversible where the equation of the inverse has one solution (always for small
    h), A-stable; symplectic for every field J grad H with a constant J, including singular ones and odd sizes. Only for
    dense fields.

    Reference: Hairer, Lubich & Wanner, sec. VI.4.

    Args:
        iterations: maximum number of fixed-point iterations, and of Newton iterations after them.

    Raises:
        ValueError: for a field that is not dense.
        ArithmeticError: if Newton's method was needed and its root does not continue the solution at small h: a real
            eigenvalue of I - h/2 f' is not positive. That test is necessary, not sufficient; Hamiltonian and
            antisymmetric fields with sigma' >= 0 have only one solution.

    Examples:
        >>> ImplicitMidpoint().order
        2
    """

    order: ClassVar[int] = 2
    stability_limit: ClassVar[float] = math.inf  # |1 + i x/2| = |1 - i x/2|
    iterations: int = 50

    def check(self, field: VectorField) -> None:
        require_dense(self, field)
        super().check(field)

    def init(self, field: VectorField, y: Tensor, theta_0: Theta, h: float) -> State:
        field.batch_shape(y)  # the equation is solved per sample, so the axes of a sample must be known
        return (y,)

    @full_precision
    def step(self, field: VectorField, state: State, theta_j: Theta, h: float) -> State:
        (y,) = state
        z = solved(lambda x: field(x, theta_j), y, h / 2, None, self.iterations)
        return (2 * z - y,)

    def log_growth(self, lipschitz: Lipschitz, h: float) -> Tensor:
        """log (1 + h mu / 2) / (1 - h mu / 2), by von Neumann's theorem for the half-plane Re z <= h mu; infinite for
        h mu >= 2.
        """
        half = 0.5 * h * lipschitz.one_sided
        return torch.where(half < 1, 2 * torch.atanh(torch.where(half < 1, half, 0.0)), torch.inf)

    def amplification(self, z: Tensor) -> Tensor:
        """|1 + z/2| / |1 - z/2|."""
        return (1 + z / 2).abs() / (1 - z / 2).abs()


@dataclass(frozen=True)
class ImplicitSymplecticEuler(ReversibleScheme):
    r"""Symplectic Euler for the general Hamiltonian field with J = [[0, -X^T], [X, 0]] and a full K = [K_p K_q].

        p' = p - h X^T K_q^T sigma(K_p p' + K_q q + b),        q' = q + h X K_p^T sigma(K_p p' + K_q q + b)

    Properties: order 1, reversible (the inverse is implicit in q), symplectic: A J A^T = J. The equation for p' has
    one solution, found by iteration, where h s_max ||X|| ||K_p|| ||K_q|| < 1; otherwise Newton's method is used.
    A frozen layer is stable while h s_max ||J|| ||K||^2 < 2, the margin of `liouville.analysis.margin`; its eigenvalues
    do not decide. Only for dense fields with a constant J.

    Reference: Galimberti et al. 2023 (2105.13205), semi-implicit Euler; Hairer, Lubich & Wanner, sec. VI.3.

    Args:
        iterations: maximum number of fixed-point iterations, and of Newton iterations after them.

    Raises:
        ValueError: for any other field.
        ArithmeticError: where I + h X^T K_q^T D K_p is near-singular or the solution is not unique.

    Examples:
        >>> ImplicitSymplecticEuler().order
        1
    """

    order: ClassVar[int] = 1
    # a multiplier -1 means h S (p', q) = -2 (q, p') with S = K^T D K, so that h ||S|| >= 2; no other collision is
    # possible, since all multipliers of a half circle have one signature
    stability_limit: ClassVar[float] = 2.0
    iterations: int = 50

    def check(self, field: VectorField) -> None:
        require_dense(self, field)
        if not isinstance(field, HamiltonianField) or not field.constant_J:
            raise ValueError(
                f"ImplicitSymplecticEuler needs a HamiltonianField with a constant J = [[0, -X^T], [X, 0]], got "
                f"{type(field).__name__}; use SymplecticEuler for a separable field, ImplicitMidpoint for any other."
            )
        m = field.features // 2
        if field.features % 2 or field.J[:m, :m].any() or field.J[m:, m:].any():
            raise ValueError(
                "ImplicitSymplecticEuler needs J = [[0, -X^T], [X, 0]] with halves of equal size, but this J has "
                'entries in its diagonal blocks; use J="canonical", or ImplicitMidpoint, which takes any J.'
            )
        super().check(field)

    def init(self, field: VectorField, y: Tensor, theta_0: Theta, h: float) -> State:
        return self.terminal(field, y)

    def terminal(self, field: VectorField, y: Tensor) -> State:
        p, q = y.chunk(2, dim=-1)
        return p, q

    @full_precision
    def step(self, field: VectorField, state: State, theta_j: Theta, h: float) -> State:
        layer = _FullLayer(field, theta_j)
        p, q = state
        fixed = layer.from_q(q)
        p = solved(lambda x: layer.p_dot(layer.from_p(x) + fixed), p, h, layer.lipschitz(), self.iterations)
        return p, advanced(q, layer.q_dot(layer.from_p(p) + fixed), h)

    @full_precision
    def inverse(self, field: VectorField, state: State, theta_j: Theta, h: float) -> State:
        layer = _FullLayer(field, theta_j)
        p, q = state
        fixed = layer.from_p(p)
        q = solved(lambda x: layer.q_dot(layer.from_q(x) + fixed), q, -h, layer.lipschitz(), self.iterations)
        return advanced(p, layer.p_dot(layer.from_q(q) + fixed), -h), q

    def final(self, field: VectorField, state: State) -> Tensor:
        return torch.cat(state, dim=-1)


class _FullLayer:
    """One layer of H(p, q) = 1^T sigma_int(K_p p + K_q q + b), J = [[0, -X^T], [X, 0]]."""

    def __init__(self, field: Any, theta_j: Theta) -> None:
        m = field.features // 2
        self.K_p, self.K_q, self.b = theta_j.K[:, :m], theta_j.K[:, m:], theta_j.b
        self.X, self.sigma = field.J[m:, :m], field.activation

    def from_p(self, p: Tensor) -> Tensor:
        return p @ self.K_p.mT + self.b

    def from_q(self, q: Tensor) -> Tensor:
        return q @ self.K_q.mT

    def p_dot(self, pre: Tensor) -> Tensor:
        return -(self.sigma(pre) @ self.K_q) @ self.X

    def q_dot(self, pre: Tensor) -> Tensor:
        return (self.sigma(pre) @ self.K_p) @ self.X.mT

    def lipschitz(self) -> float:
        """s_max ||X|| ||K_p|| ||K_q||."""
        norms = [float(spectral_norm(A.detach())) for A in (self.X, self.K_p, self.K_q)]
        return self.sigma.lipschitz * norms[0] * norms[1] * norms[2]
