r"""The Riccati recursion: a bound of all steps from multipliers, one positive number for every activation.

For y' = y + B w with w_i between 0 and s r_i y, r_i the rows of R, every w_i (s r_i y - w_i) is >= 0. So for any
Lambda = diag(lambda_i) >= 0 and any P'

    |y'|^2_P' <= |y + B w|^2_P' + 2 w^T Lambda (s R y - w) = |y|^2_P' + 2 y^T V w - w^T T w,
    V = P' B + s R^T Lambda,        T = 2 Lambda - B^T P' B,

and where T > 0 the largest value over all w is |y|^2_P with

    P = P' + V T^-1 V^T,        attained at w = T^-1 V^T y.

The recursion goes from P = I after the last step to the first: ||dState_N/dState_0||_2^2 <= lambda_max(P_0). As P only
grows on the way, the same number bounds dState_N/dState_j for every j, and every product of consecutive layers: with
fewer steps after it P' is smaller, and so, by the first form, is P.

Several steps at once, a *window*, are one step with B = [B_1, B_2, ...], R below one another, and
w_i (s (R y + L w)_i - w_i) >= 0, L_ij = r_i b_j where activation j belongs to an earlier step than i, which adds
-s (Lambda L + L^T Lambda) to T. It gives the same as its steps one by one (a block elimination of T), in fewer and
larger products.
"""

from __future__ import annotations

__all__ = ["Window", "gradient", "recursion", "terms", "windows"]

from typing import NamedTuple

import torch
from torch import Tensor

from liouville.multipliers.sectors import Sectors


class Window(NamedTuple):
    """Some consecutive steps; ``columns`` are their activations."""

    B: Tensor
    R: Tensor
    L: Tensor
    columns: slice


def windows(sectors: Sectors) -> list[Window]:
    """The steps in the windows of their layout."""
    return [_window(sectors.B[:, c], sectors.R[c], sectors.layout.later(c), c) for c in sectors.layout.windows]


def _window(B: Tensor, R: Tensor, later: Tensor, columns: slice) -> Window:
    return Window(B, R, (R @ B) * later, columns)


def terms(window: Window, P: Tensor, multipliers: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    """V and T of a window, from P after it."""
    B, R, L, _ = window
    PB = P @ B
    steep = (slope * multipliers)[:, None]
    half = torch.addmm(steep * L, B.mT, PB, alpha=0.5)
    T = -(half + half.mT)
    T.diagonal().add_(multipliers, alpha=2)
    return PB + (steep * R).mT, T


def recursion(parts: list[Window], multipliers: Tensor, slope: float) -> tuple[Tensor, list[Tensor]] | None:
    """P_0, and the gain T^-1 V^T of every window; None where some T is not positive definite."""
    P, gains = torch.eye(len(parts[0].B), dtype=torch.float64), []
    for window in reversed(parts):
        V, T = terms(window, P, multipliers[window.columns], slope)
        factor, failed = torch.linalg.cholesky_ex(T)
        if failed:
            return None
        gains.append(torch.cholesky_solve(V.mT, factor))
        P = P + V @ gains[-1]
        P = 0.5 * (P + P.mT)
    return (P, gains[::-1]) if bool(P.isfinite().all()) else None


def gradient(
    parts: list[Window], gains: list[Tensor], x: Tensor, multipliers: Tensor, slope: float
) -> tuple[Tensor, Tensor]:
    """For every column of x (n, k) the worst w, (p, k); and the derivative of sum |x|^2_{P_0} by log lambda_i, (p,).

    By the envelope theorem the latter is 2 lambda_i w_i (s (R y)_i - w_i), since w is optimal.
    """
    worst, slack = [], []
    for (B, R, L, _), gain in zip(parts, gains, strict=True):
        w = gain @ x
        slack.append((w * (slope * (R @ x + L @ w) - w)).sum(1))
        worst.append(w)
        x = x + B @ w
    return torch.cat(worst), 2 * multipliers * torch.cat(slack)
