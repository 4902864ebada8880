"""Resident memory: the growth of a process during a step, as Linux counts it."""

from __future__ import annotations

__all__ = ["growth"]

import ctypes
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def growth(step: Callable[[], Sequence[Tensor]]) -> int | None:
    """Bytes of the highest resident memory during ``step``, less the memory before it and the returned tensors.

    None where the system does not report it. The process should be new: an allocator keeps memory that was freed
    before, which hides the memory of the step.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
        before = _bytes("VmRSS")
        _CLEAR.write_text("5")  # resets the peak to the present memory
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
