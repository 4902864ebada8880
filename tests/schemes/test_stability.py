"""Where a frozen linear layer is stable: the limits that the docstrings state."""

import dataclasses
import math
import warnings
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

import liouville as lv
import samples
from measure import EPS, first_state, randn, step_jacobian
from schemes.own import Heun

LINEAR = lv.Activation("linear", lambda x: x, lambda x: x * x / 2, torch.ones_like, 1.0, True)


def oscillator(kind=lv.SeparableHamiltonianField):
    """y' = J y: one frequency, 1."""
    field = kind(2, 1, activation=LINEAR).double()
    with torch.no_grad():
        for name, w in field.named_parameters():
            w.copy_(torch.eye(w.shape[-1]) if name.startswith("K") else torch.zeros_like(w))
    return field


def radius(scheme, field, h):
    A = step_jacobian(scheme, field, first_state(scheme, field, randn(1, 2), h), h)
    return float(torch.linalg.eigvals(A).abs().max())


@pytest.mark.parametrize(
    "scheme, kind, limit",
    [
        ("SymplecticEuler", lv.SeparableHamiltonianField, 2.0),
        ("Verlet", lv.SeparableHamiltonianField, 2.0),
        ("SymplecticEuler", lv.PairField, 2.0),
        ("Verlet", lv.PairField, 2.0),
        ("LeapfrogMidpoint", lv.SeparableHamiltonianField, 1.0),
        ("RK4", lv.SeparableHamiltonianField, 2 * math.sqrt(2)),
        ("ImplicitSymplecticEuler", None, 2.0),
    ],
)
def test_stability_limit(scheme, kind, limit):
    field = oscillator(kind) if kind else oscillator(lv.HamiltonianField)
    # two eigenvalues meet at the limit: beside it they are perturbed by eps / (distance of the eigenvalues)
    for share in (0.1, 0.5, 0.9, 0.99):
        assert radius(samples.SCHEMES[scheme], field, share * limit) <= 1 + 1e3 * EPS
    for share in (1.01, 1.1):
        assert radius(samples.SCHEMES[scheme], field, share * limit) > 1.01


def test_forward_euler_is_unstable_at_every_step_by_the_known_factor():
    for h in (0.01, 0.1, 1.0):
        assert abs(radius(lv.ForwardEuler(), oscillator(), h) - math.sqrt(1 + h * h)) <= 10 * EPS * (1 + h)


def test_implicit_midpoint_is_stable_at_every_step():
    for h in (0.1, 1.0, 10.0, 100.0):
        assert radius(lv.ImplicitMidpoint(), oscillator(), h) <= 1 + 1e3 * EPS


@pytest.mark.parametrize("h", [0.1, 0.4])
def test_forward_euler_with_gamma_is_stable_exactly_where_stated(h):
    """|1 + h (-gamma + i mu)| <= 1 if and only if 2 gamma >= h (gamma^2 + mu^2)."""
    mu = 0.8
    limit = (1 - math.sqrt(1 - (h * mu) ** 2)) / h  # the smaller root of h gamma^2 - 2 gamma + h mu^2
    for gamma, stable in ((0.99 * limit, False), (1.01 * limit, True)):
        field = lv.AntisymmetricField(2, 1, gamma=gamma, activation=LINEAR).double()
        with torch.no_grad():
            field.W.copy_(torch.tensor([[0.0, mu], [0.0, 0.0]]))
        assert (radius(lv.ForwardEuler(), field, h) <= 1) == stable


def test_two_stable_layers_can_grow_together():
    """A margin for a frozen layer is advice, not proof: each |trace| < 2, their product grows."""
    fields = [oscillator(), oscillator()]
    with torch.no_grad():
        fields[0].K_p.fill_(0.5)
        fields[1].K_q.fill_(0.5)
    h = 1.9
    A = [step_jacobian(lv.SymplecticEuler(), f, f.split(randn(1, 2)), h) for f in fields]
    for B in A:
        assert torch.linalg.eigvals(B).abs().max() <= 1 + 1e3 * EPS
    assert torch.linalg.eigvals(A[0] @ A[1]).abs().max() > 1.5


class RK3(lv.Scheme):
    order = 3

    def step(self, field, state, theta_j, h):
        (y,) = state
        k = field(y, theta_j)
        m = field(y + h / 2 * k, theta_j)
        return (y + h / 6 * (k + 4 * m + field(y + h * (2 * m - k), theta_j)),)


class AdamsBashforth3(lv.Scheme):
    order = 3

    def init(self, field, y, theta_0, h):
        k = field(y, theta_0)
        return y, k, k

    def step(self, field, state, theta_j, h):
        y, before, first = state
        k = field(y, theta_j)
        return y + h / 12 * (23 * k - 16 * before + 5 * first), k, before


class TenVerlets(lv.Scheme):
    order = 2

    def step(self, field, state, theta_j, h):
        parts = field.split(state[0])
        for _ in range(10):
            parts = lv.Verlet().step(field, parts, theta_j, h / 10)
        return (field.join(*parts),)


@dataclass(frozen=True)
class Relaxed(lv.Scheme):
    """|r|^2 = (1 - a x^2)^2 + x^2: stable while a > 1/2 and x < (2 a - 1)^(1/2) / a."""

    order: ClassVar[int] = 1
    a: float

    def step(self, field, state, theta_j, h):
        (y,) = state
        return (y + h * field(y + self.a * h * field(y, theta_j), theta_j),)


class Strang(lv.SplittingScheme):
    order = 2
    stages = (("q", 0.5), ("p", 1.0), ("q", 0.5))


OWN = {
    Heun(): 0.0,
    RK3(): math.sqrt(3),
    AdamsBashforth3(): 0.723627227,
    TenVerlets(): 20.0,
    Relaxed(1.0): 1.0,
    Relaxed(0.5): 0.0,
    Strang(): 2.0,
}


def growth(scheme, omega, layers):
    """Of y' = i omega y: the largest entry of the matrices of 2, 4, 8, ... steps of length 1."""
    general = isinstance(scheme, lv.ImplicitSymplecticEuler | lv.DiscreteGradient)
    kind = lv.HamiltonianField if general else lv.SeparableHamiltonianField
    field = oscillator(kind)
    with torch.no_grad():
        for name, w in field.named_parameters():
            w.mul_(math.sqrt(omega)) if name.startswith("K") else None
    A = step_jacobian(scheme, field, first_state(scheme, field, randn(1, 2), 1.0), 1.0)
    largest = 1.0
    for _ in range(round(math.log2(layers))):
        A = A @ A
        largest = max(largest, float(A.abs().max()))
        if largest > 1e9:
            break
    return largest


@pytest.mark.parametrize("scheme", [*samples.SCHEMES.values(), *OWN], ids=lambda s: type(s).__name__)
def test_the_stated_limit_is_where_many_steps_begin_to_grow(scheme):
    """2^20 steps, of schemes of one's own too: bounded just below the limit, and far from it just above."""
    limit = scheme.stability_limit
    for share in (0.3, 0.9, 0.9999):
        omega = share * min(limit, 1e3)
        assert not omega or growth(scheme, omega, 2**20) < 1e3
    if limit < math.inf:
        assert growth(scheme, 1.0001 * limit if limit else 0.1, 2**20) > 1e3


def test_limits_of_ones_own_are_known_and_stand_on_class_and_instance():
    for scheme, limit in OWN.items():
        assert scheme.stability_limit == pytest.approx(limit, abs=1e-7)
    for scheme in samples.SCHEMES.values():
        assert type(scheme).stability_limit == scheme.stability_limit
    with pytest.raises(AttributeError, match="ask an instance of Relaxed"):
        _ = Relaxed.stability_limit


def test_a_step_that_is_not_linear_or_cannot_run_has_no_limit():
    class Normalised(Heun):
        def step(self, field, state, theta_j, h):
            (y,) = super().step(field, state, theta_j, h)
            return (y / y.norm(dim=-1, keepdim=True),)

    class Curved(Heun):
        def step(self, field, state, theta_j, h):
            (y,) = super().step(field, state, theta_j, h)
            return (y.tanh(),)

    class ForOneField(Heun):
        def check(self, field):
            raise ValueError("needs MyField")

    for scheme in (Normalised(), Curved(), ForOneField()):
        assert math.isnan(scheme.stability_limit)


def test_what_states_its_own_limit_is_believed_and_what_cannot_be_hashed_has_one():
    class Stated(Heun):
        stability_limit = 0.5

    @dataclass(frozen=True)
    class Listed(lv.ForwardEuler):
        notes: list = dataclasses.field(default_factory=list)

    assert Stated().stability_limit == Stated.stability_limit == 0.5
    assert Listed().stability_limit == 0.0


MIDPOINT_BEARS = {
    name: samples.field(name).spectrum for name in samples.FIELDS if ("LeapfrogMidpoint", name) in samples.PAIRS
}


@pytest.mark.parametrize("name", MIDPOINT_BEARS)
def test_midpoint_warns_on_every_field_that_is_not_known_to_turn_only(name):
    """Where the line is that asked for it, loading and refining included; never refused."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        lv.Flow(samples.field(name), lv.LeapfrogMidpoint(), T=1.0)
    assert [w.category for w in said] == [lv.schemes.StabilityWarning] * (MIDPOINT_BEARS[name] != "imaginary")
    assert all(w.filename == __file__ and "amplifies the modes that a field damps" in str(w.message) for w in said)


def test_a_subclass_that_computes_something_else_is_not_taken_at_its_parents_word():
    class Other(lv.AntisymmetricField):
        def forward(self, y, theta_j):
            return -y

    class Turns(lv.VectorField):
        spectrum = "imaginary"

        def theta(self):
            return ()

        def forward(self, y, theta_j):
            return torch.stack((-y[..., 1], y[..., 0]), -1)

    with pytest.warns(lv.schemes.StabilityWarning, match="Other is not known to damp nothing"):
        lv.Flow(Other(2, 3), lv.LeapfrogMidpoint(), T=1.0)
    with pytest.warns(lv.schemes.StabilityWarning, match="AntisymmetricField damps"):
        lv.zoo.midpoint(4, 8, T=1.0, gamma=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lv.Flow(Turns(2, 3), lv.LeapfrogMidpoint(), T=1.0)
        lv.zoo.midpoint(4, 8, T=1.0)
