r"""Secants of an activation: sigma(z) lies in c z + middle +- half for every z within r of v.

The slope c is the slope of the chord over the interval, but any number would do: the enclosure is of
g(z) = sigma(z) - c z for the computed c. g has its extremes at the ends of the interval or where sigma' = c:

- tanh and logistic are odd about z = 0, concave beyond: sigma' = c at -p and p; p is a maximum of g, -p a minimum;
- softplus and relu are convex: their only stationary point (relu: the kink) is the minimum.

A stationary point is computed to |sigma' - c| <= 24 u L, u = 2^-53, L >= sigma': from c, by functions that are accurate
to 8 units in the last place (2 u each, relatively). As g is concave or convex there, the difference of g between it, or
the end of the interval to which it was moved, and the true extreme is at most 24 u L * 2 r.
"""

from __future__ import annotations

__all__ = ["PAD", "ULP", "UNIT", "Secant", "at_zero", "secant", "size"]

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from liouville.activations import Activation

UNIT = 2.0**-53
ULP = 16.0  # sigma and its inverses are computed to within 8 units in the last place, of at most two half units each
PAD = 128.0  # times u (|sigma(0)| + L |z|): the evaluation of g (19), its stationary point (48), middle and half
_SHORT = 1e-8  # on an interval at most so short the chord is only rounding: sigma' is used instead


class Secant(NamedTuple):
    """The slope c, and the interval of sigma(z) - c z; shaped like v. Roundings: see `PAD`."""

    slope: Tensor
    middle: Tensor
    half: Tensor


def secant(sigma: Activation, v: Tensor, radius: Tensor, slope: Tensor) -> Secant:
    """The enclosure of sigma on [v - radius, v + radius].

    Args:
        slope: approximately sigma'(v), for intervals that are too short for a chord.
    """
    ends = torch.stack((v - radius, v + radius))
    values, (left, right) = sigma(ends), ends
    first, last = values
    c = (last - first).add_(slope, alpha=_SHORT).div_(radius.mul(2.0).add_(_SHORT)).clamp_(0.0, sigma.lipschitz)
    inner = _TURNS[sigma.name](c).clamp(left, right)
    points = torch.cat((ends, inner))
    low, high = torch.cat((values, sigma(inner))).addcmul_(c, points, value=-1.0).aminmax(dim=0)
    return Secant(c, torch.add(low, high).mul_(0.5), high.sub_(low).mul_(0.5))


def size(sigma: Activation) -> tuple[float, float]:
    """a and b of |sigma(z)| <= a |z| + b."""
    return (0.0, 1.0) if sigma.name in ("tanh", "logistic") else (1.0, at_zero(sigma))


def at_zero(sigma: Activation) -> float:
    """sigma(0)."""
    return {"tanh": 0.0, "logistic": 0.5, "softplus": 0.6931471805599454, "relu": 0.0}[sigma.name]


def _tanh(c: Tensor) -> Tensor:
    p = (1.0 - c).sqrt_().clamp_(max=1 - 1e-15).atanh_()
    return torch.stack((p, -p))


def _logistic(c: Tensor) -> Tensor:
    p = (1.0 - 4.0 * c).sqrt_().clamp_(max=1 - 1e-15).atanh_().mul_(2.0)
    return torch.stack((p, -p))


# where sigma' = c, (points, ...)
_TURNS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": _tanh,
    "logistic": _logistic,
    "softplus": lambda c: torch.logit(c, 1e-15)[None],
    "relu": lambda c: torch.zeros_like(c)[None],
}
