r"""What a network and its data must be to be trained: weights that can move, outputs that fit the targets."""

from __future__ import annotations

__all__ = ["Task", "require_trainable", "task_of"]

import torch
from torch import Tensor, nn

from liouville.data import Split
from liouville.network import evaluation_mode
from liouville.task import Task


def require_trainable(network: nn.Module) -> None:
    """Raise a `ValueError` if no weight of the network can be trained."""
    if not any(p.requires_grad for p in network.parameters()):
        raise ValueError("every weight of the network is frozen; let some require a gradient (requires_grad_()).")


def task_of(network: nn.Module, split: Split) -> Task:
    """The task that a split poses, checked against what the network puts out for one sample.

    Raises:
        ValueError: if the network does not accept the inputs, its output does not fit the targets, or the inputs or
            targets require a gradient.
    """
    for what, data in (("inputs", split.x_train), ("targets", split.y_train)):
        if data.requires_grad:
            raise ValueError(f"the {what} of {split.name} require a gradient; call .detach() on them first.")
    sample = split.x_train[:1].to(next(network.parameters()))
    try:
        with torch.no_grad(), evaluation_mode(network):
            scores = network(sample)
    except RuntimeError as error:
        shape = tuple(split.x_train.shape[1:])
        raise ValueError(
            f"the network does not accept the inputs of {split.name}, of shape {shape}: {error}"
        ) from error
    if not isinstance(scores, Tensor) or scores.dim() < 2 or len(scores) != 1:
        found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ValueError(
            f"the network must put out a row of numbers for each sample, (samples, outputs), and gives {found} for one "
            "sample; end it with nn.Linear and without squeeze."
        )
    outputs = scores.shape[-1]
    if not split.classes:
        expected = 1 if split.y_train.dim() == 1 else split.y_train.shape[-1]
        if outputs != expected:
            raise ValueError(f"the targets have {expected} real value(s) a sample, but the network puts out {outputs}.")
    try:
        return Task.of(split.classes, outputs)
    except ValueError:
        raise ValueError(
            f"{split.name} has {split.classes} classes, but the network puts out {outputs} score(s); build it with "
            f"classes={split.classes}."
        ) from None
