r"""Engines that leave the backward pass to autograd, and differ in what it may keep."""

from __future__ import annotations

__all__ = ["Checkpointed", "Stored"]

import math
from dataclasses import dataclass
from typing import Any

import torch

from liouville.backprop.base import Backprop, slices
from liouville.backprop.gate import require_recomputable
from liouville.fields.base import Theta, VectorField
from liouville.schemes.base import Scheme, State


@dataclass(frozen=True, repr=False)
class Stored(Backprop):
    """Ordinary autograd: every layer's intermediates are kept. Memory grows like N; nothing is computed twice.

    Examples:
        >>> Stored() == Stored()
        True
    """

    def run(self, scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float) -> State:
        for j, theta_j in enumerate(slices(theta, field.layers)):
            state = scheme.step(field.at_layer(j), state, theta_j, h)
        return state


@dataclass(frozen=True, repr=False)
class Checkpointed(Backprop):
    """Keep every ``every``-th state and recompute the layers between: memory like sqrt(N), one more forward pass.

    Args:
        every: layers per segment; ceil(sqrt(N)) by default.

    Raises:
        ValueError: if ``every`` is less than 1.
        RuntimeError: if a layer, computed again, would not be the same: if it changes a buffer, or draws random numbers
            that `torch.utils.checkpoint` does not replay.

    Examples:
        >>> Checkpointed(every=8)
        Checkpointed(every=8)
    """

    every: int | None = None

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 1:
            raise ValueError(f"every must be at least 1 layer per segment, got {self.every}.")

    def run(self, scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float) -> State:
        hooks: Any = torch._C._autograd
        if not torch.compiler.is_compiling() and not hooks._saved_tensors_hooks_is_enabled():
            raise RuntimeError(
                "Checkpointed computes layers again in torch.autograd's backward pass, which torch.func.grad and its "
                "kin do not admit; use flow.with_backprop(lv.Stored()), the plain loop, for it."
            )
        from torch.utils.checkpoint import checkpoint  # a slow import in older releases of torch

        if torch.is_grad_enabled():
            require_recomputable(field)
        layers = list(enumerate(slices(theta, field.layers)))
        every = self.every or math.ceil(math.sqrt(field.layers))

        def segment(first: int, *state: torch.Tensor) -> State:
            for j, theta_j in layers[first : first + every]:
                state = scheme.step(field.at_layer(j), state, theta_j, h)
            return state

        if torch.compiler.is_compiling():  # shown a layer, it knows every number that a segment will meet; no result
            scheme.step(field.at_layer(0), state, layers[0][1], h)
        for first in range(0, field.layers, every):
            state = checkpoint(segment, first, *state, use_reentrant=False)
        return state
