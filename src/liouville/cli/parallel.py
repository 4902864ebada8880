r"""Processes that train together: started by ``--nproc``, or by torchrun on one machine or several.

The first process, that of rank 0, has the run folder and talks; the others follow in silence. Where all of them, or
any other one, fail, one of them says so.
"""

from __future__ import annotations

__all__ = ["deafen", "follow", "is_first", "join", "leave", "report", "several", "share"]

import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from liouville.cli.errors import BadInput, Failed, Interrupted
from liouville.environment import processes

if TYPE_CHECKING:
    from torch import nn

    from liouville.train import Processes

_TIMEOUT = 600.0  # seconds that a process may keep the others waiting
_HEARING = 1.0  # seconds that the others leave to the first process to say what happened


def several() -> bool:
    """Whether this process was started as one of several."""
    return processes() > 1


def is_first() -> bool:
    """Whether this process is alone, or the one of several that talks."""
    return not several() or os.environ["RANK"] == "0"


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


def join() -> None:
    """Find the other processes, if there are any; SIGTERM then ends a run as Ctrl-C does, with what it has saved."""
    if not several():
        return
    import torch

    from liouville.agents.launch import connect

    place = int(os.environ.get("LOCAL_RANK", "0"))
    gpus = place < torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(place)
    connect(_TIMEOUT, "cpu:gloo,cuda:nccl" if gpus else "gloo")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)


def share(network: nn.Module) -> Processes:
    """The processes that `join` found, for a network on the device that this one has."""
    from liouville.train import Processes

    if not several():
        return Processes()
    try:
        from liouville.lightning import Parallel
    except ModuleNotFoundError as error:
        raise BadInput(f"several processes train through Lightning Fabric. {error}") from error
    from lightning.fabric import Fabric
    from lightning.fabric.plugins.environments import TorchElasticEnvironment

    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    fabric = Fabric(
        accelerator=next(network.parameters()).device.type,
        devices=here,
        num_nodes=int(os.environ["WORLD_SIZE"]) // here,
        strategy="ddp",
        plugins=TorchElasticEnvironment(),
    )
    fabric.launch()
    return Parallel(fabric)


def follow(run: Callable[[], Any]) -> None:
    """Run what the first process runs; an interrupt is its to report."""
    try:
        run()
    except KeyboardInterrupt:
        _end(Interrupted.exit_code)
    except (ArithmeticError, ConnectionError) as error:
        raise Failed(str(error)) from error


def leave() -> None:
    """Training is over; from here on nobody waits for anybody."""
    if several():
        import torch

        torch.distributed.destroy_process_group()


def deafen() -> None:
    """What is left to do, do to its end: whoever started several processes ends them all when one has failed."""
    if not several():
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def report(line: str, code: int) -> int:
    """Write an error and return its exit code; of several processes one writes, and each ends here."""
    if several():
        deafen()
        if _may_speak():
            sys.stderr.write(line)
        _end(code)
    sys.stderr.write(line)
    return code


def _may_speak() -> bool:
    """Whether no other process has spoken."""
    rank = os.environ["RANK"]
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return rank == "0"
    if rank != "0":
        time.sleep(_HEARING)
    from torch.distributed import TCPStore

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    key = f"liouville/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/spoke"
    try:
        store = TCPStore(host, port, None, False, timedelta(seconds=5), wait_for_workers=False)
        return bool(store.compare_set(key, "", rank).decode() == rank)
    except RuntimeError:  # whoever started us is gone, and with it the store
        return True


def _end(code: int) -> NoReturn:
    """At once: what is left of the transport waits for the others, or ends the process with words of its own."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _interrupt(*_: object) -> NoReturn:
    deafen()
    raise KeyboardInterrupt
