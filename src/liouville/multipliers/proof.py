r"""The rounding proof: multipliers found in float64 give a number that bounds the norm of the exact products.

For given float64 numbers Lambda and a chain P_N = I, ..., P_0 the bound holds if in every window the *exact*

    F = [[P - P', V], [V^T, T]] >= 0,        V, T as in `liouville.multipliers.recursion`,

for then |y|^2_P - |y + B w|^2_{P'} - 2 w^T Lambda (s R y - w) = (y, -w)^T F (y, -w) >= 0. P may be any float64 matrix,
so it is the P of the recursion, slightly enlarged. F is computed, and with it F_size, the same sums with the absolute
values of all terms. Each intermediate is a sum of at most n terms (of products with X, J, P or between R and B), and
no term is a product of more than four such sums; so, with u = 2^-53,

    |F - fl(F)| <= g F_size,        g = k u / (1 - k u),        k = 4 (n + p) + 32,

entry by entry, for any order of the sums. After scaling rows and columns to a diagonal near 1 the spectral norm
of the difference is at most its largest row sum. The Cholesky factor C is not trusted to give fl(F) - c I = C C^T + E
with a small remainder E: E is computed too, with a rounding of at most g ||C||_F^2 in the Frobenius norm,
whatever C is. So fl(F) >= (c - ||E||_F) I minus roundings, and F >= 0 if c exceeds all of them. It is assumed that
products of float64 matrices are sums of products, computed in any order with or without fused operations, and that
nothing underflows.
"""

from __future__ import annotations

__all__ = ["proved_log_bound"]

import math
from dataclasses import replace

import torch
from torch import Tensor

from liouville.multipliers.recursion import Window, terms, windows
from liouville.multipliers.sectors import Sectors

_U = 2.0**-53
_ROOM = (1e-10, 1e-8, 1e-6, 1e-4)  # relative enlargements of each window's P; the first that gives a proof is taken


@torch.no_grad()
def proved_log_bound(sectors: Sectors, multipliers: Tensor) -> float | None:
    """log U, proved with all roundings: a bound of log ||dState_N/dState_j||_2 for every j; None if the check fails.

    Examples:
        >>> from liouville.fields import HamiltonianField
        >>> from liouville.multipliers.search import start
        >>> from liouville.multipliers.sectors import sectors_of
        >>> from liouville.schemes import ForwardEuler
        >>> field = HamiltonianField(4, layers=3, generator=torch.Generator())
        >>> sectors = sectors_of(field, ForwardEuler(), field.theta(), 0.1, sized=True)
        >>> 0 < proved_log_bound(sectors, start(sectors)) < 1
        True
    """
    if sectors.sizes is None:
        raise ValueError("a proof needs the sizes of the steps; call sectors_of(..., sized=True).")
    if not bool((multipliers > 0).all() & multipliers.isfinite().all()):
        return None
    P = torch.eye(len(sectors.B), dtype=torch.float64)
    sized = windows(replace(sectors, B=sectors.sizes[0], R=sectors.sizes[1]))
    for window, sizes in zip(reversed(windows(sectors)), reversed(sized), strict=True):
        enlarged = _enlarged(window, sizes, P, multipliers[window.columns], sectors.slope)
        if enlarged is None:
            return None
        P = enlarged
    largest = float(torch.linalg.eigvalsh(P)[-1]) * (1 + _ROOM[0])
    if not math.isfinite(largest) or not is_positive(largest * torch.eye(len(P), dtype=torch.float64) - P, largest):
        return None
    log_u = 0.5 * math.log(largest)
    return log_u + 8 * _U * (1 + abs(log_u))


def is_positive(M: Tensor, size: float | Tensor) -> bool:
    """Whether a symmetric matrix is known to be >= 0, given its rounding ``M``, off by g ``size`` at most.

    ``size`` is a number or a matrix, a bound of the sums of absolute values from which each entry of M is computed.
    """
    scale = M.diagonal()
    if not bool(M.isfinite().all()) or not bool((scale > 0).all()):
        return False
    scale = scale.rsqrt()
    g = _growth(4 * len(M) + 32)
    M, size = scale[:, None] * M * scale, scale[:, None] * torch.as_tensor(size).expand_as(M).to(M) * scale
    off = 2 * g * float(size.abs().sum(1).max())
    shift = 4 * (off + g * (len(M) + float(M.abs().sum())))
    shifted = M - shift * torch.eye(len(M), dtype=M.dtype)
    factor, failed = torch.linalg.cholesky_ex(shifted)
    if failed:
        return False
    remainder = float((shifted - factor @ factor.mT).norm()) * (1 + g)
    roundings = g * (float(factor.square().sum()) + float(shifted.abs().sum()) + shift * len(M))
    return remainder + 2 * roundings + off < shift


def _enlarged(window: Window, sizes: Window, P: Tensor, multipliers: Tensor, slope: float) -> Tensor | None:
    """A P for which F >= 0 is proved."""
    V, T = terms(window, P, multipliers, slope)
    factor, failed = torch.linalg.cholesky_ex(T)
    if failed:
        return None
    grown = V @ torch.cholesky_solve(V.mT, factor)
    new = P + 0.5 * (grown + grown.mT)
    V_size, T_size = _term_sizes(sizes, P, multipliers, slope)
    eye = torch.eye(len(P), dtype=torch.float64)
    for room in _ROOM:
        enlarged = new + room * float(new.diagonal().max()) * eye
        F = torch.cat((torch.cat((enlarged - P, V), 1), torch.cat((V.mT, T), 1)))
        corner = enlarged.abs() + P.abs()
        F_size = torch.cat((torch.cat((corner, V_size), 1), torch.cat((V_size.mT, T_size), 1)))
        if is_positive(F, F_size):
            return enlarged
    return None


def _term_sizes(sizes: Window, P: Tensor, multipliers: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    """V and T with sizes instead of numbers, and a plus for every minus."""
    B, R, L, _ = sizes
    PB = P.abs() @ B
    coupled = (slope * multipliers)[:, None] * L
    V = PB + (R * (slope * multipliers)[:, None]).mT
    return V, torch.diag(2 * multipliers) + coupled + coupled.mT + B.mT @ PB


def _growth(terms: int) -> float:
    """k u / (1 - k u), with a margin for its own rounding."""
    return terms * _U / (1 - terms * _U) * (1 + 1e-6)
