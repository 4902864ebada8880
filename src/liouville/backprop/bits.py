"""Small whole numbers, packed into bytes."""

from __future__ import annotations

__all__ = ["pack", "unpack"]

import torch
from torch import Tensor


def pack(x: Tensor, bits: int) -> Tensor:
    """The lowest ``bits`` bits of whole numbers, bits in 1, 2, 4, 8, packed: 8 / bits numbers to a byte.

    Examples:
        >>> pack(torch.tensor([1, 2, 3 + 64]), 4).tolist()
        [49, 2]
    """
    flat, each = x.flatten().to(torch.uint8), 8 // bits  # the last byte of each number
    if each == 1:
        return flat
    if flat.numel() % each:
        flat = torch.cat((flat, flat.new_zeros(-flat.numel() % each)))
    *low, high = flat.view(each, -1)
    packed = high << (8 - bits)
    for i, column in enumerate(low):
        packed |= (column & ((1 << bits) - 1)) << (i * bits)
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
