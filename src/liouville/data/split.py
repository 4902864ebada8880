"""A data set that is already split: training part, test part, and how inputs became theirs.

Every loader returns a `Split`. Its test part is read once, at the very end; whatever is chosen by looking at
data (the best epoch, a hyper-parameter) is chosen on points that `Split.holdout` takes from the *training*
part. A `Split` that exists is sound: `check` runs when one is made, and says in one sentence what is wrong
with the data.
"""

from __future__ import annotations

__all__ = ["Holdout", "Split", "held_out"]

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from liouville.data.checks import check
from liouville.data.numbers import real_number
from liouville.display import table
from liouville.facts import Facts, as_numbers, fingerprint
from liouville.sequences import Inputs, Read, Sequences, tensors
from liouville.task import in_words

if TYPE_CHECKING:
    from liouville.columns import Columns


_NAMES = 20  # of classes that a notebook shows


class Holdout(NamedTuple):
    """Training data in two: the points to fit, and the points to choose by. It holds no test point."""

    x_train: Read
    y_train: Tensor
    x_validation: Read
    y_validation: Tensor


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Training and test data, checked when made.

    Args:
        x_train: inputs, floating point, (samples, *features): (samples, features) for tables, (samples, C, H,
            W) for images, (samples, steps, features) for sequences; `Sequences` where their lengths differ.
        y_train: int64 labels 0 ... classes - 1 of shape (samples,), for several targets (samples, targets), or, for
            regression, floating-point targets of shape (samples,) or (samples, outputs).
        x_test: as ``x_train``, other samples.
        y_test: as ``y_train``.
        name: what the data set is called.
        classes: number of classes; 0 says that ``y`` is real-valued (regression), a tuple has the number of classes of
            each of several targets.
        label_names: one name for each class, or None; for several targets a tuple of names for each.
        offset: how raw inputs became ``x``: x = (raw - offset) / scale, both broadcast against one sample; None, with
            ``scale`` None, for inputs that are as they were. New inputs must go the same way (`transformed`).
        scale: see ``offset``; not 0.
        target_offset: the same for real-valued targets: y = (raw - target_offset) / target_scale.
        target_scale: see ``target_offset``.
        column_names: one name for each feature of a table, or None; new tables with a header must have these.
        preprocessing: how the columns of a raw table became ``x``, in place of offset and scale, or None.
        target: the column of that table that is predicted, or None.
        targets: the columns of that table that are predicted, where there are several, or None.

    Raises:
        TypeError: a part is not a tensor.
        ValueError: see `check`.

    Examples:
        >>> x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> Split(x, torch.tensor([0, 1, 0, 1]), x + 0.5, torch.tensor([0, 1, 0, 1]), name="steps", classes=2)
        Split('steps', 4 training and 4 test samples of shape (1,), 2 classes, float32, cpu)
    """

    x_train: Read
    y_train: Tensor
    x_test: Read
    y_test: Tensor
    name: str
    classes: int | Any  # a tuple for several targets, which few readers have to know
    label_names: tuple[Any, ...] | None = None
    offset: Tensor | None = None
    scale: Tensor | None = None
    target_offset: Tensor | None = None
    target_scale: Tensor | None = None
    column_names: tuple[str, ...] | None = None
    preprocessing: Columns | None = None
    target: str | None = None
    targets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check(self)

    def transformed(self, raw: Any) -> Read:
        """Raw inputs on the scale of ``x_train``: (raw - offset) / scale, computed in float64, in x_train's dtype; rows
        of a raw table as ``preprocessing`` has them.

        Examples:
            >>> x = torch.tensor([[0.0], [1.0]])
            >>> split = Split(x, x, x, x, "line", 0, offset=torch.tensor(10.0), scale=torch.tensor(2.0))
            >>> split.transformed(torch.tensor([[14.0]]))
            tensor([[2.]])
        """
        if self.preprocessing is not None:
            rows = self.preprocessing.by_name(raw)
            return torch.from_numpy(self.preprocessing.transform(rows)).to(self.x_train.dtype)
        if isinstance(raw, Sequences):
            return raw.map(self._scaled)
        return self._scaled(raw)

    def _scaled(self, raw: Tensor) -> Tensor:
        x = raw.to(torch.float64)
        if self.offset is not None and self.scale is not None:
            x = (x - self.offset.to(x)) / self.scale.to(x)
        return x.to(self.x_train.dtype)

    def facts(self) -> Facts:
        """What is known of these data without having them; it reads every number, for the fingerprint.

        Examples:
            >>> x = torch.tensor([[0.0], [1.0]])
            >>> Split(x, x, x, x, "line", 0, offset=torch.tensor(10.0), scale=torch.tensor(2.0)).facts().scale
            2.0
        """
        targets = 1 if self.y_train.ndim == 1 else self.y_train.shape[1]
        transform = {name: getattr(self, name) for name in ("offset", "scale", "target_offset", "target_scale")}
        return Facts(
            name=self.name,
            shape=tuple(self.x_train.shape[1:]),
            classes=self.classes,
            outputs=0 if self.classes else targets,
            label_names=self.label_names and tuple(self.label_names),
            column_names=self.column_names and tuple(self.column_names),
            train_samples=len(self.x_train),
            test_samples=len(self.x_test),
            preprocessing=self.preprocessing,
            target=self.target,
            targets=self.targets,
            fingerprint=fingerprint(tensors(self.x_train, self.y_train, self.x_test, self.y_test)),
            **{name: None if t is None else as_numbers(t) for name, t in transform.items()},
        )

    def holdout(self, fraction: float, generator: torch.Generator | None, stratified: bool = False) -> Holdout:
        """Take ``round(fraction * samples)`` random samples out of the training part, for validation.

        Args:
            fraction: share of the training samples, between 0 and 1.
            generator: draws which samples go; None uses torch's default generator.
            stratified: whether each class gives its share.

        Raises:
            ValueError: nothing is left on one side, or only one class is left to train on.
        """
        classes = self.y_train if stratified and self.classes and self.y_train.ndim == 1 else None
        kept, held = held_out(len(self.x_train), fraction, generator, classes)
        kept, held = kept.to(self.x_train.device), held.to(self.x_train.device)
        if self.classes and self.y_train.ndim == 1 and len(self.y_train[kept].unique()) < 2:
            raise ValueError(
                f"holding out a fraction {fraction} of {len(self.x_train)} training samples leaves only class "
                f"{int(self.y_train[kept][0])} to train on; use a smaller fraction or another seed."
            )
        return Holdout(self.x_train[kept], self.y_train[kept], self.x_train[held], self.y_train[held])

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Split:
        """The same data on another device or in another floating-point type; labels stay int64.

        Raises:
            TypeError: ``device`` is a dtype, or ``dtype`` is not a floating-point type.
            ValueError: a number overflows in the new type.
        """
        if isinstance(device, torch.dtype):
            raise TypeError(
                f"device must be a torch.device or a name such as 'cuda', got {device}; write to(dtype={device})."
            )
        if dtype is not None and not dtype.is_floating_point:
            raise TypeError(f"dtype must be a floating-point type such as torch.float64, got {dtype}.")
        target = dtype if self.classes == 0 else None
        return dataclasses.replace(
            self,
            x_train=self.x_train.to(device=device, dtype=dtype),
            y_train=self.y_train.to(device=device, dtype=target),
            x_test=self.x_test.to(device=device, dtype=dtype),
            y_test=self.y_test.to(device=device, dtype=target),
        )

    def __repr__(self) -> str:
        task = f"{in_words(self.classes)} classes" if self.classes else "regression"
        return (
            f"Split({self.name!r}, {len(self.x_train)} training and {len(self.x_test)} test samples "
            f"of {_shape(self.x_train)}, {task}, "
            f"{str(self.x_train.dtype).removeprefix('torch.')}, {self.x_train.device})"
        )

    def _repr_html_(self) -> str:
        """A small table for notebooks."""
        parts = ("training", self.x_train, self.y_train), ("test", self.x_test, self.y_test)
        shown = [
            (name, f"{len(x):,}", tuple(x.shape[1:]), x.dtype, tuple(y.shape[1:]), y.dtype) for name, x, y in parts
        ]
        rows = [(*row[:2], *(str(cell).removeprefix("torch.") for cell in row[2:])) for row in shown]
        known = [own if isinstance(own, str) else "/".join(own) for own in self.label_names or ()]
        names = ", ".join(known[:_NAMES])
        more = ", ..." if len(known) > _NAMES else ""
        task = f"{in_words(self.classes)} classes" if self.classes else "real targets"
        head = ("part", "samples", "shape of an input", "its dtype", "shape of a target", "its dtype")
        return table(f"{self.name}: {task}", head, rows, f"classes: {names}{more}" if names else "")


def _shape(x: Inputs) -> str:
    if isinstance(x, Sequences):
        return f"up to {x.shape[1]} steps of {x.shape[2]} inputs"
    return f"shape {tuple(x.shape[1:])}"


def held_out(
    samples: int, fraction: float, generator: torch.Generator | None, classes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Which of so many samples to train on, and which ``round(fraction * samples)`` to hold out, drawn at random.

    Args:
        samples: how many there are.
        fraction: share to hold out, between 0 and 1.
        generator: draws them; None uses torch's default generator.
        classes: (samples,), the class of each: every class gives its share, rounded, and keeps one at least.

    Raises:
        ValueError: nothing is left on one side.

    Examples:
        >>> kept, held = held_out(8, 0.5, None, torch.tensor([0, 0, 1, 1, 1, 1, 1, 1]))
        >>> len(kept), int((held < 2).sum())
        (4, 1)
    """
    real_number("fraction", fraction, low=0.0, high=1.0)
    if samples < 2:
        raise ValueError("a validation part cannot be taken out of 1 training sample; it needs at least two.")
    out = round(fraction * samples)
    if not 0 < out < samples:
        side = "hold out" if out == 0 else "train on"
        raise ValueError(
            f"fraction {fraction} of {samples} training samples leaves nothing to {side}; "
            f"use a fraction from {1 / samples:.3g} to {(samples - 1) / samples:.3g}."
        )
    order = torch.randperm(samples, generator=generator, device=None if generator is None else generator.device)
    if classes is None:
        return order[out:], order[:out]
    order = order.cpu()
    own = classes.cpu()[order].unique(return_inverse=True, return_counts=True)
    if own[2].max() == 1:
        raise ValueError("every class has one sample only, so that none can be held out; give validation data.")
    chosen = torch.zeros(samples, dtype=torch.bool)
    for k, share in enumerate(_shares(own[2], out).tolist()):
        chosen[(own[1] == k).nonzero().flatten()[:share]] = True
    return order[~chosen], order[chosen]


def _shares(counts: Tensor, out: int) -> Tensor:
    """How many of ``out`` each class gives: its share rounded down, then one more by the largest remainder."""
    quotas = counts.double() * out / counts.sum()
    shares = torch.minimum(quotas.floor().long(), counts - 1)
    for k in (quotas - shares).argsort(descending=True, stable=True).tolist():
        if int(shares.sum()) < out and shares[k] < counts[k] - 1:
            shares[k] += 1
    return shares
