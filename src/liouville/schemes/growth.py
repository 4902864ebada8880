r"""How much a step can amplify: log ||A_j||_2 of every layer, bounded by the Lipschitz constants of the velocities.

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
midpoint are then about half of the values by norms. The bounds of shears and of symplectic Euler hold for the
inverse of the step too. Each scheme states its own row, `Scheme.log_growth`.
"""

from __future__ import annotations

__all__ = ["log_growth", "of_shears", "of_symplectic_euler"]

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from liouville.fields.base import Lipschitz, is_closed

if TYPE_CHECKING:
    from liouville.schemes.base import Scheme

STEPS = ("step", "shears")
"""The methods that compute a step: a class that overrides one must state the dependent facts again."""


def log_growth(scheme: Scheme, lipschitz: Lipschitz, h: float) -> Tensor:
    r"""The scheme's `Scheme.log_growth`, unless a subclass has changed the step that it describes.

    Raises:
        NotImplementedError: if the scheme states none.

    Examples:
        >>> import liouville as lv
        >>> one = torch.ones(3)
        >>> log_growth(lv.SymplecticEuler(), Lipschitz((one, one), 0.5 * one), 0.1).exp()
        tensor([1.0565, 1.0565, 1.0565])
    """
    if not is_closed(scheme, "log_growth", STEPS):
        raise NotImplementedError(
            f"{type(scheme).__name__} has its own step and states no bound of it; override "
            "log_growth(lipschitz, h) to get upper bounds and budgets."
        )
    return scheme.log_growth(lipschitz, h)


def of_shears(stages: Iterable[tuple[int, float]], parts: tuple[Tensor, ...], h: float) -> Tensor:
    """log of the product of the norms of shears [[1, c h L], [0, 1]]; a stage is (part that states L, c)."""
    return torch.stack([torch.asinh(0.5 * abs(c) * h * parts[k]) for k, c in stages]).sum(0)


def of_symplectic_euler(z: Tensor, mu: Tensor, h: float) -> Tensor:
    r"""log of symplectic Euler's second bound, at z = h max(L_p, L_q).

    With p' = p + h p_dot(q) and q' = q + h q_dot(p'), tangents satisfy |p'|^2 + |q'|^2 <= |p|^2 + |q|^2 +
    2 h <q, (S_q + S_p^T) p'> + h^2 |S_q p'|^2, S the derivatives, and |p'|^2 + |q|^2 <= exp(2 asinh(h L_p / 2))
    (|p|^2 + |q|^2); the inverse is such a step with p and q exchanged.
    """
    m, tiny = 2 * h * mu, torch.finfo(mu.dtype).tiny  # a square root has no derivative at 0
    g = 0.5 * (z.square() + (z.square().square() + 4 * m.square() + tiny).sqrt())
    return 0.5 * torch.log1p(torch.exp(2 * torch.asinh(0.5 * z)) * g)
