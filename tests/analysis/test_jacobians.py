"""Layer Jacobians equal autograd's on every pair of scheme and field; sensitivities are their products."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

import liouville as lv
from liouville.analysis import backward_sensitivity, layer_jacobians
from liouville.analysis.states import flat_states
from measure import EPS, at, flat, near, norm, randn, rounding, step_jacobian
from samples import FIELDS, PAIRS, field, inputs
from samples import flow as flow_of
from turns import one_in


def tolerance(A: torch.Tensor) -> float:
    """n terms in each entry of a few products (factor 10 each), and implicit states within 10 eps of their equation."""
    return 100 * EPS * len(A) * max(1.0, norm(A)) ** 2


@pytest.mark.parametrize(("scheme", "name"), one_in(3, PAIRS))
def test_layer_jacobians_are_those_of_the_step(scheme: str, name: str) -> None:
    flow = flow_of(scheme, name).eval()
    y = inputs(flow.field, batch=2)
    A, states = layer_jacobians(flow, y), list(flow.states(y))
    for j in range(flow.layers):
        for s in range(2):
            state = tuple(part[s : s + 1].detach() for part in states[j])
            expected = step_jacobian(flow.scheme, flow.field, state, flow.h, j)
            near(A[j, s], expected, tolerance(expected))


@pytest.mark.parametrize(("scheme", "name"), one_in(2, PAIRS))
def test_sensitivities_are_the_products_of_the_layers(scheme: str, name: str) -> None:
    flow = flow_of(scheme, name).eval()
    y = inputs(flow.field, batch=2)
    A, M = layer_jacobians(flow, y), backward_sensitivity(flow, y)
    product = torch.eye(A.shape[-1], dtype=y.dtype).expand_as(A[0])
    assert torch.equal(M[-1], product)
    for j in reversed(range(flow.layers)):
        product = product @ A[j]
        near(M[j], product, 10 * EPS * A.shape[-1] * flow.layers * float(M[j].norm()))


CLOSED = [f for f in FIELDS if not any(word in f for word in ("images", "signal", "dropout", "shear"))]


@pytest.mark.parametrize("name", CLOSED)
def test_dense_fields_give_their_jacobian_in_closed_form_for_all_layers_at_once(name: str) -> None:
    of = field(name)
    theta = of.theta()
    halves = (
        {"p": (of.p_dot, of.p_jacobian, of.features - of.p_features), "q": (of.q_dot, of.q_jacobian, of.p_features)}
        if isinstance(of, lv.PartitionedField)
        else {"y": (of, of.jacobian, of.features)}
    )
    if isinstance(of, lv.SecondOrderField):
        halves = {"p": (of.p_dot, of.p_jacobian, of.features), "q": (of.q_dot, of.q_jacobian, of.features)}
    for velocity, closed, width in halves.values():
        x = randn(of.layers, 2, width)
        J = closed(x, theta)
        for j in range(of.layers):
            for s in range(2):
                expected = torch.autograd.functional.jacobian(lambda v, j=j, f=velocity: f(v, at(theta, j)), x[j, s])
                near(J[j, s], expected, rounding(expected, terms=8 * of.features))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_leading_axes_are_batch_axes(shape: tuple[int, ...]) -> None:
    flow = lv.zoo.h2(4, layers=5, T=1.0, backprop=lv.Stored()).double()  # equal to the bit
    y = randn(*shape, 4)
    M, states = backward_sensitivity(flow, y), flat_states(flow, y)
    assert M.shape == (6, *shape, 4, 4)
    assert layer_jacobians(flow, y).shape == (5, *shape, 4, 4)
    assert states.shape == (6, *shape, 4)
    near(states[-1], flow(y), 0.0)
    near(M.reshape(6, -1, 4, 4)[:, -1], backward_sensitivity(flow, y.reshape(-1, 4)[-1]), 100 * EPS)


def test_the_sensitivity_of_a_linear_field_is_the_product_of_known_matrices() -> None:
    """sigma = identity: y' = -K^T K y in the force, so that each shear is a known matrix."""
    line = lv.Activation("line", lambda x: x, lambda x: x.square() / 2, torch.ones_like, 1.0, True)
    h, N, K = 0.1, 6, randn(6, 2, 2)
    flow = lv.zoo.h2(4, layers=N, T=h * N, activation=line).double()
    with torch.no_grad():
        flow.field.K_p.copy_(K)
        flow.field.K_q.copy_(2 * K)
    eye, zero, product = torch.eye(2).double(), torch.zeros(2, 2).double(), torch.eye(4).double()
    M = backward_sensitivity(flow, randn(3, 4))
    for j in reversed(range(N)):
        first = torch.cat((torch.cat((eye, -4 * h * K[j].mT @ K[j]), 1), torch.cat((zero, eye), 1)))
        second = torch.cat((torch.cat((eye, zero), 1), torch.cat((h * K[j].mT @ K[j], eye), 1)))
        product = product @ second @ first
        near(M[j], product.expand(3, 4, 4), rounding(product, terms=4 * N))


def test_the_result_has_the_dtype_of_the_input_and_keeps_no_graph() -> None:
    M = backward_sensitivity(lv.zoo.ms1(4, layers=3, T=1.0), torch.randn(2, 4, requires_grad=True))
    assert M.dtype == torch.float32
    assert not M.requires_grad


def test_the_engine_has_no_say() -> None:
    flow, y = lv.zoo.h2(4, layers=8, T=1.0).double(), randn(3, 4)
    assert torch.equal(backward_sensitivity(flow, y), backward_sensitivity(flow.with_backprop(lv.Reversible()), y))


class Damped(lv.HamiltonianField):
    """A subclass that changes what the field computes, and does not know of `jacobian`."""

    def forward(self, y, theta_j):
        return super().forward(y, theta_j) - 0.3 * y


@dataclass(frozen=True)
class Heun(lv.ForwardEuler):
    """A scheme of the user's own, built on one of ours."""

    def step(self, field, state, theta_j, h):
        k = field(state[0], theta_j)
        return (state[0] + h / 2 * (k + field(state[0] + h * k, theta_j)),)


@pytest.mark.parametrize("scheme", [lv.ForwardEuler(), lv.RK4(), Heun()])
def test_what_a_subclass_changes_is_differentiated(scheme: lv.Scheme) -> None:
    flow = lv.Flow(Damped(4, 3, init=lv.Normal(0.6)).double(), scheme, T=1.0)
    y = randn(2, 4)
    A, states = layer_jacobians(flow, y), list(flow.states(y))
    for j in range(3):
        expected = step_jacobian(scheme, flow.field, (states[j][0][:1].detach(),), flow.h, j)
        near(A[j, 0], expected, tolerance(expected))


def test_a_force_whose_subclass_changes_it_is_differentiated() -> None:
    class Weaker(lv.SymmetricField):
        def forward(self, y, theta_j):
            return 0.5 * super().forward(y, theta_j)

    flow = lv.Flow(lv.SecondOrderField(Weaker(3, 2, init=lv.Normal(0.6)).double()), lv.Verlet(), T=1.0)
    y = randn(1, 3)
    state = tuple(x.detach() for x in next(iter(flow.states(y))))
    near(layer_jacobians(flow, y)[0, 0], step_jacobian(flow.scheme, flow.field, state, flow.h), 100 * EPS)


def test_errors_say_what_to_do() -> None:
    flow = lv.zoo.h2(8, layers=4, T=1.0, operator=lv.Conv(3))
    with pytest.raises(ValueError, match=r"GiB.*extreme_singular_values"):
        backward_sensitivity(flow, torch.randn(2, 8, 64, 64))
    with pytest.raises(ValueError, match=r"call flow.eval\(\)"):
        backward_sensitivity(
            lv.Flow(lv.dropout(lv.HamiltonianField(4, 2), 0.5), lv.ForwardEuler(), 1.0), torch.randn(2, 4)
        )
    with pytest.raises(ValueError, match="at least one sample"):
        backward_sensitivity(lv.zoo.h2(4, 2, 1.0), torch.randn(0, 4))
    with pytest.raises(ValueError, match=r"nn.Sequential or a sequence"):
        backward_sensitivity(nn.Linear(3, 3), torch.randn(2, 3))


def test_states_are_those_of_the_scheme_one_part_behind_the_other() -> None:
    flow = lv.zoo.midpoint(3, layers=4, T=1.0).double()
    y = randn(2, 3)
    for flattened, state in zip(flat_states(flow, y), flow.states(y), strict=True):
        near(flattened[1], flat([s[1:2] for s in state]), 0.0)
