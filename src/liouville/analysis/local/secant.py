r"""Secants of an activation: sigma(u + s) - sigma(u) in c s + [e_low, e_high] for every s in [low, high].

The slope c is the chord's over [low, high], but any number would do: e(s) = sigma(u + s) - sigma(u) - c s is enclosed
for the c that was computed. Where sigma is concave, e is concave too: its least value lies at an end of the interval,
and its largest is at most e(a) + max(e'(a) (high - a), e'(a) (low - a)) for *any* a of it. Close to the stationary
point that is close to e(a), and it holds however inexactly the stationary point was computed. Convex: mirrored.

tanh and logistic are convex for u + s <= 0 and concave beyond; relu and softplus are convex everywhere.
"""

from __future__ import annotations

__all__ = ["Secant", "secant", "size"]

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from liouville.activations import Activation

UNIT = 2.0**-53
ULP = 8.0  # sigma and sigma' are computed to within so many units in the last place
# sigma's inverse slope: where sigma' takes a value, for the half-line u >= 0 of a sigmoid
_AT_ZERO = {"tanh": 0.0, "logistic": 0.5, "softplus": 0.6931471805599453, "relu": 0.0}


class Secant(NamedTuple):
    """The slope c, and the interval of e; shaped like u."""

    slope: Tensor
    low: Tensor
    high: Tensor


def size(sigma: Activation, u: Tensor) -> Tensor:
    """An upper bound of |sigma| on [-u, u], u >= 0."""
    if sigma.name == "tanh":
        return u.clamp(max=1.0)
    return torch.ones_like(u) if sigma.name == "logistic" else u + _AT_ZERO[sigma.name]


def secant(sigma: Activation, u: Tensor, value: Tensor, low: Tensor, high: Tensor) -> Secant:
    """The enclosure of sigma(u + s) - sigma(u) for s in [low, high]; ``value`` is sigma(u).

    The pad covers the roundings of e wherever it is evaluated: sigma twice, its argument, c s, the differences, and
    those of the slope over the width.
    """
    ends = torch.stack((low, high))
    at_ends = sigma(u + ends)
    width = high - low
    wide = width > 1e-7 * (1 + u.abs())
    chord = (at_ends[1] - at_ends[0]) / torch.where(wide, width, 1.0)
    slope = torch.where(wide, chord, sigma.derivative(u)).clamp_(0.0, sigma.lipschitz)
    e = at_ends.sub_(value).addcmul_(slope, ends, value=-1.0)
    between = _BETWEEN[sigma.name](sigma, u, value, slope, low, high)
    pad = (u.abs() + torch.maximum(low.abs(), high.abs())).add_(_AT_ZERO[sigma.name] / sigma.lipschitz)
    pad *= 8 * ULP * UNIT * sigma.lipschitz
    least, largest = torch.minimum(e.amin(0), between[0]), torch.maximum(e.amax(0), between[1])
    return Secant(slope, least.sub_(pad), largest.add_(pad))


Bounds = tuple[Tensor, Tensor]


def _sigmoid(turn: Callable[[Tensor], Tensor], slope_of: Callable[[Tensor], Tensor]) -> Callable[..., Bounds]:
    """Convex up to u + s = 0, concave beyond.

    Args:
        turn: the u >= 0 where sigma' takes a value.
        slope_of: sigma' from sigma.
    """

    def between(sigma: Activation, u: Tensor, value: Tensor, slope: Tensor, low: Tensor, high: Tensor) -> Bounds:
        bend, stationary = torch.minimum(torch.maximum(-u, low), high), turn(slope)
        right = torch.minimum(torch.maximum(stationary - u, bend), high)
        left = torch.minimum(torch.maximum(-stationary - u, low), bend)
        points = torch.stack((bend, right, left))
        values = sigma(u + points)
        rise = slope_of(values).sub_(slope)
        e = values.sub_(value).addcmul_(slope, points, value=-1.0)
        above = e[1] + torch.maximum(rise[1] * (high - right), rise[1] * (bend - right))
        below = e[2] + torch.minimum(rise[2] * (bend - left), rise[2] * (low - left))
        return torch.minimum(below, e[0]), torch.maximum(above, e[0])

    return between


def _relu(sigma: Activation, u: Tensor, value: Tensor, slope: Tensor, low: Tensor, high: Tensor) -> Bounds:
    """The kink is the least point of a convex e, or an end is."""
    bend = torch.minimum(torch.maximum(-u, low), high)
    e = sigma(u + bend) - value - slope * bend
    return e, e


def _softplus(sigma: Activation, u: Tensor, value: Tensor, slope: Tensor, low: Tensor, high: Tensor) -> Bounds:
    """Convex: e lies above each of its tangents."""
    a = torch.minimum(torch.maximum(torch.logit(slope, 1e-15) - u, low), high)
    rise, e = sigma.derivative(u + a) - slope, sigma(u + a) - value - slope * a
    return e + torch.minimum(rise * (high - a), rise * (low - a)), e


_BETWEEN: dict[str, Callable[..., Bounds]] = {
    "tanh": _sigmoid(lambda c: torch.atanh((1 - c).sqrt_().clamp_(max=1 - 1e-15)), lambda v: 1 - v * v),
    "logistic": _sigmoid(lambda c: 2 * torch.atanh((1 - 4 * c).sqrt_().clamp_(max=1 - 1e-15)), lambda v: v - v * v),
    "relu": _relu,
    "softplus": _softplus,
}
