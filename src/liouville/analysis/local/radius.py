r"""The radius of the largest ball found in which the enclosure keeps every class difference positive."""

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
_NUMBERS = 2**21  # numbers in all columns of one round, 8 MiB; beyond this a sample has one guess per round
_MOST = 1024  # columns of the box; half as many if it would have at least twice as many


@torch.no_grad()
def local_radius(network: Network, x: Tensor) -> Tensor:
    r"""For every sample a radius within which no input changes its class, (B,), float64; 0 where none is known.

    For every x' with ||x' - x||_2 <= r(x) the network, run in its own precision in evaluation mode without gradients,
    gives x' the class of x. Only a radius that was verified is returned.

    Args:
        network: a dense network of splitting schemes through separable or pair fields, or of forward Euler through
            general Hamiltonian, antisymmetric or residual fields.
        x: inputs, (B, d).

    Raises:
        NotImplementedError: if a part of the network is not known here.
        ValueError: if x does not fit, or a number is not finite.
        ArithmeticError: if the network's scores leave the enclosure: it does not compute the formulas of its parts.
    """
    chain = chain_of(network)
    if x.dim() != 2 or x.shape[1] != chain.lift.shape[1]:
        raise ValueError(f"expected inputs of shape (samples, {chain.lift.shape[1]}), got {tuple(x.shape)}.")
    if not bool(x.isfinite().all()):
        raise ValueError("an input holds a number that is not finite, so it has no radius.")
    n, d = chain.lift.shape
    most = _MOST if sum(chain.added) < 2 * _MOST else _MOST // 2
    numbers = max(n, *chain.added) * (d + columns_of(n, chain.added, most))
    alone = 4 * _BATCH * numbers > _NUMBERS
    samples = max(1, min(_BATCH, _NUMBERS // numbers // (1 if alone else 4)))
    found = [_radii(network, chain, part, most, alone) for part in x.split(samples) if len(part)]
    return torch.cat(found) if found else x.new_zeros(0, dtype=torch.float64)


def _radii(network: Network, chain: Chain, x: Tensor, most: int, alone: bool) -> Tensor:
    run = reference(chain, x.double())
    scores = network(x)
    if not bool(scores.isfinite().all()):
        raise ValueError("a score is not a finite number, so no input has a radius.")
    own = classes_of(scores)
    radius, at, within = _largest(run, own, most, alone)
    _require_inside(scores, at, "at a given input")
    direction = random_like(x.double())
    there = (x.double() + 0.999 * radius[:, None] * direction / direction.norm(dim=1, keepdim=True)).to(x.dtype)
    near = (there.double() - x.double()).norm(dim=1) <= radius  # rounding may move a point out of a small ball
    _require_inside(network(torch.where(near[:, None], there, x)), within, "within a radius")
    return radius


def _largest(run: Reference, own: Tensor, most: int, alone: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The radius of each sample, and bounds of the scores, (2, c, S), at the sample and in its ball."""
    linear = linear_radius(run, own).nan_to_num(1.0).clamp(1e-30, 1e6)
    leads, radius = lead(run.scores.mT, own), torch.zeros_like(linear)
    search, everyone = Search(linear, leads > 0, alone), torch.arange(len(own), device=own.device)
    at = within = linear.new_zeros(2, len(run.scores), 0)
    for k in range(search.rounds):
        (open_,) = search.open.nonzero(as_tuple=True)
        tries = len(search.guesses) if len(open_) else 0
        first = everyone if k == 0 else everyone[:0]  # a ball of radius 0 around each sample, besides the guesses
        if not len(first) and not tries:
            break
        index = torch.cat((first, open_.repeat(tries)))
        tried = (search.guesses * linear)[:, open_][:tries]
        ends = enclosed(run.of(index), torch.cat((0.0 * linear[first], tried.flatten())), own[index], most)
        if k == 0:
            at, within = ends.scores[:, :, : len(first)], ends.scores[:, :, : len(first)].clone()
        if tries:
            of_tries, scores = (t[..., len(first) :].unflatten(-1, (tries, -1)) for t in (ends.lead, ends.scores))
            taken = torch.full_like(search.guesses, torch.nan)
            taken[:, open_] = torch.where(of_tries.isfinite(), 1 - of_tries / leads[open_], torch.inf)
            best = search.learn(taken)[open_]
            better = (best >= 0) & (of_tries.gather(0, best.clamp(min=0)[None])[0] > 0)
            column, sample = best[better], open_[better]
            radius[sample], within[:, :, sample] = tried[column, better.nonzero()[:, 0]], scores[:, :, column, better]
    return radius, at, within


def _require_inside(scores: Tensor, bounds: Tensor, where: str) -> None:
    """Raise unless the network's scores lie within the enclosure of its ball."""
    scores, (low, high) = scores.double().mT, bounds
    if not bool(scores.isfinite().all()) or bool(((scores < low) | (high < scores)).any()):
        raise ArithmeticError(
            f"the network's scores {where} do not follow from its weights and formulas, so it has no proved radius."
        )
