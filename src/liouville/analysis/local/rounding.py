r"""Rounding errors of the network, the reference run and the enclosure in a step: matrices and vectors, found once.

The constants are the standard g(k) = k u / (1 - k u) of sums of k products, in any order, fused or not; u is the unit
roundoff of the network's dtype, U = 2^-53 of float64, used for the reference, centres and secants, V = 2^-24 of
columns, and sigma is accurate to `secant.ULP` half units. With ``size`` a bound of |R||y| + |b| in the run from the
centre, ``spread`` = |R| extent one of |R| applied to all terms of the set, ``inside`` = size + spread, ``reach`` one of
|y'| after the step, and L >= |sigma'|, the error of the entries that a step moves is at most

    A inside + a + (u + 4 U) reach + A_V spread + V' extent,        entrywise.

Of the sum inside sigma A has |B| L (g(n + 3) + its float64 counterpart); sigma and the products with B add a share of
|sigma| <= alpha inside + beta; the secant and its centre a share of |sigma(0)| + L inside: no interval, slope or middle
is larger than a few times that. Columns have a separate rounding, relative to their entries and not to the states:
R, B, slopes and lengths are rounded to float32, and one entry of columns[to] + B diag(slope) R columns[of] or of
B diag(half), half <= L spread, is a sum of m + 1 terms of products with sums of n: A_V = |B| L g_V(m + n + 16), V' its
g_V. Sums of absolute values along a row of columns have the relative error g_V(their number).

Errors e from earlier steps add at most |R| e to an argument and |B| L |R| e to the entries that a step moves. So they
grow by the norm of I + |B| L |R| per step, which ignores signs. Before they have grown `_GROWTH` times they become
columns, which keep signs.
"""

from __future__ import annotations

__all__ = ["Rounding", "g", "half_unit", "least", "roundings"]

from typing import NamedTuple

import torch
from torch import Tensor

from liouville.analysis.local.box import COLUMN, LEAST
from liouville.analysis.local.chain import Chain
from liouville.analysis.local.secant import PAD, ULP, UNIT, at_zero, size

half_unit = {torch.float32: 2.0**-24, torch.float64: UNIT}


class Rounding(NamedTuple):
    """Rounding errors of a step.

    Args:
        per_inside: A, (len(y[to]), m).
        always: a, (len(y[to]), 1).
        per_spread: A + A_V.
        per_reach: u + 4 U.
        per_extent: u + 4 U + V'.
        argument: the error of an argument of sigma by rounding in this step, over ``inside``.
        of_columns: its additional error, over ``spread``.
        passed_on: |B| L.
        gathers: whether errors become columns after this step.
    """

    per_inside: Tensor
    always: Tensor
    per_spread: Tensor
    per_reach: float
    per_extent: float
    argument: float
    of_columns: float
    passed_on: Tensor
    gathers: bool = False


_GROWTH = 6.0


def roundings(chain: Chain) -> list[Rounding]:
    """The bounds of all steps; the factor 1.01 covers their own rounding in float64."""
    alike: dict[tuple[int, ...], list[int]] = {}  # steps of one shape, which are computed at once
    for k, step in enumerate(chain.steps):
        alike.setdefault((*step.velocity.B.shape, step.velocity.R.shape[1]), []).append(k)
    found: dict[int, Rounding] = {}
    for (rows, m, n), steps in alike.items():
        B_size = torch.stack([chain.steps[k].velocity.B_size for k in steps])
        found.update(zip(steps, _of_shape(chain, B_size, rows, m, n), strict=True))
    products = [found[k].passed_on @ step.velocity.R_size for k, step in enumerate(chain.steps)]
    growth = torch.stack([(P.sum(0).amax() * P.sum(1).amax()).sqrt() for P in products])  # growth of their 2-norms
    total, bounds = 1.0, []
    for k, grown in enumerate((1 + growth).tolist()):
        total *= grown
        bounds.append(found[k]._replace(gathers=total > _GROWTH))
        total = 1.0 if total > _GROWTH else total
    return bounds


def _of_shape(chain: Chain, B_size: Tensor, rows: int, m: int, n: int) -> list[Rounding]:
    """The bounds of steps with |B| in the stack ``B_size``."""
    sigma, unit = chain.activation, half_unit[chain.dtype]
    products = m + n + rows + 8
    argument, columns = g(2 * n + 16, UNIT), g(m + n + 16, COLUMN)
    of_sums = sigma.lipschitz * (g(n + 3, unit) + argument)
    of_values = ULP * unit + g(products, unit) + g(products, UNIT)
    of_secant = (PAD + 8 * (m + 8)) * UNIT  # 8 (|sigma(0)| + L inside) bounds the sizes of all terms that B multiplies
    (alpha, beta), tiny = size(sigma), least(chain.dtype, m + n)
    A = 1.01 * (of_sums + alpha * of_values + sigma.lipschitz * of_secant) * B_size
    a = 1.01 * (B_size.sum(-1, keepdim=True) * (beta * of_values + at_zero(sigma) * of_secant + tiny) + tiny)
    passed, per_reach = sigma.lipschitz * B_size, 1.01 * (unit + 4 * UNIT)
    numbers = per_reach, per_reach + 1.01 * columns, argument, columns
    stacks = zip(A, a, A + 1.01 * columns * passed, passed, strict=True)
    return [Rounding(of, always, of_spread, *numbers, on) for of, always, of_spread, on in stacks]


def g(k: int, unit: float) -> float:
    """g(k) = k u / (1 - k u), the relative error of a sum of k products."""
    return k * unit / (1 - k * unit)


def least(dtype: torch.dtype, terms: int) -> float:
    """The additional error of a sum of this many products, where they or columns are below the normal numbers."""
    return max(torch.finfo(dtype).tiny, LEAST) * (terms + 8)
