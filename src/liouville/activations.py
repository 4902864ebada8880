r"""Activations: sigma together with the facts that the theory needs.

A Hamiltonian field is the gradient of an energy, H(y) = 1^T sigma_int(K y + b) with sigma_int' = sigma, so an
activation carries its primitive. The bounds need s_max >= sup |sigma'|, and every guarantee of forward Euler
needs sigma' >= 0: both are stated with the function, never guessed.
"""

from __future__ import annotations

__all__ = ["ACTIVATIONS", "Activation", "activation", "logistic", "relu", "softplus", "tanh"]

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from liouville.names import lookup

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Activation:
    r"""An elementwise function sigma, its primitive and its derivative, and the facts that guarantees rest on.

    Args:
        name: its name in descriptions and files.
        function: sigma, elementwise.
        primitive: sigma_int with sigma_int' = sigma; the energy is its sum.
        derivative: sigma'; at a kink, any value between the one-sided derivatives.
        lipschitz: s_max >= sup |sigma'|; ``math.inf`` where there is no bound.
        monotone: whether sigma' >= 0 everywhere. Guarantees for forward Euler hold only then.
        secant: `mean` in closed form, (x, y) -> tensor. None: by quadrature, exact to rounding if sigma is analytic
            within a distance of 1 of the real axis; a sigma with kinks needs its own.

    Examples:
        >>> sine = Activation("sine", torch.sin, lambda x: -torch.cos(x), torch.cos, lipschitz=1.0, monotone=False)
        >>> float(sine(torch.tensor(0.0)))
        0.0
    """

    name: str
    function: Function
    primitive: Function
    derivative: Function
    lipschitz: float
    monotone: bool
    secant: Callable[[Tensor, Tensor], Tensor] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """sigma(x), elementwise."""
        return self.function(x)

    def mean(self, x: Tensor, y: Tensor) -> Tensor:
        r"""int_0^1 sigma((1 - s) x + s y) ds = (sigma_int(y) - sigma_int(x)) / (y - x), elementwise; sigma(x) at y = x.

        Its two derivatives lie between 0 and s_max/2 where sigma' >= 0, and add up to the mean of sigma'.

        Examples:
            >>> x = torch.tensor([0.0, 1.0])
            >>> relu.mean(x, -x)
            tensor([0.0000, 0.2500])
        """
        return _mean(self, x, y) if self.secant is None else self.secant(x, y)

    def __repr__(self) -> str:
        return f"Activation({self.name!r})"

    def __deepcopy__(self, memo: object) -> Activation:
        return self  # immutable, and its functions need not be copyable

    def __reduce__(self) -> tuple[Any, ...]:
        """A known one is unpickled as itself, which is how model files know it."""
        if ACTIVATIONS.get(self.name) is self:
            return activation, (self.name,)
        return Activation, tuple(getattr(self, field.name) for field in fields(self))


def _log_cosh(x: Tensor) -> Tensor:
    """log cosh x = |x| + log(1 + exp(-2|x|)) - log 2, without overflow."""
    return F.softplus(-2.0 * x.abs()) + x.abs() - math.log(2.0)


def _tanh_derivative(x: Tensor) -> Tensor:
    return 1.0 - torch.tanh(x).square()


def _half_square(x: Tensor) -> Tensor:
    return 0.5 * F.relu(x).square()


def _step(x: Tensor) -> Tensor:
    return (x > 0).to(x.dtype)


@functools.cache
def _gauss_legendre(points: int) -> list[tuple[float, float]]:
    """Nodes and weights on [0, 1], from the eigenvectors of the Jacobi matrix (Golub & Welsch)."""
    k = torch.arange(1, points, dtype=torch.float64)
    off = k / (4 * k.square() - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return list(zip((0.5 * (nodes + 1)).tolist(), vectors[0].square().tolist(), strict=True))


_NODES = 12  # on an interval of length 1 the error for tanh, whose poles are at +-i pi/2, is below 1e-18


def _mean(sigma: Activation, x: Tensor, y: Tensor) -> Tensor:
    """The difference quotient of the primitive, and quadrature where it would lose digits."""
    apart = y - x
    far = apart.abs() >= 1
    near = torch.where(far, 0.0, apart)
    nodes = sum(weight * sigma(x + node * near) for node, weight in _gauss_legendre(_NODES))
    quotient = (sigma.primitive(y) - sigma.primitive(x)) / torch.where(far, apart, 1.0)
    return torch.where(far, quotient, nodes)


def _relu_mean(x: Tensor, y: Tensor) -> Tensor:
    """(x + y)/2 above 0, 0 below it, and the part above 0 of an interval that contains it."""
    low, high = torch.minimum(x, y), torch.maximum(x, y)
    crosses = (low < 0) & (high > 0)
    share = F.relu(high).square() / (2 * torch.where(crosses, high - low, 1.0))
    return torch.where(crosses, share, 0.5 * (F.relu(x) + F.relu(y)))


def _softplus_primitive(x: Tensor) -> Tensor:
    """-Li_2(-e^x), the integral of softplus.

    For x <= 0 it is int_0^1 log(1 + e^x u) / u du, whose nearest singularity u = -e^-x <= -1 lets 12
    Gauss-Legendre nodes reach 4e-19; for x > 0 the reflection pi^2/6 + x^2/2 - g(-x) applies.
    """
    positive = x > 0
    z = torch.where(positive, -x, x).exp()
    g = torch.stack([weight / node * torch.log1p(node * z) for node, weight in _gauss_legendre(12)]).sum(0)
    return torch.where(positive, math.pi**2 / 6 + 0.5 * x.square() - g, g)


def _softplus(x: Tensor) -> Tensor:
    """log(1 + e^x); torch's default returns x from 20 on, with an error of 2e-9."""
    return F.softplus(x, threshold=40.0)


def _logistic_derivative(x: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    return s * (1.0 - s)


tanh = Activation("tanh", torch.tanh, _log_cosh, _tanh_derivative, lipschitz=1.0, monotone=True)
relu = Activation("relu", F.relu, _half_square, _step, lipschitz=1.0, monotone=True, secant=_relu_mean)
softplus = Activation("softplus", _softplus, _softplus_primitive, torch.sigmoid, lipschitz=1.0, monotone=True)
logistic = Activation("logistic", torch.sigmoid, _softplus, _logistic_derivative, lipschitz=0.25, monotone=True)

ACTIVATIONS = {a.name: a for a in (tanh, relu, softplus, logistic)}


def activation(choice: str | Activation) -> Activation:
    """The activation named ``choice``, or ``choice`` if it is one; the error for an unknown name suggests the nearest.

    Examples:
        >>> activation("relu").monotone
        True
    """
    return choice if isinstance(choice, Activation) else lookup(ACTIVATIONS, choice, "activation")
