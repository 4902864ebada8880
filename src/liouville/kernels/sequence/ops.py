r"""The kernel over time as torch operators, as `liouville.kernels.ops` has the kernels over depth.

A run travels as two flat lists, since an operator's arguments are tensors and numbers. The second part of the state is
an empty tensor where there is only one.
"""

from __future__ import annotations

__all__ = ["flow_over_time"]

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from liouville.kernels.sequence import call
from liouville.kernels.sequence.call import Run
from liouville.kernels.sequence.plan import NONE, Velocity
from liouville.kernels.table import GRADIENT

_ON_THE_CPU: Any = {"mutates_args": (), "device_types": "cpu"}
_FORWARD, _BACKWARD = (
    "(Tensor p, Tensor q, Tensor u, Tensor? tau, Tensor[] weights, bool traces, int[] code, float[] factors)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    "(Tensor[] start, Tensor[] final, Tensor trajectory, Tensor kept, Tensor[] costates, Tensor u, Tensor? tau,"
    " Tensor[] weights, bool[] needed, int[] code, float[] factors) -> Tensor[]",
)


def flow_over_time(
    run: Run, state: Sequence[Tensor], u: Tensor, tau: Tensor | None, weights: Sequence[Tensor], traces: bool
) -> tuple[list[Tensor], Tensor]:
    """The final state and the trajectory, through the operator ``liouville::sequence``."""
    code, factors = _encoded(run)
    p, q = state if len(state) == 2 else (state[0], state[0].new_empty(0))
    *final, trajectory, _ = _sequence(p, q, u, tau, list(weights), traces, code, factors)
    return final[: len(state)], trajectory


def _encoded(run: Run) -> tuple[list[int], list[float]]:
    velocities = [x for v in run.velocities for x in v]
    moved = [k for k, _ in run.stages]
    return [run.activation, len(run.velocities), *velocities, *run.inputs, *moved], [run.h, *(c for _, c in run.stages)]


def _decoded(code: Sequence[int], factors: Sequence[float]) -> Run:
    (activation, parts), rest = code[:2], list(code[2:])
    velocities = tuple(Velocity(*rest[4 * k : 4 * k + 4]) for k in range(parts))
    inputs, moved = rest[4 * parts : 5 * parts], rest[5 * parts :]
    return Run(activation, velocities, tuple(zip(moved, factors[1:], strict=True)), tuple(inputs), factors[0])


@torch.library.custom_op("liouville::sequence", schema=_FORWARD, **_ON_THE_CPU)
def _sequence(
    p: Tensor,
    q: Tensor,
    u: Tensor,
    tau: Tensor | None,
    weights: list[Tensor],
    traces: bool,
    code: list[int],
    factors: list[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The final parts, the trajectory and the states kept."""
    run = _decoded(code, factors)
    state = (p, q)[: len(run.velocities)]
    found = call.forward(run, state, u, tau, weights, traces=traces, keep=True)
    return found.final[0], found.final[1] if len(state) == 2 else p.new_empty(0), found.trajectory, found.kept


@_sequence.register_fake
def _(
    p: Tensor,
    q: Tensor,
    u: Tensor,
    tau: Tensor | None,
    weights: list[Tensor],
    traces: bool,
    code: list[int],
    factors: list[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    run, (steps, batch, _) = _decoded(code, factors), u.shape
    width = p.shape[1] + (q.shape[1] if len(run.velocities) == 2 else 0)
    trajectory = u.new_empty(steps, batch, width) if traces else u.new_empty(0)
    kept = u.new_empty(0 if traces else call.states_kept(run, steps), *p.shape)
    return p.new_empty(p.shape), q.new_empty(q.shape), trajectory, kept


@torch.library.custom_op("liouville::sequence_backward", schema=_BACKWARD, **_ON_THE_CPU)
def _sequence_backward(
    start: list[Tensor],
    final: list[Tensor],
    trajectory: Tensor,
    kept: Tensor,
    costates: list[Tensor],
    u: Tensor,
    tau: Tensor | None,
    weights: list[Tensor],
    needed: list[bool],
    code: list[int],
    factors: list[float],
) -> list[Tensor]:
    """Gradients of the first state, u and the weights; an empty tensor for each that is not needed."""
    run = _decoded(code, factors)
    *costate, along = costates
    found = call.Forward(final, trajectory, kept, [], 0, False, 0.0)
    threads = torch.get_num_threads()
    gradients = call.backward(run, start, found, costate, along, u, tau, weights, needed, threads=threads).gradients
    return [u.new_empty(0) if g is None else g for g in gradients]


@_sequence_backward.register_fake
def _(
    start: list[Tensor],
    final: list[Tensor],
    trajectory: Tensor,
    kept: Tensor,
    costates: list[Tensor],
    u: Tensor,
    tau: Tensor | None,
    weights: list[Tensor],
    needed: list[bool],
    code: list[int],
    factors: list[float],
) -> list[Tensor]:
    return [u.new_empty(x.shape if n else 0) for x, n in zip((*start, u, *weights), needed, strict=True)]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    p, q, u, tau, weights, _, ctx.code, ctx.factors = inputs
    ctx.parts, ctx.has_tau = len(_decoded(ctx.code, ctx.factors).velocities), tau is not None
    ctx.needed = [x.requires_grad for x in (*(p, q)[: ctx.parts], u, *weights)]
    ctx.save_for_backward(p, q, *output, u, *(() if tau is None else (tau,)), *weights)


def _differentiate(ctx: Any, g_p: Tensor, g_q: Tensor, along: Tensor, g_kept: Tensor) -> tuple[Any, ...]:
    n = ctx.parts
    p, q, first, second, trajectory, kept, u, *rest = ctx.saved_tensors
    tau, weights = (rest[0], rest[1:]) if ctx.has_tau else (None, rest)
    gradients = _sequence_backward(
        [p, q][:n],
        [first, second][:n],
        trajectory,
        kept,
        [*[g_p, g_q][:n], along],
        u,
        tau,
        weights,
        ctx.needed,
        ctx.code,
        ctx.factors,
    )
    found = [g if wanted else None for g, wanted in zip(gradients, ctx.needed, strict=True)]
    return found[0], found[1] if n == 2 else None, found[n], None, found[n + 1 :], None, None, None


def _only_once(ctx: Any, *gradients: Any) -> None:
    raise RuntimeError(
        "the fused kernel as an operator of torch (compiled, exported, on a subclass of Tensor) has no second "
        "derivatives; use the engine lv.Stored(), the plain loop, for them."
    )


_sequence.register_autograd(_differentiate, setup_context=_save)
_sequence_backward.register_autograd(_only_once)


def _flops(run: Run, samples: int, weights: Sequence[Sequence[int]]) -> int:
    """Twice the number of products of one pass: with K, with its transpose or G, and with W."""
    count = 0
    for moved, _ in run.stages:
        kind, K, _, G = run.velocities[moved]
        size = math.prod(weights[K][1:]) if K != NONE else 0
        count += size * (1 + (kind == GRADIENT or G != NONE))
    count += sum(math.prod(weights[W][1:]) for W in run.inputs if W != NONE)
    return 2 * samples * count


@register_flop_formula(torch.ops.liouville.sequence)
def _sequence_flops(
    p: Any, q: Any, u: Sequence[int], tau: Any, weights: Any, traces: Any, code: Any, factors: Any, **more: Any
) -> int:
    return _flops(_decoded(code, factors), u[0] * u[1], weights)


@register_flop_formula(torch.ops.liouville.sequence_backward)
def _sequence_backward_flops(
    start: Any,
    final: Any,
    trajectory: Any,
    kept: Any,
    costates: Any,
    u: Sequence[int],
    tau: Any,
    weights: Any,
    needed: Any,
    code: Any,
    factors: Any,
    **more: Any,
) -> int:
    """For costates and for weights. Recomputation does not count."""
    return 2 * _flops(_decoded(code, factors), u[0] * u[1], weights)
