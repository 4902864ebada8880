"""The same functions say what is wrong with the networks that people have."""

from __future__ import annotations

import time

import torch
from torch import nn

import liouville as lv
from liouville.analysis import backward_sensitivity, extreme_singular_values, gradient_verdict, norms
from measure import generator, randn


class Block(nn.Module):
    """x + W_2 relu(W_1 x), as in a ResNet without normalisation."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, width))
        for p in self.body.parameters():
            p.data *= scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


def resnet(blocks: int, scale: float) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(*[Block(8, scale) for _ in range(blocks)]).double()


def mlp(layers: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(*[m for _ in range(layers) for m in (nn.Linear(8, 8), nn.Tanh())]).double()


def test_a_plain_resnet_explodes_and_the_verdict_says_how_fast() -> None:
    network, x = resnet(48, 2.5), randn(20, 8)
    M = backward_sensitivity(network, x)
    verdict = gradient_verdict(M)
    assert verdict.startswith("the gradient explodes: ||dy_48/dy_j||_2 is")
    assert f"{float(norms(M[0]).two.median()):.2g} in the median at j = 0" in verdict
    found = extreme_singular_values(network, x)
    assert ((found.largest - norms(M[0]).two).abs() <= found.largest_error + 1e-9 * found.largest).all()


def test_an_mlp_vanishes_a_short_one_loses_directions_and_h2_survives() -> None:
    x = randn(20, 8)
    assert "100 % of the samples below 0.001" in gradient_verdict(backward_sensitivity(mlp(32), x))
    assert gradient_verdict(backward_sensitivity(mlp(32), x)).startswith("the gradient vanishes")
    h2 = lv.zoo.h2(8, 64, T=3.2, generator=generator(0)).double()
    assert gradient_verdict(backward_sensitivity(h2, x)).startswith("the gradient survives these samples")
    squashed = torch.stack([torch.diag(torch.tensor([1.0, 1e-5]))[None], torch.eye(2)[None]])
    assert gradient_verdict(squashed).startswith("the gradient keeps its size but loses directions")


def test_what_overflows_is_named() -> None:
    M = torch.eye(2).repeat(4, 1, 1, 1)
    M[:2] = torch.inf
    assert gradient_verdict(M) == "the sensitivity is not finite from y_1 on: some layer after it overflows."


def test_sensitivities_of_256_layers_and_256_samples_take_less_than_five_seconds() -> None:
    flow = lv.zoo.h2(16, 256, T=6.4, generator=generator(0)).double()
    y, start = randn(256, 16), time.perf_counter()
    backward_sensitivity(flow, y)
    assert time.perf_counter() - start < 5
