r"""Which device a run computes on: by its name, by how many GPUs there are, and by whether its work is worth one.

A step on a GPU costs at least its launches, some 170 us a layer, however small the layer is; the native kernel on two
CPU cores does about 2^20 multiplications of each of a layer's products in that time. So ``auto`` takes CUDA from

    samples of a batch x pixels x features x features x taps of the stencil >= 2^20

on. The depth is no part of it: it multiplies both sides. The figure for the GPU is an estimate, never measured.
"""

from __future__ import annotations

__all__ = ["WORTH", "device_of", "require_device_name"]

import re

import torch

from liouville.environment import local_processes
from liouville.names import lookup
from liouville.runs.choices import DEVICES

WORTH = 2**20


def require_device_name(name: str) -> None:
    """Raise a `ValueError` unless it is ``auto``, ``cpu``, ``cuda``, or ``cuda:0``, ``cuda:1`` and so on."""
    if not re.fullmatch(r"cuda:\d{1,4}", name):
        lookup(dict.fromkeys(DEVICES), name, "device")


def device_of(name: str, work: float = 0.0) -> torch.device:
    """The device of that name.

    Args:
        name: as `require_device_name` admits.
        work: of one product of a layer, which decides for ``auto``.

    Raises:
        ValueError: there is no such device, or there are fewer GPUs than processes on this machine.

    Examples:
        >>> device_of("cpu")
        device(type='cpu')
    """
    require_device_name(name)
    gpus, processes = torch.cuda.device_count() if torch.cuda.is_available() else 0, local_processes()
    if name == "auto":
        name = "cuda" if work >= WORTH and gpus >= processes else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    if not gpus:
        raise ValueError("this machine, or this build of torch, has no CUDA device; use the device 'cpu'.")
    if processes > gpus:
        raise ValueError(
            f"{processes} processes need {processes} GPUs on this machine, which has {gpus}; start as many processes "
            "as there are GPUs, or use the device 'cpu'."
        )
    index = name.partition(":")[2]
    if index and processes > 1:
        raise ValueError(f"each of {processes} processes has a GPU of its own; use the device 'cuda', not {name!r}.")
    if index and int(index) >= gpus:
        raise ValueError(f"there is no {name} on this machine; it has cuda:0{f' to cuda:{gpus - 1}' * (gpus > 1)}.")
    return torch.device(name)
