r"""The command in several processes: one of them talks, and each ends in a way that its launcher understands.

The first process, that of rank 0, has the run folder and talks; the others follow in silence. Where all of them, or
any other one, fail, one of them says so.
"""

from __future__ import annotations

__all__ = ["deafen", "end", "follow", "report", "require_cores", "require_gpus"]

import os
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from liouville import door
from liouville.cli.exits import BadInput, Failed, Interrupted
from liouville.environment import RENDEZVOUS, several

_HEARING = 1.0  # seconds that the others leave to the first process to say what happened


def require_cores(nproc: int | None, force: bool) -> None:
    """Raise where more processes are asked for than there are cores.

    Raises:
        BadInput: with the numbers, and what to do.
    """
    cores = os.cpu_count() or 1
    if nproc is not None and nproc > cores and not force:
        raise BadInput(
            f"--nproc {nproc} on a machine of {cores} core{'s' * (cores > 1)} makes each wait for the others; give "
            f"--nproc {cores} or fewer, or --force."
        )


def require_gpus(nproc: int | None, device: str | None) -> None:
    """Raise where processes are to compute on CUDA and there is no GPU for each.

    Raises:
        BadInput: with the numbers, and what to do.
    """
    if nproc is None or nproc < 2 or not (device or "").lower().startswith("cuda"):
        return
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus < nproc:
        raise BadInput(
            f"--nproc {nproc} --device {device} needs {nproc} GPUs, one for each process, and this machine has {gpus}; "
            "give fewer processes, or --device cpu."
        )


def deafen() -> None:
    """What is left to do, do to its end: whoever started several processes ends them all when one has failed."""
    if several():
        door.ignore_interrupts()


def follow(run: Callable[[], Any]) -> None:
    """Run what the first process runs; an interrupt is its to report."""
    try:
        run()
    except KeyboardInterrupt:
        end(Interrupted.exit_code)
    except (ArithmeticError, ConnectionError) as error:
        raise Failed(str(error)) from error


def report(line: str, code: int) -> int:
    """Write an error and return its exit code; of several processes one writes, and each ends here."""
    if several():
        deafen()
        if _may_speak():
            sys.stderr.write(line)
        end(code)
    sys.stderr.write(line)
    return code


def _may_speak() -> bool:
    """Whether no other process has spoken."""
    rank = os.environ["RANK"]
    if RENDEZVOUS not in os.environ and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return rank == "0"
    if rank != "0":
        time.sleep(_HEARING)
    from liouville.processes.rendezvous import meeting

    try:
        return bool(meeting(5.0).compare_set("spoke", "", rank).decode() == rank)
    except (RuntimeError, ValueError):  # whoever started us is gone, and with it the store
        return True


def end(code: int) -> NoReturn:
    """End this process at once: what is left of the transport waits for others, or ends it with words of its own."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(door.exit_code(code))
