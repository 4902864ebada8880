r"""How far a state that was computed backwards is from the one that the forward pass saw: measured, not assumed.

The forward pass keeps a fingerprint of the state at up to 33 depths, a constant whatever N; the backward pass compares
what it has rebuilt there. Nothing is read from the device before the end of the backward pass.
"""

from __future__ import annotations

__all__ = ["DriftWarning", "depths", "error", "judge"]

import warnings
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from liouville.backprop.layers import Layers
from liouville.fields.base import Theta, original
from liouville.schemes.base import ShearScheme

_DEPTHS = 32

_warned: weakref.WeakSet[Any] = weakref.WeakSet()


class DriftWarning(UserWarning):
    """The states that `liouville.Reversible` rebuilt have lost half of their digits, and the gradients with them."""


def depths(layers: int) -> set[int]:
    """The layers in front of which the state is compared: the first, the last, and evenly between."""
    return {k * layers // _DEPTHS for k in range(_DEPTHS)} | {layers - 1}


def error(now: Sequence[Tensor], kept: Sequence[Tensor]) -> Tensor:
    """The largest difference over the largest entry, still on its device."""
    off = [(a - b).double().abs() for a, b in zip(now, kept, strict=True)]
    size = torch.cat([x.double().abs() for x in kept])
    if not size.numel():
        return size.new_zeros(())
    return torch.cat(off).max() / size.max().clamp(min=torch.finfo(size.dtype).tiny)


def judge(errors: Mapping[int, float], layers: Layers, theta: Theta, dtype: torch.dtype) -> None:
    """Raise where a layer could not be undone; warn, once per field, where half of the digits are lost."""
    field = original(layers.field)
    impure = (
        f"{type(field).__name__} gives another velocity each time it is asked (random numbers of its own, running "
        "statistics: use lv.dropout, or derive it from StochasticField)"
    )
    if layers.arithmetic.exact:
        if any(errors.values()):
            raise RuntimeError(
                f"the exact inversion did not restore every bit. Either {impure}, or an operation of torch is not "
                "deterministic here; call torch.use_deterministic_algorithms(True), or use Reversible()."
            )
        return
    half, last = torch.finfo(dtype).eps ** 0.5, layers.field.layers - 1
    if errors[last] > half:
        raise RuntimeError(
            f"the last layer could not be undone: the state rebuilt in front of it is off by {errors[last]:.2g} of its "
            f"size. Either {impure}, or its steps are far too large{_margin(layers, theta)}. Stored() needs no inverse."
        )
    lost = max((j for j, e in errors.items() if e > half), default=None)
    if lost is not None and field not in _warned:
        _warned.add(field)
        better = "Reversible(exact=True), " if isinstance(layers.scheme, ShearScheme) else ""
        warnings.warn(
            f"the states that Reversible rebuilt have lost half of the digits of {str(dtype).removeprefix('torch.')} "
            f"from layer {lost} of {last + 1} down (off by {errors[lost]:.1g} of their size there, "
            f"{max(errors.values()):.1g} at worst{_margin(layers, theta)}), and the gradients with them. Use "
            f"{better}Reversible(anchors={max(1, (last + 1 - lost) // 2)}), Checkpointed(), or smaller steps.",
            DriftWarning,
            stacklevel=2,
        )


def _margin(layers: Layers, theta: Theta) -> str:
    try:
        rate = layers.field.rate(theta)
    except NotImplementedError:
        return ""
    return f"; the largest step-size margin h x rate is {float(layers.h * rate.max()):.2g}"
