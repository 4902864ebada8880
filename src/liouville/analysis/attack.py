"""Attacks on a certified radius, before it is stated."""

from __future__ import annotations

__all__ = ["Attack", "attacked", "classes_of", "lead", "random_like"]

from typing import NamedTuple

import torch
from torch import Tensor, nn

_DIRECTIONS = 8
_STEPS = 10
_WIDEST = 1e6
_SHOWN = 8  # entries of an input that a message shows


class Attack(NamedTuple):
    """How many attacked inputs changed their class, and a description of the attacks or of the first change."""

    flips: int
    note: str


def attacked(network: nn.Module, x: Tensor, radius: Tensor) -> Attack:
    """Random directions and projected gradient steps, 0.999 of the radius away from every input.

    Args:
        network: a classifier in evaluation mode.
        x: inputs, (B, ...).
        radius: (B,).
    """
    classes = classes_of(network(x))
    far = 0.999 * radius.clamp(max=_WIDEST).to(x).view(-1, *(1,) * (x.dim() - 1))
    flips, first = 0, None
    for there in (*_random(x, far), *_steepest(network, x, far, classes)):
        changed = classes_of(network(there)) != classes
        flips += int(changed.sum())
        if first is None and bool(changed.any()):
            first = int(changed.nonzero()[0])
    tried = f"{_DIRECTIONS} random directions and {_STEPS} gradient steps per input, within the radius"
    if first is None:
        return Attack(0, tried)
    where = ", ".join(f"{v:.9g}" for v in x[first].flatten()[:_SHOWN].tolist())
    return Attack(
        flips, f"{tried}, changed a prediction: of input {first}, ({where}{', ...' * (x[0].numel() > _SHOWN)})"
    )


def _unit(step: Tensor) -> Tensor:
    size = step.flatten(1).norm(dim=1).view(-1, *(1,) * (step.dim() - 1))
    return step / size.clamp(min=torch.finfo(step.dtype).tiny)


def _random(x: Tensor, far: Tensor) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [x + far * _unit(random_like(x, generator)) for _ in range(_DIRECTIONS)]


def random_like(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Normal numbers, the same on every device; without a generator always the same numbers."""
    generator = generator or torch.Generator().manual_seed(0)
    return torch.randn(x.shape, generator=generator, device="cpu").to(x)


def _steepest(network: nn.Module, x: Tensor, far: Tensor, classes: Tensor) -> list[Tensor]:
    """Gradient steps that reduce the lead of the class over the nearest other, projected onto the sphere."""
    places, there = [], x.clone()
    for _ in range(_STEPS):
        with torch.enable_grad():
            there = there.detach().requires_grad_()
            (slope,) = torch.autograd.grad(lead(network(there), classes).sum(), there)
        there = x + far * _unit(there.detach() - 2 * far * _unit(slope) - x)
        places.append(there)
    return places


def lead(scores: Tensor, classes: Tensor) -> Tensor:
    """The lead of each sample's class over the nearest other."""
    if scores.shape[-1] == 1:
        return scores[:, 0] * torch.where(classes == 1, 1.0, -1.0).to(scores)
    own = scores.gather(-1, classes[:, None])
    others = scores.scatter(-1, classes[:, None], -torch.inf)
    return own[:, 0] - others.amax(-1)


def classes_of(scores: Tensor) -> Tensor:
    """The predicted class: the largest score, or whether a single score is >= 0."""
    return (scores.squeeze(-1) >= 0).long() if scores.shape[-1] == 1 else scores.argmax(-1)
