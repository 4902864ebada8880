r"""The engine that keeps some states and recomputes the layers between them.

A segment of layers is one `torch.autograd.Function`: its forward pass makes no graph, its backward pass runs the layers
again and differentiates them. torch's own checkpoint (``use_reentrant=False``) already makes the graph's nodes in the
forward pass, and these small allocations fragment the memory that the layers free. It is used where the function does
not work: for blocks that keep their parameters, under compilers and under transforms.

N layers with states of S bytes and I bytes of intermediates each need N S / m + m I bytes for segments of m layers:
the minimum is at m = (N S / I)^(1/2). I is measured at the first layer.
"""

from __future__ import annotations

__all__ = ["Checkpointed"]

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from liouville.backprop.arithmetic import sample
from liouville.backprop.base import Backprop, joined, slices
from liouville.backprop.contract import (
    autocast_now,
    impure,
    is_autocast,
    is_plain_autograd,
    require_declared,
    rewind,
    streams,
    unwritten,
)
from liouville.backprop.gate import observed, require_recomputable
from liouville.backprop.trial import bytes_per_layer
from liouville.compilers import is_watched
from liouville.fields.base import Theta, VectorField
from liouville.fields.blocks import Blocks, Rows
from liouville.schemes.base import Scheme, State


@dataclass(frozen=True, repr=False)
class Checkpointed(Backprop):
    """Keep every ``every``-th state and recompute the layers between: memory like sqrt(N), one more forward pass.

    Args:
        every: layers per segment; by default the number with the least memory, (N x state / intermediates of a
            layer)^(1/2), measured at the first layer for each kind of input.

    Raises:
        ValueError: if ``every`` is less than 1.
        RuntimeError: if a recomputed layer would differ: if it changes a buffer, or draws random numbers that
            `torch.utils.checkpoint` does not replay (for a user's blocks noticed in the backward pass); in the backward
            pass, if a layer reads a parameter that does not come through ``theta()``; under torch.func.grad and similar
            transforms.

    Examples:
        >>> Checkpointed(every=8)
        Checkpointed(every=8)
    """

    every: int | None = None

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 1:
            raise ValueError(f"every must be at least 1 layer per segment, got {self.every}.")

    def run(self, scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float) -> State:
        return self._run(scheme, field, state, theta, h, None)

    def trajectory(
        self, scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float
    ) -> tuple[State, Tensor]:
        if isinstance(theta, Rows) or torch.compiler.is_compiling() or not is_plain_autograd((*state, *theta)):
            return super().trajectory(scheme, field, state, theta, h)
        states: list[Tensor] = []
        end = self._run(scheme, field, state, theta, h, states)
        return end, torch.cat(states)

    def _run(
        self, scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float, states: list[Tensor] | None
    ) -> State:
        """The last state; the states after the layers of each segment are appended to ``states``."""
        hooks: Any = torch._C._autograd
        if not torch.compiler.is_compiling() and not hooks._saved_tensors_hooks_is_enabled():
            raise RuntimeError(
                "Checkpointed recomputes layers in torch.autograd's backward pass, which torch.func.grad and similar "
                "transforms do not admit; use flow.with_backprop(lv.Stored()), the plain loop, for it."
            )
        traced = torch.is_grad_enabled() and any(t.requires_grad for t in (*state, *theta))
        if torch.is_grad_enabled():
            require_recomputable(field)
        rows = list(slices(theta, field.layers))
        every = self.every or (_best(scheme, field, state, theta, h) if traced else field.layers)
        if isinstance(theta, Rows) or torch.compiler.is_compiling() or not is_plain_autograd((*state, *theta)):
            return _by_torch(scheme, field, state, rows, h, every)
        context, shared = autocast_now(state[0].device.type), [len(w) == 1 for w in theta]
        for first in range(0, field.layers, every):
            part = rows[first : first + every]
            kept = streams(state[0].device) if traced and observed(field).draws else None
            what = scheme, field, h, first, len(part), type(part[0]), len(state), shared, states is not None
            run = _Segment(*what, context, kept)
            tensors = (*state, *run.flat(part))
            found = _Recomputed.apply(run, *tensors) if traced else run.through(tensors)
            state = tuple(found[: len(state)])
            if states is not None:
                states.append(found[-1])
        return state


def _best(scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float) -> int:
    """Layers per segment."""
    N = field.layers
    if field.has_effects or is_watched() or state[0].is_meta or not is_plain_autograd((*state, *theta)):
        return math.ceil(math.sqrt(N))
    own = sum(x.nbytes for x in state)
    if not own:  # an empty batch
        return N
    kept = bytes_per_layer(scheme, field, state, theta, h)
    if kept.unmeasured:
        return math.ceil(math.sqrt(N))
    return max(1, min(N, round(math.sqrt(N * own / max(kept.size, own)))))


def _by_torch(scheme: Scheme, field: VectorField, state: State, rows: Sequence[Theta], h: float, every: int) -> State:
    from torch.utils.checkpoint import checkpoint  # slow to import in older releases of torch

    layers, seen = list(enumerate(rows)), _Seen(field) if isinstance(field, Blocks) else None

    def segment(first: int, *state: Tensor) -> State:
        for j, theta_j in layers[first : first + every]:
            state = scheme.step(field.at_layer(j), state, theta_j, h)
        return seen.again(first, state) if seen else state

    if torch.compiler.is_compiling():  # shows a compiler every number of a segment; no result
        scheme.step(field.at_layer(0), state, layers[0][1], h)
    with seen.watched() if seen else contextlib.nullcontext():
        for first in range(0, field.layers, every):
            state = checkpoint(segment, first, *state, use_reentrant=False)
    return state


class _Seen:
    """The first end states of segments of blocks, which no gate has checked."""

    def __init__(self, field: Blocks) -> None:
        self.field = field
        self.ends: dict[int, list[Tensor]] = {}

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """For the forward pass: no buffer may change, and segments will be recomputed to their ends."""
        from torch.utils.checkpoint import set_checkpoint_early_stop

        with unwritten(self.field, 2**12), set_checkpoint_early_stop(False):
            yield

    def again(self, first: int, state: State) -> State:
        """The same state, after a check that it equals the first end state."""
        now = [sample(x.detach()) for x in state]
        for a, b in zip(now, self.ends.setdefault(first, now), strict=True):
            if a is not b and not torch.equal(a, b) and not _is_close(a, b):
                raise RuntimeError(
                    "a block gave another result when it was recomputed: an argument has changed, or "
                    f"{impure(self.field)}."
                )
        return state


def _is_close(a: Tensor, b: Tensor) -> bool:
    """Whether two samples differ by no more than half of the digits, of an entry or of the largest one."""
    off, finite = torch.finfo(b.dtype).eps ** 0.5, b.abs().nan_to_num(0.0, 0.0, 0.0)
    return torch.allclose(a, b, off, off * float(finite.max()), equal_nan=True)


class _Segment(NamedTuple):
    """Layers ``first``, ``first`` + 1, ... of a run, without their tensors."""

    scheme: Scheme
    field: Any
    h: float
    first: int
    layers: int
    kind: Any
    parts: int
    shared: Sequence[bool]
    traces: bool
    autocast: Any
    streams: list[Tensor] | None

    def flat(self, rows: Sequence[Theta]) -> list[Tensor]:
        """The weights of the layers, one after the other; a shared one only once."""
        own = [w for row in rows for w, one in zip(row, self.shared, strict=True) if not one]
        return [w for w, one in zip(rows[0], self.shared, strict=True) if one] + own

    def through(self, tensors: Sequence[Tensor]) -> State:
        """The state after them, from the state before them and their `flat` weights; then the states after each."""
        state, weights, states = tuple(tensors[: self.parts]), tensors[self.parts :], []
        common, own = weights[: sum(self.shared)], iter(weights[sum(self.shared) :])
        for k in range(self.layers):
            same = iter(common)
            theta_j = self.kind(*(next(same if one else own) for one in self.shared))
            state = self.scheme.step(self.field.at_layer(self.first + k), state, theta_j, self.h)
            if self.traces:
                states.append(joined(state, self.field.feature_axis))
        return (*state, torch.stack(states)) if self.traces else state

    @contextlib.contextmanager
    def again(self, device: torch.device) -> Iterator[None]:
        """Restore the autocast and torch's random streams of the forward pass."""
        autocast = self.autocast()
        if self.autocast is contextlib.nullcontext and is_autocast(device.type):
            autocast = torch.autocast(device.type, enabled=False)
        now = streams(device) if self.streams is not None else None
        if self.streams is not None:
            rewind(self.streams, device)
        try:
            with autocast:
                yield
        finally:
            if now is not None:
                rewind(now, device)


class _Recomputed(torch.autograd.Function):
    """One segment. Its backward pass uses torch's own operations, so that it can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, run: _Segment, *tensors: Tensor) -> State:
        ctx.run = run
        ctx.save_for_backward(*tensors)
        return run.through(tensors)

    @staticmethod
    def backward(ctx: Any, *costate: Tensor) -> tuple[Tensor | None, ...]:
        run, twice, needed = ctx.run, torch.is_grad_enabled(), ctx.needs_input_grad[1:]
        saved = ctx.saved_tensors
        with torch.enable_grad(), run.again(saved[0].device):
            if twice:  # views: otherwise an input that depends on another one would be counted twice
                tensors = [t.view_as(t) for t in saved]
            else:
                tensors = [t.detach().requires_grad_(n) for t, n in zip(saved, needed, strict=True)]
            out = run.through(tensors)
        if not twice and run.first + run.layers == run.field.layers:
            for x in out:
                require_declared(x, tensors, run.field, run.first)
        ends = [(x, g) for x, g in zip(out, costate, strict=True) if x.requires_grad]
        wanted = [t for t, n in zip(tensors, needed, strict=True) if n]
        xs, gs = zip(*ends, strict=True)
        found = iter(torch.autograd.grad(xs, wanted, gs, create_graph=twice, allow_unused=True))
        return None, *(next(found) if n else None for n in needed)
