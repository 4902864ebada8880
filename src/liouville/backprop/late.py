r"""Checks whose numbers lie on a device: read now, which makes the host wait, or later, all in one transfer.

Training reads them every so many steps, so that the host runs ahead of the device meanwhile.
"""

from __future__ import annotations

__all__ = ["Checks", "later", "pending", "settle"]

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import NamedTuple, Self

import torch
from torch import Tensor

Verdict = Callable[[Sequence[float]], None]


class _Check(NamedTuple):
    values: Tensor
    verdict: Verdict


class Checks:
    """Those that wait to be read.

    Args:
        repeated: of a step that is run again and again, which adds to the same ones (`again`); before it is recorded it
            has run once, since a recording would set them to zero every time.

    Examples:
        >>> checks, seen = Checks(), []
        >>> settle(torch.ones(2), seen.append, checks)
        >>> seen
        []
        >>> checks.read()
        >>> seen
        [[1.0, 1.0]]
    """

    def __init__(self, repeated: bool = False) -> None:
        self.repeated = repeated
        self._held: list[_Check] = []
        self._next = 0

    def __len__(self) -> int:
        return len(self._held)

    def add(self, values: Tensor, verdict: Verdict) -> None:
        """``verdict`` is told the values once they are read; where they are ``repeated``, the largest of each."""
        if not self.repeated:
            self._held.append(_Check(values, verdict))
            return
        if self._next == len(self._held):
            self._held.append(_Check(torch.zeros_like(values), verdict))
        worst = self._held[self._next].values
        torch.maximum(worst, values.detach(), out=worst)
        self._next += 1

    def again(self) -> Self:
        """Themselves, before what adds to them is run once more."""
        self._next = 0
        return self

    def reset(self) -> None:
        """Forget the largest values so far."""
        if self._held:
            torch._foreach_zero_([check.values for check in self._held])

    def read(self, *more: Checks) -> None:
        """Read all of these, and of ``more``, in one transfer, and let each verdict raise or warn."""
        held = [check for checks in (self, *more) for check in checks._held]
        if not held:
            return
        numbers = torch.cat([check.values for check in held]).tolist()
        for checks in (self, *more):
            if checks.repeated:
                checks.reset()
            else:
                checks._held = []
        start = 0
        for check in held:
            end = start + len(check.values)
            check.verdict(numbers[start:end])
            start = end


_PENDING: ContextVar[Checks | None] = ContextVar("checks that are read later", default=None)


@contextlib.contextmanager
def later(checks: Checks) -> Iterator[Checks]:
    """Inside, what a forward pass begins is checked when ``checks`` are read, which is the caller's to do."""
    token = _PENDING.set(checks)
    try:
        yield checks
    finally:
        _PENDING.reset(token)


def pending() -> Checks | None:
    """Where checks go, asked in a forward pass: a backward pass on a device runs in another thread."""
    return _PENDING.get()


def settle(values: Tensor, verdict: Verdict, checks: Checks | None) -> None:
    """Tell ``verdict`` the values, (number,): now, or when ``checks`` are read."""
    if checks is None:
        verdict(values.tolist())
    else:
        checks.add(values, verdict)
