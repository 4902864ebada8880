"""Facts: a description of data without the data; enough to build a network, to scale raw inputs and to name answers.

A `liouville.data.Split` states its facts (``split.facts()``). They are saved with the network, under the hash of its
model file, and again in a run's ``config.json``.
"""

from __future__ import annotations

__all__ = ["Facts", "Written", "as_numbers", "fingerprint"]

import ctypes
import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypedDict

import torch
from torch import Tensor

from liouville.documents import Count, Name, Numbers, Rule, Size, conform
from liouville.sequences import Inputs, Sequences, sequences_of
from liouville.task import Classes, Task, scores_for

if TYPE_CHECKING:
    from liouville.columns import Columns

Nested = float | tuple["Nested", ...]
_UNEQUAL = "; sequences of other lengths are liouville.data.Sequences(x, lengths), or Sequences.of(a list)."
_TRANSFORMS = (("offset", "scale"), ("target_offset", "target_scale"))


def _are_classes(value: int | list[int]) -> bool:
    """One number, or of several targets one for each."""
    return value == 0 or all(2 <= n <= 2**24 for n in (value if isinstance(value, list) else [value]))


class Written(TypedDict):
    """Facts as JSON; runs of earlier versions lack the optional entries."""

    name: Name
    shape: Annotated[list[Size], Rule("the sizes of one sample, 1 to 4 of them", lambda v: 1 <= len(v) <= 4)]
    classes: Annotated[int | list[int], Rule("0 for a regression, or a number of classes", _are_classes)]
    outputs: NotRequired[Count]
    label_names: list[Name] | list[list[Name]] | None
    column_names: NotRequired[list[Name] | None]
    train_samples: Count
    test_samples: Count
    offset: Numbers | None
    scale: Numbers | None
    target_offset: Numbers | None
    target_scale: Numbers | None
    fingerprint: NotRequired[Name | None]
    preprocessing: NotRequired[dict[str, Any] | None]
    target: NotRequired[Name | None]
    targets: NotRequired[list[Name] | None]


@dataclass(frozen=True)
class Facts:
    """A description of data without the data.

    Args:
        name: name of the data set.
        shape: shape of one sample.
        classes: number of classes; 0 for real targets, a tuple for several targets of classes.
        outputs: number of real targets of one sample; 0 for classes.
        label_names: one name for each class, or None; of several targets a tuple of them for each.
        column_names: one name for each feature of a table, or None.
        train_samples, test_samples: numbers of samples.
        offset, scale: scaling of raw inputs, x = (raw - offset) / scale, numbers that broadcast to one sample; None
            for unscaled inputs.
        target_offset, target_scale: the same for real targets.
        fingerprint: SHA-256 over every number of the data; None if it was not computed.
        preprocessing: how the columns of a raw table become inputs, in place of offset and scale; None without.
        target: the column of a raw table that is predicted; None without.
        targets: the columns, where several are predicted; None else.

    Raises:
        ValueError: for parts of a wrong type or that do not fit each other, unprintable names, or a scale of 0.

    Examples:
        >>> facts = Facts("flowers", (4,), classes=2, label_names=("red", "blue"), offset=1.0, scale=2.0)
        >>> facts.transformed(torch.ones(1, 4)).tolist(), facts.answers(torch.tensor([[-1.0], [2.0]]))
        ([[0.0, 0.0, 0.0, 0.0]], ['red', 'blue'])
    """

    name: str
    shape: tuple[int, ...]
    classes: Classes
    outputs: int = 0
    label_names: tuple[Any, ...] | None = None
    column_names: tuple[str, ...] | None = None
    train_samples: int = 0
    test_samples: int = 0
    offset: Nested | None = None
    scale: Nested | None = None
    target_offset: Nested | None = None
    target_scale: Nested | None = None
    fingerprint: str | None = None
    preprocessing: Columns | None = None
    target: str | None = None
    targets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        conform(self.as_dict(), Written)
        for problem in self._problems():
            raise ValueError(problem)

    def _problems(self) -> Iterator[str]:
        if bool(self.classes) == bool(self.outputs):
            yield f"either classes or outputs are 0, got {self.classes} classes and {self.outputs} outputs."
        several = isinstance(self.classes, tuple)
        if self.label_names is not None and _sizes(self.label_names) != self.classes:
            yield f"{len(self.label_names)} label_names for {self.classes} classes."
        targets = len(self.classes) if isinstance(self.classes, tuple) else self.outputs
        if self.targets is not None and len(self.targets) != targets:
            yield f"{len(self.targets)} names of targets for {targets} {'' if several else 'real '}targets."
        names = self.column_names
        if names is not None and ((len(names),) != self.shape or len(set(names)) < len(names)):
            yield f"column_names must be different names, one for each of {self.shape[-1]} columns."
        if self.preprocessing is not None and (self.shape, self.offset) != ((self.preprocessing.width,), None):
            yield (
                f"columns that become {self.preprocessing.width} features are for samples of that shape, without "
                f"offset and scale, got {self.shape}."
            )
        if self.preprocessing is not None and not all(map(str.isprintable, self.preprocessing.features())):
            yield "the names of columns and categories must be text of printable characters."
        for offset, scale in _TRANSFORMS:
            if (getattr(self, offset) is None) != (getattr(self, scale) is None):
                yield f"{offset} and {scale} belong together, one is null."
        for name in ("offset", "scale"):
            value = self.tensor(name)
            if value is not None and not _broadcasts(value, self.shape):
                wanted, got = (" x ".join(map(str, sizes)) for sizes in (self.shape, value.shape))
                yield f"{name} must be a number, or numbers for samples of {wanted}, got {got}."
        for name in ("scale", "target_scale"):
            value = self.tensor(name)
            if value is not None and not value.all():
                yield f"{name} has a 0, and inputs are divided by it."

    def tensor(self, name: str) -> Tensor | None:
        """``offset``, ``scale``, ``target_offset`` or ``target_scale`` in float64; None without one."""
        value = getattr(self, name)
        return None if value is None else torch.tensor(value, dtype=torch.float64)

    def transformed(self, raw: Any) -> Inputs:
        """Raw inputs scaled as in training, (raw - offset) / scale, in float64; with ``preprocessing``, rows of a raw
        table, found by their names (`liouville.columns.Columns.by_name`).

        Raises:
            ValueError: for samples of another shape, or rows that do not fit.
        """
        if self.preprocessing is not None:
            return torch.from_numpy(self.preprocessing.transform(self.preprocessing.by_name(raw)))
        x = self._taken(raw).to(torch.float64)
        given = 2 if isinstance(x, Sequences) else 1  # sequences may have any number of steps
        if tuple(x.shape[given:]) != self.shape[given - 1 :]:
            other = len(self.shape) == 2 and x.shape[-1:] == self.shape[1:] and x.ndim in (2, 3)
            raise ValueError(
                f"{self.name} has samples of shape {self.shape}, got {tuple(x.shape[1:])}{_UNEQUAL if other else '.'}"
            )
        return x.map(self._scaled) if isinstance(x, Sequences) else self._scaled(x)

    def _taken(self, raw: Any) -> Inputs:
        """Sequences from all forms that a training takes, where samples have two axes; else a tensor."""
        known = sequences_of(raw) if len(self.shape) == 2 and not isinstance(raw, Tensor) else None
        if known is not None:
            return known
        try:
            return torch.as_tensor(raw)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{self.name} has samples of shape {self.shape}, got a {type(raw).__name__} that is no array of them"
                f"{_UNEQUAL if len(self.shape) == 2 else '.'}"
            ) from error

    def _scaled(self, x: Tensor) -> Tensor:
        offset, scale = self.tensor("offset"), self.tensor("scale")
        return x if offset is None or scale is None else (x - offset.to(x)) / scale.to(x)

    def answers(self, outputs: Tensor) -> list[Any] | Tensor:
        """The answers in a network's outputs (samples, outputs): class names, or targets in their unit, in float64.

        Classes without names are called 0, 1, ... Of several targets of classes, each answer is a tuple of names.

        Raises:
            ValueError: for an impossible number of outputs.
        """
        if not self.classes:
            return self._in_their_unit(outputs.double())
        found, names = Task.of(self.classes, outputs.shape[1]).labels(outputs).tolist(), self.names()
        if isinstance(self.classes, tuple):
            return [tuple(own[k] for own, k in zip(names, row, strict=True)) for row in found]
        return [names[0][k] for k in found]

    def names(self) -> list[Sequence[Any]]:
        """The names of the classes of each target.

        Examples:
            >>> Facts("pumps", (2,), (2, 3), label_names=(("off", "on"), ("low", "mid", "high"))).names()[0]
            ('off', 'on')
        """
        if isinstance(self.classes, tuple):
            return list(self.label_names or map(range, self.classes))
        return [self.label_names or range(self.classes)]

    def target_of_scores(self) -> list[int]:
        """Of several targets of classes, which one each output of a network is a score of.

        Examples:
            >>> Facts("pumps", (2,), (2, 3)).target_of_scores()
            [0, 1, 1, 1]
        """
        several = self.classes if isinstance(self.classes, tuple) else (self.classes,)
        return [k for k, classes in enumerate(several) for _ in range(scores_for(classes))]

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Probabilities (samples, classes) from a network's outputs; of several targets those of each side by side.

        Raises:
            ValueError: for real targets, which have none, or as for `answers`.
        """
        if not self.classes:
            raise ValueError(f"{self.name} is a regression; there are no probabilities.")
        return Task.of(self.classes, outputs.shape[1]).probabilities(outputs)

    def _in_their_unit(self, outputs: Tensor) -> Tensor:
        width, (offset, scale) = outputs.shape[1], map(self.tensor, _TRANSFORMS[1])
        if width != self.outputs:
            raise ValueError(f"{self.outputs} real target(s) of a sample, but a network of {width} output(s).")
        if offset is None or scale is None:
            return outputs
        fits = all(t.ndim < 3 and {t.numel(), *t.shape[-1:]} <= {1, width} for t in (offset, scale))
        values = outputs * scale.to(outputs) + offset.to(outputs) if fits else outputs
        if not fits or not values.isfinite().all():
            raise ValueError(f"target_scale and target_offset do not give {width} finite value(s) for a row.")
        return values

    def as_dict(self) -> dict[str, Any]:
        """A JSON value that `from_dict` turns into equal facts."""
        found = {f.name: _as_lists(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return found | {"preprocessing": self.preprocessing and self.preprocessing.as_dict()}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], name: str = "data", file: object = None) -> Facts:
        """The facts from a value of `as_dict`; ``name`` and ``file`` are their names in errors.

        Raises:
            ValueError: if they are damaged.

        Examples:
            >>> facts = Facts("line", (1,), classes=0, outputs=1, offset=(0.5,), scale=(2.0,))
            >>> Facts.from_dict(facts.as_dict()) == facts
            True
        """
        conform(value, Written, name, file)
        known = {f.name for f in dataclasses.fields(cls)}
        given = {key: _as_tuples(v) for key, v in value.items() if key in known}  # a preprocessing is made below
        given.setdefault("outputs", 0 if given["classes"] else 1)
        try:
            if given.get("preprocessing") is not None:
                from liouville.columns import Columns

                given["preprocessing"] = Columns.from_dict(given["preprocessing"])
            return cls(**given)
        except ValueError as error:
            raise ValueError(f"{f'{file} is damaged: ' if file is not None else ''}{name}: {error}") from error


def fingerprint(tensors: Iterable[Tensor]) -> str:
    """SHA-256 over dtype, shape and every bit of some tensors.

    Examples:
        >>> x = torch.zeros(2)
        >>> fingerprint([x]) == fingerprint([x.clone()]), fingerprint([x]) == fingerprint([x + 1])
        (True, False)
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
        if tensor.numel():
            digest.update((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr()))
    return digest.hexdigest()


def as_numbers(tensor: Tensor) -> Nested:
    """A tensor as nested tuples, which can be compared and written as JSON.

    Examples:
        >>> as_numbers(torch.tensor([1.0, 2.0])), as_numbers(torch.tensor(3.0))
        ((1.0, 2.0), 3.0)
    """
    numbers: Nested = _as_tuples(tensor.tolist())
    return numbers


def _broadcasts(value: Tensor, shape: tuple[int, ...]) -> bool:
    sizes = zip(reversed(value.shape), reversed(shape), strict=False)
    return value.ndim <= len(shape) and all(mine in (1, size) for mine, size in sizes)


def _sizes(names: tuple[Any, ...]) -> Classes:
    return tuple(map(len, names)) if any(isinstance(own, tuple) for own in names) else len(names)


def _as_lists(value: Any) -> Any:
    return [_as_lists(part) for part in value] if isinstance(value, list | tuple) else value


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list | tuple) else value
