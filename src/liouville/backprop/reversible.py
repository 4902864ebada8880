r"""The reversible engine: the backward pass rebuilds every state from the one behind it instead of storing it.

One `torch.autograd.Function` of the state and the stacked weights. Going back through a shear
x' = x + step * v(y; theta_j), with y untouched, one evaluation of v serves twice: x = x' - step * v, and the costates
get g_y += step * (dv/dy)^T g_x, g_theta += step * (dv/dtheta)^T g_x. Any other reversible scheme is inverted first and
then differentiated from the state that this gave.
"""

from __future__ import annotations

__all__ = ["Reversible"]

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from liouville.backprop import drift
from liouville.backprop.arithmetic import Compensated, Floating, Grid, Part
from liouville.backprop.base import Backprop, require_depth
from liouville.backprop.contract import differentiable_once, is_autocast, require_plain_autograd, watched
from liouville.backprop.gate import observed, require_recomputable
from liouville.backprop.layers import Inverses, Layers, Shears
from liouville.fields.base import Theta, VectorField
from liouville.schemes.base import ReversibleScheme, Scheme, ShearScheme, State


@dataclass(frozen=True, repr=False)
class Reversible(Backprop):
    r"""Keep the last state only and rebuild the others by inverting the layers: memory that does not grow with N.

    Time: about a third more than `Stored` for schemes made of shears (`SymplecticEuler`, `Verlet`, `Yoshida4`,
    `Midpoint`), two thirds for the implicit ones. First derivatives only. The drift of the rebuilt states is measured
    in every backward pass at up to 33 depths, and a `DriftWarning` says where half of the digits are lost.

    Args:
        exact: keep the state on a fixed-point grid and round each increment to it, p += round(h f(q)): inversion then
            restores every bit at any depth, which every backward pass verifies. The gradient is that of the real layer
            maps at the grid states, the rounding passed straight through; that product of Jacobians is symplectic with
            determinant 1 and obeys both bounds exactly as the unrounded network's does. Of the rounded map itself
            nothing is claimed. Integers of 32 bits for float32, of 64 for float64; see `Grid`.
        compensated: carry with every entry of the state what rounding took from it (Kahan), at twice the memory of a
            state: inversion errs by eps^2 instead of eps, and sums lose nothing, so that gradients are closer to
            float64 than those of `Stored` where h is small. Not exact in principle. With exact: 64-bit integers also
            for float32, which gives both.
        anchors: store every ``anchors``-th state and start from it again on the way back; None stores none.

    Raises:
        ValueError: if exact and anchors are combined; by a `Flow`, if the scheme has no inverse, or is not made of
            shears for exact and compensated.
        RuntimeError: in the forward pass, if a layer reads a parameter that does not come through ``theta()``, draws
            from torch's global random stream or changes a buffer; in the backward pass, if a layer cannot be undone,
            or in exact mode if a bit differs; for second derivatives and under torch.func transforms.
        ArithmeticError: in exact mode, if a state or a velocity exceeds 512 times the largest input (2,048 times in 64
            bits), or is not finite.

    Examples:
        >>> import liouville as lv
        >>> flow = lv.zoo.h2(4, layers=256, T=2.0, backprop=Reversible())
        >>> flow(torch.randn(10, 4)).sum().backward()
        >>> flow.field.K_p.grad.shape
        torch.Size([256, 2, 2])
    """

    exact: bool = False
    compensated: bool = False
    anchors: int | None = None

    def __post_init__(self) -> None:
        if self.anchors is not None and self.anchors < 1:
            raise ValueError(f"anchors must be at least 1 layer from one stored state to the next, got {self.anchors}.")
        if self.exact and self.anchors is not None:
            raise ValueError("exact=True restores every bit, and anchors would only cost memory; give one of the two.")

    def check(self, scheme: Scheme, field: VectorField) -> None:
        if not isinstance(scheme, ReversibleScheme):
            raise ValueError(
                f"{type(scheme).__name__} has no inverse, so Reversible cannot run it; use Checkpointed(), or a "
                "reversible scheme: SymplecticEuler, Verlet, Yoshida4, Midpoint, ImplicitMidpoint or "
                "ImplicitSymplecticEuler."
            )
        if (self.exact or self.compensated) and not isinstance(scheme, ShearScheme):
            raise ValueError(
                f"{self!r} needs a scheme made of shears, SymplecticEuler, Verlet, Yoshida4 or Midpoint; got "
                f"{type(scheme).__name__}. Use Reversible(), with anchors if it drifts."
            )

    def run(self, scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float) -> State:
        require_depth(theta, field.layers)
        if torch.compiler.is_compiling():  # a declared graph break: a compiler must not look inside
            return torch.compiler.disable(self._run)(scheme, field, state, theta, h)
        return self._run(scheme, field, state, theta, h)

    def layers(self, scheme: Scheme, field: VectorField, state: State, h: float, traced: bool = False) -> Layers:
        """The layers of one run as this engine goes through them, forwards and backwards."""
        self.check(scheme, field)
        autocast = _autocast(state[0].device.type)
        if not isinstance(scheme, ShearScheme):
            return Inverses(scheme, field, h, Floating(), traced, autocast)
        arithmetic = Grid(state, self.compensated) if self.exact else Compensated() if self.compensated else Floating()
        return Shears(scheme, field, h, arithmetic, traced, autocast)

    def _run(self, scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float) -> State:
        tensors = (*state, *theta)
        require_plain_autograd(tensors)
        traced = torch.is_grad_enabled()
        needed = traced and any(t.requires_grad for t in tensors)
        run = _Run(self.layers(scheme, field, state, h, traced), type(theta), self.anchors, needed)
        if needed:
            return _Inverted.apply(run, len(state), *tensors)
        with torch.no_grad():
            return run.forward(state, theta, (False,) * len(theta))[0]


Kept = dict[tuple[str, int], list[Tensor]]
"""What a forward pass leaves, by kind and layer: the "end", the "anchor"s to start from again, the "probe"s."""


class _Run:
    """The N layers of one run, down and up; ``returns`` says whether there will be a way back."""

    def __init__(self, layers: Layers, theta: Any, anchors: int | None, returns: bool) -> None:
        self.layers, self.theta, self.anchors = layers, theta, anchors
        self.depth = layers.field.layers
        self.anchored = set(range(anchors, self.depth, anchors)) if anchors and returns else set()
        self.probed = drift.depths(self.depth) if returns else set()

    def forward(self, state: State, theta: Sequence[Tensor], needed: Sequence[bool]) -> tuple[State, Kept]:
        """The last state, and what the way back will need."""
        while True:
            found = self._down(state, theta, needed)
            if self.layers.arithmetic.in_range(lambda: self.layers.reach(state, self.theta(*theta))):
                return found

    def _down(self, state: State, theta: Sequence[Tensor], needed: Sequence[bool]) -> tuple[State, Kept]:
        layers, kept, self.device = self.layers, {}, state[0].device.type
        weights = _Weights(self.theta, theta, needed if layers.arithmetic.repeats else (False,) * len(needed))
        parts = layers.enter(state)
        for j in range(self.depth):
            if j in self.anchored:
                kept["anchor", j] = [x.clone() for x in _flat(parts)]
            if j in self.probed:
                kept["probe", j] = self._fingerprints(parts)
            parts = layers.forward(parts, j, weights.layer(j))
        kept["end", self.depth] = _flat(parts)
        kept["velocity", self.depth] = layers.seen
        return layers.leave(parts), kept

    def backward(
        self, kept: Kept, costate: Sequence[Tensor], theta: Sequence[Tensor], needed: Sequence[bool]
    ) -> tuple[list[Tensor], list[Tensor | None]]:
        """The gradients of the first state and of the stacked weights."""
        weights = _Weights(self.theta, theta, needed)
        gradients = weights.zeros()
        sums = [g for g in gradients if g is not None]
        parts = self._parts(kept["end", self.depth], len(costate))
        probes = drift.Probes(self._fingerprints(parts))
        costate = [torch.empty_like(x).copy_(g) for x, g in zip(self.layers.leave(parts), costate, strict=True)]
        for j in reversed(range(self.depth)):
            rows = [g[j if len(g) > 1 else 0] for g in sums]
            parts = self.layers.backward(parts, costate, j, weights.layer(j), rows)
            if j == self.depth - 1:
                probes.repeat(self.layers.seen[::-1], kept["velocity", self.depth])
            if ("probe", j) in kept:
                probes.compare(j, self._fingerprints(parts), kept["probe", j])
            if ("anchor", j) in kept:
                parts = self._parts(kept["anchor", j], len(costate))
        drift.judge(probes, self.layers, self.theta(*theta), self._precision(costate), self.anchors)
        return costate, gradients

    def shield(self) -> contextlib.AbstractContextManager[Any]:
        """Against an autocast region around the backward pass that was not there in the forward pass."""
        if self.layers.autocast is contextlib.nullcontext and is_autocast(self.device):
            return torch.autocast(self.device, enabled=False)
        return contextlib.nullcontext()

    def _fingerprints(self, parts: Sequence[Part]) -> list[Tensor]:
        return [self.layers.arithmetic.fingerprint(part) for part in parts]

    def _precision(self, costate: Sequence[Tensor]) -> torch.dtype:
        """The coarsest type that a state or a velocity of this run may have."""
        with self.layers.autocast():
            cast = [torch.get_autocast_dtype(self.device)] if is_autocast(self.device) else []
        return max([x.dtype for x in costate] + cast, key=lambda dtype: torch.finfo(dtype).eps)

    def _parts(self, flat: Sequence[Tensor], number: int) -> list[Part]:
        """Copies, grouped by the parts that they belong to: going back changes them in place."""
        size = len(flat) // number
        return [tuple(x.clone() for x in flat[k * size : (k + 1) * size]) for k in range(number)]


class _Weights:
    """theta_j, as leaves that require a gradient where one is needed."""

    def __init__(self, kind: Any, theta: Sequence[Tensor], needed: Sequence[bool]) -> None:
        self.kind, self.theta, self.needed = kind, [w.detach() for w in theta], needed

    def layer(self, j: int) -> Theta:
        rows = (w[j if len(w) > 1 else 0] for w in self.theta)
        return self.kind(*(w.detach().requires_grad_(n) for w, n in zip(rows, self.needed, strict=True)))

    def zeros(self) -> list[Tensor | None]:
        """Where the gradients are summed up: made at once, since what is made layer by layer scatters the heap."""
        sizes = zip(self.theta, self.needed, strict=True)
        return [torch.zeros(w.shape, dtype=w.dtype, device=w.device) if n else None for w, n in sizes]


class _Inverted(torch.autograd.Function):
    """(state, theta) -> the state behind the last layer, and their gradients by going back."""

    @staticmethod
    def forward(ctx, run: _Run, parts: int, *tensors: Tensor) -> State:  # type: ignore[no-untyped-def]
        state, theta = tensors[:parts], tensors[parts:]
        if not observed(run.layers.field).repeats:
            require_recomputable(run.layers.field)
        with watched(run.layers.field, state[0].device):
            final, kept = run.forward(state, theta, ctx.needs_input_grad[2 + parts :])
        ctx.save_for_backward(*theta, *final, *(x for row in kept.values() for x in row))
        ctx.run, ctx.kept = run, [(key, len(row)) for key, row in kept.items()]
        ctx.dtypes = [x.dtype for x in state]
        return final

    @staticmethod
    def backward(ctx, *costate: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        require_plain_autograd(costate)  # a backward pass may be vmapped: is_grads_batched
        needed, parts = ctx.needs_input_grad[2:], len(ctx.dtypes)
        tensors = iter(ctx.saved_tensors)
        theta, final = [next(tensors) for _ in needed[parts:]], [next(tensors) for _ in range(parts)]
        kept = {key: [next(tensors) for _ in range(size)] for key, size in ctx.kept}
        with torch.no_grad(), ctx.run.shield():
            first, weights = ctx.run.backward(kept, costate, theta, needed[parts:])
            first = [g.to(dtype) if n else None for g, dtype, n in zip(first, ctx.dtypes, needed, strict=False)]
        return None, None, *differentiable_once([*first, *weights], (*costate, *theta, *final))


def _flat(parts: Sequence[Part]) -> list[Tensor]:
    return [x for part in parts for x in part]


def _autocast(device: str) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """The autocast of this moment, to be entered again; without its cache, which would keep every layer's weights."""
    if not is_autocast(device):
        return contextlib.nullcontext
    return functools.partial(torch.autocast, device, dtype=torch.get_autocast_dtype(device), cache_enabled=False)
