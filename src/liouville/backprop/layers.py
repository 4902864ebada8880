r"""One layer forwards and backwards: undone and differentiated. `Shears` does both with one evaluation."""

from __future__ import annotations

__all__ = ["Inverses", "Layers", "Shears", "Sums"]

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from liouville.backprop.arithmetic import Arithmetic, Part, sample
from liouville.backprop.contract import is_declared, require_declared, require_no_other_way
from liouville.backprop.range import Reach, reach
from liouville.compilers import advanced_
from liouville.fields.base import Theta
from liouville.fields.blocks import Blocks
from liouville.schemes.base import ReversibleScheme, Shear, ShearScheme, State


class Sums:
    """The sums of the weights' gradients, accumulated in existing memory."""

    keeps = False
    """Whether gradients are kept without summation."""

    def __init__(self, into: Sequence[Tensor]) -> None:
        self.into = into

    def add(self, gradients: Sequence[Tensor | None], factor: float) -> None:
        """Add factor times these gradients."""
        for total, gradient in zip(self.into, gradients, strict=True):
            if gradient is not None:
                advanced_(total, gradient, factor)


class Layers(ABC):
    """Layer j of a run; the state is carried as parts, which the run owns and may change in place.

    Args:
        scheme, field, h: scheme, field and step of the flow.
        arithmetic: how parts are stored.
        traced: whether gradients will be needed: layers are then checked, and evaluated as in `backward`.
        autocast: makes the context that every evaluation sees, forwards and backwards.

    ``seen`` has samples of the velocities of the last layer that was run, to be compared between the passes;
    ``left`` holds the bits that a layer dropped in the forward pass; they are restored before the layer is undone.
    """

    def __init__(
        self,
        scheme: Any,
        field: Any,
        h: float,
        arithmetic: Arithmetic,
        traced: bool,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.scheme, self.field, self.h, self.arithmetic = scheme, field, h, arithmetic
        self.traced, self.autocast = traced, autocast
        self.graph = arithmetic.repeats or isinstance(field, Blocks)
        self.seen: list[Tensor] = []
        self.left: list[Tensor] = []

    def enter(self, state: State) -> list[Part]:
        """The parts of a state."""
        return [self.arithmetic.enter(x) for x in state]

    def _close(self, inputs: Sequence[Tensor]) -> None:
        """Tensors that a block keeps in the backward pass have a graph that ends at its inputs; fields keep none."""
        if isinstance(self.field, Blocks):
            require_no_other_way(inputs)

    def leave(self, parts: Sequence[Part]) -> State:
        """The state of the parts."""
        return tuple(self.arithmetic.value(part) for part in parts)

    def reach(self, state: State, theta: Theta) -> Reach:
        """The range of a run from this state."""
        with self.autocast():
            return reach(self.scheme, self.field, state, theta, self.h)

    @abstractmethod
    def forward(self, parts: list[Part], j: int, theta_j: Theta) -> list[Part]:
        """The parts after layer j."""

    @abstractmethod
    def inverse(self, parts: list[Part], j: int, theta_j: Theta) -> list[Part]:
        """The parts before layer j."""

    @abstractmethod
    def backward(self, parts: list[Part], costate: list[Tensor], j: int, theta_j: Theta, sums: Sums) -> list[Part]:
        """The parts before layer j. The costate is taken there too, in place, and the gradients of the weights that
        require one are added to ``sums``, in their order."""


class Shears(Layers):
    """Layers of a `ShearScheme`."""

    scheme: ShearScheme

    def forward(self, parts: list[Part], j: int, theta_j: Theta) -> list[Part]:
        self.seen, self.left = [], []
        for shear in self._shears(j, theta_j):
            moved, other = parts[shear.moved], parts[1 - shear.moved]
            if shear.damps:
                moved, left = self.arithmetic.damp(moved, shear.halvings, shear.sign)
                self.left += [] if left is None else [left]
            if shear.velocity is None:
                parts[shear.moved] = self.arithmetic.drift(moved, other, shear.step)
                continue
            velocity = self._velocity(shear.velocity, other, j, theta_j)
            self._see(velocity, j)
            parts[shear.moved] = self.arithmetic.move(moved, velocity, shear.step)
        return parts[::-1] if self.scheme.swaps else parts

    def inverse(self, parts: list[Part], j: int, theta_j: Theta) -> list[Part]:
        parts = parts[::-1] if self.scheme.swaps else parts
        for shear in reversed(self._shears(j, theta_j)):
            other, velocity = parts[1 - shear.moved], None
            if shear.velocity is not None:
                velocity = self._velocity(shear.velocity, other, j, theta_j)
            parts[shear.moved] = self._undone(parts[shear.moved], other, velocity, shear)
        return parts

    def _undone(self, part: Part, other: Part, velocity: Tensor | None, shear: Shear) -> Part:
        if velocity is None:
            part = self.arithmetic.drift(part, other, -shear.step)
        else:
            part = self.arithmetic.move(part, velocity, -shear.step)
        if not shear.damps:
            return part
        return self.arithmetic.restore(part, shear.halvings, shear.sign, self.left.pop() if shear.halvings else None)

    def backward(self, parts: list[Part], costate: list[Tensor], j: int, theta_j: Theta, sums: Sums) -> list[Part]:
        if self.scheme.swaps:
            parts = parts[::-1]
            costate.reverse()
        self.seen = []
        leaves = [w for w in theta_j if w.requires_grad]
        for shear in reversed(self._shears(j, theta_j)):
            moved, velocity, step = shear[:3]
            v = None
            if velocity is None:
                advanced_(costate[1 - moved], costate[moved], step)
            else:
                x = self.arithmetic.value(parts[1 - moved]).detach().requires_grad_()
                with torch.enable_grad(), self.autocast():
                    out = velocity(x)
                v = out.detach()
                self._see(v, j)
                if out.requires_grad:
                    _pull_back(out, costate[moved], step, (x, *leaves), costate[1 - moved], sums)
                    self._close((x,))
            parts[moved] = self._undone(parts[moved], parts[1 - moved], v, shear)
            if shear.damps:
                costate[moved].mul_(shear.sign * 2.0**-shear.halvings)
        return parts

    def _see(self, velocity: Tensor, j: int) -> None:
        if self.traced and j == self.field.layers - 1:
            self.seen.append(sample(velocity.contiguous()))  # another kernel may use another memory layout

    def _shears(self, j: int, theta_j: Theta) -> tuple[Shear, ...]:
        return self.scheme.shears(self.field.at_layer(j), theta_j, self.h)

    def _velocity(self, velocity: Callable[[Tensor], Tensor], part: Part, j: int, theta_j: Theta) -> Tensor:
        x = self.arithmetic.value(part)
        if not self.traced:
            with self.autocast():
                return velocity(x)
        x = x.detach().requires_grad_(self.graph)  # torch may choose other kernels where a gradient is needed
        with torch.enable_grad(), self.autocast():
            v = velocity(x)
        if not self.graph and not is_declared(v, theta_j):
            self.graph = True  # a field that differentiates by itself may make a leaf of x
            return self._velocity(velocity, part, j, theta_j)
        require_declared(v, (x, *theta_j), self.field, j)
        require_no_other_way((x,))
        return v.detach()


class Inverses(Layers):
    """Layers of any other `ReversibleScheme`: inverted, then differentiated at the resulting state."""

    scheme: ReversibleScheme

    def forward(self, parts: list[Part], j: int, theta_j: Theta) -> list[Part]:
        before = tuple(x.detach().requires_grad_(self.graph) for x in self.leave(parts))
        with torch.set_grad_enabled(self.traced), self.autocast():
            state = self.scheme.step(self.field.at_layer(j), before, theta_j, self.h)
        if not self.graph and not all(is_declared(x, theta_j) for x in state):
            self.graph = True
            return self.forward(parts, j, theta_j)
        for x in state:
            require_declared(x, (*before, *theta_j), self.field, j)
        require_no_other_way(before)
        return [(x.detach(),) for x in state]

    def inverse(self, parts: list[Part], j: int, theta_j: Theta) -> list[Part]:
        with torch.no_grad(), self.autocast():
            return [(x,) for x in self.scheme.inverse(self.field.at_layer(j), self.leave(parts), theta_j, self.h)]

    def backward(self, parts: list[Part], costate: list[Tensor], j: int, theta_j: Theta, sums: Sums) -> list[Part]:
        parts = self.inverse(parts, j, theta_j)
        inputs = [x.detach().requires_grad_() for x in self.leave(parts)]
        leaves = [w for w in theta_j if w.requires_grad]
        with torch.enable_grad(), self.autocast():
            state = self.scheme.step(self.field.at_layer(j), tuple(inputs), theta_j, self.h)
        gradients = _gradients(state, [*inputs, *leaves], costate)
        self._close(inputs)
        for g, x in zip(costate, gradients, strict=False):
            g.zero_() if x is None else g.copy_(x)
        sums.add(gradients[len(inputs) :], 1.0)
        return parts


def _gradients(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], costate: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """The gradients of a recomputed layer, by the states before it, which are leaves, and by the tensors it reads.

    A user's parameters are in their blocks and may have hooks; these must run once, on the whole gradient, in torch's
    own backward pass.
    """
    hooks = [(held, dict(held)) for t in inputs if (held := t._backward_hooks)]
    for held, _ in hooks:
        held.clear()
    try:
        found = torch.autograd.grad(outputs, inputs, costate, allow_unused=True)
    finally:
        for held, entries in hooks:
            held.update(entries)
    return found


def _pull_back(v: Tensor, g: Tensor, step: float, inputs: Sequence[Tensor], costate: Tensor, sums: Sums) -> None:
    """costate += step * (dv / dx)^T g, inputs = (x, *weights), and the same for the sums of the weights."""
    if v.dtype != g.dtype:  # as in autograd: the costate of step * v, rounded to the velocity's precision
        g, step = (g * step).to(v.dtype), 1.0
    elif sums.keeps:  # scaled once, not for each weight; never g itself, which changes in place
        g, step = g * step, 1.0
    first, *others = _gradients((v,), inputs, (g,))
    if first is not None:
        advanced_(costate, first, step)
    sums.add(others, step)
