"""How fast is the loop that a careful PyTorch user would write by hand? FROZEN: every ratio in this project is over it.

The separable Hamiltonian network (H2) with X = I and symplectic Euler, straight from the formula, with the weights of
all layers stacked and taken apart once by ``unbind``. It knows nothing of liouville. Do not tune or refactor it: a
faster or slower reference would change every published ratio.
"""

from __future__ import annotations

import torch
from torch import Tensor


def forward(y: Tensor, K_p: Tensor, K_q: Tensor, b_p: Tensor, b_q: Tensor, h: float) -> Tensor:
    """y_0 -> y_N; y (batch, n), K (N, n/2, n/2), b (N, n/2)."""
    p, q = y.chunk(2, dim=-1)
    for Kp, Kq, bp, bq in zip(K_p.unbind(0), K_q.unbind(0), b_p.unbind(0), b_q.unbind(0), strict=True):
        p = p - h * (torch.tanh(q @ Kq.T + bq) @ Kq)
        q = q + h * (torch.tanh(p @ Kp.T + bp) @ Kp)
    return torch.cat((p, q), dim=-1)
