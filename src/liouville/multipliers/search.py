"""Multipliers: a start in closed form, improved by Adam; every iterate gives a bound."""

from __future__ import annotations

__all__ = ["Found", "search", "start"]

import math
from typing import NamedTuple

import torch
from torch import Tensor

from liouville.multipliers.recursion import gradient, recursion, windows
from liouville.multipliers.sectors import Sectors

_DOMINANCE = 0.5 * (1 + 1e-8)  # beyond this, rounding would hide the excess over a half
_RATE = 0.2  # learning rate of Adam in log lambda, falling to 0
_DECAY = 0.9  # decay of both averages
_SHARP = 30.0  # directions whose norm is within a few per cent of the largest share the gradient


class Found(NamedTuple):
    """The multipliers, (p,), and the bound U^2 = lambda_max(P_0) that they give, infinite where they give none."""

    multipliers: Tensor
    squared: float


@torch.no_grad()
def start(sectors: Sectors) -> Tensor:
    """lambda_i = |P b_i| / (s |r_i|) + sum_j |H_ij| / 2, H = B^T P B, step by step from the last: T > 0 by its rows.

    The first part balances the two parts of V; the rest follows from Gershgorin's circles.
    """
    P, found = torch.eye(len(sectors.B), dtype=torch.float64), []
    rows = sectors.R.norm(dim=1)
    rows = sectors.slope * rows.clamp(min=1e-6 * float(rows.max()) + 1e-150)
    for step in reversed(sectors.layout.steps):
        B, R = sectors.B[:, step], sectors.R[step]
        PB = P @ B
        H = B.mT @ PB
        size = PB.norm(dim=0)
        size = size.clamp(min=1e-6 * float(size.max()) + 1e-150)
        found.append(size / rows[step] + _DOMINANCE * H.abs().sum(1))
        V = PB + (R * (sectors.slope * found[-1])[:, None]).mT
        P = P + V @ torch.linalg.solve_ex(torch.diag(2 * found[-1]) - H, V.mT)[0]  # not finite: there is no bound
    return torch.cat(found[::-1])


@torch.no_grad()
def search(sectors: Sectors, first: Tensor, steps: int) -> Found:
    """The best of ``steps`` multipliers that Adam finds, starting from and including ``first``.

    It goes back to the best, with half the rate, where a step leaves the set in which T > 0.
    """
    parts, rate, count = windows(sectors), _RATE, 0
    log, best = first.log(), Found(first, math.inf)
    mean, square = torch.zeros_like(log), torch.zeros_like(log)
    for k in range(steps):
        found = recursion(parts, log.exp(), sectors.slope)
        if found is None:
            if not math.isfinite(best.squared):
                return best
            log, rate, count = best.multipliers.log(), 0.5 * rate, 0
            mean, square = torch.zeros_like(log), torch.zeros_like(log)
            continue
        values, vectors = torch.linalg.eigh(found[0])
        if float(values[-1]) < best.squared:
            best = Found(log.exp(), float(values[-1]))
        x = vectors * (values / values[-1]) ** (0.5 * _SHARP)
        slope = gradient(parts, found[1], x / x.norm(), log.exp(), sectors.slope)[1] / values[-1]
        count += 1
        mean, square = torch.lerp(slope, mean, _DECAY), torch.lerp(slope.square(), square, _DECAY)
        root = (square / (1 - _DECAY**count)).sqrt() + 1e-12
        log = log - rate * (1 - k / steps) / (1 - _DECAY**count) * mean / root
    return best
