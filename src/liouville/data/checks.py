"""What a split must be so that it can be trained on; the gate of data that come as tensors."""

from __future__ import annotations

__all__ = ["check"]

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from liouville.sequences import Inputs, Sequences, numbers
from liouville.task import Classes, in_words

if TYPE_CHECKING:
    from liouville.data.split import Split


def check(split: Split) -> None:
    """Raise an error, in one sentence, where the data cannot be trained on.

    Raises:
        TypeError: ``x`` or ``y`` is not a tensor, or ``classes`` is not an int.
        ValueError: NaN or infinite values; an empty part; shapes, lengths, types or devices that do not fit;
            labels outside 0 ... classes - 1, or not int64; a training part with one class only.
    """
    several = split.classes if isinstance(split.classes, tuple) else ()
    for classes in several or (split.classes,):
        if not isinstance(classes, int) or isinstance(classes, bool):
            raise TypeError(f"classes must be an int, got {classes!r}; write 0 for regression.")
        if classes < 0 or classes == 1 or (several and classes == 0):
            raise ValueError(f"classes must be at least 2, or 0 for regression, got {classes}.")
    names: Any = split.label_names
    if names is not None and (tuple(map(len, names)) if several else len(names)) != split.classes:
        raise ValueError(
            f"label_names must have one name for each of {in_words(split.classes)} classes, got {len(names)}."
        )
    for part in ("train", "test"):
        _check_part(part, getattr(split, f"x_{part}"), getattr(split, f"y_{part}"), split.classes)
    _check_same(split)
    _check_transform(split)
    _check_column_names(split)
    for k in range(len(several)):
        if len(seen := split.y_train[:, k].unique()) < 2:
            raise ValueError(
                f"y_train has one class only, {int(seen[0])}, of the target {k}; training needs at least two."
            )
    if split.classes and not several and len(seen := split.y_train.unique()) < 2:
        raise ValueError(
            f"y_train has one class only, {int(seen[0])}, in all its {len(split.y_train)} samples; "
            "training needs at least two."
        )


def _check_part(part: str, x: Inputs, y: Tensor, classes: Classes) -> None:
    """One part by itself: tensors, shapes and lengths, then the numbers in them."""
    for name, value in ((f"x_{part}", x), (f"y_{part}", y)):
        if not isinstance(value, Tensor) and (isinstance(y, Sequences) or not isinstance(value, Sequences)):
            raise TypeError(
                f"{name} must be a torch.Tensor, got {type(value).__name__}; convert it with torch.as_tensor."
            )
    if not x.is_floating_point():
        raise ValueError(f"x_{part} must be floating point, got {x.dtype}; convert it with x.float().")
    if x.ndim < 2 or 0 in x.shape[1:]:
        raise ValueError(
            f"x_{part} must have shape (samples, *features), got {tuple(x.shape)}; for one feature use x[:, None]."
        )
    if len(x) == 0:
        raise ValueError(
            f"the {part} part is empty (x_{part} has shape {tuple(x.shape)}); it needs at least one sample."
        )
    several = classes if isinstance(classes, tuple) else ()
    allowed = (2,) if several else (1,) if classes else (1, 2)
    if y.ndim not in allowed or (several and y.shape[1] != len(several)):
        expected = "(samples,)" if classes else "(samples,) or (samples, outputs)"
        expected = f"(samples, {len(several)})" if several else expected
        raise ValueError(f"y_{part} must have shape {expected}, got {tuple(y.shape)}.")
    if len(x) != len(y):
        raise ValueError(f"x_{part} has {len(x)} samples but y_{part} has {len(y)}; they must have the same length.")
    _check_finite(f"x_{part}", numbers(x))
    if not classes:
        if not y.is_floating_point():
            raise ValueError(
                f"y_{part} must be floating point for regression (classes=0), got {y.dtype}; convert it with "
                "y.float(), or give the number of classes."
            )
        _check_finite(f"y_{part}", y)
        return
    if y.dtype != torch.int64:
        raise ValueError(
            f"y_{part} must be int64 labels for classes={classes}, got {y.dtype}; convert it with y.long(), "
            "or pass classes=0 for regression."
        )
    for column, own in zip(y.unbind(1) if several else (y,), several or (classes,), strict=True):
        low, high = int(column.min()), int(column.max())
        if low < 0 or high >= cast(int, own):
            raise ValueError(
                f"y_{part} has labels from {low} to {high}, expected 0 to {cast(int, own) - 1} (classes={own}); "
                "renumber the labels or correct classes."
            )


def _check_finite(name: str, values: Tensor) -> None:
    finite = values.isfinite()
    if finite.all():
        return
    bad = (~finite).flatten(1).any(1) if values.ndim > 1 else ~finite
    rows = bad.nonzero().flatten()
    raise ValueError(
        f"{name} has NaN or infinite values in {len(rows)} of {len(values)} rows, "
        f"the first is row {int(rows[0])}; remove or fill these rows."
    )


def _check_transform(split: Split) -> None:
    """offset and scale: both or none, finite, no division by 0, and shaped like a part of one sample."""
    first = numbers(split.x_train)[0]
    first = first[:1] if isinstance(split.x_train, Sequences) else first  # the same for every step
    for prefix, sample in (("", first), ("target_", split.y_train[0])):
        offset, scale = getattr(split, f"{prefix}offset"), getattr(split, f"{prefix}scale")
        if (offset is None) != (scale is None):
            raise ValueError(f"{prefix}offset and {prefix}scale must be given together, or neither.")
        if offset is None:
            continue
        if prefix and split.classes:
            raise ValueError(f"labels have no {prefix}offset and {prefix}scale; leave both None for classes >= 2.")
        for name, value in ((f"{prefix}offset", offset), (f"{prefix}scale", scale)):
            if not value.isfinite().all() or (name.endswith("scale") and bool((value == 0).any())):
                raise ValueError(f"{name} must be finite, and a scale must not be 0.")
            try:
                fits = torch.broadcast_shapes(value.shape, sample.shape) == sample.shape
            except RuntimeError:
                fits = False
            if not fits:
                raise ValueError(
                    f"{name} has shape {tuple(value.shape)}, which does not broadcast to one sample's, "
                    f"{tuple(sample.shape)}."
                )


def _check_column_names(split: Split) -> None:
    names, shape = split.column_names, split.x_train.shape[1:]
    if names is None:
        return
    if not all(isinstance(name, str) and name.strip() for name in names) or len(set(names)) < len(names):
        raise ValueError(f"column_names must be different strings, got {names!r}.")
    if shape != (len(names),):
        raise ValueError(f"column_names must have one name for each feature of {tuple(shape)}, got {len(names)}.")


def _check_same(split: Split) -> None:
    """The two parts together: one feature shape, one type, one device."""
    if isinstance(split.x_train, Sequences) != isinstance(split.x_test, Sequences):
        raise TypeError("x_train and x_test must both be tensors or both be Sequences.")
    pairs: tuple[tuple[str, Inputs, Inputs], ...]
    pairs = (("x", split.x_train, split.x_test), ("y", split.y_train, split.y_test))
    for name, train, test in pairs:
        own = 2 if isinstance(train, Sequences) else 1  # the longest may differ
        if train.shape[own:] != test.shape[own:]:
            raise ValueError(
                f"{name}_train and {name}_test must have the same shape after the first axis, "
                f"got {tuple(train.shape[1:])} and {tuple(test.shape[1:])}."
            )
        if train.dtype != test.dtype:
            raise ValueError(f"{name}_train and {name}_test must have one dtype, got {train.dtype} and {test.dtype}.")
    devices = {str(t.device) for t in (split.x_train, split.y_train, split.x_test, split.y_test)}
    if len(devices) > 1:
        raise ValueError(f"all four tensors must be on one device, got {', '.join(sorted(devices))}; use Split.to.")
