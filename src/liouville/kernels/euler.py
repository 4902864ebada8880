r"""Forward Euler in one native call: from tensors to ``lv_euler_run`` of ``native/problem.h`` and back.

A step of forward Euler has no inverse: every `SEGMENT`-th state is kept, and the backward pass recomputes the others.
"""

from __future__ import annotations

__all__ = ["SEGMENT", "backward", "forward", "states_kept"]

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from liouville.kernels.layout import array, pointer, rows
from liouville.kernels.library import EulerRun, library
from liouville.kernels.shears import TYPES, velocity
from liouville.kernels.table import PLAIN

SEGMENT = 16


def states_kept(layers: int) -> int:
    """How many states a run keeps besides the first: one after every SEGMENT layers, except the last."""
    return (layers - 1) // SEGMENT


def forward(
    activation: int, h: float, layers: int, y: Tensor, weights: Sequence[Tensor], keep: bool
) -> tuple[Tensor, Tensor]:
    """The last state, (batch, n), and the states kept, (states_kept, batch, n), or none.

    weights = (K, b) for y += h sigma(K y + b), (K, b, G) for y += h G^T sigma(K y + b).
    """
    y, weights = rows(y), [w.contiguous() for w in weights]
    out = torch.empty_like(y, memory_format=torch.contiguous_format)
    kept = y.new_empty(states_kept(layers) if keep else 0, *y.shape)
    run = _run(activation, h, layers, y, weights, kept if keep else None)
    run.value = array(y, out)
    library().lv_euler_forward(ctypes.byref(run))
    return out, kept


def backward(
    activation: int,
    h: float,
    layers: int,
    y: Tensor,
    kept: Tensor,
    costate: Tensor,
    weights: Sequence[Tensor],
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of the first state ``y`` and of the weights, where they are needed."""
    y, costate, weights = rows(y), rows(costate), [w.contiguous() for w in weights]
    gradients = [
        torch.empty_like(x, memory_format=torch.contiguous_format) if wanted else None
        for x, wanted in zip((y, *weights), needed, strict=True)
    ]
    run = _run(activation, h, layers, y, weights, kept)
    run.value, run.costate = array(y), array(costate, gradients[0])
    first, second = run.weights
    first.K_gradient, first.b_gradient = pointer(gradients[1]), pointer(gradients[2])
    if len(weights) > 2:
        second.K_gradient = pointer(gradients[3])
    library().lv_euler_backward(ctypes.byref(run))
    return gradients


def _run(activation: int, h: float, layers: int, y: Tensor, weights: Sequence[Tensor], kept: Tensor | None) -> EulerRun:
    run = EulerRun(
        type=TYPES[y.dtype],
        activation=activation,
        threads=torch.get_num_threads(),
        batch=len(y),
        layers=layers,
        width=y.shape[1],
        segment=SEGMENT,
        step=h,
        kept=pointer(kept),
    )
    run.weights[0] = velocity(PLAIN, weights[0], weights[1])
    if len(weights) > 2:
        run.weights[1] = velocity(PLAIN, weights[2], None)
    return run
