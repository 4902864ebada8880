r"""The algorithm of the fused kernel in torch operations, for machines where the kernel cannot be built.

The state is stored as (features, batch): a half of 2 features is then two long rows, not thousands of pairs, and every
operation writes into memory that the run allocates once. A shear y += step v(x), with W = K or K^T, is

    a = sigma(W x + b),    v = W^T a  or  a

and in the backward pass one evaluation of a undoes and differentiates it (`docs/theory/kernel.md`):

    d = (W g_y  or  g_y) sigma'(W x + b),    g_x += step W^T d,    g_W += step (d x^T + a g_y^T  or  d x^T),
    g_b += step d 1
"""

from __future__ import annotations

__all__ = ["BatchLast"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from liouville.backprop import late
from liouville.backprop.base import Backprop, require_depth
from liouville.backprop.contract import (
    STORED,
    is_autocast,
    is_plain_autograd,
    require_plain_autograd,
)
from liouville.backprop.drift import warn_once
from liouville.backprop.twice import are_differentiated, by_the_plain_loop
from liouville.devices import TF32, fast_products
from liouville.fields.base import Theta, VectorField
from liouville.fields.stochastic import original
from liouville.kernels.table import GRADIENT, TANH, TRANSPOSED, ShearPlan, kernel_for
from liouville.schemes.base import Scheme, State


@dataclass(frozen=True, repr=False)
class BatchLast(Backprop):
    r"""Run in torch with the batch innermost: for dense splitting networks of few features where `Fused` is not built.

    Equal to `Stored` in value and gradient, to rounding. Like `Reversible` it keeps only the first and the last state,
    rebuilds the others by inverting the shears, and warns if rounding makes them inaccurate. It runs the pairs of
    scheme and field that `Fused` inverts, on any device. Gradients that are to be differentiated again
    (``create_graph=True``) are the plain loop's.

    Raises:
        NoKernelError: (a `ValueError`) from a `Flow`, if there is no kernel for its scheme and field.
        ValueError: from a `Flow` for forward Euler, which has no inverse, and for fields on images; under autocast, for
            weights and states of different dtypes, and under torch.func transforms.

    Examples:
        >>> import liouville as lv
        >>> flow = lv.zoo.h2(4, layers=8, T=1.0)
        >>> y = torch.randn(100, 4)
        >>> bool(torch.allclose(flow.with_backprop(BatchLast())(y), flow(y), atol=1e-5))
        True
    """

    def check(self, scheme: Scheme, field: VectorField) -> None:
        self._plan(scheme, field.in_run(0))

    def _plan(self, scheme: Scheme, field: VectorField) -> ShearPlan:
        plan = kernel_for(scheme, field, None)
        if not isinstance(plan, ShearPlan):
            raise ValueError(
                f"BatchLast() inverts every step in the backward pass, but {type(scheme).__name__} has no inverse; use "
                "Stored(), Checkpointed() or Fused()."
            )
        if plan.taps:
            raise ValueError("BatchLast() takes vectors, but this field is on images; use Fused() or Stored().")
        return plan

    def run(self, scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float) -> State:
        plan = self._plan(scheme, field)
        require_depth(theta, field.layers)
        _require_supported(state, theta)
        batch = state[0].shape[:-1]
        parts = [x.reshape(-1, x.shape[-1]) for x in state]
        apply: Any = torch.compiler.disable(_Walk.apply) if torch.compiler.is_compiling() else _Walk.apply
        final = apply(_Run(plan, scheme, field, h, type(theta), late.pending()), *parts, *theta)
        return tuple(x.reshape(*batch, x.shape[-1]) for x in final)


class _Run(NamedTuple):
    plan: ShearPlan
    scheme: Scheme
    field: VectorField
    h: float
    kind: Callable[..., Theta]
    checks: late.Checks | None

    @property
    def layers(self) -> int:
        return self.field.layers


class _Walk(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: _Run, p: Tensor, q: Tensor, *theta: Tensor) -> Any:
        parts = [_turned(p), _turned(q)]
        memory = _Memory(run.plan, theta, parts)
        for j in range(run.layers):
            for moved, c in run.plan.stages:
                memory.activate(moved, j, parts[1 - moved])
                memory.shift(moved, j, parts[moved], c * run.h)
        final = tuple(x.mT.contiguous() for x in parts)
        ctx.run = run
        ctx.save_for_backward(p, q, *final, *theta)
        return final

    @staticmethod
    def backward(ctx: Any, *costate: Tensor) -> tuple[Tensor | None, ...]:
        require_plain_autograd(costate)
        saved = ctx.saved_tensors  # read once: torch.utils.checkpoint gives them out only once
        start, final, theta = saved[:2], saved[2:4], saved[4:]
        run, needed = ctx.run, ctx.needs_input_grad[1:]
        if are_differentiated():
            again = by_the_plain_loop(run.scheme, run.field, run.h, start, run.kind(*theta), costate, needed)
            return None, *again
        return None, *_back(run, start, final, costate, theta, needed)


@torch.no_grad()
def _back(
    run: _Run,
    start: Sequence[Tensor],
    final: Sequence[Tensor],
    costate: Sequence[Tensor],
    theta: Sequence[Tensor],
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of the first state's parts and of theta, where they are needed."""
    parts, g = [_turned(x) for x in final], [_turned(x) for x in costate]
    sums = [torch.zeros_like(w) if wanted else None for w, wanted in zip(theta, needed[2:], strict=True)]
    memory, into = _Memory(run.plan, theta, parts), _Sums(run.plan, sums)
    for j in reversed(range(run.layers)):
        for moved, c in reversed(run.plan.stages):
            memory.activate(moved, j, parts[1 - moved])
            memory.differentiate(moved, j, g[moved])
            memory.shift(moved, j, parts[moved], -c * run.h)
            into.add(moved, j, parts[1 - moved], g[moved], memory, c * run.h)
            memory.pull(moved, j, g[1 - moved], c * run.h)
    _judge(parts, start, run)
    return [x.mT.contiguous() if wanted else None for x, wanted in zip(g, needed, strict=False)] + sums


class _Memory:
    """The tensors of a run: the weights of each layer, and for each velocity a, W g_y and d, (hidden, batch)."""

    def __init__(self, plan: ShearPlan, theta: Sequence[Tensor], parts: Sequence[Tensor]) -> None:
        self.tanh = plan.activation == TANH
        self.gradient = [kind == GRADIENT for kind, _, _ in plan.velocities]
        matrices = [theta[K].mT if kind == TRANSPOSED else theta[K] for kind, K, _ in plan.velocities]
        self.W, self.V = [W.unbind(0) for W in matrices], [W.mT.unbind(0) for W in matrices]
        self.b = [theta[b].unsqueeze(-1).unbind(0) for _, _, b in plan.velocities]
        rows = [(W.shape[1], parts[0].shape[1]) for W in matrices]
        self.a, self.w, self.d = ([parts[0].new_empty(shape) for shape in rows] for _ in range(3))

    def activate(self, k: int, j: int, x: Tensor) -> None:
        """a = sigma(W x + b)"""
        a = torch.addmm(_layer(self.b[k], j), _layer(self.W[k], j), x, out=self.a[k])
        a.tanh_() if self.tanh else a.relu_()

    def shift(self, k: int, j: int, y: Tensor, step: float) -> None:
        """y += step v, after a."""
        if self.gradient[k]:
            y.addmm_(_layer(self.V[k], j), self.a[k], alpha=step)
        else:
            y.add_(self.a[k], alpha=step)

    def differentiate(self, k: int, j: int, g_y: Tensor) -> None:
        """d, after a."""
        w = torch.mm(_layer(self.W[k], j), g_y, out=self.w[k]) if self.gradient[k] else g_y
        if self.tanh:
            torch.ops.aten.tanh_backward.grad_input(w, self.a[k], grad_input=self.d[k])
        else:
            torch.ops.aten.threshold_backward.grad_input(w, self.a[k], 0, grad_input=self.d[k])

    def pull(self, k: int, j: int, g_x: Tensor, step: float) -> None:
        """g_x += step W^T d"""
        g_x.addmm_(_layer(self.V[k], j), self.d[k], alpha=step)


class _Sums:
    """The sums of the weights' gradients, None where they are not needed."""

    def __init__(self, plan: ShearPlan, sums: Sequence[Tensor | None]) -> None:
        self.W: list[Sequence[Tensor] | None] = []
        self.b: list[Sequence[Tensor] | None] = []
        for kind, K, b in plan.velocities:
            g_K, g_b = sums[K], sums[b]
            self.W.append(None if g_K is None else (g_K.mT if kind == TRANSPOSED else g_K).unbind(0))
            self.b.append(None if g_b is None else g_b.unbind(0))

    def add(self, k: int, j: int, x: Tensor, g_y: Tensor, memory: _Memory, step: float) -> None:
        """The contribution of one shear, after a and d."""
        W, b = self.W[k], self.b[k]
        if W is not None:
            g_W = _layer(W, j).addmm_(memory.d[k], x.mT, alpha=step)
            if memory.gradient[k]:
                g_W.addmm_(memory.a[k], g_y.mT, alpha=step)
        if b is not None:
            _layer(b, j).add_(memory.d[k].sum(1), alpha=step)


def _layer(stack: Sequence[Tensor], j: int) -> Tensor:
    return stack[j if len(stack) > 1 else 0]


def _turned(x: Tensor) -> Tensor:
    """(batch, features) -> (features, batch), in new memory."""
    return x.detach().mT.clone(memory_format=torch.contiguous_format)


def _judge(parts: Sequence[Tensor], start: Sequence[Tensor], run: _Run) -> None:
    """Warn where the rebuilt first state has lost half of its digits; a state that is not finite is skipped."""
    if not start[0].numel():
        return
    digits = torch.finfo(start[0].dtype)
    eps = TF32 if fast_products(start[0].dtype, start[0].device.type, "matrix") else digits.eps

    def verdict(numbers: Sequence[float]) -> None:
        (drift,) = numbers
        if drift > eps**0.5:
            warn_once(
                original(run.field),
                f"the states that BatchLast rebuilt have lost half of the digits of {digits.dtype} by the first layer "
                f"(off by {drift:.1g} of their size there), and the gradients with them. Use Reversible(exact=True), "
                "Checkpointed(), or smaller steps.",
            )

    off, size = (
        torch.stack([x.abs().max() for x in tensors]).max()
        for tensors in ([x.mT - y for x, y in zip(parts, start, strict=True)], start)
    )
    late.settle((off / size.clamp(min=digits.tiny)).reshape(1), verdict, run.checks)


def _require_supported(state: State, theta: Theta) -> None:
    tensors = (*state, *theta)
    if is_autocast(state[0].device.type):
        raise ValueError(f"BatchLast() computes in the dtype of the state and not under autocast; {STORED}.")
    if len({t.dtype for t in tensors}) > 1:
        found = ", ".join(sorted({str(t.dtype).removeprefix("torch.") for t in tensors}))
        raise ValueError(f"BatchLast() takes one dtype throughout, got {found}; {STORED}.")
    if not torch.compiler.is_compiling() and not is_plain_autograd(tensors):
        raise ValueError(f"BatchLast() gives only reverse-mode gradients, not torch.func transforms; {STORED}.")
