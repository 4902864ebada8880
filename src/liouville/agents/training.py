r"""Training of a spread network: every process steps its own weights, and writes a checkpoint for each of its nodes.

The order of the batches depends on seed and epoch only, so a run that is resumed takes the same steps as one that was
never interrupted.
"""

from __future__ import annotations

__all__ = ["Training", "accuracy", "train"]

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from liouville.agents.checkpoints import Checkpoints, Found
from liouville.agents.exchange import Exchange
from liouville.data import Split
from liouville.network import Network
from liouville.task import Task
from liouville.train.schedules import one_cycle


@dataclass(frozen=True)
class Training:
    """How agents train: Adam with a one-cycle rate, mean loss over batches that all nodes draw alike.

    Args:
        epochs, batch_size, lr: as for `liouville.train.Settings`.
        seed: of the order of the samples.
    """

    epochs: int = 40
    batch_size: int = 125
    lr: float = 0.02
    seed: int = 0


def train(
    local: Network,
    exchange: Exchange,
    split: Split,
    task: Task,
    settings: Training,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
    on_start: Callable[[Found], None] = lambda found: None,
) -> list[float]:
    """Train from the start, or from where the checkpoints end; the mean loss of each epoch comes back.

    Every process must be given the same split and settings. Checkpoints are written after each epoch.

    Raises:
        ValueError: if the folder holds another training, or a damaged file.
    """
    optimizer = torch.optim.Adam([w for w in local.parameters() if w.requires_grad], lr=settings.lr, betas=(0.9, 0.95))
    steps = -(-len(split.x_train) // settings.batch_size)
    rate = one_cycle(settings.epochs * steps, 0.3)
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
