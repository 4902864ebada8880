"""Shifts move whole images by whole pixels, warps are affine maps in their bounds, and `fit` shows them to training."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import liouville as lv
from liouville.data import Split
from liouville.train import Settings, fit
from liouville.train.augment import shifted, warped
from train.hand import points, watched


def shifts(image: Tensor, source: Tensor, pixels: int) -> list[tuple[int, int]]:
    """The vectors by which ``source``, its edges repeated, is moved in ``image``."""
    _, height, width = image.shape
    padded = F.pad(source[None], (pixels,) * 4, mode="replicate")[0]
    moves = [(i, j) for i in range(2 * pixels + 1) for j in range(2 * pixels + 1)]
    found = [(i, j) for i, j in moves if torch.equal(image, padded[:, i : i + height, j : j + width])]
    return [(i - pixels, j - pixels) for i, j in found]


def test_every_image_is_some_shift_of_itself() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(200, 2, 7, 6, generator=g)
    found = [shifts(image, source, 2) for image, source in zip(shifted(x, 2, g), x, strict=True)]
    assert all(len(moves) == 1 for moves in found)
    assert {moves[0] for moves in found} == {(i, j) for i in range(-2, 3) for j in range(-2, 3)}


def test_no_shift_is_the_identity() -> None:
    x = torch.randn(3, 1, 5, 5)
    assert torch.equal(shifted(x, 0, torch.Generator()), x)


def test_warp_is_repeatable_and_nothing_at_strength_0() -> None:
    x = torch.rand(8, 1, 28, 28)
    a = warped(x, 1.0, torch.Generator().manual_seed(1))
    assert torch.equal(a, warped(x, 1.0, torch.Generator().manual_seed(1)))
    assert not torch.equal(a, warped(x, 1.0, torch.Generator().manual_seed(2)))
    assert torch.allclose(warped(x, 0.0, torch.Generator()), x, atol=1e-5)


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_warp_is_an_affine_map_in_its_bounds(strength: float) -> None:
    """Two channels, x and y: a warp shows where it reads, A (x, y) + t with A = R(angle) [[a, shear], [0, b]]."""
    samples, size = 400, 29
    line = (2 * torch.arange(size, dtype=torch.float64) + 1) / size - 1  # pixel centres on [-1, 1]
    x = torch.stack((line.expand(size, size), line[:, None].expand(size, size))).expand(samples, 2, size, size)
    read = warped(x, strength, torch.Generator().manual_seed(0))
    c, r = size // 2, 3  # small enough that no point near the centre is read beyond the edge
    A = torch.stack((read[:, :, c, c + r] - read[:, :, c, c - r], read[:, :, c + r, c] - read[:, :, c - r, c]), -1)
    A = A / (4 * r / size)
    t = read[:, :, c, c]
    inside = torch.stack((line[c - r : c + r].expand(2 * r, -1), line[c - r : c + r, None].expand(-1, 2 * r)))
    affine = torch.einsum("sij,jhw->sihw", A, inside) + t[:, :, None, None]
    assert torch.allclose(read[:, :, c - r : c + r, c - r : c + r], affine, atol=1e-12)
    angle = torch.atan2(A[:, 1, 0], A[:, 0, 0])
    R = torch.stack((torch.stack((angle.cos(), -angle.sin()), -1), torch.stack((angle.sin(), angle.cos()), -1)), -2)
    S = R.mT @ A
    drawn = {
        "angle": (angle, math.radians(10)),
        "stretch of x": (S[:, 0, 0].log(), 0.1),
        "stretch of y": (S[:, 1, 1].log(), 0.1),
        "shear": (S[:, 0, 1], 0.1),
        "shift of x": (t[:, 0], 2 / 14),  # the width is 2
        "shift of y": (t[:, 1], 2 / 14),
    }
    for name, (values, bound) in drawn.items():
        u = values / (strength * bound)
        assert float(u.abs().max()) <= 1 + 1e-9, name
        assert float(u.max()) > 0.95 and float(u.min()) < -0.95, name  # 400 draws miss these ends once in 10^4
        assert float(u.mean().abs()) < 5 / math.sqrt(3 * samples), name  # five standard deviations
    every = torch.stack([values / (strength * bound) for values, bound in drawn.values()])
    assert float((torch.corrcoef(every) - torch.eye(6)).abs().max()) < 5 / math.sqrt(samples), "drawn one by one"


def images(samples: int = 40) -> Split:
    """Smooth images, the k-th with the mean k: an image that was moved a little is known by its centre."""
    g = torch.Generator().manual_seed(0)
    x = F.avg_pool2d(torch.randn(samples, 1, 10, 10, generator=g), 3, stride=1).double()
    x = x - x.mean((1, 2, 3), keepdim=True) + 10.0 * torch.arange(samples).double()[:, None, None, None]
    return Split(x, torch.arange(samples) % 4, x.clone(), torch.arange(samples) % 4, name="clouds", classes=4)


def seen_by(settings: Settings) -> tuple[Split, list[Tensor], list[Tensor]]:
    """The data, what the network saw in training, and what it saw in evaluation."""
    data, evaluated = images(), []
    net = lv.classifier("h2", (1, 8, 8), 4, 4, 2, 1.0, conv=lv.zoo.Images(dropout=0.1)).double()
    net.register_forward_pre_hook(lambda m, args: None if m.training else evaluated.append(args[0].clone()))
    return data, watched(net, data, settings).batches, evaluated


@pytest.mark.parametrize("pixels", [0, 1, 2])
def test_training_sees_shifted_images_and_evaluation_the_images(pixels: int) -> None:
    data, batches, evaluated = seen_by(Settings(epochs=8, batch_size=16, lr=1e-4, shift=pixels, validation=0.25))
    sources = {int(x.mean().div(10).round()): x for x in data.x_train}
    moves = set()
    for image in torch.cat(batches):
        known = shifts(image, sources[int(image.mean().div(10).round())], pixels)
        assert len(known) == 1
        moves.update(known)
    assert moves == {(i, j) for i in range(-pixels, pixels + 1) for j in range(-pixels, pixels + 1)}
    assert all(any(torch.equal(image, x) for x in data.x_train) for image in torch.cat(evaluated))


@pytest.mark.parametrize("shift", [0, 1])
def test_training_sees_warped_images_and_evaluation_the_images(shift: int) -> None:
    data, batches, evaluated = seen_by(
        Settings(epochs=2, batch_size=16, lr=1e-4, warp=1.0, shift=shift, validation=0.25)
    )
    for image in torch.cat(batches):
        source = data.x_train[int(image.mean().div(10).round())]
        assert not shifts(image, source, 1), "whole pixels are no warp"
        assert float(image.min()) >= float(source.min()) - 1e-9  # a warp reads between pixels, never beyond them
        assert float(image.max()) <= float(source.max()) + 1e-9
        assert float((image - source).abs().max()) > 1e-3
    assert all(any(torch.equal(image, x) for x in data.x_train) for image in torch.cat(evaluated))


def test_an_image_moves_anew_in_every_epoch() -> None:
    _, batches, _ = seen_by(Settings(epochs=2, batch_size=1000, lr=1e-4, shift=2, validation=0.0))
    first, second = ({int(x.mean().div(10).round()): x for x in batch} for batch in batches)
    assert len(first) == len(second) == 40
    assert sum(not torch.equal(first[i], second[i]) for i in first) > 30  # 1 in 25 stays by chance


@pytest.mark.parametrize("option", [{"shift": 1}, {"warp": 0.5}])
def test_points_are_no_images(option: dict) -> None:
    with pytest.raises(ValueError, match=r"shift and warp move images .* saddle have the shape \(25, 2\)"):
        fit(lv.classifier("h2", 2, 2, 4, 2, 1.0).double(), points(), Settings(epochs=1, **option))
