r"""What a training learns from, what it chooses by and what it is measured on in the end: the parts of the data."""

from __future__ import annotations

__all__ = ["Goal", "Parts", "lengths", "parts_of", "require_possible"]

import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from liouville.data import Split
from liouville.data.split import held_out
from liouville.processes.sharing import Processes
from liouville.sequences import Sequences
from liouville.task import Task
from liouville.train.losses import Loss, Reported
from liouville.train.settings import Settings
from liouville.train.source import Batch, Loaded, Samples, Source, source_of
from liouville.train.trainable import accepted, require_labels, task_between, task_of

Goal = Task | Reported
_DEFAULT = Settings()


class Parts(NamedTuple):
    """The data of one training.

    ``goal`` is what is minimised, ``plain`` what is reported of a whole part: the same without label smoothing.
    """

    train: Source
    validation: Source | None
    test: Samples | None
    goal: Goal
    plain: Goal
    sample: Batch


def parts_of(
    network: nn.Module,
    data: Any,
    validation: Any,
    loss: Loss | None,
    settings: Settings,
    generator: torch.Generator,
    note: Callable[[str], None],
) -> Parts:
    """The parts of what `fit` was given, fit for the network.

    Args:
        network: what is trained.
        data, validation: as for `fit`; without validation data a share of tensors is held out, as the settings say.
        loss: of the user's own, or None.
        settings: of the training.
        generator: draws what is held out, and the order of a ``Dataset``.
        note: is told in a sentence what of the settings does not count.

    Raises:
        TypeError, ValueError: data that cannot be trained on, or do not fit the network or the settings.
    """
    like = next(network.parameters())
    if isinstance(data, Split):
        data = data.to(device=like.device, dtype=like.dtype)
    train = source_of(data, like, settings.batch_size, generator=generator)
    sample = train.first() if isinstance(train, Loaded) else train.rows(slice(None))
    task = _task(network, data, sample, train.name, loss)
    plain: Goal = Reported(loss, task) if loss is not None else _known(task)
    smooth = settings.label_smoothing
    if smooth and (loss is not None or not plain.classes):
        what = "a loss of your own" if loss is not None else "real targets"
        raise ValueError(f"label_smoothing={smooth:g} is for classes, and this training has {what}; leave it at 0.")
    if task is not None and loss is None and not task.classes and ((sample.y == 0) | (sample.y == 1)).all():
        note("all targets are 0 or 1, but of a floating-point dtype: squared errors are minimised, as of real targets")
    goal = dataclasses.replace(plain, smoothing=smooth) if isinstance(plain, Task) and smooth else plain
    test = Samples.of(data, "test") if isinstance(data, Split) else None
    held: Source | None = None
    if validation is not None:
        held = source_of(validation, like, settings.batch_size, "the validation data")
        _require_fit(network, held, task)
    elif isinstance(train, Samples):
        if isinstance(data, Split) and settings.validation:
            two = data.holdout(settings.validation, generator, settings.stratified)
            train, held = Samples(two[0], two[1], None, data.name), Samples(two[2], two[3], None, data.name)
        elif settings.validation:
            classes = sample.y if settings.stratified and plain.classes and sample.y.ndim == 1 else None
            kept, out = (rows.to(like.device) for rows in held_out(len(train), settings.validation, generator, classes))
            train, held = train.part(kept), train.part(out)
    if isinstance(train, Loaded):
        _say(settings, isinstance(data, torch.utils.data.Dataset), held is not None, note)
    if held is None and (settings.patience is not None or settings.target_score is not None):
        raise ValueError(
            "patience and target_score wait for validation figures, and nothing is held out; give validation=."
        )
    return Parts(train, held, test, goal, plain, sample)


def require_possible(parts: Parts, settings: Settings, processes: Processes, dtype: torch.dtype) -> None:
    """Raise a `ValueError` where the settings, or several processes, ask for what these data do not allow."""
    data = parts.train
    if settings.bfloat16 and dtype is torch.float16:
        raise ValueError("Settings(bfloat16=True) runs float32 weights in bfloat16, got float16; use network.float().")
    shape = tuple(parts.sample.x.shape)
    if (settings.shift or settings.warp) and len(shape) != 4:
        raise ValueError(
            f"shift and warp move images (samples, channels, height, width); the inputs of {data.name} have the "
            f"shape {shape}. Leave both at 0."
        )
    if isinstance(data, Loaded) and processes.size > 1:
        raise ValueError(
            "several processes share every batch, which a loader of your own does not do; give tensors or a Split, or "
            "train with Lightning."
        )
    if (settings.capture or settings.alternate) and isinstance(parts.sample.x, Sequences):
        raise ValueError(
            "capture and alternate take tensors of one shape, not sequences of unequal lengths; leave them out."
        )
    if settings.capture and (isinstance(data, Loaded) or data.weight is not None):
        raise ValueError(
            "Settings(capture=True) records a step as a CUDA graph and repeats it, but no step of a loader's batches, "
            "or with weights of samples; give tensors without weights, or leave capture out."
        )
    if settings.alternate and (isinstance(data, Loaded) or data.weight is not None or not isinstance(parts.goal, Task)):
        raise ValueError(
            "alternate fits a fresh head to batches, and in the end to all samples: it takes tensors or a Split, "
            "without weights and with the task's own loss."
        )


def lengths(data: Source, settings: Settings) -> tuple[int, int]:
    """Steps of an epoch, and of all of them.

    Raises:
        ValueError: nobody can know.
    """
    steps = data.batches(settings.batch_size) if isinstance(data, Samples) else data.batches()
    if steps == 0:
        raise ValueError(f"{data.name} gives no batch; it needs at least one sample.")
    if steps is not None:
        return steps, settings.steps or settings.epochs * steps
    if settings.steps is None:
        raise ValueError(
            f"{data.name} has no length, so nobody knows how many steps there will be; give Settings(steps=...), of "
            "which an epoch is steps / epochs, or give its dataset a __len__."
        )
    return math.ceil(settings.steps / settings.epochs), settings.steps


def _task(network: nn.Module, data: Any, sample: Batch, name: str, loss: Loss | None) -> Task | None:
    if loss is None:
        return task_of(network, data) if isinstance(data, Split) else task_between(network, sample, name)
    if not callable(loss):
        raise ValueError(f"loss must be a function (outputs, targets) -> losses, such as train.Huber(), got {loss!r}.")
    accepted(network, sample.x[:1], name)
    try:
        return task_between(network, sample, name)
    except ValueError:
        return None


def _known(task: Task | None) -> Task:
    assert task is not None
    return task


def _require_fit(network: nn.Module, held: Source, task: Task | None) -> None:
    """The first of the validation data have targets of the same kind."""
    sample = held.first() if isinstance(held, Loaded) else held.rows(slice(None))
    if task is None:
        accepted(network, sample.x[:1], held.name)
        return
    found = task_between(network, sample, held.name)
    if found != task:
        raise ValueError(
            f"the validation data pose another task ({found.kind}) than the training data ({task.kind}); their targets "
            f"are {str(sample.y.dtype).removeprefix('torch.')} {tuple(sample.y.shape)}."
        )
    require_labels(sample.y, task, held.name)


def _say(settings: Settings, dataset: bool, held: bool, note: Callable[[str], None]) -> None:
    """What a loader decides, and settings do not: a warning where they say otherwise, else a note."""
    ignored = [] if dataset else ["batch_size"]
    ignored += [] if settings.validation == _DEFAULT.validation or not settings.validation else ["validation"]
    ignored = [name for name in ignored if getattr(settings, name) != getattr(_DEFAULT, name)]
    if ignored:
        given = ", ".join(f"{name}={getattr(settings, name)}" for name in ignored)
        warnings.warn(
            f"Settings({given}) is not used: a loader has batches of its own, and nothing is held out of it; "
            "validation= takes another loader.",
            UserWarning,
            stacklevel=5,
        )
    if not held:
        note("nothing is held out of a loader, so the last weights are kept; validation= takes another one")
