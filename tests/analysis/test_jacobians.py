"""Layer Jacobians equal autograd's on every pair of scheme and field; sensitivities are their products."""

from __future__ import annotations

import pytest
import torch

import liouville as lv
from liouville.analysis import backward_sensitivity, layer_jacobians
from measure import EPS, near, norm, step_jacobian
from samples import FIELDS, PAIRS, inputs
from samples import flow as flow_of


def each_state(flow: lv.Flow, y: torch.Tensor):
    """State j of sample s, as tuples of batches of one."""
    states = [[t.detach() for t in state] for state in flow.states(y)]
    return lambda j, s: tuple(t[s : s + 1] for t in states[j])


@pytest.mark.parametrize(("scheme", "name"), PAIRS)
def test_layer_jacobians_are_those_of_the_step(scheme: str, name: str) -> None:
    flow = flow_of(scheme, name).eval()
    y = inputs(flow.field, batch=2)
    A, state = layer_jacobians(flow, y), each_state(flow, y)
    for j in range(flow.layers):
        for s in range(2):
            expected = step_jacobian(flow.scheme, flow.field, state(j, s), flow.h, j)
            # n terms in each entry of a few products; the implicit state itself is within 10 eps of its equation
            near(A[j, s], expected, 100 * EPS * len(expected) * max(1.0, norm(expected)) ** 2)


@pytest.mark.parametrize(("scheme", "name"), PAIRS)
def test_sensitivities_are_the_products_of_the_layers(scheme: str, name: str) -> None:
    flow = flow_of(scheme, name).eval()
    y = inputs(flow.field, batch=2)
    A, M = layer_jacobians(flow, y), backward_sensitivity(flow, y)
    product = torch.eye(A.shape[-1], dtype=y.dtype).expand_as(A[0])
    assert torch.equal(M[-1], product)
    for j in reversed(range(flow.layers)):
        product = product @ A[j]
        near(M[j], product, 10 * EPS * A.shape[-1] * flow.layers * float(M[j].norm()))


CLOSED = [f for f in FIELDS if "images" not in f and "signal" not in f and "dropout" not in f and f != "shear"]
