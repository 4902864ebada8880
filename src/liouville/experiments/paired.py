r"""Paired comparisons: two methods on the same seeds, all cells of a table pooled, by the exact sign test.

Medians of three or five runs with overlapping ranges say little: with five pairs no two-sided sign test reaches 5 %. A
pair is one seed in one cell (a data set, a depth, a size), so that both methods have the same random draws; ties are
left out. Under the hypothesis that either is ahead in a pair with probability 1/2, and that pairs are independent, the
number w of wins of n is binomial, and

    p = min(1, 2 P(W <= min(w, n - w))) = min(1, 2^(1 - n) sum_{k <= min(w, n - w)} (n over k)).

Reference: Dixon & Mood 1946, The statistical sign test, J. Amer. Stat. Assoc. 41.
"""

from __future__ import annotations

__all__ = ["LEVEL", "Paired", "pairs", "sign_test"]

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from liouville.experiments.records import Record

LEVEL = 0.05  # maximum p for a verdict of ahead or behind


def sign_test(wins: int, losses: int) -> float:
    """The two-sided p of the exact sign test; 1 without any pair.

    Examples:
        >>> sign_test(5, 0), sign_test(2, 2), sign_test(0, 0)
        (0.0625, 1.0, 1.0)
    """
    n = wins + losses
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(min(wins, losses) + 1)) / 2**n)


@dataclass(frozen=True)
class Paired:
    """The number of times one method is ahead of another, over pairs of one seed in one cell.

    Args:
        wins: pairs in which it is ahead.
        losses: pairs in which it is behind.
        ties: all other pairs.
    """

    wins: int
    losses: int
    ties: int

    @classmethod
    def of(cls, found: Iterable[tuple[float, float]], digits: int = 6) -> Paired:
        """From pairs (its score, the other's); larger is better, and scores that agree to ``digits`` digits tie.

        Examples:
            >>> Paired.of([(3.0, 1.0), (2.0, 2.0), (1.0, 2.0), (5.0, 4.0)])
            Paired(wins=2, losses=1, ties=1)
        """
        gaps = [round(one - other, digits) for one, other in found]
        return cls(sum(g > 0 for g in gaps), sum(g < 0 for g in gaps), sum(g == 0 for g in gaps))

    @property
    def p(self) -> float:
        """The two-sided p of the exact sign test."""
        return sign_test(self.wins, self.losses)

    @property
    def verdict(self) -> str:
        """``"ahead"`` or ``"behind"`` where p is at most `LEVEL`, else ``"not told apart"``."""
        if self.p > LEVEL:
            return "not told apart"
        return "ahead" if self.wins > self.losses else "behind"

    def __str__(self) -> str:
        """The verdict with its figures.

        Examples:
            >>> print(Paired(9, 1, 0), Paired(3, 2, 1), sep="; ")
            ahead (9 pairs of 10, p = 0.021); not told apart (3 pairs of 6, 1 tied, p = 1)
        """
        n = self.wins + self.losses + self.ties
        tied = f", {self.ties} tied" if self.ties else ""
        most = self.losses if self.verdict == "behind" else self.wins
        return f"{self.verdict} ({most} pairs of {n}{tied}, p = {self.p:.2g})"


def pairs(
    one: Iterable[Record], other: Iterable[Record], score: Callable[[Record], float]
) -> list[tuple[float, float]]:
    """The scores of both methods for each common seed, in the order of the first."""
    theirs = {r.case.seed: score(r) for r in other}
    return [(score(r), theirs[r.case.seed]) for r in one if r.case.seed in theirs]
