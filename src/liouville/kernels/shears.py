r"""One native call: from tensors to the structures of ``native/problem.h`` and back."""

from __future__ import annotations

__all__ = ["INTEGERS", "TYPES", "backward", "forward", "velocity"]

import ctypes
import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from liouville.backprop.range import Range
from liouville.kernels.layout import Layout, layout_of, pointer
from liouville.kernels.library import ShearRun, Stage, Velocity, library
from liouville.kernels.table import TRANSPOSED, ShearPlan

TYPES = {torch.float32: 0, torch.float64: 1}
INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}


def forward(
    plan: ShearPlan,
    h: float,
    layers: int,
    state: Sequence[Tensor],
    theta: Sequence[Tensor],
    exact: Range | None = None,
) -> tuple[list[Tensor], int, bool]:
    """The last state, parts (batch, width) or images; in an exact run also its integers, the sum of the first state's
    integers, and whether the run left its grid, which makes the result invalid."""
    layout = layout_of(plan.taps, state[0])
    state, theta = [layout.arranged(x) for x in state], [w.contiguous() for w in theta]
    out = [layout.empty(x) for x in state]
    run = _run(plan, h, layers, layout, state, theta)
    for part, x, result in zip(run.parts, state, out, strict=True):
        layout.lay(part.value, x, result)
    if exact:
        out += [torch.empty_like(x, dtype=INTEGERS[x.dtype]) for x in out]
        run.spacing, run.limit = exact.spacing, exact.limit
        for part, integers in zip(run.parts, out[2:], strict=True):
            part.grid.out = integers.data_ptr()
    library().lv_shear_forward(ctypes.byref(run))
    return out, run.checksum, bool(run.left_range)


def backward(
    plan: ShearPlan,
    h: float,
    layers: int,
    final: Sequence[Tensor],
    costate: Sequence[Tensor],
    theta: Sequence[Tensor],
    needed: Sequence[bool],
    start: Sequence[Tensor] = (),
    exact: Range | None = None,
    integers: Sequence[Tensor] = (),
) -> tuple[list[Tensor | None], float, int]:
    """The gradients of the first state's parts and of theta where they are needed, the relative drift, the checksum.

    The drift is the distance of the rebuilt first state from ``start``, over its largest entry; an exact run goes back
    from ``integers`` and has a checksum instead, the sum of the rebuilt integers.
    """
    layout = layout_of(plan.taps, final[0])
    final, costate, start = ([layout.arranged(x) for x in parts] for parts in (final, costate, start))
    theta = [w.contiguous() for w in theta]
    wanted = [layout.empty(x) if n else None for x, n in zip(final, needed, strict=False)]
    gradients = wanted + [torch.empty_like(w) if n else None for w, n in zip(theta, needed[2:], strict=True)]
    run = _run(plan, h, layers, layout, final, theta, gradients[2:])
    for k, part in enumerate(run.parts):
        layout.lay(part.value, final[k])
        layout.lay(part.costate, costate[k], gradients[k])
        if start:
            layout.lay(part.start, start[k])
        if exact:
            layout.lay(part.grid, layout.arranged(integers[k]))
    if exact:
        run.spacing, run.limit = exact.spacing, exact.limit
    library().lv_shear_backward(ctypes.byref(run))
    return gradients, run.error / max(run.size, torch.finfo(final[0].dtype).tiny), run.checksum


def _run(
    plan: ShearPlan,
    h: float,
    layers: int,
    layout: Layout,
    state: Sequence[Tensor],
    theta: Sequence[Tensor],
    gradients: Sequence[Tensor | None] = (),
) -> ShearRun:
    shapes = tuple([w.shape for w in theta])
    p, q = state
    made = _template(plan, h, layers, torch.get_num_threads(), layout, p.dtype, p.shape, q.shape, shapes)
    run = ShearRun.from_buffer_copy(made)
    run.made = made  # it owns the stages
    for v, (_, K, b) in zip(run.velocities, plan.velocities, strict=True):
        v.K, v.b = theta[K].data_ptr(), theta[b].data_ptr()
        if gradients:
            v.K_gradient, v.b_gradient = pointer(gradients[K]), pointer(gradients[b])
    return run


@functools.lru_cache(maxsize=256)
def _template(
    plan: ShearPlan,
    h: float,
    layers: int,
    threads: int,
    layout: Layout,
    dtype: torch.dtype,
    p: torch.Size,
    q: torch.Size,
    theta: tuple[torch.Size, ...],
) -> ShearRun:
    """A run without its pointers: everything that is the same in all training steps is filled in once."""
    stages = (Stage * len(plan.stages))(*(Stage(moved, c * h) for moved, c in plan.stages))
    run = ShearRun(
        type=TYPES[dtype],
        activation=plan.activation,
        threads=threads,
        batch=layout.samples(p),
        layers=layers,
        stages=len(stages),
        image=layout.image(p),
        stage=stages,
    )
    run.parts[0].width, run.parts[1].width = p[1], q[1]
    for k, (kind, K, b) in enumerate(plan.velocities):
        run.velocities[k] = _velocity(kind, theta[K], theta[b])
    return run


def velocity(kind: int, K: Tensor, b: Tensor | None) -> Velocity:
    """``lv_velocity`` of one stack of weights, contiguous."""
    made = _velocity(kind, K.shape, None if b is None else b.shape)
    made.K, made.b = K.data_ptr(), pointer(b)
    return made


def _velocity(kind: int, K: torch.Size, b: torch.Size | None) -> Velocity:
    layers, m, n = K[:3]
    return Velocity(
        kind=kind,
        rows=m,
        columns=n,
        K_stride=math.prod(K[1:]) if layers > 1 else 0,
        b_stride=0 if b is None or b[0] == 1 else n if kind == TRANSPOSED else m,
    )
