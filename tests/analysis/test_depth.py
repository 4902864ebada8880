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


@pytest.mark.parametrize("model", lv.zoo.MODELS)
def test_smooth_networks_are_equations_and_random_layers_are_not(model: str) -> None:
    """Of every model, with the default weights, and with i.i.d. ones; benchmarks/depth_check.py does it 100 times."""
    for seed in range(2):
        y = randn(20, 4)
        smooth = lv.zoo.MODELS[model](4, layers=24, T=1.0, generator=generator(seed)).double()
        found = depth_check(smooth, y)
        assert found.kind == "ODE" and found.distance < 0.2, found
        stack = lv.zoo.MODELS[model](4, layers=8, T=8.0, init=lv.Normal(3.0), generator=generator(seed)).double()
        assert depth_check(stack, y).kind == "stack"


def test_a_large_change_is_no_equation_whatever_the_ratio_of_two_changes() -> None:
    """Of these stacks some halve their change by chance, which is the order of their scheme."""
    lucky = 0
    for seed in range(8):
        stack = lv.zoo.h2(4, 8, T=8.0, init=lv.Normal(3.0), generator=generator(seed)).double()
        found = depth_check(stack, randn(20, 4))
        lucky += abs(found.order - 1) < 0.5
        assert found.change > 0.5 and found.kind == "stack"
    assert lucky, "the case must be one where the order alone would be believed"


def test_between_the_two_nothing_is_said() -> None:
    found = depth_check(lv.zoo.h1(4, 24, T=2.0, generator=generator(1)).double(), randn(20, 4))
    assert found.kind == "undecided" and str(found).startswith("undecided: 24 to 48 layers")
    assert found.distance > 0.2 and found.change <= 0.3


@pytest.mark.parametrize("scheme", [lv.LeapfrogMidpoint(), lv.RK4(), lv.ImplicitMidpoint(), lv.ForwardEuler()])
def test_the_order_in_depth_is_what_refinement_measures_where_weights_jump(scheme: lv.Scheme) -> None:
    """Three weights, piecewise constant in time, each over 4, 8, 16, 32 layers."""
    field = lv.AntisymmetricField(4, 3, init=lv.Normal(0.6), generator=generator(1)).double()
    for _ in range(2):
        field = field.refined()
    found = depth_check(lv.Flow(field, scheme, T=1.0), randn(3, 4))
    assert found.expected_order == scheme.order_in_depth
    assert abs(found.order - scheme.order_in_depth) < 0.15 and found.kind == "ODE"


def test_rounding_of_float32_is_not_taken_for_agreement() -> None:
    """256 layers in float32: the check computes in float64, and a change of 1 % is one."""
    flow = lv.zoo.h2(4, 256, T=8.0, generator=generator(0))
    x = torch.randn(20, 4, generator=generator(1))
    single, double = depth_check(flow, x), depth_check(flow.double(), x.double())
    assert single.change == pytest.approx(double.change, rel=1e-3) and single.order == pytest.approx(double.order)


def test_a_network_that_insists_on_float32_is_checked_in_it() -> None:
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flow = lv.zoo.h2(4, 16, T=1.0, generator=generator(0))
            self.weight = [torch.eye(4)]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.flow(x @ self.weight[0])

    assert depth_check(Single(), torch.randn(20, 4, generator=generator(1))).kind == "ODE"


def test_nothing_is_said_of_an_output_that_is_not_finite() -> None:
    flow = lv.zoo.h2(4, layers=4, T=1.0)
    with pytest.raises(ValueError, match="not finite"):
        depth_check(flow, torch.full((2, 4), torch.nan))
    with pytest.raises(ValueError, match="float8_e5m2"):
        depth_check(flow, torch.ones(2, 4).to(torch.float8_e5m2))
