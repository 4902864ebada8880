"""Available memory, checked before a large allocation: Linux kills a process that takes too much."""

from __future__ import annotations

__all__ = ["available_memory", "require_memory"]

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

_SMALL = 1 << 26  # bytes that need no check
_CGROUPS = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def available_memory() -> int | None:
    """Bytes that this process may still allocate, by the machine, its control groups and its limits; None if unknown.

    Examples:
        >>> free = available_memory()
        >>> free is None or free > 0
        True
    """
    return min((max(0, free) for free in _free()), default=None)


def require_memory(needed: int, what: str, advice: str) -> None:
    """Raise where ``needed`` bytes are more than available; ``what`` is the subject of the sentence.

    Raises:
        ValueError: with both figures, and the advice.

    Examples:
        >>> require_memory(2**80, "a million layers", "take fewer")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: a million layers take ... of memory, and ... is free; take fewer.
    """
    if needed < _SMALL:
        return
    free = available_memory()
    if free is not None and needed > free:
        raise ValueError(f"{what} take {_shown(needed)} of memory, and {_shown(free)} is free; {advice}.")


def _shown(size: int) -> str:
    """The size in binary units; from 1024 TiB on as a power of ten."""
    for unit, scale in (("MiB", 20), ("GiB", 30), ("TiB", 40)):
        if size < 1 << (scale + 10):
            return f"{size / (1 << scale):.3g} {unit}" if size >= 1 << scale else f"{size >> 10} kiB"
    digits = str(size >> 40)
    return f"{digits[0]}e{len(digits) - 1} TiB"


def _free() -> Iterator[int]:
    with contextlib.suppress(OSError, ValueError):
        found: dict[str, str] = dict(
            re.findall(r"^(MemAvailable|SwapFree):\s*(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
        )
        known = "MemAvailable" in found  # Linux kills where both are full
        yield sum(map(int, found.values())) << 10 if known else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):
        yield from _groups(Path("/proc/self/cgroup").read_text())
    with contextlib.suppress(ImportError, OSError, ValueError):
        yield from _limits()


def _groups(text: str) -> Iterator[int]:
    """The free memory of every control group of this process, from its own up to the root."""
    for line in text.splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = _CGROUPS / "memory" if controllers else _CGROUPS
        largest, used = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else _V2
        here = root / name.lstrip("/")
        for folder in (here, *here.parents):
            if folder == root.parent:
                break
            with contextlib.suppress(OSError, ValueError):
                limit = int((folder / largest).read_text())  # "max" is not a number
                yield limit - int((folder / used).read_text()) + _cached((folder / "memory.stat").read_text())


def _cached(stat: str) -> int:
    """Bytes of cached files, which a control group frees when it needs them; v1 counts its children too."""
    found: dict[str, str] = dict(re.findall(r"^(\w+) (\d+)$", stat, re.MULTILINE))
    return sum(int(found.get(f"total_{name}", found.get(name, "0"))) for name in ("active_file", "inactive_file"))


_V2 = ("memory.max", "memory.current")


def _limits() -> Iterator[int]:
    """The free memory below ``ulimit -v`` and ``ulimit -d``."""
    import resource

    pages = [int(word) for word in Path("/proc/self/statm").read_text().split()]
    for number, used in ((resource.RLIMIT_AS, pages[0]), (resource.RLIMIT_DATA, pages[5])):
        limit, _ = resource.getrlimit(number)
        if limit != resource.RLIM_INFINITY:
            yield limit - used * os.sysconf("SC_PAGE_SIZE")
