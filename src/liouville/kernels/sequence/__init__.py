r"""Sequences in one native call: depth is time, one weight for all steps, inputs through the biases.

    u_t = b + W input_t,        part += h tau_t c velocity(other part; K, u_t)        in step t, stage by stage

The kernel reads the inputs as they are, (steps, batch, inputs), and multiplies them by W a few steps at a time, so
nothing of size (steps, batch, features) exists but what the caller asks for. Gradients of K, W and b are summed on the
way back.
"""

from __future__ import annotations

__all__ = ["Run", "plan_for", "run_of", "sequence"]

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from liouville.backprop.contract import differentiable_once, require_plain_autograd
from liouville.compilers import is_watched
from liouville.kernels.sequence import call, ops
from liouville.kernels.sequence.call import Run
from liouville.kernels.sequence.plan import NONE, SequencePlan, plan_for


def run_of(plan: SequencePlan, h: float, weights: int, drives: Sequence[bool]) -> Run:
    """A run whose weights are the plan's tensors, then W of each velocity that an input drives."""
    inputs, at = [], weights
    for driven in drives:
        inputs.append(at if driven else NONE)
        at += driven
    return Run(plan.activation, plan.velocities, plan.stages, tuple(inputs), h)


class Told(NamedTuple):
    """A run, whether it gives the trajectory, and who hears of the drift."""

    run: Run
    traces: bool
    drift: Callable[[float, torch.dtype], None]


def sequence(
    run: Run,
    state: Sequence[Tensor],
    u: Tensor,
    tau: Tensor | None,
    weights: Sequence[Tensor],
    traces: bool,
    drift: Callable[[float, torch.dtype], None] = lambda size, dtype: None,
) -> tuple[list[Tensor], Tensor | None]:
    """The final state, parts (batch, width), and, if asked for, the trajectory (steps, batch, all widths).

    Args:
        run: what runs.
        state: the first state.
        u: the inputs, (steps, batch, inputs), at least one step.
        tau: (steps, batch), the lengths of the steps over h; None where they are equal. It gets no gradient.
        weights: what the run names, (1, ...).
        traces: whether to give the trajectory; its gradient reaches the run, too.
        drift: is told how far the rebuilt first state is from the true one, relatively, where states are rebuilt.
    """
    tensors = (*state, u, *weights)
    if is_watched() or any(type(t) not in _PLAIN for t in tensors):
        final, trajectory = ops.flow_over_time(run, state, u, tau, weights, traces)
    elif torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        *final, trajectory = _Direct.apply(Told(run, traces, drift), len(state), *state, tau, u, *weights)
    else:
        final, trajectory, _ = call.forward(run, state, u, tau, weights, traces, False)
    return final, trajectory if traces else None


_PLAIN = (Tensor, torch.nn.Parameter)


class _Direct(torch.autograd.Function):
    """The operator of `liouville.kernels.sequence.ops` without torch's dispatcher."""

    @staticmethod
    def forward(ctx: Any, told: Told, parts: int, *tensors: Any) -> Any:
        state, tau, u, weights = tensors[:parts], tensors[parts], tensors[parts + 1], tensors[parts + 2 :]
        final, trajectory, kept = call.forward(told.run, state, u, tau, weights, told.traces, True)
        ctx.told, ctx.parts = told, parts
        ctx.save_for_backward(*state, *final, trajectory, kept, tau, u, *weights)
        ctx.set_materialize_grads(False)
        return *final, trajectory

    @staticmethod
    def backward(ctx: Any, *costates: Tensor | None) -> tuple[Tensor | None, ...]:
        n, told, saved = ctx.parts, ctx.told, ctx.saved_tensors
        given = [g for g in costates if g is not None]
        require_plain_autograd(given)
        start, final, (trajectory, kept, tau, u), weights = (
            saved[:n],
            saved[n : 2 * n],
            saved[2 * n : 2 * n + 4],
            saved[2 * n + 4 :],
        )
        needed = [*ctx.needs_input_grad[2 : 2 + n], *ctx.needs_input_grad[3 + n :]]
        gradients, drift = call.backward(
            told.run, start, final, trajectory, kept, costates[:n], costates[n], u, tau, weights, needed
        )
        if not trajectory.numel():
            told.drift(drift, u.dtype)
        found = list(differentiable_once(gradients, (*given, *start, u, *weights)))
        return None, None, *found[:n], None, *found[n:]
