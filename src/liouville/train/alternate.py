r"""The papers' alternation: the head is refitted on every batch, the other weights take one step.

In the spirit of Haber & Ruthotto's block coordinate descent, and as Galimberti et al. trained their planar examples:
per batch a *fresh*, zero head gets a few Adam steps on the batch's features, then (K, b) take one step with that
head. After training a head is trained anew on the features, which no longer change.
"""

from __future__ import annotations

__all__ = ["Features", "fresh_head", "require_network", "train_head"]

import torch
from torch import Tensor, nn

from liouville.network import Network
from liouville.train.objective import Task
from liouville.train.settings import Settings


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
    with torch.no_grad():
        for weight in network.head.parameters():
            weight.zero_()
    optimizer = torch.optim.Adam(network.head.parameters(), lr=settings.head_lr or settings.lr)
    for _ in range(settings.alternate):
        _head_step(network, features, y, task, settings, optimizer)


def train_head(
    network: nn.Module, x: Tensor, y: Tensor, task: Task, settings: Settings, generator: torch.Generator
) -> None:
    """Train a fresh head for ``settings.epochs`` epochs on the features of the whole training part."""
    network = require_network(network)
    with torch.no_grad():
        features = torch.cat([network.features(part) for part in x.split(1000)])
        for weight in network.head.parameters():
            weight.zero_()
    optimizer = torch.optim.Adam(network.head.parameters(), lr=settings.head_lr or settings.lr)
    for _ in range(settings.epochs):
        order = torch.randperm(len(x), generator=generator).to(x.device)
        for rows in order.split(settings.batch):
            _head_step(network, features[rows], y[rows], task, settings, optimizer)


def _head_step(
    network: Network, features: Tensor, y: Tensor, task: Task, settings: Settings, optimizer: torch.optim.Optimizer
) -> None:
    penalties = [part.value(network) for part in settings.penalty.head_parts()]
    objective = sum(penalties, start=task.loss(network.head(features), y))
    parameters = list(network.head.parameters())
    for weight, grad in zip(parameters, torch.autograd.grad(objective, parameters), strict=True):
        weight.grad = grad
    optimizer.step()


def require_network(network: nn.Module) -> Network:
    """``network`` itself, known to have a head that can be fitted alone."""
    if not isinstance(network, Network):
        raise ValueError(f"this needs a liouville Network with a head, got {type(network).__name__}.")
    return network
