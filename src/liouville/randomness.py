"""Torch's global random streams, seeded for one block of code and restored afterwards."""

from __future__ import annotations

__all__ = ["seeded"]

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Inside the block, the streams of the CPU and of ``device`` start from ``seed``; other devices are not touched.

    ``torch.manual_seed`` would reset the streams of every CUDA device, and ``torch.random.fork_rng`` takes as long as
    a small layer.

    Examples:
        >>> with seeded(0):
        ...     a = torch.rand(1)
        >>> with seeded(0):
        ...     bool(a == torch.rand(1))
        True
    """
    device = torch.device(device)
    streams = [torch.default_generator]
    if device.type == "cuda":
        torch.cuda.init()
        index = torch.cuda.current_device() if device.index is None else device.index
        streams.append(torch.cuda.default_generators[index])
    before = [stream.get_state() for stream in streams]
    try:
        for stream in streams:
            stream.manual_seed(seed)
        yield
    finally:
        for stream, state in zip(streams, before, strict=True):
            stream.set_state(state)
