r"""The group of processes that train together: started by ``--nproc``, or by torchrun on one machine or several."""

from __future__ import annotations

__all__ = ["join", "leave", "share"]

import os

import torch
from torch import nn

from liouville.environment import local_processes, several
from liouville.processes.rendezvous import connect
from liouville.processes.sharing import Processes

_TIMEOUT = 600.0  # seconds that a process may keep the others waiting


def join() -> None:
    """Find the other processes, if there are any.

    Raises:
        ConnectionError: if one does not answer in time.
    """
    if not several():
        return
    place = int(os.environ.get("LOCAL_RANK", "0"))
    gpus = torch.cuda.device_count() >= local_processes()  # or no process takes one: all must speak one language
    if gpus:
        torch.cuda.set_device(place)
    connect(_TIMEOUT, "cpu:gloo,cuda:nccl" if gpus else "gloo")


def share(network: nn.Module) -> Processes:
    """The processes that `join` found, for a network on the device that this one has.

    Raises:
        ModuleNotFoundError: there are several, and Lightning is not installed.

    Examples:
        >>> share(nn.Linear(2, 1)).size
        1
    """
    if not several():
        return Processes()
    from liouville.processes.fabric import Parallel, launched

    return Parallel(launched(next(network.parameters()).device.type))


def leave() -> None:
    """Training is over; from here on nobody waits for anybody."""
    if several():
        torch.distributed.destroy_process_group()
