r"""An enclosure of all states that inputs in a ball can reach: one pass over the layers, including roundings.

The reference is one run in float64 from the centre x of the ball, y_k its states as computed. A run of the network in
its own precision from any x' with |x' - x| <= eps has states y_k + D_k with D_k in

    centre + ball v + box w,        |v|_2 <= 1,  |w|_inf <= 1,

and a step maps that set into another of the same form: z = R (y + D) + b lies in an interval, a `secant` turns
sigma(z) into c z + middle +- half, and half adds columns B to the box. The roundings of the run, the reference and this
pass are bounded entrywise (`rounding`) and added as an error of every entry.

Layout: features first, then columns, samples last, so that R and B act by one product each. Call overhead dominates the
time, whatever the number of samples, so several balls around each sample are enclosed at once.
"""

from __future__ import annotations

__all__ = ["Ends", "Reference", "enclosed", "linear_radius", "reference"]

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from liouville.analysis.local.box import COLUMN, LEAST, Box, columns_of
from liouville.analysis.local.chain import Chain, Step
from liouville.analysis.local.rounding import Rounding, g, half_unit, least, roundings
from liouville.analysis.local.secant import UNIT, secant, size


class Visit(NamedTuple):
    """A step of the run from the centres, samples last.

    Args:
        u, value, slope: u, sigma(u), sigma'(u).
        argument, moved: rounding errors at the centre in u, and in the state that the step moves.
    """

    u: Tensor
    value: Tensor
    slope: Tensor
    argument: Tensor
    moved: Tensor


@dataclass(frozen=True)
class Reference:
    """The run from the centres: the values of all steps in one tensor, (rows, S), so that samples are selected at once.

    ``largest``, (S,), bounds all intermediate numbers: |R||y| + |b| and |y|.
    """

    chain: Chain
    roundings: list[Rounding]
    x: Tensor
    packed: Tensor
    largest: Tensor
    final: Tensor
    scores: Tensor

    def visits(self) -> Iterator[Visit]:
        """The values step by step."""
        rows = [k for step in self.chain.steps for k in (4 * [len(step.velocity.b)] + [len(step.velocity.B)])]
        parts = iter(self.packed.split(rows))
        return (Visit(*five) for five in zip(*5 * [parts], strict=True))

    def of(self, index: Tensor) -> Reference:
        """The same for a selection of the samples, with repetitions."""
        picked = [t.index_select(-1, index) for t in (self.x, self.packed, self.largest, self.final, self.scores)]
        return Reference(self.chain, self.roundings, *picked)


def reference(chain: Chain, x: Tensor) -> Reference:
    """The network in float64 at x, (S, d)."""
    y = torch.addmm(chain.lift_bias[:, None], chain.lift, x.mT)
    largest, rows, bounds = y.abs().amax(0), [], roundings(chain)
    for step, rounds in zip(chain.steps, bounds, strict=True):
        v = step.velocity
        u = torch.addmm(v.b[:, None], v.R, y[step.of])
        value, size = chain.activation(u), torch.addmm(v.b.abs()[:, None], v.R_size, y[step.of].abs())
        moved = y[step.to].addmm_(v.B, value).abs()
        largest = torch.maximum(largest, torch.cat((size, moved)).amax(0))
        moved = torch.addmm(rounds.always, rounds.per_inside, size).add_(moved, alpha=rounds.per_reach)
        rows += [u, value, chain.activation.derivative(u), rounds.argument * size + LEAST, moved]
    scores = torch.addmm(chain.head_bias[:, None], chain.head, y)
    return Reference(chain, bounds, x.mT, torch.cat(rows), largest, y, scores)


def linear_radius(run: Reference, own: Tensor) -> Tensor:
    """The radius of the network linearised at each centre, (S,): a start for the search, not a bound."""
    chain = run.chain
    costate = chain.head.mT[:, :, None].repeat(1, 1, len(own))
    for step, visit in zip(reversed(chain.steps), reversed(list(run.visits())), strict=True):
        v, classes = step.velocity, costate.shape[1]
        moved = (v.B.mT @ costate[step.to].flatten(1)).view(len(v.b), classes, -1)
        costate[step.of] += (v.R.mT @ moved.mul_(visit.slope[:, None]).flatten(1)).view(-1, classes, len(own))
    slopes = (chain.lift.mT @ costate.flatten(1)).view(-1, *costate.shape[1:])
    if len(run.scores) == 1:
        return run.scores[0].abs() / slopes[:, 0].norm(dim=0)
    index = own[None]
    apart = (slopes.gather(1, index[None].expand(len(slopes), 1, -1)) - slopes).norm(dim=0)
    return torch.where(_others(run, own), run.scores.gather(0, index) - run.scores, torch.inf).div_(apart).amin(0)


def _others(run: Reference, own: Tensor) -> Tensor:
    """Which scores belong to other classes than the sample's, (c, S)."""
    return torch.arange(len(run.scores), device=own.device)[:, None] != own


class Ends(NamedTuple):
    """Bounds of the scores of all runs from the balls.

    Args:
        scores: a lower and an upper bound of each score, (2, c, S).
        lead: a lower bound of the score of the centre's class minus the largest other score, (S,); with one score, of
            its distance from 0 on the centre's side.
    """

    scores: Tensor
    lead: Tensor


def enclosed(run: Reference, radius: Tensor, own: Tensor, most: int) -> Ends:
    """The scores of every run from the ball of each sample.

    Args:
        radius: (S,).
        own: the class of each centre, (S,); with one score, 1 where it is >= 0.
        most: approximate maximum number of columns of the box.
    """
    box, reach = _start(run, radius, most)
    numbers = [reach]
    for step, visit, rounds in zip(run.chain.steps, run.visits(), run.roundings, strict=True):
        numbers.append(_advance(run.chain, box, step, visit, rounds))
    return _ends(run, box, own, torch.cat(numbers).amax(0))


def _start(run: Reference, radius: Tensor, most: int) -> tuple[Box, Tensor]:
    """The lifted ball with the roundings of a lift that multiplies, and of its columns; and its size."""
    chain = run.chain
    n, d = chain.lift.shape
    reach = chain.lift.abs() @ (run.x.abs() + radius) + chain.lift_bias.abs()[:, None]
    share = g(d + 4, UNIT) + (0.0 if chain.lift_is_exact else g(d + 2, half_unit[chain.dtype]))
    gathered = [n for rounds in run.roundings if rounds.gathers]
    box = Box(chain.lift[:, :, None] * radius, columns_of(n, [*chain.added, *gathered], most))
    of_columns = 2 * COLUMN * chain.lift.norm(dim=1, keepdim=True) * radius
    error = share * reach + of_columns + least(chain.dtype, d)
    box.errors(slice(0, n)).add_(error)
    box.extent(slice(0, n)).add_(error)
    return box, reach


def _advance(chain: Chain, box: Box, step: Step, visit: Visit, rounds: Rounding) -> Tensor:
    """One step of the set; returns a bound of the part that R adds to the numbers inside sigma."""
    v, to, (B, R) = step.velocity, step.to, step.velocity.in_columns
    T, extent, errors = box.image(R, step.of), box.extent(to), box.errors(to)
    spread, off = v.R_size @ box.extent(step.of), v.R_size @ box.errors(step.of)
    radius = box.radius(T).mul_(1 + g(T.shape[1] + 8, COLUMN)).add_(visit.argument).add_(off)
    radius.add_(spread, alpha=rounds.argument + rounds.of_columns)
    z = torch.addmm(visit.u, v.R, box.centre(step.of))
    slope, shift, half = secant(chain.activation, z, radius, visit.slope)
    shift.sub_(visit.value).addcmul_(slope, z)
    box.move(to, B, T.mul_(slope.float()[:, None]), half.float())
    box.centre(to).addmm_(v.B, shift)
    extent.addmm_(v.B_size, shift.abs_().add_(half).addcmul_(slope, radius))
    error = torch.addmm(visit.moved, rounds.per_spread, spread).add_(extent, alpha=rounds.per_extent)
    extent.add_(error)
    errors.addmm_(rounds.passed_on, off).add_(error)
    if rounds.gathers:
        box.gather()
    return spread


def _ends(run: Reference, box: Box, own: Tensor, spread: Tensor) -> Ends:
    """The scores; unbounded where an intermediate number may overflow in the network's precision."""
    chain, unit = run.chain, half_unit[run.chain.dtype]
    everything = slice(0, len(run.final))
    T, centre = box.image(chain.head, everything), chain.head @ box.centre(everything)
    off = chain.head.abs() @ box.errors(everything)
    terms, share = chain.head.shape[1], 1 + g(T.shape[1] + 8, UNIT)
    extent = box.extent(everything)
    reach = chain.head.abs() @ (run.final.abs() + extent) + chain.head_bias.abs()[:, None]
    error = 1.01 * (g(terms + 3, unit) + g(2 * terms + 8, UNIT)) * reach + least(chain.dtype, terms) + off
    numbers = run.largest + torch.stack((spread, box.largest, extent.amax(0))).amax(0)
    (alpha, beta), peak = size(chain.activation), max(1.0, *(step.velocity.peak for step in chain.steps))
    largest = torch.stack((numbers, (alpha * numbers + beta) * peak, reach.amax(0))).amax(0)
    error = torch.where(largest < torch.finfo(chain.dtype).max / 4, error, torch.inf)
    scores, around = run.scores + centre, box.radius(T) * share + error
    if len(scores) == 1:
        lead = (torch.where(own.bool(), 1.0, -1.0) * scores - around)[0]
    else:
        index = own[None]
        apart = T.gather(0, index[:, None].expand(1, *T.shape[1:])) - T
        least_apart = scores.gather(0, index) - scores - box.radius(apart) * share - error - error.gather(0, index)
        lead = torch.where(_others(run, own), least_apart, torch.inf).amin(0)
    return Ends(torch.stack((scores - around, scores + around)), lead)
