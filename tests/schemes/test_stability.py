"""Where a frozen linear layer is stable: the limits that the docstrings state."""

import math

import pytest
import torch

import liouville as lv
import samples
from measure import EPS, first_state, randn, step_jacobian

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
        ("Midpoint", lv.SeparableHamiltonianField, 1.0),
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
