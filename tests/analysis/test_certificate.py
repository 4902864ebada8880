"""What a certificate claims is true, what it cannot prove it does not claim, and every lie comes out broken."""

import json
import math

import pytest
import torch

import liouville as lv
from liouville.analysis import certified_radius, certify
from liouville.analysis.certificates import flows
from liouville.analysis.proofs.routes import find_route
from measure import EPS, generator, randn

ROUTES = [
    ("h1", None, {}, "det >= 1"),
    ("h1", None, {"J": "full"}, "det >= 1"),
    ("h2", None, {}, "symplectic"),
    ("h2", "Verlet", {}, "symplectic"),
    ("h2", "Yoshida4", {}, "symplectic"),
    ("h2", None, {"X": torch.tensor([[1.2, 0.7], [-0.3, 0.6]])}, "symplectic"),
    ("h2", "ForwardEuler", {}, "det >= 1"),
    ("h2", "RK4", {}, "none"),
    ("ms1", None, {}, "det = 1"),
    ("ms1", "ForwardEuler", {}, "det >= 1"),
    ("ms2", None, {}, "det >= 1"),
    ("ms2", "ImplicitMidpoint", {}, "det = 1"),
    ("ms2", "RK4", {}, "none"),
    ("ms3", None, {}, "symplectic"),
    ("verlet", None, {}, "det = 1"),
    ("leapfrog", None, {}, "symplectic"),
    ("leapfrog", None, {"force": "semidefinite"}, "det = 1"),
    ("midpoint", None, {}, "det = 1"),
    ("midpoint", None, {"gamma": 0.5}, "det = 1"),
    ("resnet", None, {}, "none"),
    ("resnet", "RK4", {}, "none"),
    ("h1", "ImplicitMidpoint", {}, "symplectic"),
    ("h1", "ImplicitSymplecticEuler", {}, "symplectic"),
    ("h1", "ImplicitMidpoint", {"train_J": True}, "symplectic"),
]


def flow_of(model, scheme=None, layers=6, T=0.8, features=4, **more):
    flow = lv.zoo.MODELS[model](features, layers, T, init=lv.Normal(0.7), generator=generator(), **more).double()
    return flow if scheme is None else lv.Flow(flow.field, lv.schemes.SCHEMES[scheme](), T)


def claim(certificate, name):
    (found,) = (c for c in certificate.claims if c.name == name)
    return found


@pytest.mark.parametrize(("model", "scheme", "more", "route"), ROUTES)
def test_routes_of_the_papers_networks(model, scheme, more, route):
    certificate = certify(flow_of(model, scheme, **more), randn(16, 4))
    lower = claim(certificate, "lower bound")
    assert certificate.holds and lower.route == route
    assert lower.status == ("not applicable" if route == "none" else "pass")
    assert claim(certificate, "layers").status == lower.status
    if route != "none":
        assert min(lower.measured.values()) >= 1 - 1e-9


@pytest.mark.parametrize(
    ("field", "scheme", "route"),
    [
        (lambda: lv.HamiltonianField(3, 4, J="full"), "ImplicitMidpoint", "symplectic"),  # odd, and so singular
        (lambda: lv.HamiltonianField(4, 4, J=torch.zeros(4, 4)), "ImplicitMidpoint", "det = 1"),
        (lambda: lv.HamiltonianField(4, 4, J=_varying()), "ImplicitMidpoint", "det = 1"),
        (lambda: lv.HamiltonianField(4, 4, J=_varying()), "ForwardEuler", "det >= 1"),
        (
            lambda: lv.ShearField(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), layers=4, features=4),
            "Verlet",
            "det = 1",
        ),
        (lambda: lv.dropout(lv.SeparableHamiltonianField(4, 4), 0.5), "SymplecticEuler", "symplectic"),
        (lambda: lv.HamiltonianField(3, 4, J="full", operator=lv.Conv(3)), "ForwardEuler", "det >= 1"),
        (lambda: lv.SeparableHamiltonianField(4, 4, operator=lv.Conv(3)), "SymplecticEuler", "symplectic"),
    ],
)
def test_routes_beyond_the_papers(field, scheme, route):
    flow = lv.Flow(field().double(), lv.schemes.SCHEMES[scheme](), T=0.5)
    certificate = certify(flow)
    assert certificate.holds
    assert (claim(certificate, "lower bound").route, claim(certificate, "lower bound").status) == (route, "pass")


def _varying():
    B = randn(4, 4, 4, seed=3).float()
    return B - B.mT


@pytest.mark.parametrize("model", ["h1", "h2", "ms1", "ms2", "ms3"])
@pytest.mark.parametrize("layers", [4, 64, 1024])
def test_the_lower_bound_at_any_depth(model, layers):
    certificate = certify(flow_of(model, layers=layers, T=2.0), randn(16, 4))
    lower = claim(certificate, "lower bound")
    assert certificate.holds and lower.status == "pass" and min(lower.measured.values()) >= 1 - 1e-9


SINE = lv.Activation("sin 3x", lambda x: torch.sin(3 * x), torch.cos, lambda x: 3 * torch.cos(3 * x), 3.0, False)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: flow_of("ms2", gamma=0.3), "gamma = 0.3"),
        (lambda: flow_of("antisymmetric", gamma=1e-6), "gamma = 1e-06"),
        (lambda: flow_of("h1", activation=SINE), "it is not monotone"),
        (lambda: flow_of("h1", "RK4"), "neither symplectic nor"),
        (lambda: flow_of("resnet"), "no skew structure"),
        (lambda: lv.Flow(flow_of("h2").field, Damped(), 1.0), "Damped overrides step"),
    ],
)
def test_where_no_proof_is_known_nothing_is_claimed(make, reason):
    certificate = certify(make(), randn(8, 4))
    lower = claim(certificate, "lower bound")
    assert lower.status == "not applicable" and reason in lower.note and not lower.bound
    assert certificate.holds


class Damped(lv.SymplecticEuler):
    def step(self, field, state, theta_j, h):
        return tuple(0.9 * part for part in super().step(field, state, theta_j, h))

    def inverse(self, field, state, theta_j, h):
        return super().inverse(field, tuple(part / 0.9 for part in state), theta_j, h)


def test_sigma_that_is_not_monotone_is_no_obstacle_for_shears():
    assert claim(certify(flow_of("h2", activation=SINE)), "lower bound").status == "pass"


def test_a_run_that_leaves_its_integer_grid_has_no_route():
    flow = flow_of("h2", layers=20, T=400.0, activation="relu").with_backprop(lv.Reversible(exact=True))
    with torch.no_grad():
        for w in flow.parameters():
            w.abs_().mul_(10 if w.dim() == 3 else 0)
    lower = claim(certify(flow, 0.01 * randn(4, 4).abs()), "lower bound")
    assert lower.status == "not applicable" and "exactly reversible run" in lower.note


class Drained(lv.SeparableHamiltonianField):
    """It calls itself Hamiltonian and is not: q' has friction."""

    def q_dot(self, p, theta_j):
        return super().q_dot(p, theta_j) - 0.5 * p


class Harmless(lv.SeparableHamiltonianField):
    """Written otherwise, but the same function."""

    def q_dot(self, p, theta_j):
        return (self.activation(p @ theta_j.K_p.mT + theta_j.b_p)) @ theta_j.K_p


class Shrunk(lv.HamiltonianField):
    def forward(self, y, theta_j):
        return super().forward(y, theta_j) - 0.1 * y


def broken_J():
    flow = flow_of("h1")
    flow.field.J[0, 1] += 0.1
    return flow


def poisoned(value):
    flow = flow_of("h2")
    with torch.no_grad():
        flow.field.K_p[2, 0, 1] = value
    return flow


def patched():
    flow = flow_of("h2")
    flow.field.p_dot = lambda q, theta_j: -q
    return flow


def liar(**facts):
    stated = {"lipschitz": 3.0, "monotone": False} | facts
    return lv.Activation("sin 3x", SINE.function, SINE.primitive, SINE.derivative, **stated)


def other_budget():
    inner = flow_of("h2", T=1.0)
    return lv.Flow(lv.budgeted(inner, 2.0).field, inner.scheme, T=4.0)


class Forgetful(lv.SymplecticEuler):
    """Its inverse undoes half of the step."""

    def inverse(self, field, state, theta_j, h):
        return super().inverse(field, state, theta_j, 0.5 * h)


@pytest.mark.parametrize(
    ("make", "name", "reason"),
    [
        (broken_J, "lower bound", "J is skew"),
        (lambda: lv.Flow(broken_J().field, lv.ImplicitMidpoint(), 1.0), "lower bound", "J is skew"),
        (lambda: poisoned(math.nan), "finite", "K_p"),
        (lambda: poisoned(math.inf), "finite", "K_p"),
        (patched, "lower bound", "computes the formula of SeparableHamiltonianField"),
        (lambda: lv.Flow(Drained(4, 6).double(), lv.SymplecticEuler(), 1.0), "lower bound", "computes the formula"),
        (lambda: lv.Flow(Drained(4, 6).double(), lv.SymplecticEuler(), 1.0), "upper bound", "computes the formula"),
        (lambda: lv.Flow(Shrunk(4, 6).double(), lv.ForwardEuler(), 1.0), "lower bound", "computes the formula"),
        (lambda: flow_of("h1", activation=liar(monotone=True)), "lower bound", "sigma' >= 0"),
        (lambda: flow_of("h2", activation=liar(lipschitz=1.0)), "upper bound", "|sigma'| <= 1"),
        (other_budget, "budget", "exceeds the budget"),
        (lambda: lv.Flow(flow_of("h2").field, Forgetful(), 1.0), "inverse", "leads elsewhere"),
    ],
)
def test_a_lie_is_broken(make, name, reason):
    certificate = certify(make(), randn(8, 4))
    found = claim(certificate, name)
    assert found.status == "broken" and reason in found.note
    assert not certificate.holds and name in [c.name for c in certificate.broken]
    assert f"broken: {certificate.broken[0].name}" in str(certificate)


def test_another_spelling_of_the_same_function_is_not():
    assert certify(lv.Flow(Harmless(4, 6).double(), lv.SymplecticEuler(), 1.0)).holds


def test_states_that_overflow_are_broken():
    flow = flow_of("resnet", activation="relu", layers=20, T=1e30)
    assert claim(certify(flow, randn(3, 4)), "finite").status == "broken"
    assert claim(certify(flow_of("h2"), torch.full((1, 4), math.nan).double()), "finite").status == "broken"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"smallest": {"1": 1.0, "2": 0.99, "inf": 1.0, "F": 1.0}}, "lower bound"),
        ({"largest": {"2": 1e9}}, "upper bound"),
        ({"singular": (1e-9, 1.0)}, "singular values"),
        ({"log_det": (-1e-6, 0.0)}, "layers"),
        ({"log_det": (0.0, 1e-6)}, "layers"),
        ({"defect": 1e-6}, "layers"),
    ],
)
def test_a_measurement_against_the_proof_is_broken(change, name, monkeypatch):
    """A proof may be wrong too: what is measured has the last word."""
    import dataclasses

    original = flows.measure
    monkeypatch.setattr(flows, "measure", lambda *a: dataclasses.replace(original(*a), **change))
    assert claim(certify(flow_of("h2"), randn(8, 4)), name).status == "broken"


def test_forward_euler_may_grow_but_not_shrink(monkeypatch):
    import dataclasses

    original = flows.measure
    for log_det, status in (((0.0, 0.3), "pass"), ((-1e-6, 0.3), "broken")):
        monkeypatch.setattr(flows, "measure", lambda *a, d=log_det: dataclasses.replace(original(*a), log_det=d))
        assert claim(certify(flow_of("h1"), randn(8, 4)), "layers").status == status


def test_measured_numbers_are_those_of_the_matrices():
    flow, y = flow_of("h2"), randn(7, 4)
    certificate = certify(flow, y)
    M = lv.analysis.backward_sensitivity(flow, y)[:-1]
    singular = torch.linalg.svdvals(M)
    lower, spectrum = claim(certificate, "lower bound").measured, claim(certificate, "singular values").measured
    expected = {
        "least 1": M.abs().sum(-2).amax(-1).min(),
        "least 2": singular[..., 0].min(),
        "least inf": M.abs().sum(-1).amax(-1).min(),
        "least F": M.square().sum((-2, -1)).sqrt().min(),
    }
    for name, value in expected.items():
        assert lower[name] == pytest.approx(float(value), rel=1e-12)
    assert spectrum["smallest"] == pytest.approx(float(singular.min()), rel=1e-12)
    assert spectrum["largest"] == pytest.approx(float(singular.max()), rel=1e-12)


@pytest.mark.parametrize("model", ["h2", "ms1", "midpoint", "leapfrog"])
def test_the_expected_drift_is_about_what_is_measured(model):
    flow = flow_of(model, layers=200, T=4.0)
    inverse = claim(certify(flow, randn(16, 4)), "inverse")
    measured, expected = inverse.measured["drift float64"], inverse.bound["drift float64"]
    assert EPS / 10 < measured < 100 * expected and expected < 1e-9
    assert inverse.bound["drift float32"] == pytest.approx(expected * 2.0**29)


def test_the_network_and_its_mode_are_left_as_they_are():
    network = lv.classifier("h2", 2, 2, 4, layers=3, T=1.0, dropout_rate=0.5).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    state = torch.get_rng_state()
    assert certify(network, randn(8, 2).float()).holds
    assert network.training and network.body.field.training and torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_a_network_of_several_flows_gets_claims_for_each():
    body = torch.nn.Sequential(lv.zoo.h2(4, 3, 1.0), lv.Connector(4, 6), lv.zoo.ms2(6, 3, 1.0))
    certificate = certify(lv.Network(lv.Lift(4, 2), body, torch.nn.Linear(6, 3)), randn(8, 2).float())
    lower = [c for c in certificate.claims if c.name == "lower bound"]
    assert [(c.flow, c.route) for c in lower] == [(0, "symplectic"), (1, "det >= 1")]
    assert "lower bound, flow 1" in str(certificate)


def test_images_are_proved_and_measured_as_far_as_they_go():
    network = lv.classifier("h2", (1, 8, 8), 3, [4, 6], [2, 2], 1.0, conv=lv.zoo.Images())
    certificate = certify(network, randn(4, 1, 8, 8).float())
    assert certificate.holds and claim(certificate, "robustness radius").status == "pass"
    wide = certify(lv.zoo.h2(32, 2, 1.0, operator=lv.Conv(3)), torch.randn(2, 32, 12, 12))
    lower = claim(wide, "lower bound")
    assert lower.status == "pass" and list(lower.measured) == ["least 2"] and lower.measured["least 2"] >= 1
    assert claim(wide, "layers").status == "pass" and "too wide" in claim(wide, "layers").note
    assert claim(wide, "singular values").measured["smallest"] < 1 < claim(wide, "singular values").measured["largest"]


def test_json_is_strict_and_the_table_names_every_claim():
    certificate = certify(flow_of("h1", layers=3), randn(4, 4))
    value = json.loads(certificate.to_json(), parse_constant=pytest.fail)
    assert value["holds"] is True and [c["name"] for c in value["claims"]] == [c.name for c in certificate.claims]
    assert value["claims"][1]["assumptions"][0]["text"].startswith("it computes")
    assert all(c.name in str(certificate) for c in certificate.claims)
    assert "does not mean that no direction shrinks" in str(certificate)


def test_the_radius_of_a_linear_network_is_the_distance_to_its_hyperplane():
    head = torch.nn.Linear(4, 1)
    flow = lv.zoo.h2(4, 3, 1.0)
    with torch.no_grad():
        for w in flow.parameters():
            w.zero_()
    network = lv.Network(lv.Lift(4, 4), flow, head).double()
    x = randn(6, 4)
    distance = (x @ head.weight[0] + head.bias).abs() / head.weight.norm()
    torch.testing.assert_close(certified_radius(network, x, "global"), distance.detach())
    local = certified_radius(network, x, "local")
    assert bool((local <= distance).all()) and bool((local >= 0.95 * distance).all())  # the search stops below


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("model", ["h2", "ms1", "midpoint", "leapfrog", "resnet"])
def test_no_attack_within_the_radius_changes_a_prediction(model, classes):
    network = lv.classifier(model, 2, classes, 4, 4, 0.5, lift="linear", generator=generator()).double()
    x = randn(32, 2)
    radius = certified_radius(network, x)

    def classify(z):
        s = network(z)
        return (s > 0).squeeze(-1).long() if classes == 2 else s.argmax(-1)

    before, z = classify(x), x.clone()
    for _ in range(20):  # projected steps towards the nearest other class
        z = z.detach().requires_grad_()
        s = network(z)
        gap = s.squeeze(-1).abs() if classes == 2 else s.topk(2, -1).values.diff(dim=-1).abs().squeeze(-1)
        (g,) = torch.autograd.grad(gap.sum(), z)
        step = z.detach() - x - 0.3 * radius[:, None] * g / g.norm(dim=1, keepdim=True).clamp(min=1e-12)
        z = x + step * (0.999 * radius / step.norm(dim=1).clamp(min=1e-12)).clamp(max=1.0)[:, None]
    assert torch.equal(classify(z), before)
    assert float(radius.min()) > 0


def test_what_has_no_lipschitz_constant_has_no_radius():
    network = lv.Network(
        lv.Lift(4, 2), lv.zoo.h2(4, 2, 1.0), torch.nn.Sequential(torch.nn.LayerNorm(4), torch.nn.Linear(4, 2))
    )
    radius = claim(certify(network, randn(4, 2).float()), "robustness radius")
    assert radius.status == "not applicable" and "LayerNorm" in radius.note


def test_every_route_names_what_was_looked_at():
    for model in lv.zoo.MODELS:
        for assumption in find_route(flow_of(model)).assumptions:
            assert assumption.text and assumption.evidence
