"""Signals and standard streams of the process, only for the command, set up before anything else is imported.

Ctrl-C during the first imports ends the process at once, as nothing has begun. Later it waits for the end of a running
import, since torch does not survive an interrupted one. SIGTERM from a batch system and SIGHUP from a closing terminal
are handled like Ctrl-C, so that trained weights are saved. If the reader of standard output closes (``| head``), the
output ends but the work goes on; an output that cannot be written is an error.
"""

from __future__ import annotations

__all__ = ["INTERRUPTED", "OutputError", "exit_code", "guard_interrupts", "guard_streams", "ignore_interrupts"]

import errno
import io
import os
import signal
import sys

TYPE_CHECKING = False  # few imports, so that little of the start is unguarded
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import Any

INTERRUPTED = 128 + signal.SIGINT
_ENDING = (signal.SIGINT, signal.SIGTERM, *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()))
_received: list[int] = []
_AGAIN = 0.02  # seconds between two checks of a running import


class OutputError(OSError):
    """Standard output cannot be written."""


def guard_interrupts() -> None:
    """Install the handlers of this module for Ctrl-C and similar signals; signals that were ignored stay ignored."""
    for number in _ENDING:
        if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
            signal.signal(number, _interrupted)


def exit_code(code: int) -> int:
    """``code``; after an interrupt, the code of its signal: 143 for SIGTERM, 129 for SIGHUP."""
    return 128 + _received[0] if code == INTERRUPTED and _received else code


def ignore_interrupts() -> None:
    """The command has ended; its exit code says how."""
    for number in _ENDING:
        if signal.getsignal(number) is not None:
            signal.signal(number, signal.SIG_IGN)


def guard_streams() -> None:
    """Give the process streams that fail with one sentence, or silently if nobody is left to read."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115 (for as long as the process lives)
    sys.stderr = _stream(2, sys.stderr, silent=True)
    sys.stdout = _stream(1, sys.stdout, silent=False)


class _Raw(io.RawIOBase):
    """A file descriptor that is written until it fails; later output is dropped."""

    def __init__(self, number: int, silent: bool) -> None:
        self.number, self.silent, self.ended = number, silent, False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.number

    def isatty(self) -> bool:
        return os.isatty(self.number)

    def write(self, content: Any) -> int:
        if not self.ended:
            try:
                return os.write(self.number, content)
            except OSError as error:
                self.ended = True
                if not self.silent and error.errno != errno.EPIPE:
                    raise OutputError(f"standard output cannot be written: {error.strerror}.") from None
        return len(content)


def _stream(number: int, given: Any, silent: bool) -> Any:
    """The same stream over `_Raw`; characters outside its encoding are written as escapes."""
    if given is None:
        return open(os.devnull, "w", encoding="utf-8") if silent else None  # noqa: PTH123
    raw = _Raw(number, silent)
    buffer = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, given.encoding, "backslashreplace", line_buffering=silent or raw.isatty())


def _interrupted(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    if not _importing(frame):
        raise KeyboardInterrupt
    if not _whole("torch"):  # nothing has begun, so nothing is lost
        if os.environ.get("RANK", "0") == "0":
            os.write(2, b"liouville: interrupted.\n")
        os._exit(exit_code(INTERRUPTED))
    import threading

    threading.Thread(target=_again, args=(threading.main_thread().ident,), daemon=True).start()


def _again(main: int) -> None:
    """Interrupt again once the main thread is not importing."""
    import time

    while _importing(sys._current_frames().get(main)):
        time.sleep(_AGAIN)
    os.kill(os.getpid(), signal.SIGINT)


def _importing(frame: FrameType | None) -> bool:
    return any(f.f_code.co_filename.startswith("<frozen importlib") for f in _stack(frame))


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _whole(name: str) -> bool:
    module = sys.modules.get(name)
    return module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False)
