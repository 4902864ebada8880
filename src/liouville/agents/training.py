r"""Training of a spread network: every process steps its own weights, and writes a checkpoint for each of its nodes.

The order of the batches depends on seed and epoch only, so a run that is resumed takes the same steps as one that was
never interrupted.
"""

from __future__ import annotations

__all__ = ["accuracy", "train"]

from collections.abc import Callable
from dataclasses import fields, replace

import torch
from torch import Tensor

from liouville.agents.checkpoints import Checkpoints, Found
from liouville.agents.exchange import Exchange
from liouville.data import Split
from liouville.network import Network
from liouville.task import Task
from liouville.train import Settings
from liouville.train.schedules import one_cycle

_HEEDED = ("epochs", "batch_size", "lr", "beta2", "warmup", "seed")


def train(
    local: Network,
    exchange: Exchange,
    split: Split,
    task: Task,
    settings: Settings,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
    on_start: Callable[[Found], None] = lambda found: None,
) -> list[float]:
    """Train from the start, or from where the checkpoints end; the mean loss of each epoch comes back.

    Every process must be given the same split and settings: Adam with a one-cycle rate, no penalty, and
    ``validation=0.0``, since nobody but all nodes together can judge an epoch. Checkpoints are written after each.

    Raises:
        ValueError: if the folder holds another training, or a damaged file, or a setting asks for more than this.
    """
    _require_heeded(settings)
    weights = [w for w in local.parameters() if w.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=settings.lr, betas=(0.9, settings.beta2))
    steps = -(-len(split.x_train) // settings.batch_size)
    rate = one_cycle(settings.epochs * steps, settings.warmup)
    found = Found(0, [], settings.epochs)
    if checkpoints is not None:
        found = checkpoints.resume(exchange, local, optimizer)
    on_start(found)
    losses = found.losses
    local.train()
    for epoch in range(found.epoch, settings.epochs):
        generator = torch.Generator().manual_seed((settings.seed << 20) + epoch)
        total = 0.0
        for step, rows in enumerate(torch.randperm(len(split.x_train), generator=generator).split(settings.batch_size)):
            optimizer.param_groups[0]["lr"] = settings.lr * rate(epoch * steps + step)
            optimizer.zero_grad(set_to_none=True)
            loss = task.loss(local(split.x_train[rows]), split.y_train[rows])
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(rows)
        losses.append(total / len(split.x_train))
        if checkpoints is not None:
            checkpoints.write(exchange, local, optimizer, losses)
        on_epoch(epoch + 1, losses[-1])
    local.eval()
    return losses


@torch.no_grad()
def accuracy(local: Network, x: Tensor, y: Tensor, task: Task) -> float:
    """The score over a whole set, the same at every node."""
    return task.score(torch.cat([local(part) for part in x.split(2000)]), y)


def _require_heeded(settings: Settings) -> None:
    """Refuse settings that training here would pass over."""
    plain = replace(Settings(validation=0.0), **{name: getattr(settings, name) for name in _HEEDED})
    for f in fields(Settings):
        given, expected = getattr(settings, f.name), getattr(plain, f.name)
        if given != expected:
            raise ValueError(f"agents train with {f.name}={expected!r}, got {given!r}; leave it so.")
