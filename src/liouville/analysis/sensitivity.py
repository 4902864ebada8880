r"""Backward sensitivities: how the last state moves with every state before it, per sample.

    dState_N / dState_j = A_{N-1} ... A_{j+1} A_j,        A_l = d State_{l+1} / d State_l

One sweep from the end gives all j: each product is the last one times one more layer. The gradient that reaches layer
j is (dState_N/dState_j)^T dL/dState_N, so these matrices say whether it vanishes or explodes, whatever the loss. They
belong to one sample each; the mean over a batch has no such meaning, and no bound holds for it.
"""

from __future__ import annotations

__all__ = ["backward_sensitivity"]

from typing import overload

import torch
from torch import Tensor

from liouville.analysis.chain import Chain, chain_sensitivity
from liouville.analysis.jacobians import MEMORY, fill_layer_jacobians, state_parts
from liouville.analysis.rows import allocate
from liouville.flow import Flow


@overload
def backward_sensitivity(flow: Flow, y: Tensor, *, memory: int = MEMORY) -> Tensor: ...


@overload
def backward_sensitivity(flow: Chain, y: Tensor, *, memory: int = MEMORY) -> list[Tensor]: ...


@torch.no_grad()
def backward_sensitivity(flow: Flow | Chain, y: Tensor, *, memory: int = MEMORY) -> Tensor | list[Tensor]:
    r"""dState_N / dState_j for j = 0 ... N, exact to rounding, in the dtype of y.

    Reference: Galimberti et al. 2023 (2105.13205), the backward sensitivity matrix, there transposed.

    Args:
        flow: a `Flow`, or any chain of modules: an ``nn.Sequential`` or a sequence of modules, axis 0 the batch.
        y: the input, (*batch, features) or (B, C, H, W); the chain's own otherwise.
        memory: most bytes that the result may take.

    Returns:
        (N + 1, *batch, n, n) for a flow, entry [j] = dState_N/dState_j in numerator layout, [N] the identity; n is the
        size of one sample's full state: p and q together, the pair (y_{j-1}, y_j) for the two-step scheme, images
        flattened. For a chain the list of N + 1 matrices (B, n_N, n_j), as the width may change.

    Raises:
        ValueError: if the result would not fit into ``memory``, or a layer is random, couples the samples of a batch
            or has no derivative.

    Example:
        >>> import liouville as lv
        >>> matrices = backward_sensitivity(lv.zoo.h2(4, layers=64, T=6.4), torch.randn(10, 4))
        >>> matrices.shape
        torch.Size([65, 10, 4, 4])
        >>> bool((torch.linalg.matrix_norm(matrices, ord=2) > 0.999).all())
        True
    """
    if not isinstance(flow, Flow):
        return chain_sensitivity(flow, y, memory)
    parts, batch = state_parts(flow, y)
    n = sum(x[0, 0].numel() for x in parts)
    out = allocate((flow.layers + 1, *batch, n, n), y, memory)
    matrices = out.view(flow.layers + 1, -1, n, n)
    fill_layer_jacobians(flow, parts, matrices[:-1])
    matrices[-1] = torch.eye(n, dtype=y.dtype, device=y.device)
    for j in reversed(range(flow.layers)):
        matrices[j] = matrices[j + 1] @ matrices[j]
    return out
