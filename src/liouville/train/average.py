"""The exponential moving average of the weights that `fit` validates and returns, where it is asked for."""

from __future__ import annotations

__all__ = ["mover"]

from collections.abc import Callable

import torch
from torch import Tensor, nn


def mover(average: nn.Module, network: nn.Module) -> Callable[[float], None]:
    """What moves an average towards the network: kept <- factor kept + (1 - factor) new, looked up once for all steps.

    Buffers are copied.

    Examples:
        >>> average, network = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(average.weight), nn.init.ones_(network.weight)
        >>> mover(average, network)(0.75)
        >>> average.weight.item()
        0.25
    """
    slow: list[Tensor] = list(average.parameters())
    fast: list[Tensor] = list(network.parameters())
    held, now = list(average.buffers()), list(network.buffers())

    @torch.no_grad()
    def move(factor: float) -> None:
        torch._foreach_lerp_(slow, fast, 1 - factor)
        for kept, new in zip(held, now, strict=True):
            kept.copy_(new)

    return move
