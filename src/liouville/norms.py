r"""||K||_2 of a stack of matrices: by an SVD, and on CUDA, where that makes the host wait, by squaring.

    ||K||_2 = lim ||G^m||_F^(1/2m),        G = K^T K, or K K^T where that is smaller

With m = 2^k squarings in float64 the number is too large by a factor of at most n^(1/4m), below the rounding of K's own
dtype. P = G^m / tr(G^m) projects onto the first singular vectors, and K P / ||K|| is the gradient.
"""

from __future__ import annotations

__all__ = ["spectral_norm"]

import math

import torch
from torch import Tensor
from torch.autograd import forward_ad

from liouville.precision import in_working_precision

_AT_ONCE = 4  # squarings between two normalisations: of norm 1 before, at least n^-7.5 after
_TINY = torch.finfo(torch.float64).tiny


def spectral_norm(matrices: Tensor) -> Tensor:
    """||K||_2 of each matrix of a stack, in float32 for 16 bits; infinite where an entry is not finite."""
    matrices = in_working_precision(matrices)
    finite = matrices.isfinite().flatten(-2).all(-1)
    clean = torch.where(matrices.isfinite(), matrices, 0.0)
    norms = _Squared.apply(clean) if clean.is_cuda and _is_plain() else torch.linalg.matrix_norm(clean, ord=2)
    return torch.where(finite, norms, torch.inf)


def _is_plain() -> bool:
    """Whether neither a torch.func transform nor forward mode is at work."""
    return not torch._C._are_functorch_transforms_active() and forward_ad._current_level < 0


class _Squared(torch.autograd.Function):
    """The norm of each matrix, from above; a second derivative goes through the SVD."""

    @staticmethod
    def forward(ctx, K: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        scale = K.double().abs().amax((-2, -1), keepdim=True).clamp(min=_TINY)
        wide = K.double() / scale
        G, power = _gram(wide), 1.0
        log = torch.zeros_like(scale)
        for k in range(4 - round(math.log2(torch.finfo(K.dtype).eps))):
            if k % _AT_ONCE == 0:
                G, log = _normalised(G, log, power)
            G, power = G @ G, 2 * power
        P, log = _normalised(G, log, power)
        norm = torch.where(wide.abs().amax((-2, -1), keepdim=True) > 0, scale * (0.5 * log).exp(), 0.0)
        P = P / P.diagonal(dim1=-2, dim2=-1).sum(-1).clamp(min=_TINY)[..., None, None]
        ctx.save_for_backward(K, P, norm)
        return norm[..., 0, 0].to(K.dtype)

    @staticmethod
    def backward(ctx, g: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        K, P, norm = ctx.saved_tensors
        if torch.is_grad_enabled():
            (slope,) = torch.autograd.grad(torch.linalg.matrix_norm(K, ord=2), K, g, create_graph=True)
            return slope
        wide = K.double()
        slope = wide @ P if K.shape[-1] <= K.shape[-2] else P @ wide
        return (g.double()[..., None, None] / norm.clamp(min=_TINY) * slope).to(K.dtype)


def _gram(K: Tensor) -> Tensor:
    return K.mT @ K if K.shape[-1] <= K.shape[-2] else K @ K.mT


def _normalised(G: Tensor, log: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """G / ||G||_F, and the logarithm of what was divided by, per first power of G."""
    size = torch.linalg.matrix_norm(G, keepdim=True).clamp(min=_TINY)
    return G / size, log + size.log() / power
