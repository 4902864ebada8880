"""Energy balance adds up; the symplectic defect is rounding where it must be, and is not elsewhere."""

from __future__ import annotations

import pytest
import torch

import liouville as lv
import samples
from liouville.analysis import (
    backward_sensitivity,
    certify,
    energy_balance,
    layer_jacobians,
    structure,
    symplectic_defect,
)
from measure import EPS, at, generator, near, randn, rounding, slope
from samples import PAIRS, inputs
from samples import flow as flow_of

SPLITTING = ("SymplecticEuler", "Verlet", "Yoshida4")
IMPLICIT = ("ImplicitMidpoint", "ImplicitSymplecticEuler")
SYMPLECTIC = [
    (scheme, name)
    for scheme, name in PAIRS
    if (scheme in SPLITTING and name.startswith(("separable", "second-order")) and "images" not in name)
    or (
        scheme in IMPLICIT and name.startswith("hamiltonian") and not any(w in name for w in ("-J", "images", "signal"))
    )
    if "semidefinite" not in name
]


@pytest.mark.parametrize(("scheme", "name"), SYMPLECTIC)
def test_symplectic_layers_and_their_products(scheme: str, name: str) -> None:
    flow = flow_of(scheme, name)
    y, J = inputs(flow.field), structure(flow)
    A = layer_jacobians(flow, y)
    assert symplectic_defect(A, J).max() <= 100 * EPS * len(J)
    assert symplectic_defect(backward_sensitivity(flow, y), J).max() <= 100 * EPS * len(J) * flow.layers


def test_the_defect_of_deep_products_stays_relative() -> None:
    flow = lv.zoo.h2(4, 1024, T=400.0, init=lv.Normal(1.0), generator=generator(0)).double()
    M = backward_sensitivity(flow, randn(5, 4))
    assert symplectic_defect(M, structure(flow)).max() <= 100 * EPS * 1024


@pytest.mark.parametrize("model", ["h1", "ms1"])
def test_what_is_not_symplectic_has_a_defect(model: str) -> None:
    flow = getattr(lv.zoo, model)(4, 8, T=2.0, init=lv.Normal(0.6), generator=generator(0)).double()
    J = structure(lv.zoo.h2(4, 8, T=2.0).double())
    assert symplectic_defect(layer_jacobians(flow, randn(5, 4)), J).min() > 1e-4


def test_only_one_constant_J_is_a_structure() -> None:
    assert structure(lv.zoo.ms1(4, 2, 1.0)) is None
    assert structure(lv.zoo.midpoint(4, 2, 1.0)) is None
    assert structure(lv.zoo.h1(4, 2, 1.0, train_J=True)) is None
    assert torch.equal(structure(lv.zoo.h1(4, 2, 1.0)), structure(lv.zoo.h2(4, 2, 1.0)))
    assert torch.equal(structure(lv.zoo.leapfrog(2, 2, 1.0)), structure(lv.zoo.h2(4, 2, 1.0)))


ENERGETIC = [
    ("SymplecticEuler", "separable"),
    ("Verlet", "separable-X"),
    ("ForwardEuler", "hamiltonian-J-per-layer"),
    ("ImplicitMidpoint", "hamiltonian"),
    ("ImplicitSymplecticEuler", "hamiltonian"),
    ("RK4", "hamiltonian-images"),
    ("ForwardEuler", "separable"),
    ("SymplecticEuler", "separable-images"),
    ("SymplecticEuler", "second-order"),
]


@pytest.mark.parametrize(("scheme", "name"), ENERGETIC)
def test_defect_and_work_add_up_to_the_change_of_energy(scheme: str, name: str) -> None:
    flow = flow_of(scheme, name)
    y = inputs(flow.field)
    balance, states, theta = energy_balance(flow, y), list(flow.states(y)), flow.field.theta()

    def energy(state, j):
        return flow.field.energy(state, at(theta, j))

    assert balance.defect.shape == (flow.layers, len(y)) and balance.work.shape == (flow.layers - 1, len(y))
    total = energy(states[-1], flow.layers - 1) - energy(states[0], 0)
    near(balance.defect.sum(0) + balance.work.sum(0), total, rounding(energy(states[0], 0), terms=100))
    near(balance.defect[1], energy(states[2], 1) - energy(states[1], 1), rounding(total, terms=100))


def test_shared_weights_do_no_work() -> None:
    balance = energy_balance(flow_of("SymplecticEuler", "separable-shared"), randn(4, 4))
    assert not balance.work.any()


def test_the_defect_is_the_schemes_error() -> None:
    """At a frozen weight, sum |defect| falls with h at the order of the scheme."""
    y = randn(10, 4)
    for scheme in (lv.SymplecticEuler(), lv.Verlet(), lv.Yoshida4()):
        errors = []
        for layers in (32, 64):
            field = lv.SeparableHamiltonianField(4, layers, shared=True, init=lv.Normal(0.6), generator=generator(3))
            errors.append(float(energy_balance(lv.Flow(field.double(), scheme, T=2.0), y).defect.sum(0).abs().mean()))
        assert abs(slope(errors) - scheme.order) < 0.3


def test_schemes_that_carry_more_than_y_are_refused_and_have_no_structure() -> None:
    field = lv.HamiltonianField(4, 2)
    for scheme in (lv.Coupled(), lv.Momentum(), lv.Midpoint()):
        flow = lv.Flow(field, scheme, 1.0)
        assert structure(flow) is None
        with pytest.raises(ValueError, match="carries"):
            energy_balance(flow, torch.randn(2, 4))


def test_a_separable_field_under_implicit_midpoint_is_symplectic() -> None:
    """The route asks for J, and not for the class of the field."""
    field = samples.field("separable-X")
    flow = lv.Flow(field, lv.ImplicitMidpoint(), T=1.0)
    claims = {claim.name: claim for claim in certify(flow, randn(5, 4)).claims}
    assert claims["layers"].status == "pass" and claims["layers"].route == "symplectic"


def test_fields_without_energy_are_refused() -> None:
    for flow in (lv.zoo.ms1(4, 2, 1.0), lv.zoo.midpoint(4, 2, 1.0), lv.zoo.verlet(4, 2, 1.0)):
        with pytest.raises(ValueError, match="energy"):
            energy_balance(flow, torch.randn(2, 4))
