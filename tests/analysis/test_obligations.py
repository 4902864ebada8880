"""A claim passes only of the object that runs: every counterexample that was found, and a sweep of hostile networks."""

import importlib
import random
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import nn

import liouville as lv
from liouville.analysis import certified_radius, certify, log_upper_bound
from liouville.analysis.certificates.reversal import inverse
from liouville.analysis.proofs.assumptions import activation_facts
from liouville.analysis.proofs.untouched import unknown_run, unknown_velocities
from liouville.analysis.robustness import lipschitz_bound
from liouville.testing import check_field, check_scheme
from measure import generator, randn
from schemes.own import Heun

TANH_SLOPE = lv.activations.tanh.derivative


def statuses(certificate):
    return {claim.name: claim.status for claim in certificate.claims}


def h2(layers=4, **more):
    return lv.zoo.h2(4, layers, 2.0, init=lv.Normal(0.7), generator=generator(), **more).double()


def sigma(function, derivative=TANH_SLOPE, lipschitz=1.0, monotone=True):
    return lv.Activation("own", function, lambda x: 0.5 * x * x, derivative, lipschitz, monotone)


class Ten(lv.ResidualField):
    def forward(self, y, theta_j):
        return 10 * super().forward(y, theta_j)


class Far(lv.SeparableHamiltonianField):
    """It differs where no random probe of size one comes."""

    def q_dot(self, p, theta_j):
        return super().q_dot(p, theta_j) + torch.where(p.abs() > 40, p, 0.0)


class Kick(lv.SymplecticEuler):
    def step(self, field, state, theta_j, h):
        p, q = super().step(field, state, theta_j, h)
        return p, q + 2 * torch.tanh(q)


class Wrong(lv.SymplecticEuler):
    def inverse(self, field, state, theta_j, h):
        return state


class Larger(lv.Dense):
    def apply(self, weight, y, bias=None):
        return super().apply(3 * weight, y, bias)


class Louder(lv.Flow):
    def forward(self, y):
        return 5 * super().forward(y)


class Stages(lv.SymplecticEuler):
    stages = (("q", 0.5), ("p", 2.0), ("q", -1.0))


def hooked():
    flow = h2()
    flow.register_forward_hook(lambda _, args, out: 9 * out)
    return flow


def replaced():
    flow = h2()
    p_dot = flow.field.p_dot
    flow.field.p_dot = lambda q, theta_j: 3 * p_dot(q, theta_j)
    return flow


def hidden():
    flow = h2()
    vars(flow)["field"] = lv.SeparableHamiltonianField(4, 4, init=lv.Normal(9.0)).double()
    return flow


UNKNOWN = {
    "a forward": lambda: lv.Flow(Ten(4, 2).double(), lv.ForwardEuler(), 1.0),
    "a velocity far away": lambda: lv.Flow(Far(4, 2).double(), lv.SymplecticEuler(), 1.0),
    "a step": lambda: lv.Flow(h2().field, Kick(), 0.5),
    "an operator": lambda: h2(operator=Larger()),
    "a flow": lambda: Louder(h2().field, lv.SymplecticEuler(), 1.0),
    "a hook": hooked,
    "replaced on the object": replaced,
    "hidden": hidden,
    "a derivative that lies": lambda: h2(activation=sigma(torch.tanh, lambda x: 0.1 * TANH_SLOPE(x))),
    "steps": lambda: h2(activation=sigma(lambda x: torch.round(2 * torch.tanh(x)) / 2, torch.zeros_like)),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_no_bound_is_claimed_or_given_of_what_is_not_known(name):
    flow = UNKNOWN[name]()
    found = statuses(certify(flow, randn(8, 4)))
    assert found["upper bound"] != "pass" and found["singular values"] != "pass"
    assert unknown_run(flow) or unknown_velocities(flow.field)
    with pytest.raises(NotImplementedError):
        log_upper_bound(flow)
    with pytest.raises(NotImplementedError):
        certified_radius(lv.Network(lv.Lift(4, 2), flow, nn.Linear(4, 2).double()), randn(3, 2))


def test_a_function_on_an_object_that_a_float64_copy_would_not_follow_is_refused():
    flow = lv.zoo.h1(4, layers=2, T=0.5)
    forward = flow.field.forward
    flow.field.forward = lambda *args: 3 * forward(*args)
    with pytest.raises(NotImplementedError, match=r"forward was replaced on the object field.*subclass"):
        certify(flow, torch.randn(8, 4))


@pytest.mark.parametrize("name", ["a step", "a flow", "a hook", "hidden"])
def test_no_lower_bound_is_claimed_of_an_unknown_run(name):
    found = certify(UNKNOWN[name](), randn(8, 4))
    assert statuses(found)["lower bound"] == statuses(found)["layers"] == "not applicable"


def test_a_step_that_differs_from_its_derivative_breaks_what_was_measured():
    found = certify(UNKNOWN["a derivative that lies"](), randn(8, 4))
    assert statuses(found)["lower bound"] == "broken" and "derivative of the step" in found.broken[0].note
    assert statuses(certify(h2(operator=Larger()), randn(8, 4)))["layers"] == "broken"


def test_an_activation_of_ones_own_keeps_what_shears_give_by_themselves():
    def slope(x):
        return TANH_SLOPE(x) + 5 * TANH_SLOPE(x - 24)

    late = sigma(lambda x: torch.tanh(x) + 5 * torch.tanh(x - 24), slope)
    certificate = certify(h2(activation=late), randn(8, 4))
    assert statuses(certificate)["lower bound"] == "pass" and statuses(certificate)["upper bound"] == "not applicable"
    note = next(c.note for c in certificate.claims if c.name == "upper bound")
    assert "known only at some points" in note and "U is" in note


def test_other_stages_are_data():
    flow = lv.Flow(h2().field, Stages(), 1.0)
    assert not unknown_run(flow)
    found = statuses(certify(flow, randn(8, 4)))
    assert found["lower bound"] == found["upper bound"] == found["singular values"] == found["inverse"] == "pass"


def test_a_wrong_inverse_of_a_wide_state_is_broken():
    field, y = lv.SeparableHamiltonianField(300, 2, generator=generator()), randn(4, 300).float()
    for scheme, status in ((Wrong(), "broken"), (lv.SymplecticEuler(), "pass"), (lv.Verlet(), "pass")):
        assert inverse(lv.Flow(field, scheme, 1.0), y, torch.inf, None).status == status


class Theta(NamedTuple):
    K: torch.Tensor


class Sine(lv.VectorField):
    """A field of a user's own, with constants and without an activation."""

    def __init__(self):
        super().__init__(4, 3)
        self.K = nn.Parameter(0.5 * randn(3, 4, 4))

    def theta(self):
        return Theta(self.K)

    def forward(self, y, theta_j):
        return torch.sin(y @ theta_j.K.mT)

    def lipschitz(self, theta):
        L = torch.linalg.matrix_norm(theta.K, ord=2)
        return lv.fields.base.Lipschitz((L,), L)


class Rescaled(Sine):
    def scaled(self, theta, factor):
        return Theta(factor * theta.K)


class Unscaled(Sine):
    def scaled(self, theta, factor):
        return Theta(factor.sqrt() * theta.K)


def test_a_field_of_ones_own_gets_a_budget_by_stating_how_it_is_rescaled():
    with pytest.raises(ValueError, match=r"states scaled\(theta, factor\); got Sine"):
        lv.budgeted(lv.Flow(Sine(), lv.ForwardEuler(), 2.0), 2.0)
    with pytest.raises(AssertionError, match="scaled weights have scaled constants"):
        check_field(Unscaled())
    check_field(Rescaled())
    flow = lv.budgeted(lv.Flow(Rescaled(), lv.ForwardEuler(), 2.0), 2.0)
    assert 1.9 < float(log_upper_bound(flow).detach().exp()) <= 2
    flow(randn(3, 4)).sum().backward()
    assert bool(flow.field.field.K.grad.isfinite().all())


def test_a_field_that_states_constants_without_an_activation_is_taken_at_its_word_by_the_bound_only():
    flow = lv.Flow(Sine(), lv.ForwardEuler(), 1.0)
    check_field(flow.field)
    (upper,) = (c for c in certify(flow, randn(4, 4)).claims if c.name == "upper bound")
    U = float(log_upper_bound(flow).detach().exp())
    assert upper.status == "not applicable" and f"U is {U:.4g}" in upper.note


@pytest.mark.parametrize("part", ["lift", "head"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("x", [None, 4])
def test_a_number_that_is_not_finite_anywhere_breaks_the_certificate(part, value, x):
    network = lv.classifier("h2", 2, 3, 4, layers=2, T=1.0, lift="linear").double()
    with torch.no_grad():
        getattr(network, part).bias[0] = value
    certificate = certify(network, None if x is None else randn(x, 2))
    assert statuses(certificate)["finite network"] == "broken" and not certificate.holds
    assert "robustness radius" not in statuses(certificate)
    with pytest.raises(ValueError, match="not finite"):
        certified_radius(network, randn(3, 2))


def test_constants_are_those_of_evaluation_mode():
    dropout = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2)).double().train()
    norm = float(torch.linalg.matrix_norm(dropout[1].weight, ord=2).detach())
    assert lipschitz_bound(dropout) == pytest.approx(norm) and dropout.training


def test_U_is_evaluated_in_float64_and_rounded_up():
    flow = lv.zoo.h2(4, 16, 2.0, generator=generator())
    (upper,) = (c for c in certify(flow).claims if c.name == "upper bound")
    exact = float(log_upper_bound(flow.double()).detach().exp())
    assert exact <= upper.bound["U"] < exact * (1 + 1e-9) and "round" in upper.note and "float32" in upper.note


@pytest.mark.parametrize(
    ("activation", "holds"),
    [
        *((a, True) for a in lv.activations.ACTIVATIONS.values()),
        (sigma(torch.sin, torch.cos, monotone=False), True),
        (sigma(lambda x: torch.nn.functional.leaky_relu(x), lambda x: torch.where(x > 0, 1.0, 0.01)), True),
        (sigma(lambda x: (1e6 * torch.tanh(x)).round() / 1e6, torch.zeros_like), False),
        (sigma(torch.tanh, lambda x: 1.01 * TANH_SLOPE(x)), False),
        (sigma(lambda x: torch.tanh(x) + (torch.tanh(x).round() - torch.tanh(x)).detach()), False),
        (sigma(lambda x: torch.tanh(x + x.sum(-1, keepdim=True))), False),
        (sigma(lambda x: torch.tanh(1.001 * x), lambda x: 1.001 * TANH_SLOPE(1.001 * x)), False),
    ],
)
def test_activations_are_compared_with_what_they_state(activation, holds):
    assert all(fact.holds for fact in activation_facts(activation, activation.monotone)) is holds


class Small(lv.SeparableHamiltonianField):
    def lipschitz(self, theta):
        parts, one_sided = super().lipschitz(theta)
        return lv.fields.base.Lipschitz(tuple(0.01 * L for L in parts), 0.01 * one_sided)


class OneSided(lv.HamiltonianField):
    def lipschitz(self, theta):
        parts, one_sided = super().lipschitz(theta)
        return lv.fields.base.Lipschitz(parts, 0.01 * one_sided)


class Denied(lv.Verlet):
    def log_growth(self, lipschitz, h):
        return 0.1 * super().log_growth(lipschitz, h)


class Other(lv.RK4):
    def amplification(self, z):
        return (1 + z).abs()


def test_constants_that_are_too_small_do_not_pass_the_laws():
    with pytest.raises(AssertionError, match=r"lipschitz bounds .*p_dot"):
        check_field(Small(4, layers=2))
    with pytest.raises(AssertionError, match=r"lipschitz bounds .f' . f'"):
        check_field(OneSided(4, layers=2))
    with pytest.raises(AssertionError, match="log_growth bounds the norm"):
        check_scheme(Denied())
    with pytest.raises(AssertionError, match="amplification is the largest eigenvalue"):
        check_scheme(Other())


class StatedHeun(Heun):
    """It states what bounds need."""

    def log_growth(self, lipschitz, h):
        z = h * lipschitz.whole
        return (z + 0.5 * z.square()).log1p()

    def amplification(self, z):
        return (1 + z + z * z / 2).abs()


def test_a_scheme_of_ones_own_gets_bounds_and_budgets_by_stating_them():
    check_scheme(StatedHeun())
    flow = lv.Flow(lv.ResidualField(4, 3, init=lv.Normal(2.0), generator=generator()).double(), StatedHeun(), 1.0)
    assert float(log_upper_bound(flow).detach()) > 1
    kept = lv.budgeted(flow, 2.0)
    assert 0.5 < float(log_upper_bound(kept).exp()) <= 2
    assert float(torch.linalg.matrix_norm(lv.analysis.backward_sensitivity(kept, randn(50, 4)), ord=2).max()) <= 2
    found = statuses(certify(kept, randn(8, 4)))
    assert found["upper bound"] == found["budget"] == "not applicable"


@pytest.fixture(scope="module")
def sweep():
    folder = str(Path(__file__).parents[2] / "benchmarks" / "sweeps")
    sys.path.insert(0, folder)
    yield importlib.import_module("certificates")
    sys.path.remove(folder)


def no_false_claim(sweep, seeds):
    for k in seeds:
        verdict, words = sweep.case(random.Random(f"test/{k}"))
        assert verdict in ("right", "refused"), f"case {k}: {words}"


def test_a_few_hostile_networks_make_no_false_claim(sweep):
    no_false_claim(sweep, range(8))


@pytest.mark.slow
def test_many_hostile_networks_make_no_false_claim(sweep):
    no_false_claim(sweep, range(8, 200))


def test_the_sweep_finds_what_a_gullible_certificate_claims(sweep, monkeypatch):
    """Its oracle sees a kick that the certificate is made to pass."""
    truth = sweep.Truth(lv.Network(lv.Lift(4, 2), UNKNOWN["a step"](), nn.Linear(4, 2).double()), randn(4, 2))
    claim = lv.analysis.Claim("upper bound", "", "pass", bound={"U": 3.0, "largest": 3.0})
    assert "beyond" in sweep._upper(claim, truth) and "beyond" in sweep._singular(claim, truth)
