"""What a network makes of a whole set: loss and score, in evaluation mode."""

from __future__ import annotations

__all__ = ["evaluate", "evaluate_loaded"]

import torch
from torch import Tensor, nn

from liouville.network import evaluation_mode
from liouville.processes.sharing import Processes
from liouville.task import Task
from liouville.train.losses import Reported
from liouville.train.source import Loaded

_EVALUATION_BATCH = 1000


@torch.no_grad()
def evaluate(
    network: nn.Module,
    x: Tensor,
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
        scores = torch.cat([processes.map(network, part) for part in x.split(_EVALUATION_BATCH)])
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
