r"""Measures of sensitivity matrices: norms, singular values, determinants, growth, and alignment with a gradient.

Every function takes matrices (..., m, n) of single samples, as from `backward_sensitivity` and `layer_jacobians`, and
treats each separately. A norm of at least 1 does not mean that no direction shrinks: the singular values of a
symplectic matrix pair as (s, 1/s), so look at the whole spectrum.
"""

from __future__ import annotations

__all__ = ["Norms", "gradient_alignment", "growth_exponents", "log_determinants", "norms", "singular_spectra"]

from typing import Any, NamedTuple

import torch
from torch import Tensor

from liouville.analysis.chain import Chain
from liouville.analysis.jacobians import layer_jacobians
from liouville.analysis.overtime import sequence_sensitivity
from liouville.analysis.precise import precisely
from liouville.analysis.sensitivity import OverTime, backward_sensitivity, products
from liouville.analysis.states import run_of
from liouville.flow import Flow, require_flow


class Norms(NamedTuple):
    """Four norms of every matrix: the largest column sum, spectral, the largest row sum, Frobenius."""

    one: Tensor
    two: Tensor
    inf: Tensor
    frobenius: Tensor


@precisely
@torch.no_grad()
def norms(matrices: Tensor) -> Norms:
    """||A||_1, ||A||_2, ||A||_inf and ||A||_F of (..., m, n).

    Examples:
        >>> [round(float(x), 3) for x in norms(torch.tensor([[3.0, 0.0], [4.0, 0.0]]))]
        [7.0, 5.0, 4.0, 5.0]
    """
    size = require_matrices(matrices).abs()
    return Norms(
        size.sum(-2).amax(-1),
        _spectra(matrices)[..., 0],
        size.sum(-1).amax(-1),
        matrices.square().sum((-2, -1)).sqrt(),
    )


@precisely
@torch.no_grad()
def singular_spectra(matrices: Tensor | Flow | OverTime | Chain, y: Any = None) -> Any:
    r"""The singular values of every matrix, the largest first, (..., min(m, n)); NaN where an entry is not finite.

    Of a flow, and of a recurrent layer over time, those of dState_N/dState_j for j = 0 ... N, as
    ``singular_spectra(backward_sensitivity(flow, y))`` has them. Only a few of the matrices are kept at a time, so that
    memory grows with what is returned, n numbers for each step.

    Their error is eps times the largest: below that, small singular values are only rounding. Those of a symplectic
    scheme pair as (s, 1/s).

    Args:
        matrices: (..., m, n); or a `Flow`, a recurrent layer, a cell, a `SequenceNetwork` (its recurrent layer) or a
            chain of modules.
        y: the input of the latter, as for `backward_sensitivity`.

    Returns:
        For a flow (N + 1, *batch, n). For a recurrent layer (T + 1, B, n), one such tensor for each of several cells.
        For a chain a list.

    Raises:
        TypeError: if what is not matrices has no input.
        ValueError: as for `backward_sensitivity`; if matrices have an input.

    Examples:
        >>> singular_spectra(torch.diag(torch.tensor([0.5, 2.0])))
        tensor([2.0000, 0.5000])
        >>> import liouville as lv
        >>> rnn = lv.recurrent.HamiltonianRNN(3, 8, batch_first=True, length=50)
        >>> singular_spectra(rnn, torch.randn(2, 50, 3)).shape
        torch.Size([51, 2, 8])
    """
    if y is None:
        return _spectra(require_matrices(matrices))
    if isinstance(matrices, Tensor):
        raise ValueError("singular_spectra takes a flow or a layer and its input, or only matrices.")
    if isinstance(matrices, OverTime):
        return sequence_sensitivity(matrices, y, _along_depth)
    if isinstance(matrices, Flow):
        return _along_depth(matrices, y)
    return [_spectra(each) for each in backward_sensitivity(matrices, y)]


def _spectra(matrices: Tensor) -> Tensor:
    finite = require_matrices(matrices).isfinite().all(-1).all(-1)
    values = torch.linalg.svdvals(torch.where(finite[..., None, None], matrices, 0.0))
    return torch.where(finite[..., None], values, torch.nan)


def _along_depth(flow: Flow, y: Tensor) -> Tensor:
    """Of dState_N/dState_j, a chunk of them at a time."""
    run = run_of(flow, y)
    out = run.parts[0].new_empty(flow.layers + 1, run.parts[0].shape[1], run.size)
    for first, some in products(flow, run):
        out[first : first + len(some)] = _spectra(some)
    return out.view(flow.layers + 1, *run.batch, run.size)


@precisely
@torch.no_grad()
def log_determinants(layers: Flow | Tensor, y: Tensor | None = None) -> Tensor:
    r"""log |det dState_N/dState_j| for j = 0 ... N, (N + 1, ...): for a flow at y, or from the matrices of its layers.

    It is the sum over the layers: the determinant of the product is only rounding once eps ||A||^2 nears 1.

    Args:
        layers: a `Flow`, or the matrices (N, ..., n, n) from `layer_jacobians`.
        y: the input of a flow; None with matrices.

    Raises:
        ValueError: if a flow has no input, or matrices have one.

    Examples:
        >>> log_determinants(torch.stack([2 * torch.eye(2), torch.eye(2)]))
        tensor([1.3863, 0.0000, 0.0000])
    """
    if isinstance(layers, Tensor) and y is None:
        A = layers
    elif not isinstance(layers, Tensor) and y is not None:
        A = layer_jacobians(require_flow(layers), y)
    else:
        raise ValueError("log_determinants takes a flow and its input, or only matrices of layers.")
    each = torch.linalg.slogdet(A).logabsdet
    return torch.cat((each.flip(0).cumsum(0).flip(0), torch.zeros_like(each[:1])))


@precisely
@torch.no_grad()
def growth_exponents(sensitivities: Tensor, h: float) -> Tensor:
    r"""Finite-time Lyapunov exponents log(s_k) / (T - t_j) of dState_N/dState_j, j < N: (N, ..., n), largest first.

    Growth per unit of time: exp(exponent) is the factor by which a direction grows while the flow runs for time 1.

    Args:
        sensitivities: (N + 1, ..., n, n), from `backward_sensitivity`.
        h: the flow's step.

    Examples:
        >>> import math
        >>> exponents = growth_exponents(torch.stack([math.e * torch.eye(2), torch.eye(2)]), h=0.5)
        >>> [round(float(x), 4) for x in exponents[0]]
        [2.0, 2.0]
    """
    N = len(require_matrices(sensitivities)) - 1
    times = h * torch.arange(N, 0, -1, dtype=sensitivities.dtype, device=sensitivities.device)
    spectra = _spectra(sensitivities[:-1])
    return spectra.log() / times.reshape(-1, *(1,) * (spectra.dim() - 1))


@precisely
@torch.no_grad()
def gradient_alignment(sensitivities: Tensor, gradient: Tensor) -> Tensor:
    r"""|cos| of the angle between dL/dState_N and the direction that grows most in the backward pass, (..., ).

    That direction is the first left singular vector u of A = dState_N/dState_j, for which ||A^T u|| = s_max. At 1 the
    loss gradient grows by the whole s_max between layer N and layer j; at 0 it has no part in that growth.

    Args:
        sensitivities: (..., m, n).
        gradient: dL/dState_N, (..., m), one per sample; it broadcasts over j.

    Examples:
        >>> A = torch.diag(torch.tensor([0.5, 2.0]))
        >>> gradient_alignment(A, torch.tensor([0.0, 3.0]))
        tensor(1.)
    """
    sensitivities = require_matrices(sensitivities)
    finite = sensitivities.isfinite().all(-1).all(-1)
    u = torch.linalg.svd(torch.where(finite[..., None, None], sensitivities, 0.0), full_matrices=False).U[..., 0]
    u = torch.where(finite[..., None], u, torch.nan)
    length = gradient.norm(dim=-1).clamp(min=torch.finfo(gradient.dtype).tiny)
    return (u * gradient).sum(-1).abs() / length


def require_matrices(value: Any) -> Tensor:
    """``value``, after a check that it is a stack of matrices.

    Raises:
        TypeError: for anything else.
    """
    if not isinstance(value, Tensor) or value.dim() < 2:
        what = f"the shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(
            f"expected matrices (..., m, n), got {what}; backward_sensitivity and layer_jacobians return them for a "
            "flow and its input, and for a chain a list of them, to be used one by one."
        )
    return value
