r"""Training of a spread network: every process steps its own weights, and writes a checkpoint for each of its nodes.

The order of the batches depends on seed and epoch only, so a run that is resumed takes the same steps as one that was
never interrupted.
"""

from __future__ import annotations

__all__ = ["collected", "train"]

import time
from collections.abc import Callable
from dataclasses import fields, replace

import torch
from torch import Tensor

from liouville.agents.checkpoints import Checkpoints, Found
from liouville.agents.exchange import Exchange
from liouville.agents.network import SpreadNetwork
from liouville.agents.transport import Distributed
from liouville.data import Split
from liouville.flow import flows_of
from liouville.network import Network
from liouville.task import Task
from liouville.train import Settings
from liouville.train.history import Epoch
from liouville.train.losses import Reported
from liouville.train.schedules import one_cycle

_HEEDED = ("epochs", "batch_size", "lr", "beta2", "warmup", "seed")


def train(
    local: SpreadNetwork,
    exchange: Exchange,
    split: Split,
    task: Task | Reported,
    settings: Settings,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    on_start: Callable[[Found], None] = lambda found: None,
) -> list[float]:
    """Train from the start, or from where the checkpoints end; the mean loss of each epoch comes back.

    Where outputs belong to nodes, each node minimises the loss of its own outputs and targets, and the loss is their
    sum; for least squares, and for several targets of classes, that is the loss of the central network. Else all nodes
    know scores and targets.

    Every process must be given the same split and settings: Adam with a one-cycle rate, no penalty, and
    ``validation=0.0``, since nobody but all nodes together can judge an epoch. Checkpoints are written after each.
    What `on_epoch` is told of all nodes is summed by the transport, once an epoch; no step of the training needs it.

    Args:
        local: of `liouville.agents.spread`.
        exchange: the one that it was spread with.
        split: inputs and targets of all nodes; a process reads those of its own.
        task: the loss, and what is reported; any loss of one's own is ``Reported(loss, task)``.
        settings: those that are heeded, with everything else as it is by default.
        checkpoints: where to keep the state.
        on_epoch: called after each epoch.
        on_start: called once it is known where the training goes on.

    Raises:
        ValueError: if the folder holds another training, or a damaged file, or a setting asks for more than this.
    """
    _require_heeded(settings)
    weights = [w for w in local.parameters() if w.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=settings.lr, betas=(0.9, settings.beta2))
    samples = len(split.x_train)
    steps = -(-samples // settings.batch_size)
    rate = one_cycle(settings.epochs * steps, settings.warmup)
    found = Found(0, [], settings.epochs)
    if checkpoints is not None:
        found = checkpoints.resume(exchange, local, optimizer)
    on_start(found)
    losses, targets = found.losses, _targets(local, task, split.y_train)
    layers = sum(flow.layers for flow in flows_of(local))
    local.train()
    for epoch in range(found.epoch, settings.epochs):
        began = time.perf_counter()
        generator = torch.Generator().manual_seed((settings.seed << 20) + epoch)
        order = torch.randperm(samples, generator=generator)
        said, squares, total = [], [], 0.0
        for step, rows in enumerate(order.split(settings.batch_size)):
            optimizer.param_groups[0]["lr"] = settings.lr * rate(epoch * steps + step)
            optimizer.zero_grad(set_to_none=True)
            scores = local(split.x_train[rows])
            loss = _loss(local, task, scores, targets[rows])
            loss.backward()
            squares.append(_squared_gradient(local, exchange))
            optimizer.step()
            said.append(scores.detach())
            total += float(loss.detach()) * len(rows)
        sums = _summed(exchange, torch.tensor([total if local.outputs is not None else 0.0, *squares]))
        losses.append((total if local.outputs is None else float(sums[0])) / samples)
        if checkpoints is not None:
            checkpoints.write(exchange, local, optimizer, losses)
        norm = float(sums[1:].sqrt().mean())
        score = task.score(_of_all(local, exchange, torch.cat(said)), split.y_train[order])
        lr, spent, work = settings.lr * rate(epoch * steps), time.perf_counter() - began, 2 * samples * layers
        on_epoch(Epoch(epoch + 1, losses[-1], 0.0, score, norm, lr, None, None, spent, layers, work))
    local.eval()
    return losses


@torch.no_grad()
def collected(local: SpreadNetwork, exchange: Exchange) -> Network:
    """The central network with the weights of all nodes of all processes, which the transport sums."""
    central = local.central()
    if isinstance(exchange, Distributed):
        for name, weight in central.named_parameters():
            if local.outputs is None and name == "head.bias":  # every process has it
                continue
            exchange.summed(weight.data, "the weights of all nodes")
    return central


def _targets(local: SpreadNetwork, task: Task | Reported, y: Tensor) -> Tensor:
    """Those of the hosted nodes, where outputs belong to nodes; all classes, of which `_loss` takes those of a node."""
    return y if local.outputs is None or y.ndim == 1 or _several(task) else y[:, local.outputs.to(y.device)]


def _loss(local: SpreadNetwork, task: Task | Reported, scores: Tensor, y: Tensor) -> Tensor:
    if local.outputs is None:
        return task.loss(scores, y)
    if several := _several(task):
        whose = torch.tensor([k for k, (at, _) in enumerate(several.each()) for _ in range(at.stop - at.start)])
        parts = []
        for at in local.parts.values():
            mine = whose[local.outputs[at]].unique().tolist()  # in their order, as the outputs are
            own = several.some(mine) if isinstance(task, Task) else task
            parts.append(own.loss(scores[:, at], y[:, mine]))
        return sum(parts, start=scores.sum() * 0)
    parts = [task.loss(scores[:, at], y if y.ndim == 1 else y[:, at]) for at in local.parts.values()]
    return sum(parts, start=scores.sum() * 0)  # a process without outputs takes part in the backward pass


def _several(task: Task | Reported) -> Task | None:
    """The task where there are several targets of classes."""
    known = task if isinstance(task, Task) else task.task
    return known if known is not None and known.kind == "several" else None


def _squared_gradient(local: SpreadNetwork, exchange: Exchange) -> float:
    """Of what the hosted nodes hold; a bias that all processes have counts once."""
    mine = [w.grad for name, w in local.named_parameters() if name != "head.bias" or 0 in exchange.hosted]
    return float(sum((g.detach().double().square().sum() for g in mine if g is not None), torch.tensor(0.0)))


def _summed(exchange: Exchange, numbers: Tensor) -> Tensor:
    """Over all processes."""
    numbers = numbers.double()
    if isinstance(exchange, Distributed):
        exchange.summed(numbers := numbers.to(exchange.device), "the report of an epoch")
    return numbers.cpu()


def _of_all(local: SpreadNetwork, exchange: Exchange, scores: Tensor) -> Tensor:
    """The outputs of all nodes, of which this process has its own."""
    if local.outputs is None or not isinstance(exchange, Distributed):
        return scores
    whole = scores.new_zeros(len(scores), local.width)
    whole[:, local.outputs] = scores
    return exchange.summed(whole, "the report of an epoch")


def _require_heeded(settings: Settings) -> None:
    """Refuse settings that training here would pass over."""
    plain = replace(Settings(validation=0.0), **{name: getattr(settings, name) for name in _HEEDED})
    for f in fields(Settings):
        given, expected = getattr(settings, f.name), getattr(plain, f.name)
        if given != expected:
            raise ValueError(f"agents train with {f.name}={expected!r}, got {given!r}; leave it so.")
