"""Random shifts of images: the one augmentation that keeps a digit a digit."""

from __future__ import annotations

__all__ = ["shifted"]

import torch
import torch.nn.functional as F
from torch import Tensor


def shifted(x: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Every image moved by its own whole-pixel vector, at most ``pixels`` along each axis; edges are repeated.

    Example:
        >>> shifted(torch.ones(3, 1, 5, 5), 1, torch.Generator().manual_seed(0)).sum().item()
        75.0
    """
    batch, _, height, width = x.shape
    padded = F.pad(x, (pixels,) * 4, mode="replicate")
    moves = torch.randint(2 * pixels + 1, (2, batch), generator=generator).to(x.device)
    rows = (moves[0, :, None] + torch.arange(height, device=x.device))[:, None, :, None]
    columns = (moves[1, :, None] + torch.arange(width, device=x.device))[:, None, None, :]
    samples = torch.arange(batch, device=x.device)[:, None, None, None]
    channels = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
    return padded[samples, channels, rows, columns]
