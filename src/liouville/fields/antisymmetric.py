r"""The antisymmetric field: a skew linear map inside the activation."""

from __future__ import annotations

__all__ = ["AntisymmetricField", "AntisymmetricTheta"]

import math
from typing import NamedTuple

import torch
from torch import Tensor

from liouville.activations import Activation
from liouville.compilers import advanced
from liouville.fields.activated import ActivatedField
from liouville.fields.base import Degrees, Factors, Lipschitz, Scaling, Spectrum
from liouville.fields.initial import Initial, Smooth
from liouville.operators import Dense, Operator


class AntisymmetricTheta(NamedTuple):
    """A (N, n, n, ...) skew, b (N, n)."""

    A: Tensor
    b: Tensor


class AntisymmetricField(ActivatedField):
    r"""y' = sigma((A - gamma I) y + b) with A = W - W^T.

    For a convolution W^T is the transposed convolution, so A is a stencil whose matrix is skew.

    Properties: D A has an imaginary spectrum for sigma' >= 0, so the ordinary differential equation neither grows
    nor decays to first order. Forward Euler leaves its stability region for gamma = 0, yet one step then has
    determinant >= 1; it is stable at D = I exactly if 2 gamma >= h (gamma^2 + mu^2) for every eigenvalue i mu of A.
    `LeapfrogMidpoint` and `RK4` need no gamma, and the former must not have one: it amplifies damped modes. With gamma
    > 0 the determinant can fall below 1 and no lower bound holds.

    Reference: Haber & Ruthotto 2017 (1705.03341), eq. (4.12); there with a factor 1/2 (``factor``). MS2 of 2104.13166.

    Args:
        features: n.
        layers: N.
        gamma: diffusion, >= 0.
        factor: A = factor (W - W^T) and the diffusion is factor * gamma; 1/2 is the first paper's.
        scalar_bias: one number per layer (the first paper) instead of a vector.
        operator, activation, shared, init, generator: as for `HamiltonianField`.

    Raises:
        ValueError: if gamma < 0, or not finite.

    Examples:
        >>> A = AntisymmetricField(4, layers=8).theta().A
        >>> bool((A + A.mT == 0).all())
        True
    """

    biases: tuple[tuple[str, ...], ...] = (("b",),)

    def __init__(
        self,
        features: int,
        layers: int,
        *,
        gamma: float = 0.0,
        factor: float = 1.0,
        scalar_bias: bool = False,
        operator: Operator = Dense(),
        activation: str | Activation = "tanh",
        shared: bool = False,
        init: Initial = Smooth(),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(features, layers, operator, activation, shared, init)
        if not 0 <= gamma < math.inf:
            raise ValueError(f"gamma must be >= 0 and finite (it is diffusion; below 0 the field grows), got {gamma}.")
        self.gamma = gamma
        self.factor = factor
        self.scalar_bias = scalar_bias
        self.W = self._weight(features, features, generator)
        self.b = self._bias(1 if scalar_bias else features, generator)

    @property
    def spectrum(self) -> Spectrum:
        """D A is similar to the skew D^(1/2) A D^(1/2) for D >= 0; gamma damps."""
        diffusion = self.factor * self.gamma
        return self._where_monotone("imaginary" if not diffusion else "damped" if diffusion > 0 else "any")

    @property
    def scaling(self) -> Scaling | None:  # type: ignore[override]
        """Only A is scaled; None with diffusion, which would not scale with it."""
        return None if self.gamma else Scaling(("A",), 1)

    @property
    def degrees(self) -> Degrees | None:  # type: ignore[override]
        """1 and 1; diffusion is a rate of its own, which no power of A moves."""
        return None if self.gamma else Degrees(("A",), rate=1, raw=("W",))

    def theta(self) -> AntisymmetricTheta:
        """A = factor (W - W^T), b."""
        W = self._constrained(self.W)
        A = W - self.operator.transpose(W)
        return AntisymmetricTheta(A if self.factor == 1.0 else self.factor * A, self.b.expand(-1, self.features))

    def forward(self, y: Tensor, theta_j: AntisymmetricTheta) -> Tensor:
        """y' = sigma(A y - factor gamma y + b)."""
        pre = self.operator.apply(theta_j.A, y, theta_j.b)
        if self.gamma:
            pre = advanced(pre, y, -self.factor * self.gamma)
        return self.activation(pre)

    def jacobian(self, y: Tensor, theta: AntisymmetricTheta) -> Tensor | None:
        """D (A - factor gamma I), D = diag(sigma'(...))."""
        A = self.operator.matrix(theta.A)
        if A is None:
            return None
        M = A - self.factor * self.gamma * torch.eye(self.features).to(A)
        return self.slope(M, y, theta.b).unsqueeze(-1) * M.unsqueeze(-3)

    def factors(self, theta: AntisymmetricTheta) -> tuple[Factors, ...]:
        """I and A - factor gamma I."""
        A = theta.A
        one = torch.eye(self.features, dtype=A.dtype, device=A.device)[None]
        diffusion = self.factor * self.gamma * one
        return (Factors((one,), A - diffusion, theta.b, A.detach().abs() + diffusion.abs()),)

    def _mean(self, outputs: int, inputs: int) -> Tensor:
        """W - W^T = [[0, -I], [I, 0]], a quarter turn; an odd number of features leaves the middle one fixed."""
        half = inputs // 2
        return -torch.diag(torch.ones(half), inputs - half)[:outputs, :inputs]

    def rate(self, theta: AntisymmetricTheta) -> Tensor:
        """s_max ||A - gamma I|| of each layer, bounded by s_max (||A||^2 + gamma^2)^(1/2) (A is normal)."""
        diffusion = self.factor * self.gamma
        return self.activation.lipschitz * (self.operator.norm(theta.A).square() + diffusion**2).sqrt()

    def lipschitz(self, theta: AntisymmetricTheta) -> Lipschitz:
        """||f'|| <= s_max ||A - gamma I||; (D A - A D)/2 - gamma D is at most s_max ||A||/2 for sigma' >= 0."""
        size = self.activation.lipschitz * self.operator.norm(theta.A)
        L = self.rate(theta) if self.gamma else size  # the rate's square root has no derivative at 0
        return Lipschitz((L,), self.skewed(size) if self.activation.monotone else L)
