r"""How much a step can stretch: log ||A_j||_2 of every layer, bounded by the Lipschitz constants of the velocities.

With L, L_p, L_q bounds of ||f'||, ||p_dot'||, ||q_dot'||, z = h L = h max(L_p, L_q) and mu a bound of the largest
eigenvalue of (f' + f'^T)/2:

| step | ||A_j||_2 at most |
|---|---|
| shear, part += c h velocity | exp(asinh(c h L / 2)), the norm of [[1, c h L], [0, 1]] |
| splitting schemes, two-step midpoint | the product over their shears |
| symplectic Euler | also (1 + exp(2 asinh(z / 2)) g)^(1/2), g the norm of [[z^2, 2 h mu], [2 h mu, 0]] |
| forward Euler | (1 + 2 h mu + (h L)^2)^(1/2) |
| coupled streams of gain c | exp(asinh(c h L / 2)) |
| momentum, gamma and g = (1 - gamma) h L | exp(asinh(1 / 2)) times the norm of [[1, 0], [g, gamma]] |
| RK4 | 1 + z + z^2/2 + z^3/6 + z^4/24 |
| implicit midpoint | (1 + h mu / 2) / (1 - h mu / 2) for h mu < 2 |

For skew structures and sigma' >= 0, mu is L/2 and not L: the exponents of symplectic and forward Euler and of implicit
midpoint are then about half of what norms alone give. The bounds of shears and of symplectic Euler hold for the inverse
of the step too.
"""

from __future__ import annotations

__all__ = ["log_growth"]

import math

import torch
from torch import Tensor

from liouville.fields.base import Lipschitz
from liouville.schemes.base import Scheme, SplittingScheme
from liouville.schemes.coupled import Coupled
from liouville.schemes.euler import ForwardEuler
from liouville.schemes.implicit import ImplicitMidpoint
from liouville.schemes.momentum import Momentum
from liouville.schemes.rungekutta import RK4
from liouville.schemes.symplectic import SymplecticEuler
from liouville.schemes.twostep import Midpoint


def log_growth(scheme: Scheme, lipschitz: Lipschitz, h: float) -> Tensor:
    r"""An upper bound of log ||A_j||_2 for each layer, shaped like the Lipschitz constants and differentiable in them.

    Derivation of symplectic Euler's second bound: with p' = p + h p_dot(q) and q' = q + h q_dot(p'), tangents satisfy
    |p'|^2 + |q'|^2 <= |p|^2 + |q|^2 + 2 h <q, (S_q + S_p^T) p'> + h^2 |S_q p'|^2, S the derivatives, and
    |p'|^2 + |q|^2 <= exp(2 asinh(h L_p / 2)) (|p|^2 + |q|^2); the inverse is such a step with p and q exchanged.
    Implicit midpoint: von Neumann's theorem for the half-plane Re z <= h mu.

    Raises:
        NotImplementedError: if no bound is known for the scheme.

    Examples:
        >>> one = torch.ones(3)
        >>> log_growth(SymplecticEuler(), Lipschitz((one, one), 0.5 * one), 0.1).exp()
        tensor([1.0565, 1.0565, 1.0565])
    """
    parts, mu = lipschitz
    z = h * (torch.maximum(*parts) if len(parts) == 2 else parts[0])
    if isinstance(scheme, SplittingScheme):
        shears = _shears(scheme, parts, h)
        return torch.minimum(shears, _symplectic_euler(z, mu, h)) if type(scheme) is SymplecticEuler else shears
    if type(scheme) is Midpoint:
        return torch.asinh(z)
    if type(scheme) is Coupled:
        return torch.asinh(0.5 * scheme.gain * z)
    if type(scheme) is Momentum:
        c = scheme.gamma**2
        size = 1 + ((1 - scheme.gamma) * z).square() + c
        return math.asinh(0.5) + 0.5 * torch.log(0.5 * (size + (size.square() - 4 * c).sqrt()))
    if type(scheme) is ForwardEuler:
        return 0.5 * torch.log1p(2 * h * mu + z.square())
    if type(scheme) is RK4:
        return torch.log1p(z * (1 + z / 2 * (1 + z / 3 * (1 + z / 4))))
    if type(scheme) is ImplicitMidpoint:
        half = 0.5 * h * mu
        return torch.where(half < 1, 2 * torch.atanh(torch.where(half < 1, half, 0.0)), torch.inf)
    raise NotImplementedError(f"no upper bound is known for {type(scheme).__name__}.")


def _shears(scheme: SplittingScheme, parts: tuple[Tensor, ...], h: float) -> Tensor:
    return torch.stack([torch.asinh(0.5 * abs(c) * h * parts["pq".index(half)]) for half, c in scheme.stages]).sum(0)


def _symplectic_euler(z: Tensor, mu: Tensor, h: float) -> Tensor:
    m, tiny = 2 * h * mu, torch.finfo(mu.dtype).tiny  # a square root has no derivative at 0
    g = 0.5 * (z.square() + (z.square().square() + 4 * m.square() + tiny).sqrt())
    return 0.5 * torch.log1p(torch.exp(2 * torch.asinh(0.5 * z)) * g)
