r"""One native call: from tensors to the structures of ``native/problem.h`` and back."""

from __future__ import annotations

__all__ = ["TYPES", "Exact", "array", "backward", "forward", "pointer", "rows", "velocity"]

import ctypes
import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from liouville.kernels.library import Array, ShearRun, Stage, Velocity, library
from liouville.kernels.table import TRANSPOSED, ShearPlan

TYPES = {torch.float32: 0, torch.float64: 1}
_INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}


class Exact(NamedTuple):
    """An exact run's grid, as `backprop.arithmetic.Grid` lays it: x = integer * spacing, |integer| < limit."""

    spacing: float
    limit: float
    coarsest: float

    def widened(self) -> Exact:
        """A grid 8 times as coarse, for a run that left this one.

        Raises:
            ArithmeticError: if there is none.
        """
        if self.spacing >= self.coarsest:
            raise ArithmeticError(
                "a state or a velocity of an exactly reversible run is not finite, or beyond the range of its coarsest "
                f"grid, +-{self.limit * self.spacing:.3g}: the network grows without bound (take smaller steps or "
                "weights), or is meant to grow; then use Reversible(compensated=True)."
            )
        return self._replace(spacing=8 * self.spacing)


def forward(
    plan: ShearPlan,
    h: float,
    layers: int,
    state: Sequence[Tensor],
    theta: Sequence[Tensor],
    exact: Exact | None = None,
) -> tuple[list[Tensor], int, bool]:
    """The last state, parts (batch, width); in an exact run its integers too, the sum of the first state's, and whether
    the run left its grid, so that all of it means nothing."""
    state, theta = [rows(x) for x in state], [w.contiguous() for w in theta]
    out = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in state]
    run = _run(plan, h, layers, state, theta)
    for part, x, result in zip(run.parts, state, out, strict=True):
        _set(part.value, x, result)
    if exact:
        out += [torch.empty_like(x, dtype=_INTEGERS[x.dtype]) for x in out]
        run.spacing, run.limit = exact[:2]
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
    exact: Exact | None = None,
    integers: Sequence[Tensor] = (),
) -> tuple[list[Tensor | None], float, int]:
    """The gradients of the first state's parts and of theta where they are needed, the relative drift, the checksum.

    The drift is how far the rebuilt first state is from ``start``, over its largest entry; an exact run goes back from
    ``integers`` and has a checksum instead, the sum of the integers that it arrived at.
    """
    final, costate = [rows(x) for x in final], [rows(g) for g in costate]
    theta, start = [w.contiguous() for w in theta], [rows(x) for x in start]
    gradients = [
        torch.empty_like(x, memory_format=torch.contiguous_format) if wanted else None
        for x, wanted in zip((*final, *theta), needed, strict=True)
    ]
    run = _run(plan, h, layers, final, theta, gradients[2:])
    for k, part in enumerate(run.parts):
        _set(part.value, final[k])
        _set(part.costate, costate[k], gradients[k])
        if start:
            _set(part.start, start[k])
        if exact:
            _set(part.grid, integers[k])
    if exact:
        run.spacing, run.limit = exact[:2]
    library().lv_shear_backward(ctypes.byref(run))
    return gradients, run.error / max(run.size, torch.finfo(final[0].dtype).tiny), run.checksum


def _run(
    plan: ShearPlan,
    h: float,
    layers: int,
    state: Sequence[Tensor],
    theta: Sequence[Tensor],
    gradients: Sequence[Tensor | None] = (),
) -> ShearRun:
    shapes = tuple([w.shape for w in theta])
    made = _template(plan, h, layers, torch.get_num_threads(), state[0].dtype, state[0].shape, state[1].shape, shapes)
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
    dtype: torch.dtype,
    p: torch.Size,
    q: torch.Size,
    theta: tuple[torch.Size, ...],
) -> ShearRun:
    """A run without its pointers: what does not change from one training step to the next is laid out once."""
    stages = (Stage * len(plan.stages))(*(Stage(moved, c * h) for moved, c in plan.stages))
    run = ShearRun(
        type=TYPES[dtype],
        activation=plan.activation,
        threads=threads,
        batch=p[0],
        layers=layers,
        stages=len(stages),
        stage=stages,
    )
    run.parts[0].width, run.parts[1].width = p[1], q[1]
    for k, (kind, K, b) in enumerate(plan.velocities):
        run.velocities[k] = _velocity(kind, theta[K], theta[b])
    return run


def velocity(kind: int, K: Tensor, b: Tensor | None) -> Velocity:
    """``lv_velocity`` of one stack of weights."""
    made = _velocity(kind, K.shape, None if b is None else b.shape)
    made.K, made.b = K.data_ptr(), pointer(b)
    return made


def _velocity(kind: int, K: torch.Size, b: torch.Size | None) -> Velocity:
    layers, m, n = K
    return Velocity(
        kind=kind,
        rows=m,
        columns=n,
        K_stride=m * n if layers > 1 else 0,
        b_stride=0 if b is None or b[0] == 1 else n if kind == TRANSPOSED else m,
    )


def _set(to: Array, x: Tensor, out: Tensor | None = None) -> None:
    to.source, to.stride, to.out = x.data_ptr(), x.stride(0), pointer(out)


def array(x: Tensor, out: Tensor | None = None) -> Array:
    """``lv_array`` of a state that comes from x and goes to ``out``."""
    return Array(x.data_ptr(), x.stride(0), pointer(out))


def pointer(x: Tensor | None) -> int | None:
    """The address of x, null where there is none."""
    return None if x is None else x.data_ptr()


def rows(x: Tensor) -> Tensor:
    """x with dense rows, which may lie apart: a half of a state is used where it is."""
    return x if x.stride(1) == 1 or x.shape[1] == 1 else x.contiguous()
