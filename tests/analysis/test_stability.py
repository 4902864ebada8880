"""Margins are h times the documented products of norms; the first layer that is not finite is found."""

from __future__ import annotations

import pytest
import torch

import liouville as lv
from liouville.analysis import first_nonfinite_layer, margin


def norm(A: torch.Tensor) -> torch.Tensor:
    return torch.linalg.matrix_norm(A, ord=2)


def test_margins_by_hand() -> None:
    h2 = lv.zoo.h2(4, 5, T=2.0, X=torch.randn(2, 2)).double()
    t = h2.field.theta()
    expected = h2.h * norm(h2.field.X) * norm(t.K_p) * norm(t.K_q)
    assert torch.allclose(margin(h2), expected)
    h1 = lv.zoo.h1(4, 5, T=2.0, J="full").double()
    assert torch.allclose(margin(h1), h1.h * norm(h1.field.J) * norm(h1.field.K) ** 2)
    ms1 = lv.zoo.ms1(4, 5, T=2.0).double()
    assert torch.allclose(margin(ms1), ms1.h * norm(ms1.field.K))
    leapfrog = lv.zoo.leapfrog(4, 5, T=2.0).double()
    assert torch.allclose(margin(leapfrog), leapfrog.h * norm(leapfrog.field.theta().K))
    logistic = lv.zoo.resnet(4, 5, T=2.0, activation="logistic").double()
    assert torch.allclose(margin(logistic), logistic.h * 0.25 * norm(logistic.field.K))


def test_shared_weights_have_a_margin_per_layer() -> None:
    assert margin(lv.zoo.h2(4, 7, T=1.0, shared=True)).shape == (7,)


@pytest.mark.parametrize(("product", "grows"), [(1.98, False), (2.02, True)])
def test_symplectic_euler_is_stable_exactly_below_two(product: float, grows: bool) -> None:
    """A frozen, linearised oscillator: K_p = K_q = 1, sigma' = 1 near 0, so the margin is h."""
    layers = 400
    flow = lv.zoo.h2(2, layers, T=product * layers, shared=True).double()
    with torch.no_grad():
        for weight in (flow.field.K_p, flow.field.K_q):
            weight.fill_(1.0)
        for bias in (flow.field.b_p, flow.field.b_q):
            bias.zero_()
    assert float(margin(flow)[0]) == pytest.approx(product)
    y = torch.tensor([[1e-9, 0.0]], dtype=torch.double)
    growth = float(flow.trajectory(y).norm(dim=-1).max() / y.norm())
    assert (growth > 1e3) == grows


def test_first_nonfinite_layer() -> None:
    flow = lv.zoo.h1(4, 6, T=1.0)
    y = torch.zeros(2, 4)
    assert first_nonfinite_layer(flow, y) is None
    with torch.no_grad():
        flow.field.b[2] = float("inf")
        flow.field.K[2] = float("inf")
    assert first_nonfinite_layer(flow, y) == 2
    assert first_nonfinite_layer(flow, y * float("nan")) == -1


@pytest.mark.parametrize(
    "ask",
    [
        lv.analysis.margin,
        lv.analysis.log_upper_bound,
        lambda network: lv.analysis.energy_balance(network, torch.zeros(1, 2)),
        lambda network: lv.budgeted(network, 20.0),
    ],
    ids=["margin", "log_upper_bound", "energy_balance", "budgeted"],
)
def test_what_is_defined_for_a_flow_says_so(ask):
    network = lv.classifier("h2", inputs=2, classes=2, features=4, layers=4, T=1.0)
    for other in (network, torch.nn.Sequential(torch.nn.Linear(2, 2))):
        with pytest.raises(ValueError, match=f"defined for a Flow, got {type(other).__name__}"):
            ask(other)


def test_a_certificate_is_for_flows_and_networks():
    with pytest.raises(ValueError, match="for a Flow, a Network, a recurrent layer or a SequenceNetwork, got Linear"):
        lv.analysis.certify(torch.nn.Linear(2, 2))


def test_a_margin_that_is_not_a_number_is_below_no_limit():
    flow = lv.zoo.h2(4, layers=2, T=1.0)
    found = lv.analysis.step_margin(flow, torch.full((2, 4), torch.nan))
    assert "below" not in found.verdict and "nan in layer 0" in found.verdict
    assert lv.analysis.step_margin(flow, torch.ones(4)).values.shape == (2,)  # one state is a sample too
