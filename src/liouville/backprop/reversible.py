r"""The reversible engine: the backward pass rebuilds every state from the one after it instead of storing it.

One `torch.autograd.Function` of the state and the stacked weights. Going back through a shear
x' = x + step * v(y; theta_j), with y untouched, one evaluation of v serves twice: x = x' - step * v, and the costates
get g_y += step * (dv/dy)^T g_x, g_theta += step * (dv/dtheta)^T g_x. Any other reversible scheme is inverted first and
then differentiated at the resulting state.
"""

from __future__ import annotations

__all__ = ["Reversible"]

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from liouville.backprop.arithmetic import Compensated, Floating, Grid
from liouville.backprop.base import Backprop, require_depth
from liouville.backprop.chain import chained
from liouville.backprop.contract import NO_SECOND, autocast_now, require_plain_autograd, watched
from liouville.backprop.gate import observed, require_recomputable
from liouville.backprop.layers import Inverses, Layers, Shears
from liouville.backprop.passes import Run
from liouville.derivatives import differentiable_once
from liouville.fields.base import Theta, VectorField
from liouville.fields.blocks import Rows
from liouville.schemes import named
from liouville.schemes.base import ReversibleScheme, Scheme, ShearScheme, State


@dataclass(frozen=True, repr=False)
class Reversible(Backprop):
    r"""Keep only the last state and rebuild the others by inverting the layers: memory does not grow with N.

    Time: about a third more than `Stored` for schemes made of shears (`SymplecticEuler`, `Verlet`, `Yoshida4`,
    `LeapfrogMidpoint`), two thirds for the implicit ones. First derivatives only. The drift of the rebuilt states is
    measured in every backward pass at up to 33 depths, and a `DriftWarning` says where half of the digits are lost.

    Args:
        exact: keep the state on a fixed-point grid and round each increment to it, p += round(h f(q)): inversion then
            restores every bit at any depth, which every backward pass verifies. The gradient belongs to the real
            layer maps at the grid states, with straight-through rounding; that product of Jacobians is symplectic with
            determinant 1 and obeys both bounds exactly as for the unrounded network. No claim is made about the rounded
            map. Integers of 32 bits for float32, of 64 for float64; see `Grid`.
        compensated: carry the rounding error with every entry of the state (Kahan), at twice the memory of a
            state: inversion errs by eps^2 instead of eps, and sums lose nothing, so that gradients are closer to
            float64 than gradients of `Stored` where h is small. Not exact in principle. With exact: 64-bit integers
            also for float32, which gives both.
        anchors: store every ``anchors``-th state and restart from it in the backward pass; None stores none.

    Raises:
        ValueError: if exact and anchors are combined; from a `Flow`, if the scheme has no inverse, or, for exact and
            compensated, is not made of shears.
        RuntimeError: in the forward pass, if a layer reads a parameter that does not come through ``theta()``, draws
            from torch's global random stream or changes a buffer; in the backward pass, if a layer cannot be undone,
            or in exact mode if a bit differs; for second derivatives and under torch.func transforms.
        ArithmeticError: in exact mode, if a state or a velocity exceeds 512 times the largest input (2,048 times in
            float64, 2^28 times with float32 on 64 bits), or is not finite.

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
                f"reversible scheme: {named(ReversibleScheme)}."
            )
        if (self.exact or self.compensated) and not isinstance(scheme, ShearScheme):
            raise ValueError(
                f"{self!r} needs a scheme made of shears: {named(ShearScheme)}; got {type(scheme).__name__}. "
                "Use Reversible(), with anchors if it drifts."
            )
        if scheme.kept_bits and not self.exact:
            raise ValueError(
                f"the inverse of {scheme!r} multiplies rounding errors by {2**scheme.kept_bits} in every layer; use "
                "Reversible(exact=True, compensated=True), which keeps the bits that its steps drop, "
                "Stored() or Checkpointed()."
            )

    def run(self, scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float) -> State:
        return self._guarded(scheme, field, state, theta, h, False)

    def trajectory(
        self, scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float
    ) -> tuple[State, Tensor]:
        if isinstance(theta, Rows):
            return super().trajectory(scheme, field, state, theta, h)
        *end, states = self._guarded(scheme, field, state, theta, h, True)
        return tuple(end), states

    def _guarded(
        self, scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float, traces: bool
    ) -> tuple[Tensor, ...]:
        require_depth(theta, field.layers)
        if torch.compiler.is_compiling():  # a declared graph break: a compiler must not look inside
            return torch.compiler.disable(self._run)(scheme, field, state, theta, h, traces)
        return self._run(scheme, field, state, theta, h, traces)

    def layers(self, scheme: Scheme, field: VectorField, state: State, h: float, traced: bool = False) -> Layers:
        """The layers of one run in this engine, forwards and backwards."""
        self.check(scheme, field)
        autocast = autocast_now(state[0].device.type)
        if not isinstance(scheme, ShearScheme):
            return Inverses(scheme, field, h, Floating(), traced, autocast)
        arithmetic = Grid(state, self.compensated) if self.exact else Compensated() if self.compensated else Floating()
        return Shears(scheme, field, h, arithmetic, traced, autocast)

    def _run(
        self, scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float, traces: bool
    ) -> tuple[Tensor, ...]:
        tensors = (*state, *theta)
        require_plain_autograd(tensors)
        traced = torch.is_grad_enabled()
        needed = traced and any(t.requires_grad for t in tensors)
        kind = theta.again if isinstance(theta, Rows) else type(theta)
        run = Run(self.layers(scheme, field, state, h, traced), kind, self.anchors, needed, traces)
        if needed and isinstance(theta, Rows):
            return chained(run, state, theta)
        if needed:
            return _Inverted.apply(run, len(state), *tensors)
        with torch.no_grad():
            return run.forward(state, theta, (False,) * len(theta))[0]


class _Inverted(torch.autograd.Function):
    """(state, theta) -> the state after the last layer, the trajectory if wanted, and their gradients by inversion."""

    @staticmethod
    def forward(ctx: Any, run: Run, parts: int, *tensors: Tensor) -> State:
        state, theta = tensors[:parts], tensors[parts:]
        if not observed(run.layers.field).repeats:
            require_recomputable(run.layers.field)
        with watched(run.layers.field, state[0].device):
            final, kept = run.forward(state, theta, ctx.needs_input_grad[2 + parts :])
        ctx.save_for_backward(*theta, *final[:parts], *(x for row in kept.values() for x in row))
        ctx.run, ctx.kept = run, [(key, len(row)) for key, row in kept.items()]
        ctx.dtypes = [x.dtype for x in state]
        return final

    @staticmethod
    def backward(ctx: Any, *costate: Tensor) -> tuple[Tensor | None, ...]:
        require_plain_autograd(costate)  # a backward pass may be vmapped: is_grads_batched
        needed, parts = ctx.needs_input_grad[2:], len(ctx.dtypes)
        tensors = iter(ctx.saved_tensors)
        theta, final = [next(tensors) for _ in needed[parts:]], [next(tensors) for _ in range(parts)]
        kept = {key: [next(tensors) for _ in range(size)] for key, size in ctx.kept}
        with torch.no_grad(), ctx.run.shield():
            first, weights = ctx.run.backward(kept, costate[:parts], theta, needed[parts:], *costate[parts:])
            first = [g.to(dtype) if n else None for g, dtype, n in zip(first, ctx.dtypes, needed, strict=False)]
        return None, None, *differentiable_once([*first, *weights], (*costate, *theta, *final), NO_SECOND)
