r"""What the network, the reference run and the enclosure round in a step: one matrix and one vector, found once.

By the standard constants g(k) = k u / (1 - k u) of sums of k products, in any order, fused or not; u is the half unit
of the network's dtype, U = 2^-53 that of float64, in which the reference and the enclosure are computed, and sigma is
within `secant.ULP` half units. With ``inside``, a bound of |R||y'| + |b| over the set, ``reach``, one of |y'| after
the step, and L >= |sigma'|, the entries that a step moves are off by at most

    A inside + a + (u + 4 U) reach,        entrywise,

of which the sum inside sigma contributes |B| L (g(n + 3) + its float64 counterpart), sigma and the products with B a
share of |sigma| <= alpha inside + beta, and the secant and its columns a share of |sigma(0)| + L inside: no interval,
slope or middle is larger than a few times that.
"""

from __future__ import annotations

__all__ = ["Rounding", "g", "half_unit", "least", "rounding"]

from typing import NamedTuple

import torch
from torch import Tensor

from liouville.analysis.local.chain import Chain, Step
from liouville.analysis.local.secant import PAD, ULP, UNIT, at_zero, size

half_unit = {torch.float32: 2.0**-24, torch.float64: UNIT}


class Rounding(NamedTuple):
    """Of a step.

    Args:
        per_inside: A, (len(y[to]), m).
        always: a, (len(y[to]), 1).
        per_reach: u + 4 U.
        argument: how far an argument of sigma is from what it would be without rounding here, over ``inside``.
    """

    per_inside: Tensor
    always: Tensor
    per_reach: float
    argument: float


def rounding(chain: Chain, step: Step) -> Rounding:
    """The bounds of a step; 1.01 covers that they are computed in float64 themselves."""
    v, sigma, unit = step.velocity, chain.activation, half_unit[chain.dtype]
    m, n = v.R.shape
    products = m + n + len(v.B) + 8
    argument = g(2 * n + 16, UNIT)
    of_sums = sigma.lipschitz * (g(n + 3, unit) + argument)
    of_values = ULP * unit + g(products, unit) + g(products, UNIT)
    of_secant = (PAD + 8 * (m + 8)) * UNIT  # 8 (|sigma(0)| + L inside) bound the sizes of all terms that B multiplies
    (alpha, beta), tiny = size(sigma), least(chain.dtype, m + n)
    A = 1.01 * v.B_size * (of_sums + alpha * of_values + sigma.lipschitz * of_secant)
    a = 1.01 * (v.B_size.sum(1, keepdim=True) * (beta * of_values + at_zero(sigma) * of_secant + tiny) + tiny)
    return Rounding(A, a, 1.01 * (unit + 4 * UNIT), argument)


def g(k: int, unit: float) -> float:
    """g(k) = k u / (1 - k u), the relative error of a sum of k products."""
    return k * unit / (1 - k * unit)


def least(dtype: torch.dtype, terms: int) -> float:
    """What a sum of so many products is off by besides, where they are smaller than the normal numbers.

    Larger in float64 than it need be, so that the columns of such errors are not such numbers, which are slow.
    """
    return max(torch.finfo(dtype).tiny, 1e-280) * (terms + 8)
