r"""One native call over time: from tensors to ``lv_sequence_run`` of ``native/problem.h`` and back."""

from __future__ import annotations

__all__ = ["Backward", "Forward", "Run", "backward", "forward", "states_kept"]

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from liouville.backprop.range import Range
from liouville.kernels.layout import array, pointer, rows
from liouville.kernels.library import Array, Forced, SequenceRun, Series, Stage, library
from liouville.kernels.sequence.plan import DRIFT, NONE, Velocity
from liouville.kernels.shears import INTEGERS, TYPES

SEGMENT = 16


class Run(NamedTuple):
    """A run without its tensors, of numbers only. ``inputs[k]`` is the place of velocity k's W among the weights."""

    activation: int
    velocities: tuple[Velocity, ...]
    stages: tuple[tuple[int, float], ...]
    inputs: tuple[int, ...]
    h: float


class Forward(NamedTuple):
    """What a run gives, and what its backward pass needs.

    final: parts of the last state, (batch, width); trajectory: (steps, batch, all widths) or empty; kept: states of a
    run without an inverse. Of an exact run: integers of the last state, the sum of those of the first, whether the run
    left its grid, which makes the result invalid, and its largest number.
    """

    final: list[Tensor]
    trajectory: Tensor
    kept: Tensor
    integers: list[Tensor]
    checksum: int
    left: bool
    largest: float


class Backward(NamedTuple):
    """Gradients of the first state's parts, u and the weights, where needed; what the rebuilt first state shows.

    drift: its distance from the true one over the largest entry of the first and the last state, 0 where states were
    read; checksum: of an exact run.
    """

    gradients: list[Tensor | None]
    drift: float
    checksum: int


def states_kept(run: Run, steps: int) -> int:
    """How many states a run keeps that has no inverse and whose trajectory is not kept."""
    return (steps - 1) // SEGMENT if len(run.velocities) == 1 else 0


def forward(
    run: Run,
    state: Sequence[Tensor],
    u: Tensor,
    tau: Tensor | None,
    weights: Sequence[Tensor],
    *,
    traces: bool,
    keep: bool,
    grid: Range | None = None,
) -> Forward:
    """The steps in turn.

    Args:
        run: what runs.
        state: the first state, parts (batch, width).
        u: the inputs, (steps, batch, inputs).
        tau: the lengths of the steps over h, (steps, batch), in any strides; None where they are equal.
        weights: what the run names, (1, ...).
        traces: whether to give the trajectory.
        keep: whether the backward pass will need states.
        grid: of an exact run, without a trajectory.
    """
    state, u, weights = [rows(x) for x in state], _series(u), [w.contiguous() for w in weights]
    steps, batch, _ = u.shape
    out = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in state]
    integers = [torch.empty_like(x, dtype=INTEGERS[x.dtype]) for x in out] if grid else []
    trajectory = u.new_empty(steps, batch, sum(x.shape[1] for x in state)) if traces else u.new_empty(0)
    kept = u.new_empty(states_kept(run, steps) if keep and not traces else 0, *state[0].shape)
    native = _native(run, state, u, tau, weights, torch.get_num_threads(), grid)
    for k, part in enumerate(native.part[: native.parts]):
        part.value = array(state[k], out[k])
        if grid:
            part.grid.out = integers[k].data_ptr()
        if traces:
            part.output.out = _column(trajectory, state, k)
            part.output.time, part.output.sample = trajectory.stride()[:2]
    native.kept = pointer(kept) if kept.numel() else None
    library().lv_sequence_forward(ctypes.byref(native))
    return Forward(out, trajectory, kept, integers, native.checksum, bool(native.left_range), native.size)


def backward(
    run: Run,
    start: Sequence[Tensor],
    found: Forward,
    costate: Sequence[Tensor | None],
    along: Tensor | None,
    u: Tensor,
    tau: Tensor | None,
    weights: Sequence[Tensor],
    needed: Sequence[bool],
    *,
    threads: int,
    grid: Range | None = None,
) -> Backward:
    """The steps back.

    Args:
        run, u, tau, weights, grid: as for `forward`.
        start: the first state.
        found: what the run gave.
        costate: of the final state; None where it is 0.
        along: of the trajectory; None, or empty, where it is 0.
        needed: whether each of start, u and the weights needs a gradient.
        threads: of the run forwards: an exact run repeats its sums.
    """
    start, final = [rows(x) for x in start], [rows(x) for x in found.final]
    u, weights = _series(u), [w.contiguous() for w in weights]
    costate = [None if g is None else rows(g) for g in costate]
    along = None if along is None or not along.numel() else _series(along)
    gradients = [
        torch.empty_like(x, memory_format=torch.contiguous_format) if wanted else None
        for x, wanted in zip((*start, u, *weights), needed, strict=True)
    ]
    parts, (to_u, *to_weights) = gradients[: len(start)], gradients[len(start) :]
    native = _native(run, start, u, tau, weights, threads, grid, to_weights)
    for k, part in enumerate(native.part[: native.parts]):
        part.start, part.value = array(start[k]), array(final[k])
        g = costate[k]
        part.costate = Array(pointer(g), 0 if g is None else g.stride(0), pointer(parts[k]))
        if grid:
            part.grid = array(found.integers[k])
        if found.trajectory.numel():
            part.output.source = _column(found.trajectory, start, k)
            part.output.time, part.output.sample = found.trajectory.stride()[:2]
        if along is not None:
            part.given.source = _column(along, start, k)
            part.given.time, part.given.sample = along.stride()[:2]
    if to_u is not None:
        native.input.out = to_u.data_ptr()
        native.input_time, native.input_sample = to_u.stride()[:2]
    native.kept = pointer(found.kept) if found.kept.numel() else None
    library().lv_sequence_backward(ctypes.byref(native))
    return Backward(gradients, 0.0 if grid else _relative(native, final), native.checksum)


def _relative(native: SequenceRun, final: Sequence[Tensor]) -> float:
    """The error of the rebuilt first state over its largest entry, or the last state's: the first is often zero."""
    if not native.error:
        return 0.0
    return float(native.error / max(native.size, *(float(x.detach().abs().max()) for x in final)))


def _native(
    run: Run,
    state: Sequence[Tensor],
    u: Tensor,
    tau: Tensor | None,
    weights: Sequence[Tensor],
    threads: int,
    grid: Range | None,
    gradients: Sequence[Tensor | None] = (),
) -> SequenceRun:
    steps, batch, inputs = u.shape
    stages = (Stage * len(run.stages))(*(Stage(moved, c * run.h) for moved, c in run.stages))
    native = SequenceRun(
        type=TYPES[u.dtype],
        activation=run.activation,
        threads=threads,
        batch=batch,
        steps=steps,
        stages=len(stages),
        parts=len(run.velocities),
        inputs=inputs,
        stage=stages,
        input=Series(u.data_ptr(), None, *u.stride()[:2]),
        segment=SEGMENT,
    )
    native.owns = stages
    if grid:
        native.spacing, native.limit = grid.spacing, grid.limit
    if tau is not None:
        native.tau, native.tau_time, native.tau_sample = tau.data_ptr(), *tau.stride()
    for k, part in enumerate(native.part[: native.parts]):
        part.width = state[k].shape[1]
        native.velocity[k] = _forced(run.velocities[k], run.inputs[k], weights, gradients)
    return native


def _forced(velocity: Velocity, W: int, weights: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Forced:
    """``lv_forced``."""
    kind, K, b, G = velocity
    made = Forced(kind=kind)
    if kind == DRIFT:
        return made
    made.rows, made.columns = weights[K].shape[1:]
    for name, at in (("K", K), ("b", b), ("G", G), ("W", W)):
        if at != NONE:
            setattr(made, name, weights[at].data_ptr())
            setattr(made, f"{name}_gradient", pointer(gradients[at]) if gradients else None)
    return made


def _column(x: Tensor, state: Sequence[Tensor], k: int) -> int:
    """The address of part k's first entry in a tensor whose rows are whole states."""
    return x.data_ptr() + k * state[0].shape[1] * x.element_size()


def _series(x: Tensor) -> Tensor:
    """x with dense rows."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()
