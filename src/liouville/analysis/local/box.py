r"""The set centre + ball v + box w + e of every sample, |v|_2 <= 1, |w|_inf <= 1, |e| <= errors entry by entry.

The columns of ball and box are float32 numbers. The stored numbers define the set, and the rounding of every operation
on them is added to it (`liouville.analysis.local.rounding`). The centre is in float64.

Roundings are kept as errors of every entry for some steps, and then become columns of the box. Columns are kept until
there are too many; then the smaller half of the columns is replaced by n columns along its principal axes that enclose
it.
"""

from __future__ import annotations

__all__ = ["COLUMN", "LEAST", "Box", "columns_of"]

from collections.abc import Sequence

import torch
from torch import Tensor

from liouville.analysis.local.secant import UNIT

COLUMN = 2.0**-24  # the unit roundoff of columns
LEAST = 1e-30  # far more than all columns of a row lose where they are below the normal numbers of float32


def columns_of(n: int, added: Sequence[int], most: int) -> int:
    """The capacity in columns of a box of n features, if so many are added at a time and it may have ``most``."""
    return min(sum(added), max(most, 2 * (n + max(added, default=0))))


class Box:
    """Columns (n, columns, S): [ball | box], the centre (n, S) and the errors (n, S).

    Args:
        ball: columns of the ball, (n, d, S), in float64.
        room: capacity in columns of the box.
    """

    def __init__(self, ball: Tensor, room: int) -> None:
        n, d, samples = ball.shape
        self._ball = self._used = d
        self._columns = ball.new_empty(n, d + room, samples, dtype=torch.float32)
        self._scratch = self._columns.new_empty(2, self._columns.numel())  # allocating memory is slower than using it
        self._columns[:, :d] = ball
        self._centre, self._extent, self._errors = ball.new_zeros(3, n, samples)
        self._rows: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor, Tensor]] = {}
        self.largest = ball.new_zeros(samples)  # a bound of every |D| so far
        self._measure()

    def _of(self, rows: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The columns' rows, all of them allocated, their centre, extent and errors."""
        key = rows.start, rows.stop
        if key not in self._rows:
            self._rows[key] = self._columns[rows], self._centre[rows], self._extent[rows], self._errors[rows]
        return self._rows[key]

    def centre(self, rows: slice) -> Tensor:
        """The centre; the caller that moves it writes to it."""
        return self._of(rows)[1]

    def extent(self, rows: slice) -> Tensor:
        """A bound of |D|, and of the sum of the sizes of its terms; the caller that enlarges it writes to it."""
        return self._of(rows)[2]

    def errors(self, rows: slice) -> Tensor:
        """Additional errors of the entries, included in `extent`; the caller that adds errors writes to it."""
        return self._of(rows)[3]

    def image(self, R: Tensor, of: slice) -> Tensor:
        """R times the columns, (m, used, S), in the dtype of R."""
        part = self._of(of)[0][:, : self._used]
        if R.dtype != part.dtype or len(R) > len(self._columns):
            part = part.to(R.dtype)
            return torch.mm(R, part.view(len(part), -1)).view(len(R), self._used, -1)
        T = self._scratch[0, : len(R) * part[0].numel()].view(len(R), -1)
        return torch.mm(R, part.view(len(part), -1), out=T).view(len(R), self._used, -1)

    def radius(self, T: Tensor) -> Tensor:
        """The largest deviation from the centre of rows T of an image: a 2-norm over the ball, sums over the rest.

        In float64, with a relative rounding of at most g(columns + 8, `COLUMN`).
        """
        ball, rest = T.split([self._ball, T.shape[1] - self._ball], 1)
        sizes = rest.abs() if T.dtype != torch.float32 or len(T) > len(self._columns) else self._sizes(rest)
        return ball.double().square().sum(1).sqrt_().add_(sizes.sum(1))  # vector_norm is slower on this axis

    def _sizes(self, columns: Tensor) -> Tensor:
        return torch.abs(columns, out=self._scratch[1, : columns.numel()].view(columns.shape))

    def move(self, to: slice, B: Tensor, T: Tensor, half: Tensor) -> None:
        """columns[to] += B T, and columns B, as long as ``half``, (m, S); all of them in float32."""
        rows, m = self._of(to)[0], B.shape[1]
        rows[:, : T.shape[1]].view(len(rows), -1).addmm_(B, T.view(len(T), -1))
        new = self._new(m)
        if len(rows) < len(self._columns):
            self._columns[:, new] = 0.0
        torch.mul(B[:, :, None], half, out=rows[:, new])

    def gather(self) -> None:
        """Turn the errors into columns."""
        block = self._columns[:, self._new(len(self._errors))].zero_()
        block.diagonal(dim1=0, dim2=1).copy_(((1 + 2 * COLUMN) * self._errors + LEAST).mT)
        self._errors.zero_()

    def _new(self, count: int) -> slice:
        """This number of unused columns, after making room for them."""
        if self._used + count > self._columns.shape[1]:
            self._used = self._enclosed((self._used + self._ball) // 2, self._used)
            self._measure()
        self._used += count
        return slice(self._used - count, self._used)

    def _measure(self) -> None:
        self.largest = torch.maximum(self.largest, self._extent.amax(0))
        columns = self._columns[:, : self._used]
        share = 1 + 2 * (columns.shape[1] + 8) * COLUMN
        torch.add(self.radius(columns).mul_(share).add_(self._errors), self._centre.abs(), out=self._extent)

    def _enclosed(self, start: int, stop: int) -> int:
        r"""Sort the box's columns by size and replace the columns start to stop by n; returns the next free column.

        G w = U (U^-1 G w) with U from the eigenvectors of G G^T, orthogonal up to E = |I - U U^T|: entries of U^-1 g
        are at most |U^T g| + |U^T| 1 * 2 ||E|| max |g|, the Neumann series of (U U^T)^-1. The columns U diag(lengths)
        are rounded to float32, with an error F, |F| <= u |U| lengths; they enclose as much if every length is longer by
        2 |U^T| |F| 1, for then y' = U^-1 (p - F y') / lengths has a solution in the box for every p. Columns that have
        overflowed stay unbounded: they enclose the set with any U.
        """
        block = self._columns[:, self._ball : stop]
        sizes = self._sizes(block).sum(0)
        shares = (sizes / sizes.sum(0).clamp(min=LEAST)).nan_to_num(0.0).sum(1)
        block.copy_(block.index_select(1, shares.argsort(descending=True)))  # one order for all samples is faster
        G = self._columns[:, start:stop]
        n, count, samples = G.shape
        G = G.reshape(-1, samples).mT.contiguous().view(samples, n, count).double()  # this order of products is fast
        square = G @ G.mT
        known = square.isfinite().all((1, 2), keepdim=True)  # any U will do where LAPACK would fail
        U = torch.linalg.eigh(torch.where(known, square, 0.0))[1]
        identity = torch.eye(n, dtype=U.dtype, device=U.device)
        room = (identity - U @ U.mT).abs().sum(-1).amax(-1) + 2 * (n + 2) * UNIT * n
        sizes, absolute = G.abs().sum(-1), U.abs()
        lengths = (U.mT @ G).abs().sum(-1) * (1 + 2 * (n + count + 8) * UNIT)
        lengths = lengths + 2 * (n + 2) * UNIT * (absolute.mT @ sizes.unsqueeze(-1)).squeeze(-1)
        lengths = lengths + 2.02 * room[:, None] * sizes.amax(-1, keepdim=True) * absolute.sum(-2) + n * LEAST
        lengths = lengths + 4.04 * COLUMN * (absolute.mT @ (absolute @ lengths.unsqueeze(-1))).squeeze(-1)
        self._columns[:, start : start + n] = (U * lengths.unsqueeze(-2)).permute(1, 2, 0)
        return start + n
