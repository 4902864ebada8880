r"""The largest scale of weights within a budget, for given multipliers.

Rescaled weights, B -> t^a B, R -> t^b R with a + b = 1, shrink all slopes by t, to [0, t s]. With
multipliers M / t for the unscaled B and R, U^2 = lambda_max(I + V T^-1 V^T) has

    V = B + s R^T M,        T = z M - G,        z = 2 / t,        G = s (M L + L^T M) + B^T B,

for all steps as one window: t appears only in z. So U falls as z grows, whatever M is, and U <= C is the linear matrix
inequality z M >= G + V^T V / (C^2 - 1): the smallest z is a largest eigenvalue. 1/(U^2 - 1) is concave in z along every
direction, so Newton's method for it finds z in two or three steps.
"""

from __future__ import annotations

__all__ = ["Worst", "estimate", "solved", "worst"]

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from liouville.multipliers.recursion import gradient, recursion, windows
from liouville.multipliers.sectors import Sectors

_LANCZOS = 20  # with so many iterations the first try is usually kept: U changes a hundred times faster than z
_DENSE = 1024  # maximum number of activations that are taken together
_TRIES = 40
_TOLERANCE = 4e-3  # relative tolerance of U^2 - 1, from below


class Worst(NamedTuple):
    """U^2, the x and w that attain it, sum lambda_i w_i^2, and the run: 0 is forwards, 1 backwards."""

    squared: float
    x: Tensor
    w: Tensor
    weight: float
    run: int = 0


def worst(sectors: Sectors, multipliers: Tensor, run: int = 0) -> Worst | None:
    """The worst case; None where the multipliers give no bound."""
    parts = windows(sectors)
    found = recursion(parts, multipliers, sectors.slope)
    if found is None:
        return None
    values, vectors = torch.linalg.eigh(found[0])
    x = vectors[:, -1:]
    w = gradient(parts, found[1], x, multipliers, sectors.slope)[0][:, 0]
    return Worst(float(values[-1]), x[:, 0], w, float((multipliers * w.square()).sum()), run)


def estimate(sectors: Sectors, multipliers: Tensor, budget: float) -> float:
    """z by a few steps of Lanczos' method on M^-1/2 (G + V^T V / (C^2 - 1)) M^-1/2, from below.

    Where that matrix would be large, its diagonal blocks are used, which give a smaller value.
    """
    whole = (slice(0, len(multipliers)),) if len(multipliers) <= _DENSE else sectors.layout.windows
    return max(_largest(sectors, columns, multipliers[columns], budget) for columns in whole)


def _largest(sectors: Sectors, columns: slice, multipliers: Tensor, budget: float) -> float:
    B, R, s = sectors.B[:, columns], sectors.R[columns], sectors.slope
    root, excess = multipliers.rsqrt(), 1 / (budget**2 - 1)
    V = B + (R * (s * multipliers)[:, None]).mT
    half = ((R @ B) * sectors.layout.later(columns)) * (s * multipliers)[:, None]
    half = torch.addmm(torch.addmm(half, B.mT, B, alpha=0.5), V.mT, V, alpha=0.5 * excess) * root * root[:, None]
    A = half + half.mT
    before, v = None, torch.cos(torch.arange(len(root), dtype=torch.float64))  # any fixed vector without symmetries
    v, off = v / v.norm(), 0.0
    diagonal, beside = [], []
    for _ in range(min(_LANCZOS, len(root))):  # orthogonal to the last two only: directions lost to rounding reappear
        w = torch.mv(A, v)
        diagonal.append(float(w.dot(v)))
        w.add_(v, alpha=-diagonal[-1])
        if before is not None:
            w.add_(before, alpha=-off)
        off = math.sqrt(float(w.dot(w)))
        beside.append(off)
        if not off > 0:
            break
        before, v = v, w.div_(off)
    T = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    T[1:, :-1].diagonal().copy_(torch.tensor(beside[:-1], dtype=torch.float64))
    return float(torch.linalg.eigvalsh(T)[-1])


def solved(z: float, at: Callable[[float], Worst | None], budget: float) -> tuple[float, Worst] | None:
    """A z close to the smallest at which ``at`` verifies U <= budget, and the result there.

    None if no try keeps the budget, as for weights that are not finite.
    """
    limit = budget**2 - 1
    kept: tuple[float, Worst] | None = None
    low, high = 0.0, float("inf")  # z at which the budget is exceeded, and at which it is kept
    for _ in range(_TRIES):
        found = at(z)
        growth = 0.0 if found is None else found.squared - 1
        if found is not None and growth <= limit:
            if growth >= limit * (1 - _TOLERANCE) or high / max(low, 1e-300) < 1 + 1e-5:
                return z, found
            kept, high = (z, found), z
        else:
            low = z
        if found is None or not found.weight > 0:
            following = 1.2 * z
        else:
            aim = limit * (1 - 0.3 * _TOLERANCE)
            following = z * (1 + (growth**2 / aim - growth) / (2 * found.weight))
        if not low < following < high:
            following = 0.5 * (low + high) if high < float("inf") else 1.2 * low
        z = following
    return kept
