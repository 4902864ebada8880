r"""All states that the inputs of a ball can lead to: one pass over the layers, roundings included.

The reference is one run in float64 from the centre x of the ball, y_k its states as computed. A run of the network in
its own precision from any x' with |x' - x| <= eps has states y_k + D_k with D_k in

    centre + ball v + box w,        |v|_2 <= 1,  |w|_inf <= 1,

and a step maps that set into another of the same form: s = R D lies in an interval, a `secant` turns the step into
c s + e, and the interval of e adds a column B to the box. What the run rounds, what the reference rounds and what
this pass rounds are bounded entrywise by the standard constants g(k) = k u / (1 - k u) of sums of k products and are
added as a diagonal to the box. Sums may be taken in any order, fused or not; sigma is within `secant.ULP` units of the
last place.

Layout: features first, then columns, samples last, so that R and B act by one product each.
"""

from __future__ import annotations

__all__ = ["Reference", "differences", "enclosed", "linear_radius", "reference", "score_bounds"]

from typing import NamedTuple

import torch
from torch import Tensor

from liouville.analysis.local.box import Box
from liouville.analysis.local.chain import Chain, Step
from liouville.analysis.local.secant import ULP, UNIT, secant, size

_HALF_UNIT = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}


class Visit(NamedTuple):
    """A step of the run from the centres: u, sigma(u), |R||y| + |b| and the |y| that moves; samples last."""

    u: Tensor
    value: Tensor
    size: Tensor
    moved: Tensor


class Reference(NamedTuple):
    """The run from the centres x, (d, S): its steps, the last state (n, S) and the scores (c, S)."""

    x: Tensor
    visits: list[Visit]
    final: Tensor
    scores: Tensor

    def repeated(self, times: int) -> Reference:
        """The same samples several times beside each other."""
        visits = [Visit(*(part.repeat(1, times) for part in visit)) for visit in self.visits]
        return Reference(self.x.repeat(1, times), visits, self.final.repeat(1, times), self.scores.repeat(1, times))


def reference(chain: Chain, x: Tensor) -> Reference:
    """The network in float64 at x, (S, d)."""
    y = chain.lift @ x.mT + chain.lift_bias[:, None]
    visits = []
    for step in chain.steps:
        v = step.velocity
        u = v.R @ y[step.of] + v.b[:, None]
        value, size = chain.activation(u), v.R_size @ y[step.of].abs() + v.b.abs()[:, None]
        y[step.to] += v.B @ value
        visits.append(Visit(u, value, size, y[step.to].abs()))
    return Reference(x.mT, visits, y, chain.head @ y + chain.head_bias[:, None])


def linear_radius(chain: Chain, run: Reference, own: Tensor) -> Tensor:
    """The radius of the network linearised at each centre, (S,): where to search, no bound of anything."""
    costate = chain.head.mT[:, :, None].repeat(1, 1, len(own))
    for step, visit in zip(reversed(chain.steps), reversed(run.visits), strict=True):
        v, classes = step.velocity, costate.shape[1]
        moved = (v.B.mT @ costate[step.to].flatten(1)).view(len(v.b), classes, -1)
        moved = (chain.activation.derivative(visit.u)[:, None] * moved).flatten(1)
        costate[step.of] += (v.R.mT @ moved).view(-1, classes, len(own))
    slopes = (chain.lift.mT @ costate.flatten(1)).view(-1, *costate.shape[1:])
    if len(run.scores) == 1:
        return run.scores[0].abs() / slopes[:, 0].norm(dim=0)
    index = own[None]
    apart = (slopes.gather(1, index[None].expand(len(slopes), 1, -1)) - slopes).norm(dim=0)
    gaps = run.scores.gather(0, index) - run.scores
    return torch.where(torch.arange(len(gaps))[:, None] != index, gaps / apart, torch.inf).amin(0)


def enclosed(chain: Chain, run: Reference, radius: Tensor) -> Box:
    """The differences y'_N - y_N of every run from the ball of each sample; radii (S,)."""
    box = _start(chain, run, radius)
    for step, visit in zip(chain.steps, run.visits, strict=True):
        _advance(chain, box, step, visit)
    return box


def score_bounds(chain: Chain, run: Reference, box: Box) -> tuple[Tensor, Tensor]:
    """Between what every run's scores lie; (c, S) each."""
    T, centre = box.image(chain.head, slice(0, chain.head.shape[1]))
    reach = box.radius(T) * (1 + _g(box.used + 8, UNIT)) + _score_error(chain, run, box)
    return run.scores + centre - reach, run.scores + centre + reach


def differences(chain: Chain, run: Reference, box: Box, own: Tensor) -> Tensor:
    """A lower bound of every run's score of its centre's class minus the nearest other one, (S,).

    Args:
        own: the class of each centre, (S,); with one score, 1 where it is >= 0, and the score is compared with 0.
    """
    T, centre = box.image(chain.head, slice(0, chain.head.shape[1]))
    scores, error, share = run.scores + centre, _score_error(chain, run, box), 1 + _g(box.used + 8, UNIT)
    if len(scores) == 1:
        return (torch.where(own.bool(), 1.0, -1.0) * scores - box.radius(T) * share - error)[0]
    index = own[None]
    apart = T.gather(0, index[:, None].expand(1, *T.shape[1:])) - T
    least = scores.gather(0, index) - scores - box.radius(apart) * share - error - error.gather(0, index)
    return torch.where(torch.arange(len(scores))[:, None] != index, least, torch.inf).amin(0)


def _score_error(chain: Chain, run: Reference, box: Box) -> Tensor:
    """What the head rounds, in the run and here, each score."""
    n, unit = chain.head.shape[1], _HALF_UNIT[chain.dtype]
    size = chain.head.abs() @ (run.final.abs() + box.extent) + chain.head_bias.abs()[:, None]
    return _in_range(chain, size, 1.01 * (_g(n + 3, unit) + _g(n + 8, UNIT)) * size + _least(chain, n))


def _start(chain: Chain, run: Reference, radius: Tensor) -> Box:
    """The lifted ball, and the roundings of the lift where it multiplies."""
    n, d = chain.lift.shape
    reach = chain.lift.abs() @ (run.x.abs() + radius) + chain.lift_bias.abs()[:, None]
    share = _g(d + 4, UNIT) + (0.0 if chain.lift_is_exact else _g(d + 2, _HALF_UNIT[chain.dtype]))
    box = Box(chain.lift[:, :, None] * radius, chain.added)
    box.spread(slice(0, n), _in_range(chain, reach, share * reach + _least(chain, d)))
    return box


def _advance(chain: Chain, box: Box, step: Step, visit: Visit) -> None:
    """One step of the set."""
    v, n = step.velocity, len(step.velocity.R[0])
    T, centre = box.image(v.R, step.of)
    blur = v.R_size @ box.extent[step.of]
    radius = box.radius(T).mul_(1 + _g(box.used + 8, UNIT)).add_(blur, alpha=_g(n + 2, UNIT))
    slope, low, high = secant(chain.activation, visit.u, visit.value, centre - radius, centre + radius)
    rounding = _rounding(chain, step, blur.add_(visit.size), visit.moved + box.extent[step.to])
    box.move(step.to, v.B, T, slope, centre.mul_(slope).add_(low + high, alpha=0.5))
    box.add(step.to, v.B, (high - low).mul_(0.5))
    box.spread(step.to, rounding)


def _rounding(chain: Chain, step: Step, inside: Tensor, reach: Tensor) -> Tensor:
    r"""What the run, the reference and this pass round in one step, each entry that moves.

    With L >= |sigma'|, a sum inside sigma is off by g(n) |R||y'| + |b| in the run, thrice in the reference (in u, and
    twice in the secant that is taken there). Columns, centre and interval are multiplied by B here: together they are
    at most 3 L |R||D|, since |e| <= 2 L |s|. Then there are sigma itself, the products with B, and the final sum.

    Args:
        inside: a bound of |R||y'| + |b| over the set, in which |R||D| is contained.
        reach: a bound of |y'| and of its difference to the reference, of what moves.
    """
    v, sigma, unit = step.velocity, chain.activation, _HALF_UNIT[chain.dtype]
    (m, n), both = v.R.shape, unit + 2 * UNIT
    products = _g(m + n + len(v.B) + 8, unit) + _g(m + n + len(v.B) + 8, UNIT)
    of_sums = sigma.lipschitz * (_g(n + 3, unit) + 3 * _g(n + 3, UNIT) + 3 * _g(m + n + 8, UNIT) + 3 * both)
    of_values = ULP * (unit + UNIT) + products + both
    tiny, values = _least(chain, m + n), size(sigma, inside)
    numbers = torch.stack([x.amax(0) for x in (inside, reach, values * v.peak)])
    largest = values.mul_(of_values).add_(inside, alpha=of_sums).add_(tiny)
    return _in_range(chain, numbers, (v.B_size @ largest).add_(reach, alpha=both).add_(tiny).mul_(1.01))


def _least(chain: Chain, terms: int) -> float:
    """What a sum of so many products is off by besides, where they are smaller than the normal numbers."""
    return torch.finfo(chain.dtype).tiny * (terms + 8)


def _in_range(chain: Chain, numbers: Tensor, error: Tensor) -> Tensor:
    """The error, (m, S); infinite for a sample with a run of which some of the ``numbers``, (k, S), may overflow."""
    return torch.where((numbers < torch.finfo(chain.dtype).max / 4).all(0), error, torch.inf)


def _g(k: int, unit: float) -> float:
    """g(k) = k u / (1 - k u), the relative error of a sum of k products."""
    return k * unit / (1 - k * unit)
