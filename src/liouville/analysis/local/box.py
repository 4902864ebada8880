r"""The set centre + ball v + box w, |v|_2 <= 1, |w|_inf <= 1, of every sample: a zonotope beside a ball.

Columns are kept until there are too many; then those of the box are replaced by n columns along its principal axes
that enclose it. Roundings have columns of their own, replaced more often: they are small, and so is what that loses.
"""

from __future__ import annotations

__all__ = ["UNIT", "Box", "columns_of"]

from collections.abc import Sequence

import torch
from torch import Tensor

from liouville.analysis.local.secant import UNIT

_ROUNDINGS = 8  # n columns each, between two replacements


def columns_of(n: int, added: Sequence[int], most: int) -> int:
    """Columns that a box of n features has room for, where steps add so many each and it may have about ``most``."""
    return min(sum(added), max(most, n + max(added, default=0), 2 * n))


class Box:
    """Columns (n, columns, S): [centre | ball | roundings | box].

    Args:
        ball: its columns, (n, d, S).
        room: for how many columns of the box.
    """

    def __init__(self, ball: Tensor, room: int) -> None:
        n, d, samples = ball.shape
        self._ball = slice(1, 1 + d)
        self._first = 1 + d + (1 + _ROUNDINGS) * n  # of the box
        self.columns = ball.new_zeros(n, self._first + room, samples)
        self.columns[:, self._ball] = ball
        self._rounded, self._used = 1 + d, self._first
        self.extent = self._measured()

    def image(self, R: Tensor, of: slice) -> Tensor:
        """R times the columns, (m, used, S); the centre is the first."""
        part = self.columns[of, : self._used]
        return torch.mm(R, part.view(len(part), -1)).view(len(R), self._used, -1)

    def radius(self, T: Tensor) -> Tensor:
        """The largest deviation from the centre of rows T of an image: a 2-norm over the ball, sums over the rest."""
        over_box = T[:, self._ball.stop :].abs().sum(1)
        return over_box.add_(torch.linalg.vector_norm(T[:, self._ball], dim=1))

    def move(self, to: slice, B: Tensor, T: Tensor, half: Tensor) -> None:
        """columns[to] += B T, and columns B, as long as ``half``, (m, S)."""
        m = B.shape[1]
        part = self.columns[to, : T.shape[1]]
        part.view(len(part), -1).addmm_(B, T.view(len(T), -1))
        if self._used + m > self.columns.shape[1]:
            self._used = self._enclosed(self._first, self._used)
        torch.mul(B[:, :, None], half, out=self.columns[to, self._used : self._used + m])
        self._used += m

    def spread(self, to: slice, error: Tensor) -> None:
        """Entries of ``to`` may be off by ``error`` each."""
        count = len(error)
        if self._rounded + count > self._first:
            self._rounded = self._enclosed(self._ball.stop, self._first)
            self.extent = self._measured()
        block = self.columns[to, self._rounded : self._rounded + count]
        block.diagonal(dim1=0, dim2=1).copy_(error.mT)
        self._rounded += count
        self.extent[to] += error

    def _measured(self) -> Tensor:
        """A bound of |D|, and of the sum of the sizes of its terms."""
        columns = self.columns[:, : self._used]
        return self.radius(columns).add_(columns[:, 0].abs())

    def _enclosed(self, start: int, stop: int) -> int:
        r"""Replace columns start ... stop by n that enclose what they span; where the next one goes.

        G w = U (U^-1 G w) with U from the eigenvectors of G G^T, orthogonal up to E = |I - U U^T|: entries of U^-1 g
        are at most |U^T g| + |U^T| 1 * 2 ||E|| max |g|, the Neumann series of (U U^T)^-1. Columns that have overflowed
        stay without a bound: they enclose as well in any U.
        """
        G = self.columns[:, start:stop].permute(2, 0, 1).contiguous()
        n, count = G.shape[1:]
        square = G @ G.mT
        known = square.isfinite().all((1, 2), keepdim=True)  # any U will do where LAPACK would fail
        U = torch.linalg.eigh(torch.where(known, square, 0.0))[1]
        identity = torch.eye(n, dtype=U.dtype, device=U.device)
        room = (identity - U @ U.mT).abs().sum(-1).amax(-1) + 2 * (n + 2) * UNIT * n
        sizes = G.abs().sum(-1)
        lengths = (U.mT @ G).abs().sum(-1) * (1 + 2 * (n + count + 8) * UNIT)
        lengths = lengths + 2 * (n + 2) * UNIT * (U.mT.abs() @ sizes.unsqueeze(-1)).squeeze(-1)
        lengths = lengths + 2.02 * room[:, None] * sizes.amax(-1, keepdim=True) * U.abs().sum(-2)
        self.columns[:, start:stop] = 0.0
        self.columns[:, start : start + n] = (U * lengths.unsqueeze(-2)).permute(1, 2, 0)
        return start + n
