r"""The set centre + ball v + box w, |v|_2 <= 1, |w|_inf <= 1, of every sample: a zonotope beside a ball.

Columns are kept until there are too many; then the smaller half of the box's is replaced by n columns along its
principal axes that enclose it. Roundings have columns of their own, all replaced and more often: they are small, and so
is what that loses.
"""

from __future__ import annotations

__all__ = ["Box", "columns_of"]

from collections.abc import Sequence

import torch
from torch import Tensor

from liouville.analysis.local.secant import UNIT

_ROUNDINGS = 8  # n columns each, between two replacements


def columns_of(n: int, added: Sequence[int], most: int) -> int:
    """Columns that a box of n features has room for, where steps add so many each and it may have about ``most``."""
    return min(sum(added), max(most, 2 * (n + max(added, default=0))))


class Box:
    """Columns (n, columns, S): [centre | ball | roundings | box].

    Args:
        ball: its columns, (n, d, S).
        room: for how many columns of the box.
    """

    def __init__(self, ball: Tensor, room: int) -> None:
        n, d, samples = ball.shape
        self._first = 1 + d + (1 + _ROUNDINGS) * n  # of the box
        self._parts = [1, d]
        self._rounded, self._used = 1 + d, self._first
        self._columns = ball.new_zeros(n, self._first + room, samples)
        self._columns[:, 1 : 1 + d] = ball
        self._extent = ball.new_zeros(n, samples)
        self._rows: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self._measure()

    def _of(self, rows: slice) -> tuple[Tensor, Tensor]:
        """The columns' rows, all of them allocated, and their extent."""
        key = rows.start, rows.stop
        if key not in self._rows:
            self._rows[key] = self._columns[rows], self._extent[rows]
        return self._rows[key]

    def extent(self, rows: slice) -> Tensor:
        """A bound of |D|, and of the sum of the sizes of its terms; written to by whoever lets it grow."""
        return self._of(rows)[1]

    def image(self, R: Tensor, of: slice) -> Tensor:
        """R times the columns, (m, used, S); the centre is the first."""
        part = self._of(of)[0][:, : self._used]
        return torch.mm(R, part.view(len(part), -1)).view(len(R), self._used, -1)

    def radius(self, T: Tensor) -> Tensor:
        """The largest deviation from the centre of rows T of an image: a 2-norm over the ball, sums over the rest."""
        _, ball, rest = T.split([*self._parts, T.shape[1] - sum(self._parts)], 1)
        return ball.square().sum(1).sqrt_().add_(rest.abs().sum(1))  # vector_norm is slower on this axis

    def move(self, to: slice, B: Tensor, T: Tensor, half: Tensor) -> None:
        """columns[to] += B T, and columns B, as long as ``half``, (m, S)."""
        rows, m = self._of(to)[0], B.shape[1]
        part = rows[:, : T.shape[1]]
        part.view(len(part), -1).addmm_(B, T.view(len(T), -1))
        if self._used + m > self._columns.shape[1]:
            self._used = self._enclosed(self._first, self._used, keep=(self._used - self._first) // 2)
            self._measure()
        torch.mul(B[:, :, None], half, out=rows[:, self._used : self._used + m])
        self._used += m

    def spread(self, to: slice, error: Tensor) -> None:
        """Entries of ``to`` may be off by ``error`` each."""
        (rows, extent), count = self._of(to), len(error)
        if self._rounded + count > self._first:
            self._rounded = self._enclosed(sum(self._parts), self._first)
            self._measure()
        block = rows[:, self._rounded : self._rounded + count]
        block.diagonal(dim1=0, dim2=1).copy_(error.mT)
        self._rounded += count
        extent.add_(error)

    def _measure(self) -> None:
        columns = self._columns[:, : self._used]
        torch.add(self.radius(columns), columns[:, 0].abs(), out=self._extent)

    def _enclosed(self, start: int, stop: int, keep: int = 0) -> int:
        r"""Of columns start ... stop keep the largest, and replace the others by n; where the next one goes.

        G w = U (U^-1 G w) with U from the eigenvectors of G G^T, orthogonal up to E = |I - U U^T|: entries of U^-1 g
        are at most |U^T g| + |U^T| 1 * 2 ||E|| max |g|, the Neumann series of (U U^T)^-1. Columns that have overflowed
        stay without a bound: they enclose as well in any U.
        """
        if keep:
            block = self._columns[:, start:stop]
            order = block.abs().sum(0).argsort(0, descending=True)
            block.copy_(block.gather(1, order.expand_as(block)))
            start += keep
        G = self._columns[:, start:stop].permute(2, 0, 1).contiguous()
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
        self._columns[:, start:stop] = 0.0
        self._columns[:, start : start + n] = (U * lengths.unsqueeze(-2)).permute(1, 2, 0)
        return start + n
