r"""The backward pass through blocks that keep their parameters: one node of torch's graph for each layer.

One function of all layers would hold the gradients of all parameters until it ends. In a chain, the gradients of a
layer are passed on as soon as they are known: data parallelism sends them during the rest of the pass, an optimiser may
step inside the backward pass, and layers before the first trained one are skipped. The costate travels from node to
node as the gradient of tensors without memory; the rebuilt state is held by the `_Walk`. Whether it was rebuilt well is
judged at the end of the whole backward pass, wherever that stops.
"""

from __future__ import annotations

__all__ = ["chained"]

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from liouville.backprop import drift
from liouville.backprop.arithmetic import Part
from liouville.backprop.contract import NO_SECOND, kind_of, require_plain_autograd, watched
from liouville.backprop.layers import Sums
from liouville.backprop.passes import Kept, Run
from liouville.derivatives import differentiable_once
from liouville.fields.blocks import Row, Rows
from liouville.schemes.base import State


def chained(run: Run, state: State, theta: Rows) -> State:
    """The last state, differentiable in the first one and in the tensors of theta."""
    with torch.no_grad(), watched(run.layers.field, state[0].device, largest=2**12):
        final, kept = run.forward(state, theta, [w.requires_grad for w in theta])
    walk = _Walk(run, theta, kept, final)
    tokens = _Start.apply(walk, *state)
    for j in range(run.depth):
        left, anchor = kept.pop(("left", j), []), kept.pop(("anchor", j), [])
        sizes = len(left), len(anchor), len(tokens)
        tokens = _Layer.apply(walk, j, sizes, *left, *anchor, *tokens, *theta.layer(j))
    out = _End.apply(walk, len(state), *kept.pop(("end", run.depth)), *tokens)
    walk.final = ()
    return out


class _Walk:
    """The progress of a backward pass."""

    def __init__(self, run: Run, theta: Rows, kept: Kept, final: State) -> None:
        self.run, self.final = run, final
        self.fingerprints = {key: row for key, row in kept.items() if key[0] in ("probe", "velocity")}
        self.own = [tuple(theta[i] for i in row if i < theta.held) for row in theta.places]
        self.parts: list[Part] = []
        self.probes: drift.Probes | None = None

    def begin(self, parts: list[Part], digits: drift.Digits) -> None:
        """Start at the last state; drift is judged when torch's whole pass is over."""
        self.parts, self.probes = parts, self.run.probes(parts)
        torch.autograd.Variable._execution_engine.queue_callback(lambda: self.end(digits))

    def end(self, digits: drift.Digits) -> None:
        probes, self.probes, self.parts = self.probes, None, []
        if probes is not None and probes.found:
            drift.judge(probes, self.run.layers, (), digits, self.run.anchors, self.run.checks)

    def row(self, j: int, tensors: Sequence[Tensor], needed: Sequence[bool]) -> Row:
        """The tensors that layer j reads: the parameters of its block, and the arguments as leaves."""
        own = self.own[j]
        now = self.run.layers.field.own(j)
        if len(own) != len(now) or any(a is not b for a, b in zip(own, now, strict=True)):
            raise RuntimeError(
                f"the parameters of block {j} of {kind_of(self.run.layers.field)} differ from the forward pass, "
                "as after torch.func.functional_call; give it Stored(), which does not evaluate a block twice."
            )
        given = zip(tensors[len(own) :], needed[len(own) :], strict=True)
        return Row((*own, *(t.detach().requires_grad_(n) for t, n in given)))

    def back(self, j: int, costate: list[Tensor], row: Row, left: list[Tensor], anchor: list[Tensor]) -> Sequence[Any]:
        """Undo and differentiate layer j: the gradients of its row; the costate changes in place."""
        run, kept = self.run, self.fingerprints
        sums = _Own(sum(w.requires_grad for w in row))
        with torch.no_grad(), run.shield():
            run.layers.left = left
            self.parts = run.layers.backward(self.parts, costate, j, row, sums)
            assert self.probes is not None
            if j == run.depth - 1:
                self.probes.repeat(run.layers.seen[::-1], kept["velocity", run.depth])
            if ("probe", j) in kept:
                self.probes.compare(j, run.fingerprints(self.parts), kept["probe", j])
            if anchor:
                self.parts = run.parts(anchor, len(costate))
        found = iter(sums.found)
        return [next(found) if w.requires_grad else None for w in row]


class _Own(Sums):
    """The gradients of one layer, passed on unchanged; None for an unused weight."""

    keeps = True

    def __init__(self, number: int) -> None:
        self.found: list[Tensor | None] = [None] * number

    def add(self, gradients: Sequence[Tensor | None], factor: float) -> None:
        """Out of place: two gradients may share memory."""
        new = [g if g is None or factor == 1 else g * factor for g in gradients]
        self.found = [b if a is None else a if b is None else a + b for a, b in zip(self.found, new, strict=True)]


class _Start(torch.autograd.Function):
    """The state -> tensors without memory, whose gradient is the costate."""

    @staticmethod
    def forward(ctx: Any, walk: _Walk, *state: Tensor) -> State:
        ctx.dtypes = [x.dtype for x in state]
        return _tokens(state)

    @staticmethod
    def backward(ctx: Any, *costate: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[1:]
        return None, *(g.to(d) if n else None for g, d, n in zip(costate, ctx.dtypes, needed, strict=True))


class _Layer(torch.autograd.Function):
    """One layer; its inputs are what it left, an anchor before it, the tokens, and the tensors it reads."""

    @staticmethod
    def forward(ctx: Any, walk: _Walk, j: int, sizes: tuple[int, int, int], *tensors: Tensor) -> State:
        ctx.walk, ctx.j, ctx.sizes = walk, j, sizes
        left, anchor, number = sizes
        behind = left + anchor
        ctx.save_for_backward(*tensors[:behind], *tensors[behind + number :])
        return _tokens(tensors[behind : behind + number])

    @staticmethod
    def backward(ctx: Any, *costate: Tensor) -> tuple[Tensor | None, ...]:
        walk, j, (left, anchor, number) = ctx.walk, ctx.j, ctx.sizes
        behind, saved, twice = left + anchor, ctx.saved_tensors, torch.is_grad_enabled()
        needed = ctx.needs_input_grad[3 + behind + number :]
        row = walk.row(j, saved[behind:], needed)
        moved = [g.detach().clone() if twice else g for g in costate]
        sums = walk.back(j, moved, row, list(saved[:left]), list(saved[left:behind]))
        found = [*moved, *(g if n else None for g, n in zip(sums, needed, strict=True))]
        return None, None, None, *(None,) * behind, *differentiable_once(found, (*costate, *saved[behind:]), NO_SECOND)


class _End(torch.autograd.Function):
    """The stored last state -> the returned one."""

    @staticmethod
    def forward(ctx: Any, walk: _Walk, number: int, *tensors: Tensor) -> State:
        ctx.walk, ctx.number, ctx.size = walk, number, len(tensors) - number
        ctx.save_for_backward(*tensors[: ctx.size])
        return walk.final

    @staticmethod
    def backward(ctx: Any, *costate: Tensor) -> tuple[Tensor | None, ...]:
        require_plain_autograd(costate)
        run = ctx.walk.run
        with torch.no_grad():
            parts = run.parts(ctx.saved_tensors, ctx.number)
            moved = [torch.empty_like(x).copy_(g) for x, g in zip(run.layers.leave(parts), costate, strict=True)]
            ctx.walk.begin(parts, run.precision(moved))
        return None, None, *(None,) * ctx.size, *differentiable_once(moved, costate, NO_SECOND)


def _tokens(like: Sequence[Tensor]) -> State:
    return tuple(x.new_zeros(()).expand(x.shape) for x in like)
