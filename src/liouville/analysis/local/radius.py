r"""The search: the largest ball found in which the enclosure keeps every class difference positive."""

from __future__ import annotations

__all__ = ["local_radius"]

import torch
from torch import Tensor

from liouville.analysis.attack import classes_of
from liouville.analysis.local.box import columns_of
from liouville.analysis.local.chain import Chain, chain_of
from liouville.analysis.local.enclosure import (
    Reference,
    differences,
    enclosed,
    linear_radius,
    reference,
    score_bounds,
)
from liouville.network import Network

_BATCH = 64
_NUMBERS = 2**23  # of all samples' columns in one image, 64 MiB
_FIRST = (0.15, 0.45)  # of the linearised network's radius
_CLOSER = (0.4, 0.3, 0.2, 0.12)  # round by round, how far from the guess towards the ends of the bracket is tried


@torch.no_grad()
def local_radius(network: Network, x: Tensor) -> Tensor:
    r"""A radius of every sample within which no input is classified otherwise, (B,), float64; 0 where none is known.

    For every x' with ||x' - x||_2 <= r(x) the network, run in its own precision in evaluation mode without gradients,
    gives the class that it gives x. Only a radius that was itself checked is returned.

    Args:
        network: a dense network of splitting schemes through separable or pair fields, or of forward Euler through
            general Hamiltonian or antisymmetric fields.
        x: inputs, (B, d).

    Raises:
        NotImplementedError: if a part of the network is not known here.
        ValueError: if x does not fit, or a number is not finite.
        ArithmeticError: if the network's own scores leave the enclosure: it computes something else than its parts say.
    """
    chain = chain_of(network)
    if x.dim() != 2 or x.shape[1] != chain.lift.shape[1]:
        raise ValueError(f"expected inputs of shape (samples, {chain.lift.shape[1]}), got {tuple(x.shape)}.")
    if not bool(x.isfinite().all()):
        raise ValueError("an input holds a number that is not finite, so it has no radius.")
    n, d = chain.lift.shape
    widest = max(n, *chain.added) * (d + 9 * n + columns_of(n, chain.added))
    samples = max(1, min(_BATCH, _NUMBERS // widest))
    found = [_radii(network, chain, part) for part in x.split(samples) if len(part)]
    return torch.cat(found) if found else x.new_zeros(0, dtype=torch.float64)


def _radii(network: Network, chain: Chain, x: Tensor) -> Tensor:
    run = reference(chain, x.double())
    scores = network(x)
    if not bool(scores.isfinite().all()):
        raise ValueError("a score is not a finite number, so no input has a radius.")
    own = classes_of(scores)
    search = _Search(chain, run, own)
    _require_inside(network, x, search.scores, "at a given input")
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = search.largest(linear_radius(chain, run, own).nan_to_num(1.0).clamp(1e-30, 1e6))
    step = 0.999 * found[:, None] * direction / direction.norm(dim=1, keepdim=True)
    there = (x.double() + step).to(x.dtype)
    near = (there.double() - x.double()).norm(dim=1) <= found  # rounding may leave a small ball
    _require_inside(network, torch.where(near[:, None], there, x), search.scores, "within a radius")
    return found


class _Search:
    """The largest radius of each sample that holds; `held` and the `scores` of its ball are always of a checked one."""

    def __init__(self, chain: Chain, run: Reference, own: Tensor) -> None:
        self.chain, self.run, self.own = chain, run, own
        self.held = torch.zeros_like(run.x[0])
        box = enclosed(chain, run, self.held)
        self.gap, self.scores = differences(chain, run, box, own), score_bounds(chain, run, box)

    def largest(self, linear: Tensor) -> Tensor:
        """By interpolation between the largest that held and the smallest that did not, both in logarithms.

        What a ball takes off the difference at its centre is about proportional to a small radius, soon grows faster,
        and levels off where sigma does: between two radii a power law is a fair guess.
        """
        low, high = 1e-3 * linear, linear
        at_low, at_high = torch.full_like(low, 1e-3), torch.full_like(low, torch.inf)
        tried = torch.stack([share * linear for share in _FIRST])
        for share in (*_CLOSER, None):
            for radius, cost in zip(tried, self._cost(tried), strict=True):
                up, down = (cost < 1) & (radius > low), ~(cost < 1) & (radius < high)
                low, at_low = torch.where(up, radius, low), torch.where(up, cost, at_low)
                high, at_high = torch.where(down, radius, high), torch.where(down, cost, at_high)
            if share is not None:
                power = (-at_low.log() / (at_high / at_low).log()).nan_to_num(0.5).clamp(0.1, 0.9)
                between, beyond = low * (high / low) ** power, torch.minimum(low / at_low, 0.97 * high)
                guess = torch.where(at_high.isfinite(), between, beyond)
                tried = torch.stack((guess * (low / guess) ** share, guess * (high / guess) ** share))
        return torch.where(self.gap > 0, self.held, 0.0)

    def _cost(self, radii: Tensor) -> Tensor:
        """The share of the centre's difference that balls of these radii, (k, S), take away; below 1 they hold."""
        k = len(radii)
        many, own = self.run.repeated(k), self.own.repeat(k)
        box = enclosed(self.chain, many, radii.flatten())
        left = differences(self.chain, many, box, own).view(k, -1)
        bounds = [b.view(len(b), k, -1) for b in score_bounds(self.chain, many, box)]
        for i, radius in enumerate(radii):
            better = (left[i] > 0) & (radius > self.held)
            self.held = torch.where(better, radius, self.held)
            (low, high), (was_low, was_high) = bounds, self.scores
            self.scores = torch.where(better, low[:, i], was_low), torch.where(better, high[:, i], was_high)
        return torch.where(left.isfinite() & (self.gap > 0), 1 - left / self.gap, torch.inf)


def _require_inside(network: Network, x: Tensor, bounds: tuple[Tensor, ...], where: str) -> None:
    """The network's own scores must lie where every run of its ball is said to end."""
    scores = network(x).double().mT
    if not bool(scores.isfinite().all()) or bool(((scores < bounds[0]) | (bounds[1] < scores)).any()):
        raise ArithmeticError(
            f"the network's scores {where} are not those of its own weights and formulas, so nothing is proved of it."
        )
