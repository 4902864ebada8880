"""How much volume, and so how much norm, a field that loses energy can lose: bounds, where attained, and claims."""

import math

import pytest
import torch

import liouville as lv
import samples
from liouville.analysis import backward_sensitivity, certify, layer_jacobians, log_lower_bound, log_upper_bound
from liouville.analysis.dissipation import log_layer_volumes
from measure import far, jacobian, near, rounding

SCHEMES = (lv.ImplicitMidpoint(), lv.ForwardEuler(), lv.DiscreteGradient())
PORTS = [f for f in samples.FIELDS if f.startswith("port") and "images" not in f]


@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
@pytest.mark.parametrize("name", PORTS)
@torch.no_grad()
def test_no_layer_loses_more_volume_and_no_product_more_norm_than_stated(name, scheme):
    flow = lv.Flow(samples.field(name), scheme, T=0.8)
    y = torch.cat((samples.inputs(flow.field, batch=4), 0.0 * samples.inputs(flow.field, batch=1)))
    A = layer_jacobians(flow, y)
    volumes = torch.linalg.slogdet(A).logabsdet
    assert bool((log_layer_volumes(flow)[:, None] <= volumes + rounding(A, terms=len(A[0, 0]))).all())
    norms = torch.linalg.matrix_norm(backward_sensitivity(flow, y)[:-1], ord=2).log()
    assert float(log_lower_bound(flow)) <= float(norms.min()) + 1e-12
    assert float(norms.max()) <= float(log_upper_bound(flow)) + 1e-12


@pytest.mark.parametrize("scheme", SCHEMES[:2], ids=repr)
def test_the_bound_is_attained(scheme):
    """J = 0, R = r I, K = k I and b = 0: at y = 0 every slope is s_max, and nothing turns."""
    field = lv.PortHamiltonianField(3, 2, J=torch.zeros(3, 3), damping=0.4, quadratic=0.3).double()
    with torch.no_grad():
        field.K.copy_(1.3 * torch.eye(3).expand(2, 3, 3))
        field.b.zero_()
    flow = lv.Flow(field, scheme, T=0.8)
    A = jacobian(lambda state: (flow(*state),), (torch.zeros(1, 3, dtype=torch.float64),))
    near(torch.linalg.slogdet(A).logabsdet / 3, log_lower_bound(flow), rounding(terms=10))
    near(torch.linalg.matrix_norm(A, ord=2).log(), log_lower_bound(flow), rounding(terms=10))
    with torch.no_grad():
        field.L.mul_(0.9)
    far(torch.linalg.slogdet(A).logabsdet / 3, log_lower_bound(flow), 1e-3)


@torch.no_grad()
def test_short_steps_lose_what_the_trace_says_and_long_ones_may_lose_everything():
    field = samples.field("port-hamiltonian")
    theta = field.theta()
    loss = (theta.K @ theta.L).square().sum((-2, -1)).sum() / 4
    for scheme in SCHEMES:
        flow = lv.Flow(field, scheme, T=samples.N * 1e-5)
        near(log_lower_bound(flow) / flow.h, -loss, 1e-3 * float(loss))
        assert float(log_lower_bound(lv.Flow(field, scheme, T=300.0))) == -math.inf


def test_it_is_differentiable():
    field = samples.field("port-hamiltonian-quadratic")
    log_lower_bound(lv.Flow(field, lv.DiscreteGradient(), T=0.5)).backward()
    assert all(bool(w.grad.isfinite().all()) and bool(w.grad.any()) for w in (field.K, field.L))


def test_what_is_not_known_is_refused():
    field = samples.field("port-hamiltonian")
    sine = lv.Activation("sine", torch.sin, lambda x: -x.cos(), torch.cos, 1.0, False)
    for flow, why in (
        (lv.zoo.h1(4, 2, 1.0), "HamiltonianField"),
        (lv.Flow(field, lv.RK4(), 1.0), "RK4"),
        (lv.Flow(samples.field("port-hamiltonian-images"), lv.ForwardEuler(), 1.0), "dense"),
        (lv.Flow(lv.PortHamiltonianField(4, 2, activation=sine), lv.ForwardEuler(), 1.0), "sigma' >= 0"),
    ):
        with pytest.raises(NotImplementedError, match=why):
            log_lower_bound(flow)


def claims(flow):
    """On few states: every one costs a solve per layer."""
    return {c.name: c for c in certify(flow, samples.inputs(flow.field)).claims}


@pytest.mark.parametrize("name", ["port-hamiltonian", "port-hamiltonian-lossless"])
def test_the_certificate_has_both_sides_and_the_balance(name):
    for scheme in SCHEMES:
        found = claims(lv.Flow(samples.field(name), scheme, T=0.6))
        assert not [c for c in found.values() if c.status == "broken"]
        c, U = found["damping"].bound["norm >="], found["upper bound"].bound["U"]
        assert (
            0 < c <= found["damping"].measured["least 2-norm"] <= found["upper bound"].measured["largest 2-norm"] <= U
        )
        kept = isinstance(scheme, lv.DiscreteGradient)
        assert found["passivity"].status == ("pass" if kept else "not applicable")
        assert kept or found["passivity"].measured["largest defect"] > 1e-6


def test_other_fields_have_no_such_claims_and_images_no_bound():
    assert not {"damping", "passivity"} & set(claims(lv.zoo.h2(4, 2, 1.0).double()))
    images = claims(lv.Flow(samples.field("port-hamiltonian-images"), lv.ForwardEuler(), T=0.3))
    assert images["damping"].status == "not applicable" and "dense" in images["damping"].note


def test_a_field_that_is_not_what_it_says_breaks_its_claims():
    class Lossy(lv.PortHamiltonianField):
        def mean_velocity(self, y, z, theta_j, u=None):
            return super().mean_velocity(y, z, theta_j, u) - 0.1 * (y + z)

    found = claims(lv.Flow(Lossy(4, 3).double(), lv.DiscreteGradient(), T=0.5))
    assert found["passivity"].status == found["damping"].status == "not applicable"
    field = samples.field("port-hamiltonian")
    right = field.mean_gradient
    field.mean_gradient = lambda y, z, theta_j: 1.01 * right(y, z, theta_j)
    found = claims(lv.Flow(field, lv.DiscreteGradient(), T=0.5))
    assert found["passivity"].status == "not applicable" and "replaced" in found["passivity"].note


def test_a_step_that_gains_is_noticed(monkeypatch):
    right = lv.DiscreteGradient.step
    monkeypatch.setattr(lv.DiscreteGradient, "step", lambda *a: tuple(1.0001 * s for s in right(*a)))
    monkeypatch.setattr(lv.analysis.certificates.dissipation, "unknown_run", lambda flow: "")
    assert (
        claims(lv.Flow(samples.field("port-hamiltonian"), lv.DiscreteGradient(), T=0.5))["passivity"].status == "broken"
    )


def test_a_norm_below_the_bound_breaks_the_claim(monkeypatch):
    module = lv.analysis.certificates.dissipation
    monkeypatch.setattr(module, "log_lower_bound", lambda flow: torch.tensor(math.log(2.0)))
    found = claims(lv.Flow(samples.field("port-hamiltonian"), lv.ImplicitMidpoint(), T=0.5))
    assert found["damping"].status == "broken"


@pytest.mark.parametrize("scheme", [lv.DiscreteGradient(), lv.ImplicitMidpoint()], ids=repr)
def test_a_state_at_rest_is_certified_too(scheme):
    """There the states are only the residual of the solver, which differs from batch to batch."""
    found = certify(lv.Flow(lv.PortHamiltonianField(4, 6), scheme, 1.0), torch.zeros(2, 4))
    assert found.holds
