"""Resident memory: how far a process grows while it does something, as Linux counts it."""

from __future__ import annotations

__all__ = ["growth"]

import ctypes
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def growth(step: Callable[[], Sequence[Tensor]]) -> int | None:
    """Bytes of the highest resident memory during ``step`` over that before it, less what it returns.

    None where the system does not tell. The process should be a fresh one: an allocator keeps what was freed before,
    and hides with it what the step takes.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
        before = _bytes("VmRSS")
        _CLEAR.write_text("5")  # the highest mark starts again from here
    except (OSError, AttributeError):
        return None
    returned = step()
    return _bytes("VmHWM") - before - sum(x.nbytes for x in returned)


def _bytes(key: str) -> int:
    """A line of /proc/self/status."""
    found = re.search(rf"^{key}:\s+(\d+) kB", _STATUS.read_text(), re.M)
    if found is None:
        raise OSError(f"{_STATUS} has no line {key}.")
    return 1024 * int(found.group(1))
