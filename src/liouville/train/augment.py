"""Random shifts and affine maps of images: changes that keep a digit the digit it is."""

from __future__ import annotations

__all__ = ["augmented", "shifted", "warped"]

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def augmented(x: Tensor, shift: int, warp: float, generator: torch.Generator) -> Tensor:
    """The batch shifted and warped, each where it is asked for."""
    if shift:
        x = shifted(x, shift, generator)
    return warped(x, warp, generator) if warp else x


def shifted(x: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Every image moved by its own whole-pixel vector, at most ``pixels`` along each axis; edges are repeated.

    Examples:
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


def warped(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Every image under its own random affine map.

    With u uniform in [-1, 1]: turned by 10 u degrees, its axes stretched by exp(0.1 u), sheared by 0.1 u and shifted
    by u/14 of the width, each times ``strength``; edges are repeated.

    Examples:
        >>> x = torch.ones(3, 1, 5, 5)
        >>> bool(torch.allclose(warped(x, 1.0, torch.Generator().manual_seed(0)), x))
        True
    """
    u = strength * (2 * torch.rand(6, len(x), generator=generator) - 1)
    angle, a, b, shear = math.radians(10) * u[0], (0.1 * u[1]).exp(), (0.1 * u[2]).exp(), 0.1 * u[3]
    cos, sin = angle.cos(), angle.sin()
    top = torch.stack((cos * a, cos * shear - sin * b, u[4] / 7), -1)
    bottom = torch.stack((sin * a, sin * shear + cos * b, u[5] / 7), -1)
    maps = torch.stack((top, bottom), 1).to(x)
    grid = F.affine_grid(maps, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)
