"""Multipliers of a field whose weights are rescaled to keep a budget, and the resulting scale."""

from __future__ import annotations

__all__ = ["fitted", "needs_inverse", "rescaled", "seen"]

import math
from typing import NamedTuple

import torch
from torch import Tensor

from liouville.fields import SeparableHamiltonianField, VectorField
from liouville.fields.base import Theta
from liouville.fields.partitioned import PartitionedField
from liouville.multipliers.scaling import Worst, estimate, solved, worst
from liouville.multipliers.search import search, start
from liouville.multipliers.sectors import Sectors, sectors_of
from liouville.schemes.base import Scheme, SplittingScheme

_FAR = 60.0  # no multiplier is further than this from its unit, in logarithms
_PUSH = 1 + 3e-5  # margin above an estimate, which is too small by about as much
_FIT = 60  # steps of the search for an untrained field; training goes on from there


class Budget(NamedTuple):
    """The budget U <= C of ``scheme`` with the step h; ``names`` of theta are rescaled by t^(1/power)."""

    scheme: Scheme
    h: float
    C: float
    names: tuple[str, ...]
    power: int


def needs_inverse(field: VectorField, scheme: Scheme) -> bool:
    """Whether the backward steps need a separate bound for all singular values to lie in [1/C, C].

    For X = c Q, Q orthogonal, A^-1 = J^-1 A^T J with J = [[0, -X^T], [X, 0]] has the norm of A.
    """
    if not (isinstance(scheme, SplittingScheme) and isinstance(field, PartitionedField)):
        return False
    if type(field) is not SeparableHamiltonianField:
        return True
    if field.X is None:
        return False
    X = field.X.double()
    if X.shape[0] != X.shape[1]:
        return True
    gram = X.mT @ X
    return bool((gram != gram.diagonal().mean() * torch.eye(len(gram)).to(gram)).any())  # exactly, as J is


def seen(field: VectorField, budget: Budget, theta: Theta) -> list[Sectors]:
    """The forward steps, and the backward steps where they need a separate bound."""
    forwards = sectors_of(field, budget.scheme, theta, budget.h)
    return [forwards, forwards.inverse()] if needs_inverse(field, budget.scheme) else [forwards]


def factors(relative: Tensor) -> list[Tensor]:
    """exp(relative) of each run, from (N, runs, activations of a layer): multipliers over |b_i| / (s |r_i|)."""
    relative = relative.nan_to_num().clamp(-_FAR, _FAR)
    logs = [relative[:, run].flatten().to("cpu", torch.float64) for run in range(relative.shape[1])]
    logs[1:] = [log.flip(0) for log in logs[1:]]
    return [log.exp() for log in logs]


@torch.no_grad()
def fitted(field: VectorField, budget: Budget, theta: Theta, scale: float) -> Tensor:
    """Relative multipliers, (N, runs, activations of a layer), for the present weights, rescaled by ``scale``."""
    runs = seen(field, budget, _rounded(theta, theta, budget, scale ** (1 / budget.power)))
    logs = []
    for k, run in enumerate(runs):
        log = (search(run, start(run), _FIT).multipliers / run.ratio()).log()
        logs.append((log.flip(0) if k else log).unflatten(0, (field.layers, -1)))
    return torch.stack(logs, 1)


def rescaled(field: VectorField, budget: Budget, theta: Theta, relative: Tensor) -> Theta:
    """theta with its K within the budget; differentiable. Weights that keep it, or are not finite, are unchanged.

    U <= C is verified for the returned weights, with their rounding, whatever the multipliers are. It is computed on
    the CPU, where small steps one after the other are fastest; one copy fetches the weights.
    """
    there, beside = theta, relative
    theta, relative = _fetched(theta, relative)
    weights = [getattr(theta, name) for name in budget.names]
    size = max(float(w.detach().abs().max()) for w in weights)
    if not 0 < size < math.inf:
        return _reached(there, budget, beside)
    unit = 2.0 ** math.frexp(size)[1]  # all products of K / unit are finite
    raw = theta._replace(**{n: w.to("cpu", torch.float64) / unit for n, w in zip(budget.names, weights, strict=True)})
    runs = seen(field, budget, raw)
    relatives = factors(relative)
    multipliers = [factor * run.ratio() for factor, run in zip(relatives, runs, strict=True)]
    with torch.no_grad():
        found = _solved(field, budget, theta, raw, unit, runs, multipliers, relatives)
    if found is None:
        return _reached(there, budget, beside)
    t, at = found
    root = torch.tensor(t ** (1 / budget.power), dtype=torch.float64)
    if torch.is_grad_enabled():
        w = at.w * (root if budget.power == 2 else 1.0)  # for the weights before they are rescaled
        energy = runs[at.run].energy(at.x, w, multipliers[at.run], t)
        log_t = -energy / (2 * at.weight)  # by the implicit function theorem, up to a constant
        root = root * ((log_t - log_t.detach()) / budget.power).exp()
    return _sent(_rounded(theta, raw, budget, root), there, budget)


def _fetched(theta: Theta, relative: Tensor) -> tuple[Theta, Tensor]:
    """Both on the CPU, where they are of one dtype by one copy, for which the host waits once."""
    tensors = (*theta, relative)
    if all(t.is_cpu for t in tensors):
        return theta, relative
    if len({t.dtype for t in tensors}) > 1:
        here = [t.cpu() for t in tensors]
    else:
        flat = torch.cat([t.flatten() for t in tensors]).cpu().split([t.numel() for t in tensors])
        here = [part.view(t.shape) for part, t in zip(flat, tensors, strict=True)]
    return type(theta)(*here[:-1]), here[-1]


def _sent(theta: Theta, there: Theta, budget: Budget) -> Theta:
    """``there`` with the weights that were rescaled, by one copy; so are their gradients, on the way back."""
    if theta[0].device == there[0].device:
        return theta
    weights = [getattr(theta, name) for name in budget.names]
    flat = torch.cat([w.flatten() for w in weights]).to(there[0].device).split([w.numel() for w in weights])
    return there._replace(**{n: part.view(w.shape) for n, part, w in zip(budget.names, flat, weights, strict=True)})


def _reached(theta: Theta, budget: Budget, relative: Tensor) -> Theta:
    """The same numbers; multipliers that decide nothing get the gradient 0, not None, since DDP would wait for it."""
    if not (torch.is_grad_enabled() and relative.requires_grad):
        return theta
    name = budget.names[0]
    return theta._replace(**{name: getattr(theta, name) + 0.0 * relative.nan_to_num().sum()})


def _rounded(theta: Theta, raw: Theta, budget: Budget, root: Tensor | float) -> Theta:
    return theta._replace(**{name: (root * getattr(raw, name)).to(getattr(theta, name)) for name in budget.names})


def _solved(
    field: VectorField,
    budget: Budget,
    theta: Theta,
    raw: Theta,
    unit: float,
    runs: list[Sectors],
    multipliers: list[Tensor],
    relatives: list[Tensor],
) -> tuple[float, Worst] | None:
    """t for K / unit and its worst case; None where K already keeps the budget."""
    limit = budget.C ** (1 - 1e-6)  # more than a proof with all roundings adds, and than rounding to float32

    def of(weights: Theta) -> Worst | None:
        found: Worst | None = None
        for k, (m, run) in enumerate(zip(relatives, seen(field, budget, weights), strict=True)):
            one = worst(run, m * run.ratio(), k)
            if one is None:
                return None
            found = one if found is None or one.squared > found.squared else found
        return found

    guess = max(estimate(run, m, limit) for run, m in zip(runs, multipliers, strict=True))
    itself = 2 * unit**-budget.power if unit < 1e100 else 0.0  # z for the unscaled K
    if guess < 1.05 * itself:
        whole = of(theta)
        if whole is not None and whole.squared <= limit**2:
            return None
    found = solved(
        max(_PUSH * guess, itself), lambda z: of(_rounded(theta, raw, budget, (2 / z) ** (1 / budget.power))), limit
    )
    if found is None:
        raise ArithmeticError("no scale of the weights was found that keeps the budget.")
    return 2 / found[0], found[1]
