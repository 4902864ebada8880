"""Refinement tells an ordinary differential equation from a stack of layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import liouville as lv
from liouville.analysis import depth_check
from measure import generator, randn


@pytest.mark.parametrize(("model", "order"), [("h2", 1), ("leapfrog", 2), ("h1", 1), ("midpoint", 2)])
def test_smooth_flows_converge_at_the_order_of_their_scheme(model: str, order: int) -> None:
    flow = getattr(lv.zoo, model)(4, 128, T=1.0, shared=True, generator=generator(0)).double()
    found = depth_check(flow, randn(50, 4))
    assert abs(found.order - order) < 0.15
    assert found.flips is None and found.layers == 128


def test_verdicts() -> None:
    y = randn(50, 4)
    smooth = depth_check(lv.zoo.leapfrog(4, 64, T=1.0, generator=generator(0)).double(), y)
    assert str(smooth).startswith("an ODE: 64 to 128 layers")
    coarse = depth_check(lv.zoo.h2(4, 12, T=1.0, generator=generator(0)).double(), y)
    assert str(coarse).startswith("an ODE that 12 layers do not resolve")
    rough = depth_check(lv.zoo.h2(4, 16, T=60.0, init=lv.Normal(1.0), generator=generator(0)).double(), y)
    assert str(rough).startswith("a stack of layers")


def test_a_network_counts_the_predictions_that_flip() -> None:
    torch.manual_seed(0)
    network = lv.classifier("h2", 2, 3, 4, 8, T=6.0, generator=generator(0)).double()
    x = randn(200, 2)
    twice = network.body.refined()
    other = lv.Network(network.lift, twice, network.head)
    share = float((network(x).argmax(-1) != other(x).argmax(-1)).double().mean())
    found = depth_check(network, x)
    assert found.flips == share > 0
    assert f"flip {100 * share:.2g} %" in str(found)
    assert network.body.layers == 8  # a copy was refined


def test_what_does_not_depend_on_the_step_is_an_ode() -> None:
    """With K = 0 nothing moves: the change is rounding, and there is no order to measure."""
    flow = lv.zoo.h2(4, 4, T=1.0).double()
    with torch.no_grad():
        for weight in flow.field.parameters():
            weight.zero_()
    found = depth_check(flow, randn(5, 4))
    assert found.change == 0 and found.order != found.order
    assert str(found).startswith("an ODE")


def test_a_network_without_flows_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a Flow"):
        depth_check(nn.Linear(2, 2), torch.randn(3, 2))
