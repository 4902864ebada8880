r"""The passes of a reversible run: forward through all layers, and back, with each layer undone and differentiated."""

from __future__ import annotations

__all__ = ["Kept", "Run"]

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from liouville.backprop import drift, late
from liouville.backprop.arithmetic import Part
from liouville.backprop.base import joined
from liouville.backprop.contract import is_autocast
from liouville.backprop.layers import Layers, Sums
from liouville.devices import TF32, fast_products
from liouville.fields.base import Theta
from liouville.fields.blocks import Rows
from liouville.fields.wrapped import product_of
from liouville.precision import name_of
from liouville.schemes.base import State

Kept = dict[tuple[str, int], list[Tensor]]
"""The tensors kept by a forward pass, by kind and layer: the "end", the "anchor"s to restart from, the "probe"s, and
the bits that the layers "left"."""


class Run:
    """The N layers of one run, forwards and backwards.

    Args:
        layers: how a layer is run.
        theta: builds the weights from their tensors.
        anchors: the number of layers between stored states.
        returns: whether there will be a backward pass.
        traces: whether the states after all layers are wanted, too.
    """

    def __init__(
        self, layers: Layers, theta: Callable[..., Theta], anchors: int | None, returns: bool, traces: bool = False
    ) -> None:
        self.layers, self.theta, self.anchors = layers, theta, anchors
        self.depth, self.traces = layers.field.layers, traces
        self.anchored = set(range(anchors, self.depth, anchors)) if anchors and returns else set()
        self.probed = drift.depths(self.depth) if returns else set()
        self.checks = late.pending()

    def forward(self, state: State, theta: Sequence[Tensor], needed: Sequence[bool]) -> tuple[State, Kept]:
        """The last state, then the trajectory if it is wanted; and the tensors that the backward pass will need."""
        while True:
            found = self._down(state, theta, needed)
            if self.layers.arithmetic.in_range(lambda: self.layers.reach(state, self.theta(*theta))):
                return found

    def _down(self, state: State, theta: Sequence[Tensor], needed: Sequence[bool]) -> tuple[State, Kept]:
        layers, kept = self.layers, {}
        self.device, self.dtype = state[0].device.type, state[0].dtype
        weights = _weights(self.theta, theta, needed if layers.arithmetic.repeats else (False,) * len(needed))
        parts = layers.enter(state)
        states = None
        for j in range(self.depth):
            if j in self.anchored:
                kept["anchor", j] = [x.clone() for x in _flat(parts)]
            if j in self.probed:
                kept["probe", j] = self.fingerprints(parts)
            parts = layers.forward(parts, j, weights.layer(j))
            if layers.left and self.probed:
                kept["left", j] = layers.left
            if self.traces:
                after = joined(layers.leave(parts), layers.field.feature_axis)
                states = after.new_empty((self.depth, *after.shape)) if states is None else states
                states[j] = after
        kept["end", self.depth] = _flat(parts)
        kept["velocity", self.depth] = layers.seen
        end = layers.leave(parts)
        return (end if states is None else (*end, states)), kept

    def backward(
        self,
        kept: Kept,
        costate: Sequence[Tensor],
        theta: Sequence[Tensor],
        needed: Sequence[bool],
        along: Tensor | None = None,
    ) -> tuple[list[Tensor], list[Tensor | None]]:
        """The gradients of the first state and of the stacked weights; ``along`` is the costate of the trajectory."""
        weights = _weights(self.theta, theta, needed)
        gradients = weights.zeros()
        sums = [g for g in gradients if g is not None]
        parts = self.parts(kept["end", self.depth], len(costate))
        probes = self.probes(parts)
        costate = [torch.empty_like(x).copy_(g) for x, g in zip(self.layers.leave(parts), costate, strict=True)]
        for j in reversed(range(self.depth)):
            rows = Sums([g[j if len(g) > 1 else 0] for g in sums])
            self.layers.left = list(kept.get(("left", j), ()))
            if along is not None:
                add_(costate, along[j], self.layers.field.feature_axis)
            parts = self.layers.backward(parts, costate, j, weights.layer(j), rows)
            if j == self.depth - 1:
                probes.repeat(self.layers.seen[::-1], kept["velocity", self.depth])
            if ("probe", j) in kept:
                probes.compare(j, self.fingerprints(parts), kept["probe", j])
            if ("anchor", j) in kept:
                parts = self.parts(kept["anchor", j], len(costate))
        drift.judge(probes, self.layers, self.theta(*theta), self.precision(costate), self.anchors, self.checks)
        return costate, gradients

    def shield(self) -> contextlib.AbstractContextManager[Any]:
        """Switches off an autocast region around the backward pass that was absent in the forward pass."""
        if self.layers.autocast is contextlib.nullcontext and is_autocast(self.device):
            return torch.autocast(self.device, enabled=False)
        return contextlib.nullcontext()

    def fingerprints(self, parts: Sequence[Part]) -> list[Tensor]:
        """A few numbers of each part, to check whether it was rebuilt."""
        return [self.layers.arithmetic.fingerprint(part) for part in parts]

    def probes(self, parts: Sequence[Part]) -> drift.Probes:
        """What the backward pass is judged by, from its beginning."""
        return drift.Probes(self.fingerprints(parts), TF32 if self._multiplies_fast() else 0.0)

    def precision(self, costate: Sequence[Tensor]) -> drift.Digits:
        """The numbers of lowest precision that a state, a velocity or a product of this run may have."""
        with self.layers.autocast():
            cast = [torch.get_autocast_dtype(self.device)] if is_autocast(self.device) else []
        dtype = max([x.dtype for x in costate] + cast, key=lambda dtype: torch.finfo(dtype).eps)
        eps = torch.finfo(dtype).eps
        fast = eps < TF32 and self._multiplies_fast()
        return drift.Digits("TF32", TF32) if fast else drift.Digits(name_of(dtype), eps)

    def _multiplies_fast(self) -> bool:
        return self.device == "cuda" and fast_products(self.dtype, self.device, product_of(self.layers.field))

    def parts(self, flat: Sequence[Tensor], number: int) -> list[Part]:
        """Copies, grouped by part: the backward pass changes them in place."""
        size = len(flat) // number
        return [tuple(x.clone() for x in flat[k * size : (k + 1) * size]) for k in range(number)]


def add_(costate: Sequence[Tensor], joint: Tensor, axis: int) -> None:
    """Add to each part its share of a costate of the joined state."""
    for g, more in zip(costate, joint.split([g.shape[axis] for g in costate], axis), strict=True):
        g += more


class _Weights:
    """theta_j, as leaves that require a gradient where one is needed."""

    def __init__(self, kind: Any, theta: Sequence[Tensor], needed: Sequence[bool]) -> None:
        self.kind, self.theta, self.needed = kind, [w.detach() for w in theta], needed

    def layer(self, j: int) -> Theta:
        rows = (w[j if len(w) > 1 else 0] for w in self.theta)
        return self.kind(*(w.detach().requires_grad_(n) for w, n in zip(rows, self.needed, strict=True)))

    def zeros(self) -> list[Tensor | None]:
        """The sums of the gradients: allocated at once, since allocation layer by layer fragments the heap."""
        sizes = zip(self.theta, self.needed, strict=True)
        return [torch.zeros(w.shape, dtype=w.dtype, device=w.device) if n else None for w, n in sizes]


class _OwnWeights(_Weights):
    """theta_j of blocks, whose parameters are leaves already."""

    def __init__(self, kind: Any, theta: Sequence[Tensor], needed: Sequence[bool]) -> None:
        self.rows: Rows = kind(*theta).leaves(needed)

    def layer(self, j: int) -> Theta:
        return self.rows.layer(j)


def _weights(kind: Any, theta: Sequence[Tensor], needed: Sequence[bool]) -> _Weights:
    own = isinstance(getattr(kind, "__self__", None), Rows)
    return (_OwnWeights if own else _Weights)(kind, theta, needed)


def _flat(parts: Sequence[Part]) -> list[Tensor]:
    return [x for part in parts for x in part]
