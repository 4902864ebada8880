r"""The kernel as torch operators: opaque to torch.compile and torch.export, with shapes, gradients and FLOPs declared.

A plan travels as two flat lists, since an operator's arguments are tensors and numbers.
"""

from __future__ import annotations

__all__ = ["euler_flow", "shear_flow"]

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from liouville.kernels import euler, shears
from liouville.kernels.layout import layout_of
from liouville.kernels.table import GRADIENT, ShearPlan

_ON_THE_CPU: Any = {"mutates_args": (), "device_types": "cpu"}
# torch 2.6 does not read these types from the functions' annotations.
_SHEARS, _SHEARS_BACKWARD, _EULER, _EULER_BACKWARD = (
    "(Tensor p, Tensor q, Tensor[] theta, int[] code, float[] factors) -> (Tensor, Tensor)",
    "(Tensor p, Tensor q, Tensor g_p, Tensor g_q, Tensor[] theta, bool[] needed, int[] code, float[] factors)"
    " -> Tensor[]",
    "(Tensor y, Tensor[] weights, int activation, int layers, float h) -> (Tensor, Tensor)",
    "(Tensor y, Tensor kept, Tensor g, Tensor[] weights, bool[] needed, int activation, int layers, float h)"
    " -> Tensor[]",
)


def shear_flow(
    plan: ShearPlan, h: float, layers: int, state: Sequence[Tensor], theta: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """The state after ``layers`` layers, through the operator ``liouville::shears``."""
    code, factors = _encoded(plan, h, layers)
    return _shears(state[0], state[1], list(theta), code, factors)


def _encoded(plan: ShearPlan, h: float, layers: int) -> tuple[list[int], list[float]]:
    kinds = (*plan.velocities[0], *plan.velocities[1])
    code = [plan.activation, layers, plan.taps, *kinds, *(moved for moved, _ in plan.stages)]
    return code, [h, *(c for _, c in plan.stages)]


def _decoded(code: Sequence[int], factors: Sequence[float]) -> tuple[ShearPlan, float, int]:
    activation, layers, taps = code[:3]
    velocities: Any = tuple(code[3:6]), tuple(code[6:9])
    return ShearPlan(activation, velocities, tuple(zip(code[9:], factors[1:], strict=True)), taps), factors[0], layers


@torch.library.custom_op("liouville::shears", schema=_SHEARS, **_ON_THE_CPU)
def _shears(p: Tensor, q: Tensor, theta: list[Tensor], code: list[int], factors: list[float]) -> tuple[Tensor, Tensor]:
    (p, q), *_ = shears.forward(*_decoded(code, factors), (p, q), theta)
    return p, q


@_shears.register_fake
def _(p: Tensor, q: Tensor, theta: list[Tensor], code: list[int], factors: list[float]) -> tuple[Tensor, Tensor]:
    layout = layout_of(code[2], p)
    return layout.empty(p), layout.empty(q)


@torch.library.custom_op("liouville::shears_backward", schema=_SHEARS_BACKWARD, **_ON_THE_CPU)
def _shears_backward(
    p: Tensor,
    q: Tensor,
    g_p: Tensor,
    g_q: Tensor,
    theta: list[Tensor],
    needed: list[bool],
    code: list[int],
    factors: list[float],
) -> list[Tensor]:
    """Gradients of p, q and theta; an empty tensor for each that is not needed."""
    gradients, *_ = shears.backward(*_decoded(code, factors), (p, q), (g_p, g_q), theta, needed)
    return [p.new_empty(0) if g is None else g for g in gradients]


@_shears_backward.register_fake
def _(
    p: Tensor,
    q: Tensor,
    g_p: Tensor,
    g_q: Tensor,
    theta: list[Tensor],
    needed: list[bool],
    code: list[int],
    factors: list[float],
) -> list[Tensor]:
    layout = layout_of(code[2], p)
    parts = [layout.empty(x) if n else x.new_empty(0) for x, n in zip((p, q), needed, strict=False)]
    return parts + [x.new_empty(x.shape if n else 0) for x, n in zip(theta, needed[2:], strict=True)]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    p, q, theta, ctx.code, ctx.factors = inputs
    ctx.needed = [x.requires_grad for x in (p, q, *theta)]
    ctx.save_for_backward(*output, *theta)


def _differentiate(ctx: Any, g_p: Tensor, g_q: Tensor) -> tuple[Any, ...]:
    p, q, *theta = ctx.saved_tensors
    gradients = _shears_backward(p, q, g_p, g_q, theta, ctx.needed, ctx.code, ctx.factors)
    first, second, *weights = (g if n else None for g, n in zip(gradients, ctx.needed, strict=True))
    return first, second, weights, None, None


def _only_once(ctx: Any, *gradients: Any) -> None:
    raise RuntimeError(
        "the fused kernel as an operator of torch (compiled, exported, on a subclass of Tensor) has no second "
        "derivatives; use flow.with_backprop(lv.Stored()), the plain loop, for them."
    )


_shears.register_autograd(_differentiate, setup_context=_save)
_shears_backward.register_autograd(_only_once)


def euler_flow(activation: int, h: float, layers: int, y: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """The state after ``layers`` layers of forward Euler, through the operator ``liouville::euler``."""
    return _euler(y, list(weights), activation, layers, h)[0]


@torch.library.custom_op("liouville::euler", schema=_EULER, **_ON_THE_CPU)
def _euler(y: Tensor, weights: list[Tensor], activation: int, layers: int, h: float) -> tuple[Tensor, Tensor]:
    """The last state and the states kept."""
    return euler.forward(activation, h, layers, y, weights, True)


@_euler.register_fake
def _(y: Tensor, weights: list[Tensor], activation: int, layers: int, h: float) -> tuple[Tensor, Tensor]:
    return y.new_empty(y.shape), y.new_empty(euler.states_kept(layers), *y.shape)


@torch.library.custom_op("liouville::euler_backward", schema=_EULER_BACKWARD, **_ON_THE_CPU)
def _euler_backward(
    y: Tensor,
    kept: Tensor,
    g: Tensor,
    weights: list[Tensor],
    needed: list[bool],
    activation: int,
    layers: int,
    h: float,
) -> list[Tensor]:
    """Gradients of y and the weights; an empty tensor for each that is not needed."""
    gradients = euler.backward(activation, h, layers, y, kept, g, weights, needed)
    return [y.new_empty(0) if x is None else x for x in gradients]


@_euler_backward.register_fake
def _(
    y: Tensor,
    kept: Tensor,
    g: Tensor,
    weights: list[Tensor],
    needed: list[bool],
    activation: int,
    layers: int,
    h: float,
) -> list[Tensor]:
    return [y.new_empty(x.shape if n else 0) for x, n in zip((y, *weights), needed, strict=True)]


def _save_euler(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    y, weights, *ctx.run = inputs
    ctx.needed = [x.requires_grad for x in (y, *weights)]
    ctx.save_for_backward(y, output[1], *weights)


def _differentiate_euler(ctx: Any, g: Tensor, g_kept: Tensor) -> tuple[Any, ...]:
    y, kept, *weights = ctx.saved_tensors
    gradients = _euler_backward(y, kept, g, weights, ctx.needed, *ctx.run)
    first, *others = (x if n else None for x, n in zip(gradients, ctx.needed, strict=True))
    return first, others, None, None, None


_euler.register_autograd(_differentiate_euler, setup_context=_save_euler)
_euler_backward.register_autograd(_only_once)


@register_flop_formula(torch.ops.liouville.shears)
def _shear_flops(p: Sequence[int], q: Any, theta: Any, code: Any, factors: Any, **more: Any) -> int:
    """Twice the number of products: K x, and K^T a where the field has it. Shapes stand for tensors."""
    plan, _, layers = _decoded(code, factors)
    samples = p[0] * math.prod(p[2:])
    products = (plan.velocities[moved] for moved, _ in plan.stages)
    return 2 * samples * layers * sum(math.prod(theta[K][1:]) * (1 + (kind == GRADIENT)) for kind, K, _ in products)


@register_flop_formula(torch.ops.liouville.shears_backward)
def _shear_backward_flops(
    p: Any, q: Any, g_p: Any, g_q: Any, theta: Any, needed: Sequence[bool], code: Any, factors: Any, **more: Any
) -> int:
    """The count of the plain loop: products for costates and weights. Recomputation does not count."""
    return _shear_flops(p, q, theta, code, factors) * (1 + any(needed[2:]))


@register_flop_formula(torch.ops.liouville.euler)
def _euler_flops(y: Sequence[int], weights: Any, activation: int, layers: int, h: float, **more: Any) -> int:
    """Twice the number of products: K y, and G^T a where there is a G."""
    return 2 * y[0] * layers * sum(math.prod(w[1:]) for w in weights if len(w) > 2)


@register_flop_formula(torch.ops.liouville.euler_backward)
def _euler_backward_flops(
    y: Any, kept: Any, g: Any, weights: Any, needed: Sequence[bool], activation: int, layers: int, h: float, **more: Any
) -> int:
    """As for the shears."""
    return _euler_flops(y, weights, activation, layers, h) * (1 + any(needed[1:]))
