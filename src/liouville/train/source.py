r"""Where a training takes its samples from: tensors in memory, or a loader of the user's own.

`source_of` is the gate: a `Split`, a ``DataLoader``, a ``Dataset`` or a pair (X, y) comes in, and `Samples` or `Loaded`
come out, in the network's dtype and on its device, or one sentence that says what to give.
"""

from __future__ import annotations

__all__ = ["Batch", "Loaded", "Samples", "Source", "source_of"]

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

from liouville.data import Split
from liouville.facts import fingerprint
from liouville.sequences import Inputs, Sequences, numbers, sequences_of, tensors

_FORMS = "a Split, a DataLoader, a Dataset, or tensors (X, y) or (X, y, weights)"
_BATCH = "(inputs, targets) or (inputs, targets, weights)"
_UNEQUAL = "sequences of unequal lengths are (x, lengths), a PackedSequence or liouville.data.Sequences"


class Batch(NamedTuple):
    """Samples that are taken together; the weights multiply their losses."""

    x: Inputs
    y: Tensor
    weight: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Samples:
    """All samples in memory.

    Args:
        x, y, weight: inputs, targets, and weights with mean 1, or None.
        name: what the data are called.
    """

    x: Inputs
    y: Tensor
    weight: Tensor | None = None
    name: str = "the data"

    def __len__(self) -> int:
        return len(self.x)

    def batches(self, size: int) -> int:
        """How many make up all samples."""
        return -(-len(self.x) // size)

    def rows(self, rows: Tensor | slice) -> Batch:
        """Some of them."""
        return Batch(self.x[rows], self.y[rows], None if self.weight is None else self.weight[rows])

    def part(self, rows: Tensor) -> Samples:
        """Some of them, with weights of mean 1 again."""
        batch = self.rows(rows)
        return Samples(batch.x, batch.y, _mean_one(batch.weight, self.name), self.name)

    def described(self) -> str:
        """The name, and the first digits of a hash of every number."""
        return f"{self.name} ({fingerprint(tensors(self.x, self.y, self.weight))[:12]})"

    @classmethod
    def of(cls, split: Split, part: str = "train") -> Samples:
        """A part of a split."""
        return cls(getattr(split, f"x_{part}"), getattr(split, f"y_{part}"), None, split.name)


class Loaded:
    """A loader of batches, gone through once an epoch.

    Args:
        loader: gives batches (inputs, targets) or (inputs, targets, weights), anew each time it is iterated.
        like: a weight of the network; floating-point numbers are taken to its dtype, all to its device.
        name: what the loader is called.
    """

    def __init__(self, loader: Iterable[Any], like: Tensor, name: str = "the loader") -> None:
        self.loader, self.like, self.name = loader, like, name
        self._begun: Iterator[Any] | None = None

    def batches(self) -> int | None:
        """How many an epoch has; None where the loader does not know."""
        try:
            return len(self.loader)  # type: ignore[arg-type]
        except (TypeError, NotImplementedError):
            return None

    def first(self) -> Batch:
        """One batch to look at; the next pass begins with it, so that a stream loses nothing.

        Raises:
            ValueError: there is none.
        """
        passing = iter(self.loader)
        raw = next(passing, None)
        if raw is None:
            raise ValueError(f"{self.name} gives no batch; it needs at least one sample.")
        self._begun = itertools.chain([raw], passing)
        return self._taken(raw)

    def __iter__(self) -> Iterator[Batch]:
        begun, self._begun = self._begun, None
        for raw in iter(self.loader) if begun is None else begun:
            yield self._taken(raw)

    def some(self, count: int) -> Iterator[Batch]:
        """So many batches, from where the last ones ended; after the end of a pass another one begins."""
        fresh = False  # whether the pass has given nothing since it began
        while count:
            if self._begun is None:
                self._begun, fresh = iter(self.loader), True
            raw = next(self._begun, None)
            if raw is None and fresh:
                return
            if raw is None:
                self._begun = None
                continue
            fresh, count = False, count - 1
            yield self._taken(raw)

    def _taken(self, raw: Any) -> Batch:
        if not isinstance(raw, Sequence) or len(raw) not in (2, 3):
            found = f"keys {', '.join(map(repr, raw))}" if isinstance(raw, dict) else _described(raw)
            raise ValueError(f"a batch must be {_BATCH}, {self.name} gives {found}; give it a collate_fn that does so.")
        return _moved(_three(raw, self.name), self.like)


Source = Samples | Loaded


def source_of(
    data: Any, like: Tensor, batch_size: int, name: str = "the data", generator: torch.Generator | None = None
) -> Source:
    """What a training can take its batches from, checked once.

    Args:
        data: a `Split` (its training part, as it is), a ``DataLoader`` or another iterable of batches, a ``Dataset``,
            or tensors; for inputs of unequal lengths, see `sequences_of`.
        like: a weight of the network that is trained.
        batch_size: of the loader that is made for a ``Dataset``.
        name: what the data are called in errors.
        generator: draws the order of a ``Dataset``'s samples; None keeps it.

    Raises:
        TypeError: data of another kind.
        ValueError: tensors that do not fit each other, are empty or not finite.

    Examples:
        >>> x, y = torch.randn(6, 2), torch.arange(6) % 2
        >>> len(source_of((x, y), torch.ones(1), 4)), source_of([(x, y), (x, y)], torch.ones(1), 4).batches()
        (6, 2)
    """
    if isinstance(data, Split):
        return Samples.of(data)
    if isinstance(data, TensorDataset) and len(data.tensors) in (2, 3):
        data = data.tensors
    if isinstance(data, tuple) or (
        isinstance(data, list) and data and (_is_array(data[0]) or isinstance(data[0], Sequences))
    ):
        return _samples(data, like, name)
    if isinstance(data, DataLoader):
        return Loaded(data, like, "the DataLoader")
    if isinstance(data, Dataset):
        return Loaded(_loader(data, batch_size, generator), like, "the Dataset")
    if _is_array(data) or isinstance(data, Sequences | dict | str | bytes) or not hasattr(data, "__iter__"):
        raise TypeError(f"{name} must be {_FORMS}, got {_described(data)}.")
    if iter(data) is data:
        raise TypeError(
            f"{name} must be gone through once an epoch, and {_described(data)} ends after one pass; give {_FORMS}."
        )
    return Loaded(data, like)


def _loader(dataset: Any, batch_size: int, generator: torch.Generator | None) -> DataLoader:
    if isinstance(dataset, IterableDataset):
        return DataLoader(dataset, batch_size=batch_size, collate_fn=_together)
    if not len(dataset):
        raise ValueError("the Dataset is empty; it needs at least one sample.")
    order: dict[str, Any] = {"shuffle": generator is not None, "generator": generator}
    return DataLoader(dataset, batch_size=batch_size, collate_fn=_together, **order)


def _together(samples: Sequence[Any]) -> Any:
    """A batch as torch makes it; of tensors (steps, inputs) of unequal lengths, `Sequences`."""
    first = [sample[0] if isinstance(sample, list | tuple) and sample else None for sample in samples]
    lengths = {len(x) if isinstance(x, Tensor) and x.ndim == 2 else -1 for x in first}
    return Sequences.collate(samples) if len(lengths) > 1 and -1 not in lengths else default_collate(list(samples))


def _samples(data: Sequence[Any], like: Tensor, name: str) -> Samples:
    if len(data) not in (2, 3):
        raise ValueError(f"{name} must be tensors (X, y) or (X, y, weights), got {len(data)} of them.")
    x, y, weight = _three(data, name)
    for what, tensor in (("inputs", numbers(x)), ("targets", y), ("weights", weight)):
        if tensor is None:
            continue
        if tensor.requires_grad:
            raise ValueError(f"the {what} of {name} require a gradient; call .detach() on them first.")
        if tensor.is_floating_point() and not (finite := tensor.isfinite()).all():
            rows = (~finite.flatten(1).all(1) if tensor.ndim > 1 else ~finite).nonzero().flatten()
            raise ValueError(
                f"the {what} of {name} have NaN or infinite values in {len(rows)} of {len(tensor)} samples, the first "
                f"is {int(rows[0])}; remove or fill them."
            )
    x, y, weight = _moved(Batch(x, y, weight), like)
    return Samples(x, y, _mean_one(weight, name), name)


def _moved(batch: Batch, like: Tensor) -> Batch:
    """On the network's device, floating-point numbers in its dtype."""
    found: list[Any] = [
        t if t is None else t.to(like.device, like.dtype if t.is_floating_point() else t.dtype, non_blocking=True)
        for t in batch
    ]
    return Batch(*found)


def _three(raw: Sequence[Any], name: str) -> Batch:
    """Inputs, targets and weights as tensors of equally many samples."""
    parts: list[Any] = []
    for what, value in zip(("inputs", "targets", "weights"), raw, strict=False):
        sequences = None if parts else sequences_of(value)
        if sequences is None and not _is_array(value):
            also = "" if parts else f"; {_UNEQUAL}"
            raise ValueError(f"{what} of {name} must be a tensor, got {_described(value)}; a batch is {_BATCH}{also}.")
        parts.append(sequences if sequences is not None else torch.as_tensor(value))
    x, y, weight = parts[0], parts[1], parts[2] if len(parts) == 3 else None
    y = y if y.is_floating_point() else y.long()
    if x.ndim and y.ndim and not len(x) + len(y):
        raise ValueError(f"{name} has no samples, inputs are {tuple(x.shape)}; it needs at least one.")
    if x.ndim < 1 or y.ndim < 1 or len(x) != len(y):
        raise ValueError(
            f"inputs and targets of {name} must have one row for each sample, got {tuple(x.shape)} and "
            f"{tuple(y.shape)}."
        )
    if weight is not None and (weight.shape != y.shape[:1] or not weight.is_floating_point() or (weight < 0).any()):
        raise ValueError(
            f"the third part of {name} are weights, a floating-point number >= 0 for each sample, got "
            f"{_described(weight)} {tuple(weight.shape)}; leave out what is no weight (lengths of sequences go with "
            "the inputs, ((x, lengths), y))."
        )
    return Batch(x, y, weight)


def _mean_one(weight: Tensor | None, name: str) -> Tensor | None:
    """Weights tell only how samples compare, so their mean is made 1."""
    if weight is None:
        return None
    mean = weight.double().mean()
    if not mean > 0:
        raise ValueError(f"all weights of {name} are 0, so nothing can be learned; give a weight > 0 to some samples.")
    return (weight.double() / mean).to(weight.dtype)


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor) or (hasattr(value, "__array__") and hasattr(value, "shape"))


def _is_inputs(value: Any) -> bool:
    return isinstance(value, Sequences) or _is_array(value)


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
