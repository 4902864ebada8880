"""The loop that a careful PyTorch user would write by hand, for images. FROZEN, like ``reference_loop.py``.

The separable Hamiltonian network (H2) with X = I and symplectic Euler, straight from the formula, with convolutions of
stride 1 and zero padding. It knows nothing of liouville.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d


def forward(y: Tensor, K_p: Tensor, K_q: Tensor, b_p: Tensor, b_q: Tensor, h: float) -> Tensor:
    """y_0 -> y_N; y (batch, n, height, width), K (N, n/2, n/2, k, k), b (N, n/2)."""
    p, q = y.chunk(2, dim=1)
    pad = K_p.shape[-1] // 2
    for Kp, Kq, bp, bq in zip(K_p.unbind(0), K_q.unbind(0), b_p.unbind(0), b_q.unbind(0), strict=True):
        p = p - h * conv_transpose2d(torch.tanh(conv2d(q, Kq, bq, padding=pad)), Kq, padding=pad)
        q = q + h * conv_transpose2d(torch.tanh(conv2d(p, Kp, bp, padding=pad)), Kp, padding=pad)
    return torch.cat((p, q), dim=1)
