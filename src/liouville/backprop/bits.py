"""Small numbers, dense in bytes."""

from __future__ import annotations

__all__ = ["pack", "unpack"]

import torch
from torch import Tensor


def pack(low: Tensor, bits: int) -> Tensor:
    """Whole numbers below 2^bits, bits in 1, 2, 4, 8, as bytes: 8 / bits of them in each.

    Examples:
        >>> pack(torch.tensor([1, 2, 3]), 4).tolist()
        [49, 2]
    """
    flat, each = low.flatten().to(torch.uint8), 8 // bits
    if each == 1:
        return flat
    if flat.numel() % each:
        flat = torch.cat((flat, flat.new_zeros(-flat.numel() % each)))
    columns = flat.view(each, -1)
    packed = columns[0].clone()
    for i in range(1, each):
        packed |= columns[i] << (i * bits)
    return packed


def unpack(packed: Tensor, bits: int, size: int) -> Tensor:
    """The ``size`` numbers that `pack` was given.

    Examples:
        >>> unpack(pack(torch.tensor([1, 2, 3]), 4), 4, 3).tolist()
        [1, 2, 3]
    """
    each = 8 // bits
    if each == 1:
        return packed
    return torch.cat([(packed >> (i * bits)) & ((1 << bits) - 1) for i in range(each)])[:size]
