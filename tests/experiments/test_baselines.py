"""The networks to compare with: written out by hand, and as many parameters as asked for."""

from __future__ import annotations

import functools

import pytest
import torch

from liouville.experiments.beyond.baselines import deep_mlp, deep_resnet, mlp, nearest_width, parameters, resnet

NORMALISED, SCALED = (functools.partial(deep_resnet, start=start) for start in ("layer-norm", "scaled"))


@pytest.mark.parametrize("build", [mlp, resnet, deep_mlp])
@pytest.mark.parametrize("number", [10, 773, 17_000])
def test_no_width_has_a_nearer_number_of_parameters(build, number: int) -> None:
    of_width = functools.partial(build, 5, 3, depth=3, seed=0)
    width = nearest_width(of_width, number)
    distance = {w: abs(parameters(of_width(w)) - number) for w in (max(1, width - 1), width, width + 1)}
    assert distance[width] == min(distance.values())


def test_a_resnet_adds_what_its_blocks_say() -> None:
    network = resnet(3, 2, width=4, depth=2, seed=0)
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    lift, *blocks, head = network
    y = lift(x)
    for block in blocks:
        y = y + (y @ block.inner.weight.T + block.inner.bias).relu() @ block.outer.weight.T + block.outer.bias
    assert torch.allclose(network(x), head(y), atol=1e-6)


def test_a_deep_resnet_adds_branches_behind_a_normalisation_or_times_a_number() -> None:
    """Written out with torch's own modules, with weights that are nowhere at their start."""
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    for build in (NORMALISED, SCALED):
        network = build(3, 2, width=4, depth=6, seed=0)
        lift, blocks, head = network
        generator = torch.Generator().manual_seed(2)
        for p in blocks.parameters():
            p.data.normal_(generator=generator)
        y = lift(x)
        for j in range(3):
            z = _normalised(y, blocks.gain[j], blocks.shift[j]) if build is NORMALISED else y
            z = (z @ blocks.W[j].T + blocks.b[j]).relu() @ blocks.W_out[j].T + blocks.b_out[j]
            y = y + (z if build is NORMALISED else blocks.scale[j] * z)
        y = _normalised(y, blocks.gain[3], blocks.shift[3]) if build is NORMALISED else y
        assert torch.allclose(network(x), head(y), atol=1e-5)


def _normalised(y: torch.Tensor, gain: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    centred = y - y.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain + shift


def test_a_scaled_start_is_the_identity_between_lift_and_head() -> None:
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    network = SCALED(3, 2, width=4, depth=6, seed=0)
    assert torch.equal(network(x), network[2](network[0](x)))


@pytest.mark.parametrize("build", [mlp, resnet, deep_mlp, NORMALISED, SCALED])
def test_a_seed_gives_the_same_weights_and_leaves_the_global_stream_alone(build) -> None:
    before = torch.get_rng_state()
    one, again, other = (build(2, 1, 3, 2, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    pairs = list(zip(one.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs) and not all(torch.equal(a, c) for a, _, c in pairs)
