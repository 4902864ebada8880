"""What a network makes of a whole set: loss and score, in evaluation mode."""

from __future__ import annotations

__all__ = ["evaluate", "evaluate_loaded"]

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from liouville.answering import evaluation_mode
from liouville.devices import memory_share
from liouville.fields import VectorField
from liouville.processes.sharing import Processes
from liouville.sequences import Inputs, Sequences, numbers
from liouville.task import Task
from liouville.train.losses import Reported
from liouville.train.source import Loaded

_EVALUATION_BATCH = 1000
_IMAGES = 200  # of them, and of sequences: more make tensors whose memory a CPU gets anew at every call, page by page
_SHARE = 0.5  # of a device's memory
_ALIVE = 64  # of the widest tensors that a module puts out: a layer at work, and what an operation needs besides


@torch.no_grad()
def evaluate(
    network: nn.Module,
    x: Inputs,
    y: Tensor,
    task: Task | Reported,
    prefix: str = "",
    processes: Processes = Processes(),
    weight: Tensor | None = None,
) -> dict[str, float]:
    """Loss and score over a whole set, in evaluation mode: ``{prefix}loss`` and ``{prefix}accuracy`` or ``r2``.

    Args:
        network: what is evaluated.
        x, y: the set.
        task: its loss and score.
        prefix: of the names.
        processes: those that share the samples.
        weight: (samples,), of the means; only how they compare counts.
    """
    with evaluation_mode(network):
        scores = torch.cat([processes.map(network, part) for part in x.split(_samples_at_once(network, x))])
    return _figures(scores, y, task, prefix, weight)


@torch.no_grad()
def evaluate_loaded(
    network: nn.Module, loader: Loaded, task: Task | Reported, prefix: str = ""
) -> tuple[dict[str, float], int]:
    """The same over one pass of a loader, and how many samples it gave; their outputs are held, not their inputs."""
    with evaluation_mode(network):
        found = [(network(batch.x), batch.y, batch.weight) for batch in loader]
    if not found:
        raise ValueError(f"{loader.name} for validation gives no batch; it must give them anew each time.")
    scores, y = torch.cat([scores for scores, _, _ in found]), torch.cat([y for _, y, _ in found])
    weights = [weight for _, _, weight in found if weight is not None]
    weight = torch.cat(weights) if len(weights) == len(found) else None
    return _figures(scores, y, task, prefix, weight), len(y)


def _figures(scores: Tensor, y: Tensor, task: Task | Reported, prefix: str, weight: Tensor | None) -> dict[str, float]:
    if weight is not None:
        weight = weight / weight.mean()
    return {
        f"{prefix}loss": float(task.loss(scores, y, weight)),
        f"{prefix}{task.score_name}": task.score(scores, y, weight),
    }


def _samples_at_once(network: nn.Module, x: Inputs) -> int:
    """1,000, fewer of images, and on CUDA, where each part costs its launches, as many as fit into half of the memory
    by estimate.
    """
    memory = memory_share(x.device, _SHARE)
    if memory is None:
        return _EVALUATION_BATCH if numbers(x).dim() <= 2 else _IMAGES
    if len(x) <= _EVALUATION_BATCH:
        return _EVALUATION_BATCH
    one = x.longest() if isinstance(x, Sequences) else x[:1]
    sizes = [numbers(one).nbytes]

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        sizes.extend(t.nbytes for t in tree_leaves(output) if isinstance(t, Tensor))

    fields = [m for m in network.modules() if isinstance(m, VectorField)]
    inside = {m for field in fields for m in field.modules()}  # where engines refuse hooks
    hooks = [m.register_forward_hook(note) for m in network.modules() if m not in inside]
    try:
        network(one)
    finally:
        for hook in hooks:
            hook.remove()
    return max(_EVALUATION_BATCH, memory // (_ALIVE * max(sizes)))
