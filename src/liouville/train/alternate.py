r"""The papers' alternation: the head is refitted on every batch, the other weights take one step.

In the spirit of Haber & Ruthotto's block coordinate descent, and as Galimberti et al. trained their planar examples:
per batch a *fresh*, zero head gets a few Adam steps on the batch's features, then (K, b) take one step with that
head. After training a head is trained anew on the features, which no longer change.
"""

from __future__ import annotations

__all__ = ["Features", "fresh_head", "require_network", "train_head"]

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from liouville.compilers import advanced_
from liouville.network import Network
from liouville.task import Task
from liouville.train.optimizers import Adam
from liouville.train.rates import groups_of
from liouville.train.regularisers import HeadDecay
from liouville.train.settings import Settings
from liouville.units import units_of


class Features(nn.Module):
    """x -> the features that the head reads, as a module: what a step with a fresh head runs first."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """The network's features."""
        return self.network.features(x)


def fresh_head(network: Network, features: Tensor, y: Tensor, task: Task, settings: Settings) -> None:
    """Set the head to zero, then take ``settings.alternate`` Adam steps on the features of one batch."""
    step = _head_steps(network, task, settings)
    for _ in range(settings.alternate):
        step(features, y)


def train_head(
    network: nn.Module, x: Tensor, y: Tensor, task: Task, settings: Settings, generator: torch.Generator
) -> None:
    """Train a fresh head for ``settings.epochs`` epochs on the features of the whole training part."""
    network = require_network(network)
    with torch.no_grad():
        features = torch.cat([network.features(part) for part in x.split(1000)])
    step = _head_steps(network, task, settings)
    for _ in range(settings.epochs):
        order = torch.randperm(len(x), generator=generator).to(x.device)
        for rows in order.split(settings.batch_size):
            step(features[rows], y[rows])


def _head_steps(network: Network, task: Task, settings: Settings) -> Callable[[Tensor, Tensor], None]:
    """A head of zeros, and Adam's step of it from features and targets."""
    weights: list[Tensor] = list(network.head.parameters())
    with torch.no_grad():
        torch._foreach_zero_(weights)
    optimizer = Adam(groups_of(network, network.head.parameters(), settings.head_lr or settings.lr, settings))

    def step(features: Tensor, y: Tensor) -> None:
        for weight, gradient in zip(weights, _gradients(network, features, y, task, settings), strict=True):
            weight.grad = gradient
        optimizer.step()

    return step


def _gradients(network: Network, features: Tensor, y: Tensor, task: Task, settings: Settings) -> Sequence[Tensor]:
    """The head's, in closed form where it is one linear map with weight decay: autograd takes longer than all of it."""
    head, penalty = network.head, settings.penalty.in_units(settings.rates != "plain")
    decays_only = all(type(part) is HeadDecay for part in penalty.head_parts())
    if type(head) is nn.Linear and head.bias is not None and features.dim() == 2 and decays_only:
        W, mu = head.weight.detach(), head.bias.detach()
        slope = task.gradient(F.linear(features, W, mu), y)
        unit = units_of(network).get(head.weight, 1.0) if settings.rates != "plain" else 1.0
        decay = penalty.head_decay
        return advanced_(slope.mT @ features, W, decay / unit**2), advanced_(slope.sum(0), mu, decay)
    penalties = [part.value(network) for part in penalty.head_parts()]
    objective = sum(penalties, start=task.loss(head(features), y))
    return torch.autograd.grad(objective, list(head.parameters()))


def require_network(network: nn.Module) -> Network:
    """``network`` itself, known to have a head that can be fitted by itself."""
    if not isinstance(network, Network):
        raise ValueError(f"this needs a liouville Network with a head, got {type(network).__name__}.")
    return network
