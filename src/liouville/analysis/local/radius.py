r"""The radius: the largest ball found in which the enclosure keeps every class difference positive."""

from __future__ import annotations

__all__ = ["local_radius"]

import torch
from torch import Tensor

from liouville.analysis.attack import classes_of, lead, random_like
from liouville.analysis.local.box import columns_of
from liouville.analysis.local.chain import Chain, chain_of
from liouville.analysis.local.enclosure import Reference, enclosed, linear_radius, reference
from liouville.analysis.local.search import Search
from liouville.network import Network

_BATCH = 64
_NUMBERS = 2**19  # of all samples' columns in one image, 4 MiB
_MOST = 1024  # columns of the box
_TRIES = 7


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
    widest = max(n, *chain.added) * (d + 9 * n + columns_of(n, chain.added, _MOST))
    samples = max(1, min(_BATCH, _NUMBERS // widest))
    found = [_radii(network, chain, part) for part in x.split(samples) if len(part)]
    return torch.cat(found) if found else x.new_zeros(0, dtype=torch.float64)


def _radii(network: Network, chain: Chain, x: Tensor) -> Tensor:
    run = reference(chain, x.double())
    scores = network(x)
    if not bool(scores.isfinite().all()):
        raise ValueError("a score is not a finite number, so no input has a radius.")
    own = classes_of(scores)
    still = enclosed(run, torch.zeros_like(run.x[0]), own, _MOST)
    _require_inside(scores, still.scores, "at a given input")
    radius, bounds = _largest(run, own, still.scores)
    direction = random_like(x.double())
    there = (x.double() + 0.999 * radius[:, None] * direction / direction.norm(dim=1, keepdim=True)).to(x.dtype)
    near = (there.double() - x.double()).norm(dim=1) <= radius  # rounding may leave a small ball
    _require_inside(network(torch.where(near[:, None], there, x)), bounds, "within a radius")
    return radius


def _largest(run: Reference, own: Tensor, bounds: Tensor) -> tuple[Tensor, Tensor]:
    """The radius of each sample, and the bounds of the scores of its ball, (2, c, S); where it is 0, those given."""
    linear = linear_radius(run, own).nan_to_num(1.0).clamp(1e-30, 1e6)
    leads, radius = lead(run.scores.mT, own), torch.zeros_like(linear)
    search = Search(linear, leads > 0)
    for _ in range(_TRIES):
        (index,) = search.open.nonzero(as_tuple=True)
        if not len(index):
            break
        tried = search.guess[index] * linear[index]
        ends = enclosed(run.of(index), tried, own[index], _MOST)
        taken = torch.full_like(linear, torch.nan)
        taken[index] = torch.where(ends.lead.isfinite(), 1 - ends.lead / leads[index], torch.inf)
        better = search.learn(taken)[index] & (ends.lead > 0)
        radius[index[better]], bounds[:, :, index[better]] = tried[better], ends.scores[:, :, better]
    return radius, bounds


def _require_inside(scores: Tensor, bounds: Tensor, where: str) -> None:
    """The network's own scores must lie where every run of its ball is said to end."""
    scores, (low, high) = scores.double().mT, bounds
    if not bool(scores.isfinite().all()) or bool(((scores < low) | (high < scores)).any()):
        raise ArithmeticError(
            f"the network's scores {where} are not those of its own weights and formulas, so nothing is proved of it."
        )
