r"""Backward sensitivities: the derivative of the last state by every state before it, per sample.

    dState_N / dState_j = A_{N-1} ... A_{j+1} A_j,        A_l = d State_{l+1} / d State_l

One sweep from the end gives all j: each product is the last one times one more layer. The gradient that reaches layer
j is (dState_N/dState_j)^T dL/dState_N, so these matrices show whether it vanishes or explodes, whatever the loss. Each
matrix belongs to one sample; the mean over a batch has no such meaning, and no bound holds for it.
"""

from __future__ import annotations

__all__ = ["backward_sensitivity", "costates", "gradient_norms", "lengths"]

from collections.abc import Iterator
from typing import Any, overload

import torch
from torch import Tensor

from liouville.analysis.chain import Chain, chain_sensitivity
from liouville.analysis.jacobians import MEMORY, at_once, fill_layer_jacobians, some_jacobians
from liouville.analysis.overtime import sequence_sensitivity
from liouville.analysis.precise import precisely
from liouville.analysis.rows import allocate
from liouville.analysis.states import Run, run_of
from liouville.backprop import slices
from liouville.flow import Flow, require_flow
from liouville.recurrent import Cell, Recurrent, SequenceNetwork
from liouville.schemes import State
from liouville.sequences import Inputs

OverTime = Recurrent | Cell | SequenceNetwork


@overload
def backward_sensitivity(flow: Flow, y: Tensor, *, memory: int = MEMORY) -> Tensor: ...


@overload
def backward_sensitivity(flow: OverTime, y: Inputs, *, memory: int = MEMORY) -> Tensor | list[Tensor]: ...


@overload
def backward_sensitivity(flow: Chain, y: Tensor, *, memory: int = MEMORY) -> list[Tensor]: ...


@precisely
@torch.no_grad()
def backward_sensitivity(flow: Flow | OverTime | Chain, y: Any, *, memory: int = MEMORY) -> Tensor | list[Tensor]:
    r"""dState_N / dState_j for j = 0 ... N, exact to rounding, in the dtype of y.

    Reference: Galimberti et al. 2023 (2105.13205), the backward sensitivity matrix, there transposed.

    Args:
        flow: a `Flow`; a recurrent layer or cell, whose layers are the steps, or a `SequenceNetwork`, of which the
            matrices are its recurrent layer's, without the head; or any chain of modules: an ``nn.Sequential`` or a
            sequence of modules, axis 0 the batch.
        y: the input, (*batch, features), (B, C, H, W) or (B, tokens, features): the field's `sample_ndim` defines one
            sample; sequences, run from the state 0; for a chain, the shape that its modules take.
        memory: maximum number of bytes of the result.

    Returns:
        (N + 1, *batch, n, n) for a flow, entry [j] = dState_N/dState_j in numerator layout, [N] the identity; n is the
        size of one sample's full state: p and q together, the pair (y_{j-1}, y_j) for the two-step scheme, images
        and sequences flattened like y. For a recurrent layer (T + 1, B, n, n), one such tensor for each of several
        cells, each with the inputs that it takes held fixed. For a chain the list of N + 1 matrices (B, n_N, n_j), as
        the width may change.

    Raises:
        ValueError: if the result would not fit into ``memory``, or a layer is random, couples the samples of a batch
            or has no derivative.

    Examples:
        >>> import liouville as lv
        >>> matrices = backward_sensitivity(lv.zoo.h2(4, layers=64, T=6.4), torch.randn(10, 4))
        >>> matrices.shape
        torch.Size([65, 10, 4, 4])
        >>> bool((torch.linalg.matrix_norm(matrices, ord=2) > 0.999).all())
        True
    """
    if isinstance(flow, OverTime):
        return sequence_sensitivity(flow, y, lambda one, state: backward_sensitivity(one, state, memory=memory))
    if not isinstance(flow, Flow):
        return chain_sensitivity(flow, y, memory)
    run = run_of(flow, y)
    n = run.size
    out = allocate((flow.layers + 1, *run.batch, n, n), y, memory)
    matrices = out.view(flow.layers + 1, -1, n, n)
    fill_layer_jacobians(flow, run, matrices[:-1])
    multiply(matrices)
    return out


def products(flow: Flow, run: Run) -> Iterator[tuple[int, Tensor]]:
    """dState_N/dState_j of some consecutive j from the first one, which is given with them, in chunks from the end."""
    n = run.size
    product = torch.eye(n, dtype=run.parts[0].dtype, device=run.parts[0].device).expand(run.parts[0].shape[1], n, n)
    yield flow.layers, product[None]
    step = at_once(run)
    for last in range(flow.layers, 0, -step):
        first = max(0, last - step)
        some = some_jacobians(flow, run, first, last)
        for j in reversed(range(len(some))):
            some[j] = product = product @ some[j]
        yield first, some


def multiply(matrices: Tensor) -> None:
    """A_0, ..., A_{N-1} and an unused entry, (N + 1, B, n, n), become A_{N-1} ... A_j and the identity, in place."""
    matrices[-1] = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    for j in reversed(range(len(matrices) - 1)):
        matrices[j] = matrices[j + 1] @ matrices[j]


@precisely
def gradient_norms(flow: Flow, y: Tensor, gradient: Tensor) -> Tensor:
    r"""||dL/dState_j|| of every sample for j = 0 ... N, (N + 1, *batch), by one backward pass through the plain loop.

    Args:
        flow: the flow; its engine is not used, so that it works where the engine hides the layers.
        y: the input.
        gradient: dL/dy_N, shaped like the output.

    Raises:
        ValueError: if the axes of one sample are not stated, see `liouville.fields.VectorField.sample_ndim`.

    Examples:
        >>> import liouville as lv
        >>> flow, y = lv.zoo.h2(4, layers=64, T=6.4), torch.randn(10, 4)
        >>> gradient_norms(flow, y, torch.ones(10, 4)).shape
        torch.Size([65, 10])
    """
    own = y.dim() - len(require_flow(flow).field.batch_shape(y))
    return lengths(costates(flow, y, gradient), own)


def lengths(states: list[State], axes: int) -> Tensor:
    """The norm of each state over its last ``axes`` axes, all parts together: (N + 1, *the other axes)."""
    over = tuple(range(-axes, 0))
    return torch.stack([torch.stack([x.square().sum(over) for x in state]).sum(0) for state in states]).sqrt()


def costates(flow: Flow, y: Tensor, gradient: Tensor) -> list[State]:
    """dL/dState_j for j = 0 ... N, each shaped like the state, for any axes of a sample."""
    states = []
    with torch.enable_grad():
        theta = flow.field.theta()
        theta = type(theta)(*(w.detach() for w in theta))
        run, state = flow.start(y.detach(), theta)
        state = tuple(x.detach().requires_grad_() for x in state)
        for j, theta_j in enumerate(slices(theta, flow.layers)):
            states.append(state := tuple(x.view_as(x) for x in state))  # a part may be reused in the next state
            state = flow.scheme.step(run.at_layer(j), state, theta_j, flow.h)
        states.append(state := tuple(x.view_as(x) for x in state))
        out = flow.scheme.final(flow.field, state)
    parts = [x for state in states for x in state]
    gradients = torch.autograd.grad(out, parts, gradient, materialize_grads=True)
    return [gradients[k : k + len(state)] for k in range(0, len(gradients), len(state))]
