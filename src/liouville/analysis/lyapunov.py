r"""Lyapunov spectrum of a flow at finite depth: the growth rate of each of n directions, by QR over the layers.

    lambda_k = log(s_k) / T,        s_1 >= ... >= s_n the singular values of A = dState_N/dState_0 = A_{N-1} ... A_0

For T -> infinity along one trajectory these are its Lyapunov exponents (Oseledets 1968); at finite T they are the
finite-time exponents, which do not depend on a basis. Their sum is log |det A| / T, the largest is log ||A|| / T, and
for a symplectic A with respect to J = [0, -I; I, 0] they pair as +-lambda.

The product loses everything below eps times its largest singular value, so it is never formed: layer by layer

    A_j ... A_0 = Q D U,        A_{j+1} Q P = Q' R,        D' = diag(R) P^T D P,        U' = (D')^-1 R (P^T D P) P^T U,

with Q orthogonal, D positive, diagonal and kept as logarithms, P the order of the columns by size, and U well
conditioned. At the end one-sided Jacobi rotations of the rows of D U give its singular values, each with a small
relative error.

References: Benettin, Galgani, Giorgilli & Strelcyn 1980, Meccanica 15, 9-30 (QR over time); Eckmann & Ruelle 1985, Rev.
Mod. Phys. 57, 617-656 (finite time; Oseledets' theorem); Bai, Lee, Li & Xu 2011, Linear Algebra Appl. 435, 659-673 (the
graded product); Demmel & Veselic 1992, SIAM J. Matrix Anal. Appl. 13, 1204-1245 (Jacobi's relative accuracy).
"""

from __future__ import annotations

__all__ = ["lyapunov_spectrum"]

import torch
from torch import Tensor

from liouville.analysis.jacobians import MEMORY, layer_jacobians
from liouville.analysis.precise import precisely
from liouville.flow import Flow, require_flow

_SWEEPS = 30  # maximum number of Jacobi sweeps; the last ones converge quadratically


@precisely
@torch.no_grad()
def lyapunov_spectrum(
    layers: Flow | Tensor, y: Tensor | None = None, *, T: float | None = None, memory: int = MEMORY
) -> Tensor:
    r"""Finite-time Lyapunov exponents of each sample, per unit of time, the largest first: (*batch, n).

    exp(lambda_k T) is the k-th singular value of dState_N/dState_0. Its relative error is eps times N times the
    condition of single layers; `singular_spectra` of the product has an error of eps times the largest value. This
    holds while directions keep their order: a growth by 1/eps over another direction that is undone later is lost to
    rounding. Computed in float64 from layers in the dtype of y.

    Args:
        layers: a `Flow`, or the matrices (N, ..., n, n) from `layer_jacobians`.
        y: the input of a flow; None with matrices.
        T: the total time of the layers; by default the T of a flow, and N for matrices (exponents per layer).
        memory: maximum number of bytes of a flow's matrices.

    Returns:
        (..., n), largest first; -inf for a direction that a layer maps to 0, NaN for a sample with entries that are not
        finite.

    Raises:
        ValueError: if a flow has no input, matrices have one or are not square, or T is not positive.

    Examples:
        >>> import liouville as lv
        >>> flow = lv.zoo.h2(4, layers=64, T=6.4)
        >>> exponents = lyapunov_spectrum(flow, torch.randn(10, 4))
        >>> bool((exponents.sum(-1).abs() < 1e-5).all())  # volume is kept
        True
        >>> lyapunov_spectrum(torch.diag(torch.tensor([1e-12, 1e12])).expand(3, 2, 2)).exp().log10().round()
        tensor([ 12., -12.])
    """
    if isinstance(layers, Tensor) and y is None:
        A, time = _square(layers), float(len(layers)) if T is None else T
    elif not isinstance(layers, Tensor) and y is not None:
        A, time = layer_jacobians(require_flow(layers), y, memory=memory), layers.T if T is None else T
    else:
        raise ValueError("lyapunov_spectrum takes a flow and its input, or only matrices of layers.")
    if not time > 0:
        raise ValueError(f"T, the total time of all layers, must be positive, got {time}.")
    A64 = A.double()
    sound = A64.isfinite().all(-1).all(-1).all(0)
    logs, U = _graded(
        torch.where(sound[..., None, None], A64, torch.eye(A.shape[-1], dtype=A64.dtype, device=A.device))
    )
    spectrum = _log_singular_values(logs, U).sort(-1, descending=True).values / time
    return torch.where(sound[..., None], spectrum, torch.nan).to(A.dtype)


def _square(A: Tensor) -> Tensor:
    if A.dim() < 3 or A.shape[-1] != A.shape[-2] or not len(A):
        raise ValueError(
            f"expected the matrices (N, ..., n, n) of N layers, got the shape {tuple(A.shape)}; for a flow use "
            "layer_jacobians."
        )
    return A


def _graded(A: Tensor) -> tuple[Tensor, Tensor]:
    """d (..., n) and U (..., n, n) of A_{N-1} ... A_0 = Q_N diag(exp(d)) U, Q_N orthogonal and U well conditioned."""
    n = A.shape[-1]
    Q = U = torch.eye(n, dtype=A.dtype, device=A.device).expand_as(A[0])
    logs = torch.zeros_like(A[0, ..., 0])
    for A_j in A:
        C = A_j @ Q
        order = (logs + C.norm(dim=-2).log()).argsort(-1, descending=True)  # graded: the fastest growth comes first
        logs = logs.gather(-1, order)
        U = U.gather(-2, order[..., None].expand(U.shape))
        Q, R = torch.linalg.qr(C.gather(-1, order[..., None, :].expand(C.shape)))
        sign = torch.where(R.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0)
        Q, R = Q * sign[..., None, :], R * sign[..., None]
        diagonal = R.diagonal(dim1=-2, dim2=-1)
        live = (diagonal > 0) & logs.isfinite()
        own, size = torch.where(live, logs, 0.0), torch.where(live, diagonal, 1.0)
        # R D U = D' U' with D' = diag(R) D: row i of U' is the sum of R_il / R_ii exp(d_l - d_i) U_l over l >= i
        gaps = (logs[..., None, :] - own[..., None]).triu(1).exp()
        steps = (R / size[..., None] * gaps).triu(1)
        U = U + torch.where(live[..., None], steps, 0.0) @ U
        logs = torch.where(live, own + size.log(), -torch.inf)
    return logs, U


def _log_singular_values(logs: Tensor, U: Tensor) -> Tensor:
    """log of the singular values of diag(exp(logs)) U, by one-sided Jacobi rotations of its rows.

    Every row is stored as a unit vector and the logarithm of its length, so sizes of rows may differ by any factor.
    """
    dead = logs == -torch.inf
    n, eps = U.shape[-1], torch.finfo(U.dtype).eps
    X, logs = _normalised(U, torch.where(dead, -1e300, logs))
    for _ in range(_SWEEPS):
        worst = X.new_zeros(())
        for one, other in _rounds(n):
            X, logs, cosine = _rotated(X, logs, one, other)
            worst = torch.maximum(worst, cosine)
        if worst <= n * eps:
            break
    return torch.where(logs > -1e299, logs, -torch.inf)


def _normalised(X: Tensor, logs: Tensor) -> tuple[Tensor, Tensor]:
    size = X.norm(dim=-1)
    return X / size[..., None], logs + size.log()


def _rotated(X: Tensor, logs: Tensor, one: list[int], other: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Rows e^l x and e^m y of each pair rotated to be orthogonal, and the largest cosine before.

    With r = e^(m - l), at most about 1 as rows are sorted by size, and c = <x, y>, the rotation by the angle of tangent
    r u makes them e^l (x - r^2 u y) and e^m (y + u x), each times its cosine, for u = sign(w)/(|w| + (w^2 +
    r^2)^(1/2)), w = (r^2 - 1)/(2 c).
    """
    x, y = X[..., one, :], X[..., other, :]
    r2 = (2 * (logs[..., other] - logs[..., one])).exp()
    c = (x * y).sum(-1)
    w = (r2 - 1) / torch.where(c != 0, 2 * c, 1.0)
    u = torch.where(c != 0, torch.where(w >= 0, 1.0, -1.0) / (w.abs() + (w.square() + r2).sqrt()), 0.0)
    cosine = torch.rsqrt(1 + r2 * u.square())
    for rows, turned in ((one, x - (r2 * u)[..., None] * y), (other, y + u[..., None] * x)):
        unit, grown = _normalised(cosine[..., None] * turned, logs[..., rows])
        X, logs = X.clone(), logs.clone()
        X[..., rows, :], logs[..., rows] = unit, grown
    return X, logs, c.abs().amax()


def _rounds(n: int) -> list[tuple[list[int], list[int]]]:
    """All pairs of n rows in rounds of disjoint pairs, as in a round-robin tournament."""
    players = [*range(n), *([-1] if n % 2 else [])]
    rounds = []
    for _ in range(len(players) - 1):
        half = len(players) // 2
        pairs = [(min(a, b), max(a, b)) for a, b in zip(players[:half], reversed(players[half:]), strict=True)]
        pairs = [pair for pair in pairs if pair[0] >= 0]
        if pairs:
            rounds.append(([a for a, _ in pairs], [b for _, b in pairs]))
        players = [players[0], players[-1], *players[1:-1]]
    return rounds
