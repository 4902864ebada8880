"""The papers' two Hamiltonian networks written by hand, in two ways, for comparison with our engines.

    h1: y <- y + h J K_j^T tanh(K_j y + b_j)
    h2: p <- p - h K_q,j^T tanh(K_q,j q + b_q,j),   q <- q + h K_p,j^T tanh(K_p,j p + b_p,j)

`loop` unbinds the stacked weights once, as a careful user of torch would. `sliced` stores them as in the papers,
n x n x N, and reads layer j as K[:, :, j], whose gradient is an array of the whole size at every layer.
"""

from __future__ import annotations

__all__ = ["last_axis", "loop", "sliced"]

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

Layer = tuple[Tensor, ...]


def loop(model: str, y: Tensor, theta: Sequence[Tensor], h: float) -> Tensor:
    """y_0 -> y_N, weights (N, ...) in the order of ``flow.field.theta()``.

    Examples:
        >>> import liouville as lv
        >>> flow, y = lv.zoo.h2(4, layers=8, T=1.0), torch.randn(5, 4)
        >>> torch.allclose(loop("h2", y, flow.field.theta(), flow.h), flow(y), atol=1e-5)
        True
    """
    return _STEPS[model](y, zip(*(w.unbind(0) for w in theta), strict=True), h)


def sliced(model: str, y: Tensor, theta: Sequence[Tensor], h: float) -> Tensor:
    """The same with weights (..., N), see `last_axis`."""
    return _STEPS[model](y, (tuple(w[..., j] for w in theta) for j in range(theta[0].shape[-1])), h)


def last_axis(theta: Sequence[Tensor]) -> list[Tensor]:
    """Weights (N, ...) as new leaves (..., N), layers last in memory too."""
    return [w.detach().movedim(0, -1).contiguous().requires_grad_() for w in theta]


def _h1(y: Tensor, layers: Iterable[Layer], h: float) -> Tensor:
    half = y.shape[-1] // 2
    J = y.new_zeros(2 * half, 2 * half)
    J[:half, half:], J[half:, :half] = -torch.eye(half).to(y), torch.eye(half).to(y)
    for K, b in layers:
        y = y + h * (torch.tanh(y @ K.T + b) @ K @ J.T)
    return y


def _h2(y: Tensor, layers: Iterable[Layer], h: float) -> Tensor:
    p, q = y.chunk(2, dim=-1)
    for K_p, K_q, b_p, b_q in layers:
        p = p - h * (torch.tanh(q @ K_q.T + b_q) @ K_q)
        q = q + h * (torch.tanh(p @ K_p.T + b_p) @ K_p)
    return torch.cat((p, q), dim=-1)


_STEPS: dict[str, Callable[[Tensor, Iterable[Layer], float], Tensor]] = {"h1": _h1, "h2": _h2}
