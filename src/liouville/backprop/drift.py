r"""The distance of a rebuilt state from the state of the forward pass: measured, not assumed.

The forward pass keeps a fingerprint of the state at up to 33 depths, whatever N; the backward pass compares the states
rebuilt there. Nothing is read from the device before the end of the backward pass, and then in one transfer, or later
where `liouville.backprop.late` says so.
"""

from __future__ import annotations

__all__ = ["Digits", "DriftWarning", "Probes", "depths", "judge", "warn_once"]

import math
import warnings
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from liouville.backprop import late
from liouville.backprop.contract import impure
from liouville.backprop.layers import Layers
from liouville.fields.base import Theta, VectorField
from liouville.fields.stochastic import original
from liouville.schemes.base import ShearScheme

_DEPTHS = 32

_warned: weakref.WeakSet[Any] = weakref.WeakSet()


class DriftWarning(UserWarning):
    """The states that `liouville.Reversible` rebuilt, and so the gradients, have lost half of their digits."""


def depths(layers: int) -> set[int]:
    """The layers before which the state is compared: the first, the last, and others evenly between."""
    return {k * layers // _DEPTHS for k in range(_DEPTHS)} | {layers - 1}


class Digits(NamedTuple):
    """What the state and the velocities of a run are computed with: a word, and the spacing of numbers at 1."""

    name: str
    eps: float


class Probes:
    """Findings of the backward pass: at some layers, the error of the state and its proper size.

    Args:
        end: fingerprints of the last state.
        products: eps of the numbers that are multiplied, where it is not that of the velocities' dtype.
    """

    def __init__(self, end: Sequence[Tensor], products: float = 0.0) -> None:
        self.end, self.products = end, products
        self.found: dict[int, tuple[Tensor, Tensor]] = {}
        self.impurity = torch.zeros((), dtype=torch.float64, device=end[0].device)

    def compare(self, j: int, now: Sequence[Tensor], kept: Sequence[Tensor]) -> None:
        """Compare the state rebuilt before layer j, or, for integers, whether their sums differ."""
        a, b = torch.cat(list(now)), torch.cat(list(kept))
        if a.is_floating_point():
            self.found[j] = _size(a - b), _size(b)
        else:
            self.found[j] = (a != b).any().double(), a.new_ones((), dtype=torch.float64)

    def repeat(self, now: Sequence[Tensor], kept: Sequence[Tensor]) -> None:
        """Compare the last layer's velocities with those of the forward pass, in units of their own precision."""
        for a, b in zip(now, kept, strict=True):
            off, size = _largest([a - b]), _largest([b])
            half = max(torch.finfo(b.dtype).eps, self.products) ** 0.5
            bearable = (half * size).clamp(min=_smallest([b]))  # the product itself may be flushed to 0
            self.impurity = torch.maximum(self.impurity, torch.where(size.isfinite(), off / bearable, 0.0))

    def values(self) -> Tensor:
        """The impurity, then the relative errors in the order of ``found``, on the device."""
        off, size = (torch.stack(row).double() for row in zip(*self.found.values(), strict=True))
        off = torch.where(off.isfinite(), off, torch.inf)
        # zeros that moved away come back with a rounding of the value they had reached; a start at rest, as over time,
        # is nothing but zeros, and what counts is how they compare with the next state
        after = torch.cat((_largest(self.end).reshape(1), size[:-1]))
        least = torch.where(size == 0, after, torch.maximum(0.01 * after, size)).clamp(min=_smallest(self.end))
        # a state that was not finite is skipped
        return torch.cat((self.impurity.reshape(1), torch.where(least.isfinite(), off / least, 0.0)))


def judge(
    probes: Probes, layers: Layers, theta: Theta, digits: Digits, anchors: int | None, checks: late.Checks | None = None
) -> None:
    """Raise where a layer could not be undone; warn, once per field, where half of the digits are lost.

    ``digits`` are those of the state, of autocast, or of products: a 16-bit velocity evaluated at a state one rounding
    away may differ by a 16-bit rounding. With ``checks`` it is judged when those are read.
    """
    if probes.impurity.is_meta:  # fake tensors have no values that could drift
        return
    order = list(probes.found)
    if checks is not None:
        theta, layers.left = (), []  # by then they are others

    def verdict(numbers: Sequence[float]) -> None:
        _judge(numbers[0], dict(zip(order, numbers[1:], strict=True)), layers, theta, digits, anchors)

    late.settle(probes.values(), verdict, checks)


def _judge(
    impurity: float, errors: dict[int, float], layers: Layers, theta: Theta, digits: Digits, anchors: int | None
) -> None:
    field = original(layers.field)
    if layers.arithmetic.exact:
        if any(errors.values()):
            raise RuntimeError(
                f"the exact inversion did not restore every bit. Either {impure(field)}, or an operation of torch is "
                "not deterministic here; call torch.use_deterministic_algorithms(True), or use Reversible()."
            )
        return
    if not impurity <= 1:
        raise RuntimeError(f"the last layer gave another velocity in the backward pass: {impure(field)}.")
    half, last = digits.eps**0.5, layers.field.layers - 1
    if not errors[last] <= half:
        raise RuntimeError(
            f"the last layer could not be undone: the state rebuilt in front of it is off by {errors[last]:.2g} of its "
            f"size. Either {impure(field)}, or its steps are far too large{_margin(layers, theta)}. Stored() needs no "
            "inverse."
        )
    lost = max((j for j, e in errors.items() if not e <= half), default=None)
    if lost is not None:
        better = "Reversible(exact=True), " if isinstance(layers.scheme, ShearScheme) else ""
        warn_once(
            field,
            f"the states that Reversible rebuilt have lost half of the digits of {digits.name} "
            f"from layer {lost} of {last + 1} down (off by {errors[lost]:.1g} of their size there, "
            f"{max(errors.values()):.1g} at worst{_margin(layers, theta)}), and the gradients with them. Use {better}"
            f"Reversible(anchors={_bearable(errors, last + 1, half, anchors)}), Checkpointed(), or smaller steps.",
        )


def warn_once(field: VectorField, text: str) -> None:
    """Give a `DriftWarning`, once for each field."""
    if field not in _warned:
        _warned.add(field)
        warnings.warn(text, DriftWarning, stacklevel=3)


def _bearable(errors: Mapping[int, float], layers: int, half: float, anchors: int | None) -> int:
    """The distance of anchors: half the layers in which the fastest observed growth takes eps to sqrt(eps)."""
    every = anchors or layers
    rate = 0.0
    seen = sorted(errors)
    for i, a in enumerate(seen):
        for b in seen[i + 1 : i + 5]:
            start = max(errors[b], half**2)
            if a // every == (b - 1) // every and start < errors[a] < 0.1:
                rate = max(rate, math.log(errors[a] / start) / (b - a))
    source = {j: min(layers, every * (j // every + 1)) for j in seen}
    lost = min(source[j] - j for j, e in errors.items() if not e <= half)
    safe = math.log(1 / half) / rate if rate else math.inf
    return max(1, int(min(safe, lost) / 2))


def _largest(tensors: Sequence[Tensor]) -> Tensor:
    """The largest absolute entry, in float64 or exactly, still on its device; NaN if there is one."""
    flat = torch.cat([x.double().abs() for x in tensors])
    return flat.max() if flat.numel() else flat.new_zeros(())


def _size(x: Tensor) -> Tensor:
    """The largest absolute entry, in its own type; NaN if there is one."""
    return torch.linalg.vector_norm(x, math.inf) if x.numel() else x.new_zeros(())


def _smallest(tensors: Sequence[Tensor]) -> float:
    """The smallest number with full precision: below it, roundings no longer shrink with the rounded number."""
    return max(torch.finfo(x.dtype).tiny if x.is_floating_point() else 1.0 for x in tensors)


def _margin(layers: Layers, theta: Theta) -> str:
    if not theta:
        return ""
    try:
        rate = layers.field.rate(theta)
    except NotImplementedError:
        return ""
    limit = layers.scheme.stability_limit
    of = f", {type(layers.scheme).__name__}'s limit {limit:.4g}" if math.isfinite(limit) else ""
    return f"; the largest step-size margin h x rate is {float(layers.h * rate.max()):.2g}{of}"
