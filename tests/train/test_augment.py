"""Shifts move whole images by whole pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from liouville.train.augment import shifted, warped


def test_every_image_is_some_shift_of_itself() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(50, 2, 7, 6, generator=g)
    moved = shifted(x, 2, g)
    padded = F.pad(x, (2,) * 4, mode="replicate")
    seen = set()
    for image, source in zip(moved, padded, strict=True):
        found = [(i, j) for i in range(5) for j in range(5) if torch.equal(image, source[:, i : i + 7, j : j + 6])]
        assert found
        seen.update(found)
    assert len(seen) > 15


def test_no_shift_is_the_identity() -> None:
    x = torch.randn(3, 1, 5, 5)
    assert torch.equal(shifted(x, 0, torch.Generator()), x)


def test_warp_is_bounded_and_repeatable() -> None:
    x = torch.zeros(8, 1, 28, 28)
    x[:, :, 12:16, 12:16] = 1.0
    a = warped(x, 1.0, torch.Generator().manual_seed(1))
    assert torch.equal(a, warped(x, 1.0, torch.Generator().manual_seed(1)))
    assert not torch.equal(a[0], a[1])
    mass = a.flatten(1).sum(1)
    assert (mass > 16 * 0.7).all() and (mass < 16 * 1.4).all()  # stretches by exp(+-0.1) along each axis
    pixels = torch.arange(28.0)
    centre = (a.sum((1, 2)) * pixels).sum(1) / a.sum((1, 2, 3))
    assert ((centre - 13.5).abs() < 28 / 14 + 1).all()
    assert torch.allclose(warped(x, 0.0, torch.Generator()), x, atol=1e-5)
