"""docs/theory/universality.md: weights with which h2 and h1 are a given network of one hidden layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import liouville as lv
from measure import EPS, generator, near, randn

D = 2  # numbers of an input


@pytest.mark.parametrize("activation", ["tanh", "relu", "logistic", "softplus"])
@pytest.mark.parametrize(("m", "layers", "T"), [(7, 1, 0.5), (D + 1, 1, 2.0), (D + 1, 6, 3.0)])
@pytest.mark.parametrize("model", ["h2", "h1"])
def test_h2_and_h1_are_able_to_be_any_network_of_one_hidden_layer(
    model: str, m: int, layers: int, T: float, activation: str
) -> None:
    """At any width with m units, at the least width with (d + 1) units for each layer, for any T."""
    flow = getattr(lv.zoo, model)(2 * m, layers, T, activation=activation).double()
    a, b, c = randn(layers, m, D, seed=0), randn(layers, m, seed=1), randn(layers, m, seed=2)
    K = torch.zeros(layers, m, m, dtype=torch.float64)
    K[..., :D], K[..., D] = a, c / flow.h
    with torch.no_grad():
        for p in flow.parameters():
            p.zero_()
        (flow.field.K_p if model == "h2" else flow.field.K[:, :m, :m]).copy_(K)
        (flow.field.b_p if model == "h2" else flow.field.b[:, :m]).copy_(b)
    head = nn.Linear(2 * m, 1).double()
    with torch.no_grad():
        head.weight.zero_(), head.bias.zero_()
        head.weight[0, m + D] = 1.0
    x = randn(50, D, seed=3)
    shallow = (c * flow.field.activation(torch.einsum("jid,xd->xji", a, x) + b)).sum((-2, -1))
    terms = (c * flow.field.activation(torch.einsum("jid,xd->xji", a, x) + b)).abs().sum((-2, -1)).max()
    # each of the layers * m terms is a sum of m products; sigma has slope at most 1
    found = lv.Network(lv.Lift(2 * m, D), flow, head)(x)[:, 0]
    size = terms + (c.abs() * (a.abs().sum(-1) * x.abs().max() + b.abs())).sum()
    near(found, shallow, 4 * m * (layers + 1) * EPS * float(size))


def test_the_flow_alone_keeps_volume_and_so_is_not_near_every_map() -> None:
    flow = lv.zoo.h2(4, 8, 3.0, generator=generator(0), init=lv.Normal(1.0)).double()
    assert lv.analysis.log_determinants(flow, randn(20, 4)).abs().max() < 1e-12
