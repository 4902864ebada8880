"""What a network makes of a whole set: loss and score, in evaluation mode."""

from __future__ import annotations

__all__ = ["evaluate"]

import torch
from torch import Tensor, nn

from liouville.network import evaluation_mode
from liouville.processes.sharing import Processes
from liouville.train.trainable import Task

_EVALUATION_BATCH = 1000


@torch.no_grad()
def evaluate(
    network: nn.Module, x: Tensor, y: Tensor, task: Task, prefix: str = "", processes: Processes = Processes()
) -> dict[str, float]:
    """Loss and score over a whole set, in evaluation mode: ``{prefix}loss`` and ``{prefix}accuracy`` or ``r2``."""
    with evaluation_mode(network):
        scores = torch.cat([processes.map(network, part) for part in x.split(_EVALUATION_BATCH)])
    return {f"{prefix}loss": float(task.loss(scores, y)), f"{prefix}{task.score_name}": task.score(scores, y)}
