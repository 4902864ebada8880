r"""What a network and its data must be to be trained: weights that can move, outputs that fit the targets."""

from __future__ import annotations

__all__ = ["Task", "accepted", "require_labels", "require_split", "require_trainable", "task_between", "task_of"]

from typing import Any

import torch
from torch import Tensor, nn

from liouville.answering import evaluation_mode
from liouville.data import Split
from liouville.sequences import Inputs, Sequences
from liouville.task import Task, in_words, scores_for
from liouville.train.source import Batch


def require_trainable(network: nn.Module) -> None:
    """Raise a `ValueError` if no weight of the network can be trained."""
    if not any(p.requires_grad for p in network.parameters()):
        raise ValueError("every weight of the network is frozen; let some require a gradient (requires_grad_()).")


def require_split(data: object, who: str) -> None:
    """Raise a `TypeError` for other data than a `Split`."""
    if not isinstance(data, Split):
        raise TypeError(
            f"{who} takes a Split, got a {type(data).__name__}; make one with liouville.data.Split, or use train.fit."
        )


def task_of(network: nn.Module, split: Split) -> Task:
    """The task that a split poses, checked against what the network puts out for one sample.

    Raises:
        ValueError: if the network does not accept the inputs, its output does not fit the targets, or the inputs or
            targets require a gradient.
    """
    for what, data in (("inputs", split.x_train), ("targets", split.y_train)):
        if data.requires_grad:
            raise ValueError(f"the {what} of {split.name} require a gradient; call .detach() on them first.")
    outputs = _scores(network, split.x_train[:1].to(next(network.parameters())), split.name).shape[-1]
    if not split.classes:
        expected = 1 if split.y_train.dim() == 1 else split.y_train.shape[-1]
        if outputs != expected:
            raise ValueError(f"the targets have {expected} real value(s) a sample, but the network puts out {outputs}.")
    several = isinstance(split.classes, tuple)
    cure = f"{scores_for(split.classes)} outputs" if several else f"classes={split.classes}"
    try:
        return Task.of(split.classes, outputs)
    except ValueError:
        raise ValueError(
            f"{split.name} has {in_words(split.classes)} classes, but the network puts out {outputs} score(s); build "
            f"it with {cure}."
        ) from None


def task_between(network: nn.Module, batch: Batch, name: str) -> Task:
    """The task that targets pose a network, by their dtype and its outputs.

    Whole numbers (samples,) are classes: two of them for one output, else one for each output. Whole numbers (samples,
    K) are K labels of 0 and 1, for K outputs. Floating-point numbers (samples,) or (samples, K) are real targets.

    Args:
        network: what is trained.
        batch: samples to look at, as the network takes them.
        name: what the data are called in errors.

    Raises:
        ValueError: the network does not accept the inputs, or its outputs do not fit the targets.

    Examples:
        >>> x, network = torch.zeros(4, 2), nn.Linear(2, 3)
        >>> task_between(network, Batch(x, torch.tensor([0, 2, 1, 0])), "rows")
        Task(kind='softmax', classes=3, smoothing=0.0)
        >>> task_between(network, Batch(x, torch.zeros(4, 3)), "rows").kind
        'least-squares'
    """
    y, outputs = batch.y, _scores(network, batch.x[:1], name).shape[-1]
    if y.is_floating_point():
        expected = 1 if y.dim() == 1 else y.shape[-1]
        if y.dim() > 2 or outputs != expected:
            raise ValueError(
                f"{name} has real targets {tuple(y.shape)} (their dtype is {_dtype(y)}), for which the network must "
                f"put out {expected} number(s) a sample, not {outputs}; classes must be whole numbers (y.long())."
            )
        return Task.of(0, outputs)
    if y.dim() == 1:
        task = Task.of(2 if outputs == 1 else outputs, outputs)
        require_labels(y, task, name)
        return task
    if y.dim() > 2 or y.shape[1] != outputs or outputs == 1:
        raise ValueError(
            f"{name} has targets {tuple(y.shape)} of {_dtype(y)} for a network of {outputs} output(s): classes are "
            "(samples,), labels of 0 and 1 are (samples, outputs), real targets are of a floating-point dtype; any "
            "other targets need a loss=."
        )
    task = Task("multilabel", outputs)
    require_labels(y, task, name)
    return task


def require_labels(y: Tensor, task: Task, name: str) -> None:
    """Raise a `ValueError` for labels that there are no outputs for."""
    if not task.classes:
        return
    classes = 2 if task.kind == "multilabel" else task.classes
    low, high = (int(bound) for bound in y.aminmax())
    if low < 0 or high >= classes:
        what = "labels" if task.kind == "multilabel" else "classes"
        real = "; real targets are of a floating-point dtype (y.float())" if task.kind == "logistic" else ""
        raise ValueError(
            f"{name} has {what} from {low} to {high}, and the network is for 0 to {classes - 1}; renumber them, or "
            f"build it with more classes{real}."
        )


def _dtype(y: Tensor) -> str:
    return str(y.dtype).removeprefix("torch.")


def _scores(network: nn.Module, sample: Inputs, name: str) -> Tensor:
    """What the network puts out for one sample, (1, outputs)."""
    scores = accepted(network, sample, name)
    if not isinstance(scores, Tensor) or scores.dim() < 2 or len(scores) != 1:
        found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ValueError(
            f"the network must put out a row of numbers for each sample, (samples, outputs), and gives {found} for one "
            "sample; end it with nn.Linear and without squeeze."
        )
    return scores


def accepted(network: nn.Module, sample: Inputs, name: str) -> Any:
    """What the network puts out for one sample.

    Raises:
        ValueError: it does not accept it.
    """
    try:
        with torch.no_grad(), evaluation_mode(network):
            return network(sample)
    except (AttributeError, TypeError) as error:
        if not isinstance(sample, Sequences):
            raise
        raise ValueError(
            f"{name} are sequences of unequal lengths, which {type(network).__name__} does not take ({error}); a layer "
            "of liouville.recurrent does, such as that of a SequenceNetwork."
        ) from error
    except RuntimeError as error:
        raise ValueError(
            f"the network does not accept the inputs of {name}, of shape {tuple(sample.shape[1:])}: {error}"
        ) from error
