r"""The set centre + ball v + box w, |v|_2 <= 1, |w|_inf <= 1, of every sample: a zonotope beside a ball.

Columns are kept until there are too many; then those of the box are replaced by n columns along its principal axes
that enclose it. Roundings have columns of their own, replaced more often: they are small, and so is what that loses.
"""

from __future__ import annotations

__all__ = ["Box", "columns_of"]

from collections.abc import Sequence

import torch
from torch import Tensor

UNIT = 2.0**-53
_MOST = 1024  # columns of the box
_ROUNDINGS = 8  # steps between two replacements of the roundings' columns


def columns_of(n: int, added: Sequence[int]) -> int:
    """Columns that a box of n features has room for, where steps add so many each."""
    return min(sum(added), max(_MOST, n + max(added, default=0), 2 * n))


class Box:
    """Columns (n, columns, S) in memory allocated once: [ball | roundings | box].

    Args:
        ball: its columns, (n, d, S).
        added: how many columns each step will add to the box.
    """

    def __init__(self, ball: Tensor, added: Sequence[int]) -> None:
        n, self.d, samples = ball.shape
        self.first = self.d + (1 + _ROUNDINGS) * n  # of the box
        capacity = self.first + columns_of(n, added)
        self.columns = ball.new_zeros(n, capacity, samples)
        self.columns[:, : self.d] = ball
        self.centre = ball.new_zeros(n, samples)
        self.rounded, self.used = self.d, self.first
        self.extent = ball.new_zeros(n, samples)
        self._measure(slice(0, n))

    def image(self, R: Tensor, of: slice) -> tuple[Tensor, Tensor]:
        """R times the columns, (m, used, S), and times the centre."""
        part = self.columns[of, : self.used]
        return torch.mm(R, part.reshape(len(part), -1)).view(len(R), self.used, -1), R @ self.centre[of]

    def radius(self, T: Tensor) -> Tensor:
        """The largest deviation from the centre of rows T of an image: a 2-norm over the ball, sums over the rest."""
        return T[:, : self.d].square().sum(1).sqrt_() + T[:, self.d :].abs().sum(
            1
        )  # faster than vector_norm on this axis

    def move(self, to: slice, B: Tensor, T: Tensor, slope: Tensor, shift: Tensor) -> None:
        """columns[to] += B (slope T), centre[to] += B shift; T is used up."""
        part = self.columns[to, : self.used]
        part.view(len(part), -1).addmm_(B, T.mul_(slope[:, None]).view(len(T), -1))
        self.centre[to].addmm_(B, shift)

    def add(self, to: slice, B: Tensor, half: Tensor) -> None:
        """Columns B, as long as ``half``, (m, S)."""
        m = B.shape[1]
        if self.used + m > self.columns.shape[1]:
            self.used = self._enclosed(self.first, self.used)
        torch.mul(B[:, :, None], half, out=self.columns[to, self.used : self.used + m])
        self.used += m

    def spread(self, to: slice, error: Tensor) -> None:
        """Entries of ``to`` may be off by ``error`` each; the extent of ``to`` is brought up to date."""
        count = len(error)
        if self.rounded + count > self.first:
            self.rounded = self._enclosed(self.d, self.first)
        block = self.columns[to, self.rounded : self.rounded + count]
        block.diagonal(dim1=0, dim2=1).copy_(error.mT)
        self.rounded += count
        self._measure(to)

    def _measure(self, rows: slice) -> None:
        """extent: a bound of |D|, and of the sum of the sizes of its terms."""
        self.extent[rows] = self.centre[rows].abs() + self.radius(self.columns[rows, : self.used])

    def _enclosed(self, start: int, stop: int) -> int:
        r"""Replace columns start ... stop by n that enclose what they span; where the next one goes.

        G w = U (U^-1 G w) with U from the eigenvectors of G G^T, orthogonal up to E = |I - U U^T|: entries of U^-1 g
        are at most |U^T g| + |U^T| 1 * 2 ||E|| max |g|, the Neumann series of (U U^T)^-1. Columns that have overflowed
        stay without a bound: they enclose as well in any U.
        """
        G = self.columns[:, start:stop].permute(2, 0, 1)
        n, count = G.shape[1:]
        square = G @ G.mT
        known = square.isfinite().all((1, 2), keepdim=True)  # any U will do where LAPACK would fail
        U = torch.linalg.eigh(torch.where(known, square, 0.0))[1]
        room = (torch.eye(n).to(U) - U @ U.mT).abs().sum(-1).amax(-1) + 2 * (n + 2) * UNIT * n
        sizes = G.abs().sum(-1)
        lengths = (U.mT @ G).abs().sum(-1) * (1 + 2 * (n + count + 8) * UNIT)
        lengths = lengths + 2 * (n + 2) * UNIT * (U.mT.abs() @ sizes.unsqueeze(-1)).squeeze(-1)
        lengths = lengths + 2.02 * room[:, None] * sizes.amax(-1, keepdim=True) * U.abs().sum(-2)
        self.columns[:, start:stop] = 0.0
        self.columns[:, start : start + n] = (U * lengths.unsqueeze(-2)).permute(1, 2, 0)
        return start + n
