r"""Training of a spread network: every process steps its own weights, and writes a checkpoint for each of its nodes.

A node's file holds its rows of K, its columns of the head, and their optimiser's state. The order of the batches
depends on seed and epoch alone, so a run that is resumed takes the same steps as one that was never interrupted.
"""

from __future__ import annotations

__all__ = ["Training", "accuracy", "resume", "train"]

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from liouville.agents.exchange import Exchange
from liouville.agents.transport import gathered
from liouville.data import Split
from liouville.files import atomic
from liouville.network import Network
from liouville.train.loop import one_cycle
from liouville.train.objective import Task

_KEPT = 2  # epochs: the others may be one ahead when a node dies


@dataclass(frozen=True)
class Training:
    """How agents train: Adam with a one-cycle rate, mean loss over batches that all nodes draw alike.

    Args:
        epochs, batch, lr: as for `liouville.train.Settings`.
        seed: of the order of the samples.
    """

    epochs: int = 40
    batch: int = 125
    lr: float = 0.02
    seed: int = 0


def train(
    local: Network,
    exchange: Exchange,
    split: Split,
    task: Task,
    settings: Training,
    folder: Path | None = None,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> list[float]:
    """Train from the start, or from where the checkpoints in ``folder`` end; the mean loss of each epoch comes back.

    Every process must be given the same split and settings. Checkpoints are written into ``folder`` behind each epoch.
    """
    optimizer = torch.optim.Adam([w for w in local.parameters() if w.requires_grad], lr=settings.lr, betas=(0.9, 0.95))
    steps = -(-len(split.x_train) // settings.batch)
    rate = one_cycle(settings.epochs * steps, 0.3)
    start, losses = (0, []) if folder is None else resume(local, exchange, optimizer, folder)
    local.train()
    for epoch in range(start, settings.epochs):
        generator = torch.Generator().manual_seed((settings.seed << 20) + epoch)
        total = 0.0
        for step, rows in enumerate(torch.randperm(len(split.x_train), generator=generator).split(settings.batch)):
            optimizer.param_groups[0]["lr"] = settings.lr * rate(epoch * steps + step)
            optimizer.zero_grad(set_to_none=True)
            loss = task.loss(local(split.x_train[rows]), split.y_train[rows])
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(rows)
        losses.append(total / len(split.x_train))
        if folder is not None:
            _write(local, exchange, optimizer, folder, losses)
        on_epoch(epoch + 1, losses[-1])
    local.eval()
    return losses


@torch.no_grad()
def accuracy(local: Network, x: Tensor, y: Tensor, task: Task) -> float:
    """The score over a whole set, the same at every node."""
    return task.score(torch.cat([local(part) for part in x.split(2000)]), y)


def resume(
    local: Network, exchange: Exchange, optimizer: torch.optim.Optimizer, folder: Path
) -> tuple[int, list[float]]:
    """Load the last epoch of which every node, of every process, has a checkpoint: its number, and the losses so far.

    Raises:
        ValueError: if a file does not fit the network.
    """
    from safetensors import SafetensorError, safe_open

    mine = [_epochs(folder, node) for node in exchange.hosted]
    common = set.intersection(*(epochs for share in gathered(mine, exchange) for epochs in share))
    if not common:
        return 0, []
    epoch, losses = max(common), []
    for node in exchange.hosted:
        path = _path(folder, node, epoch)
        try:
            with safe_open(path, framework="pt") as file:
                losses = json.loads(file.metadata()["losses"])
                for name, w in _of_node(local, node).items():
                    w.detach().copy_(file.get_tensor(name))
                    optimizer.state[w] = {
                        key: file.get_tensor(f"{name}.{key}") for key in ("step", "exp_avg", "exp_avg_sq")
                    }
        except (SafetensorError, KeyError, RuntimeError) as error:
            raise ValueError(
                f"{path} does not fit this network ({error}); resume with the graph, model and sizes that wrote it."
            ) from error
    return epoch, losses


def _write(
    local: Network, exchange: Exchange, optimizer: torch.optim.Optimizer, folder: Path, losses: list[float]
) -> None:
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    epoch = len(losses)
    for node in exchange.hosted:
        tensors = {}
        for name, w in _of_node(local, node).items():
            tensors[name] = w.detach().contiguous()
            tensors |= {f"{name}.{key}": value.contiguous() for key, value in optimizer.state[w].items()}
        with atomic(_path(folder, node, epoch)) as path:
            path.write_bytes(save(tensors, metadata={"losses": json.dumps(losses)}))
        for old in _epochs(folder, node) - {epoch - i for i in range(_KEPT)}:
            _path(folder, node, old).unlink(missing_ok=True)


def _of_node(local: Network, node: int) -> dict[str, Tensor]:
    """The parameters of one node by name, and the head's bias, of which every node has a copy."""
    return {
        name.split(".")[-1]: w
        for name, w in local.named_parameters()
        if w.requires_grad and (name.endswith(f"__{node}") or name == "head.bias")
    }


def _path(folder: Path, node: int, epoch: int) -> Path:
    return folder / f"node-{node}.epoch-{epoch}.safetensors"


def _epochs(folder: Path, node: int) -> set[int]:
    names = (re.fullmatch(rf"node-{node}\.epoch-(\d+)\.safetensors", path.name) for path in folder.glob("node-*"))
    return {int(name[1]) for name in names if name}
