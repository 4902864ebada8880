"""The seconds of a training and of its epochs, over every process that worked on it."""

from __future__ import annotations

__all__ = ["Clock"]

import time


class Clock:
    """Counts on from the seconds that an earlier process spent on the training and on the epoch that is under way."""

    def __init__(self, spent: float = 0.0, spent_on_epoch: float = 0.0) -> None:
        now = time.perf_counter()
        self._start, self._epoch = now - spent, now - spent_on_epoch

    def run(self) -> float:
        """Seconds of the training."""
        return time.perf_counter() - self._start

    def epoch(self) -> float:
        """Seconds of the epoch."""
        return time.perf_counter() - self._epoch

    def next_epoch(self) -> None:
        """The next epoch begins."""
        self._epoch = time.perf_counter()
