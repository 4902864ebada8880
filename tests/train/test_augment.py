"""Shifts move whole images by whole pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from liouville.train.augment import shifted


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
