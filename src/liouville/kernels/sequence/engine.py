r"""A run over time, from what an engine gets to what the native call takes, and its backward pass."""

from __future__ import annotations

__all__ = ["over_time"]

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from liouville.backprop.base import Stored
from liouville.backprop.contract import require_plain_autograd
from liouville.backprop.range import Range, Reach, reach
from liouville.backprop.twice import are_differentiated, by_the_plain_loop
from liouville.compilers import is_watched
from liouville.fields.base import Theta, VectorField
from liouville.fields.bound import original
from liouville.fields.driven import drive_of
from liouville.kernels.sequence import call, ops
from liouville.kernels.sequence.call import Forward, Run
from liouville.kernels.sequence.plan import NONE, SequencePlan
from liouville.schemes.base import Scheme, State

_PLAIN = (Tensor, torch.nn.Parameter)


def over_time(
    plan: SequencePlan,
    scheme: Scheme,
    field: VectorField,
    state: State,
    theta: Theta,
    h: float,
    *,
    traces: bool,
    exact: bool,
    warn: Callable[[float, torch.dtype], None],
) -> tuple[State, Tensor | None]:
    """The final state, and, if asked for, the trajectory (T, *batch, all widths).

    Args:
        plan: of the pair.
        scheme, field, state, theta, h: as of `Backprop.run`; an input drives the field.
        traces: whether to give the trajectory, whose states the backward pass then reads.
        exact: whether a run that must invert its steps runs on the grid.
        warn: is told of the relative drift of a first state that was rebuilt.
    """
    sent = _sent(plan, field, state, theta, h)
    tensors = sent and (*sent.state, sent.u, *sent.weights)
    watched = tensors is not None and (is_watched() or any(type(t) not in _PLAIN for t in tensors))
    exact = exact and not traces
    if sent is None or tensors is None or (exact and watched):  # an exact run is not an operator
        return _plainly(scheme, field, state, theta, h, traces)
    if watched:
        final, trajectory = ops.flow_over_time(*sent, traces)
    elif torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        grid = Range(tuple(sent.state), state[0].dtype) if exact else None
        found: Any = lambda: reach(scheme, field, state, theta, h)  # type: ignore[arg-type]  # noqa: E731
        again = Again(scheme, field, state[0].shape[:-1], h, type(theta))
        told = Told(sent.run, traces, warn, grid, found, again)
        given = (*sent.state, sent.tau, sent.u, *sent.weights, *theta)
        *final, trajectory = _Direct.apply(told, len(state), len(sent.weights), *given)
    else:
        final, trajectory = call.forward(*sent, traces=traces, keep=False)[:2]
    batch = state[0].shape[:-1]
    end = tuple(x.reshape(*batch, x.shape[-1]) for x in final)
    return end, trajectory.reshape(len(trajectory), *batch, trajectory.shape[-1]) if traces else None


def _plainly(
    scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float, traces: bool
) -> tuple[State, Tensor | None]:
    if traces:
        return Stored().trajectory(scheme, field, state, theta, h)
    return Stored().run(scheme, field, state, theta, h), None


class Sent(NamedTuple):
    """What the native call takes."""

    run: Run
    state: list[Tensor]
    u: Tensor
    tau: Tensor | None
    weights: list[Tensor]


def _sent(plan: SequencePlan, field: VectorField, state: State, theta: Theta, h: float) -> Sent | None:
    """None where the plain loop must run: a tau that has a gradient or one number per feature, other broadcasting."""
    drive, T, batch = drive_of(field, theta), field.layers, state[0].shape[:-1]
    if drive is None or any(x.shape[:-1] != batch for x in state):
        return None
    u, tau = _rows(drive.u, T, (*batch, drive.u.shape[-1])), None
    if drive.tau is not None:
        tau = None if drive.tau.requires_grad else _rows(drive.tau, T, (*batch, 1))
        if tau is None:
            return None
        tau = tau[..., 0]
    if u is None:
        return None
    weights, inputs = list(plan.weights(drive.theta)), []
    for names in original(field).field.biases:
        inputs.append(len(weights) if names else NONE)
        weights += [drive.weights[name] for name in names]
    run = Run(plan.activation, plan.velocities, plan.stages, tuple(inputs), h)
    return Sent(run, [x.reshape(-1, x.shape[-1]) for x in state], u, tau, weights)


def _rows(x: Tensor, T: int, shape: Sequence[int]) -> Tensor | None:
    """x as (T, samples, width), where each x_t broadcasts to ``shape``; None where it does not."""
    own = x.shape[1:]
    if len(own) > len(shape) or any(a not in (1, b) for a, b in zip(reversed(own), reversed(shape), strict=False)):
        return None
    x = x.reshape(len(x), *(1,) * (len(shape) - len(own)), *own).expand(T, *shape)
    return x if len(shape) == 2 else x.reshape(T, -1, shape[-1])


class Told(NamedTuple):
    """A run and what goes with it through autograd."""

    run: Run
    traces: bool
    warn: Callable[[float, torch.dtype], None]
    grid: Range | None
    found: Callable[[], Reach] | None  # the range of a run that left three grids
    again: Again


class Again(NamedTuple):
    """What the plain loop needs, for gradients that are to be differentiated."""

    scheme: Scheme
    field: VectorField
    batch: torch.Size
    h: float
    kind: Callable[..., Theta]

    def gradients(
        self,
        state: Sequence[Tensor],
        theta: Sequence[Tensor],
        costate: Sequence[Tensor | None],
        along: Tensor | None,
        needed: Sequence[bool],
    ) -> list[Tensor | None]:
        """Of the state, (samples, width), and of theta."""
        parts = tuple(x.reshape(*self.batch, x.shape[-1]) for x in state)
        costate = [None if g is None else g.reshape(*self.batch, g.shape[-1]) for g in costate]
        along = None if along is None else along.reshape(len(along), *self.batch, along.shape[-1])
        found = by_the_plain_loop(self.scheme, self.field, self.h, parts, self.kind(*theta), costate, needed, along)
        first = [None if g is None else g.reshape(x.shape) for g, x in zip(found, state, strict=False)]
        return [*first, *found[len(state) :]]


class _Direct(torch.autograd.Function):
    """The operator of `liouville.kernels.sequence.ops` without torch's dispatcher, and exact runs.

    ``weights`` and u are made of ``theta``, from which only the plain loop starts.
    """

    @staticmethod
    def forward(ctx: Any, told: Told, parts: int, number: int, *tensors: Any) -> Any:
        state, tau, u = tensors[:parts], tensors[parts], tensors[parts + 1]
        weights, theta = tensors[parts + 2 : parts + 2 + number], tensors[parts + 2 + number :]
        found = _on_its_grid(told, Sent(told.run, list(state), u, tau, list(weights)))
        ctx.told, ctx.parts, ctx.number, ctx.threads = told._replace(found=None), parts, number, torch.get_num_threads()
        ctx.found = found._replace(final=[], trajectory=u.new_empty(0), kept=u.new_empty(0), integers=[])
        ctx.save_for_backward(
            *state, *found.final, found.trajectory, found.kept, tau, u, *found.integers, *weights, *theta
        )
        ctx.set_materialize_grads(False)
        return *found.final, found.trajectory

    @staticmethod
    def backward(ctx: Any, *costates: Tensor | None) -> tuple[Tensor | None, ...]:
        n, told, saved, needed = ctx.parts, ctx.told, iter(ctx.saved_tensors), ctx.needs_input_grad[3:]
        require_plain_autograd([g for g in costates if g is not None])
        start, final = [next(saved) for _ in range(n)], [next(saved) for _ in range(n)]
        trajectory, kept, tau, u = (next(saved) for _ in range(4))
        integers = [next(saved) for _ in range(n)] if told.grid else []
        weights, theta = [next(saved) for _ in range(ctx.number)], list(saved)
        costate, along = costates[:n], costates[n] if told.traces else None
        own = n + 2 + ctx.number
        if are_differentiated():
            found = told.again.gradients(start, theta, costate, along, [*needed[:n], *needed[own:]])
            return None, None, None, *found[:n], *(None,) * (own - n), *found[n:]
        run = ctx.found._replace(final=final, trajectory=trajectory, kept=kept, integers=integers)
        wanted, options = [*needed[:n], *needed[n + 1 : own]], {"threads": ctx.threads, "grid": told.grid}
        back = call.backward(told.run, start, run, costate, along, u, tau, weights, wanted, **options)
        if told.grid and back.checksum != run.checksum:
            raise RuntimeError("the exact inversion did not restore every bit; please report it, and use Reversible().")
        if back.drift:
            told.warn(back.drift, u.dtype)
        return None, None, None, *back.gradients[:n], None, *back.gradients[n:], *(None,) * len(theta)


def _on_its_grid(told: Told, sent: Sent) -> Forward:
    """The run forwards; on the first grid that it does not leave, if it is exact."""
    grid = told.grid
    found = call.forward(*sent, traces=told.traces, keep=True, grid=grid)
    if grid is None:
        return found
    spacing = grid.spacing
    if not found.left:
        grid.settle(lambda: Reach(found.largest, 0.0))
    while found.left or grid.spacing != spacing:
        if found.left:
            grid.widen(told.found)  # type: ignore[arg-type]
        spacing = grid.spacing
        found = call.forward(*sent, traces=told.traces, keep=True, grid=grid)
    return found
