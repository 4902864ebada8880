"""Torch's global random streams, seeded for one block of code and restored afterwards."""

from __future__ import annotations

__all__ = ["seeded"]

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Inside the block, the streams of the CPU and of ``device`` start from ``seed``; other devices are not touched.

    ``torch.manual_seed`` would reset the streams of every CUDA device, but ``fork_rng`` restores only the given ones.

    Examples:
        >>> with seeded(0):
        ...     a = torch.rand(1)
        >>> with seeded(0):
        ...     bool(a == torch.rand(1))
        True
    """
    device = torch.device(device)
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for each in cuda:
            index = torch.cuda.current_device() if each.index is None else each.index
            torch.cuda.default_generators[index].manual_seed(seed)
        yield
