"""The process in its environment: a single one, or one of several that torchrun or ``--nproc`` started."""

from __future__ import annotations

__all__ = [
    "LAUNCHER",
    "NEEDED",
    "RENDEZVOUS",
    "is_first",
    "launched",
    "local_processes",
    "processes",
    "require_environment",
    "several",
]

import os

NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
RENDEZVOUS = "LIOUVILLE_RENDEZVOUS"  # in place of the last two: the folder in which processes of one machine meet
LAUNCHER = "LIOUVILLE_LAUNCHER"  # the process that started this one, which ends with it
_PLACES = (("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
_CURE = "start the processes with torchrun or --nproc, or unset the variable"


def launched() -> bool:
    """Whether this process was started as one of several, by ``--nproc`` or by torchrun."""
    return not _missing()


def processes() -> int:
    """The number of processes; 1 without a launcher, or if the variables describe none."""
    try:
        require_environment()
    except ValueError:
        return 1
    return (_number("WORLD_SIZE") or 1) if launched() else 1


def several() -> bool:
    """Whether this process is one of several."""
    return processes() > 1


def local_processes() -> int:
    """How many of them are on this machine."""
    return (_number("LOCAL_WORLD_SIZE") or 1) if several() else 1


def is_first() -> bool:
    """Whether this is the only process, or the one of several that owns the run folder and prints."""
    return not several() or os.environ["RANK"] == "0"


def require_environment() -> None:
    """Raise where the variables of a launcher do not describe this process.

    Raises:
        ValueError: with the variable, the expected value and what to do.
    """
    given = [name for name in ("RANK", "WORLD_SIZE") if name in os.environ]
    missing = _missing()
    if given and missing and os.environ.get("WORLD_SIZE", "2") != "1":
        raise ValueError(f"{given[0]} is set in the environment and {missing[0]} is not; {_CURE}.")
    if not given or missing:
        return
    for name, low, high in (("WORLD_SIZE", 1, 2**31), ("LOCAL_WORLD_SIZE", 1, 2**31), ("MASTER_PORT", 1, 2**16)):
        _require(name, low, high)
    for name, size in _PLACES:
        _require(name, 0, _number(size) or 2**31)


def _missing() -> list[str]:
    needed = NEEDED[:2] if RENDEZVOUS in os.environ else NEEDED
    return [name for name in needed if name not in os.environ]


def _require(name: str, low: int, high: int) -> None:
    value = os.environ.get(name)
    number = _number(name)
    if value is not None and (number is None or not low <= number < high):
        wanted = f"a whole number from {low} to {high - 1}" if high < 2**31 else f"a whole number of at least {low}"
        raise ValueError(f"{name} must be {wanted}, got {value!r} in the environment; {_CURE}.")


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
