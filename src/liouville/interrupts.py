"""INT, TERM and HUP held back while a step is under way, and answered when it is whole."""

from __future__ import annotations

__all__ = ["Interrupts"]

import signal
import threading
from types import FrameType
from typing import Any, Self

_ENDING = (signal.SIGINT, signal.SIGTERM, *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()))


class Interrupts:
    """Inside, the first signal that asks for an end only sets ``pending``; SIGINT as a second one is answered at once.

    Other second ones are not heard: who launched several processes passes its own on to those that have it already.

    Whoever looks at ``pending`` at a safe point calls `answer`, which does what the process had been told to do:
    raises ``KeyboardInterrupt``, say, or ends it. Leaving the block answers as well. What is ignored stays ignored,
    and outside of the main thread, where Python hears no signals, nothing changes.

    Examples:
        >>> try:
        ...     with Interrupts() as interrupts:
        ...         signal.raise_signal(signal.SIGINT)
        ...         print(interrupts.pending)
        ...         interrupts.answer(interrupts.pending)
        ... except KeyboardInterrupt:
        ...     print("ended")
        2
        ended
    """

    def __init__(self) -> None:
        self.pending = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _ENDING:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):  # None: set by something that is not Python
                    self._before[number] = signal.signal(number, self._hold)
        return self

    def __exit__(self, *_: object) -> None:
        self.answer(self.pending)

    def answer(self, number: int) -> None:
        """Everything is as it was before; then the signal ``number`` comes once more, if it is not 0."""
        for each, handler in self._before.items():
            signal.signal(each, handler)
        self._before, self.pending = {}, 0
        if number:
            signal.raise_signal(number)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if not self.pending:
            self.pending = number
        elif number == signal.SIGINT:
            self.answer(number)
