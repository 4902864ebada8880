r"""The search for the largest verified ball: few rounds of a few enclosures, each at a guess from the last two.

A ball of s times the linearised network's radius uses the fraction f(s) = s (1 + x(s)) of the lead of its centre's
class, and is verified if f < 1. Where f is not far above 1 the excess x is close to a hyperbola,

    1 / x = a / s - b,

a, b > 0: proportional to small radii, soon faster. Two enclosures give a and b, one enclosure gives a with b = `_BEND`;
then f(s) = 1 is the smaller root of (b - 1) s^2 - (a + b) s + a = 0. The first round spans the usual roots; later
rounds lie around the computed root, closer each time. Guesses outside the bracket between the largest verified share
and the smallest failed share are replaced by others inside it. Where an enclosure takes longer than its call overhead,
a round is one guess.
"""

from __future__ import annotations

__all__ = ["Search"]

import torch
from torch import Tensor

_FIRST = (0.03, 0.12, 0.5)
_AROUND = ((0.9, 0.98), (0.98, 0.995))  # guesses relative to the root, in the second round and in all others
_SPREAD = (0.25, 0.5, 0.75)  # guesses relative to the bracket, in logarithms, where it contains no root
_ALONE, _SHY = 0.08, 0.995  # the first guess, and the fraction of a root, where a round is one guess
_BEND = 0.8
_CLOSE = 1.01  # a verified share this near to the root, or twice as near to a failed one, ends the search
_FAR = 2.0  # the excess is not a hyperbola where f is larger


class Search:
    """The verified and failed shares of every sample; `guesses` are the next to try, (tries, S).

    Args:
        like: a tensor of one number per sample, for its dtype and device.
        open: which samples to search for.
        alone: whether a round has only one guess.
    """

    def __init__(self, like: Tensor, open: Tensor, alone: bool = False) -> None:
        self.held, self.failed = torch.zeros_like(like), torch.ones_like(like)
        self._at_held, self._at_failed = torch.zeros_like(like), torch.full_like(like, torch.inf)
        self._last = self._before = like.new_full((2, *like.shape), torch.nan)  # s and 1 / x
        self.guesses = like.new_tensor((_ALONE,) if alone else _FIRST)[:, None].repeat(1, len(like))
        self.open, self.rounds, self._alone, self._round = open, 7 if alone else 5, alone, 0

    def learn(self, f: Tensor) -> Tensor:
        """Record the fractions of the lead that the guesses' balls use, (tries, S), NaN where none was tried. Returns
        the index of the best verified guess, (S,), -1 where it is none of these.
        """
        which = torch.full_like(self.open, -1, dtype=torch.long)
        for k, (s, taken) in enumerate(zip(self.guesses, f, strict=True)):
            better, worse = (taken < 1) & (s > self.held), (taken >= 1) & (s < self.failed)
            self.held, self._at_held = torch.where(better, s, self.held), torch.where(better, taken, self._at_held)
            self.failed, at = torch.where(worse, s, self.failed), torch.where(worse, taken, self._at_failed)
            self._at_failed = at
            near = taken < _FAR
            point = torch.stack((s, 1 / (taken / s - 1).clamp(min=1e-6)))
            self._before, self._last = torch.where(near, self._last, self._before), torch.where(near, point, self._last)
            which.masked_fill_(better, k)
        self._round += 1
        self._guess()
        return which

    def _guess(self) -> None:
        (s, y), (s_2, y_2) = self._last, self._before
        a = (y - y_2) / (1 / s - 1 / s_2)
        b = a / s - y
        two = (a > 0) & (b > -0.5)
        a, b = torch.where(two, a, s * (y + _BEND)), torch.where(two, b, _BEND)
        root = 2 * a / (a + b + ((a + b).square() - 4 * (b - 1) * a).clamp(min=0).sqrt())
        power = (-self._at_held.log() / (self._at_failed / self._at_held).log()).nan_to_num(0.5).clamp(0.15, 0.8)
        between = self.held * (self.failed / self.held) ** power
        between = torch.where(self.held > 0, between, 0.3 * self.failed)
        inside = (root > 1.004 * self.held) & (root < 0.997 * self.failed)
        if self._alone:
            self.guesses = torch.where(inside, _SHY * root, between)[None]
        else:
            around = root.new_tensor(_AROUND[min(self._round, len(_AROUND)) - 1])[:, None]
            spread = root.new_tensor(_SPREAD)[:, None]
            low = torch.where(self.held > 0, self.held, 0.03 * self.failed)
            across = low * (self.failed / low) ** spread
            self.guesses = torch.where(inside, torch.cat((root * around, between[None])), across)
        settled = two & inside & (root < _CLOSE * self.held)
        self.open = self.open & ~settled & (self.failed > (2 * _CLOSE - 1) * self.held)
