"""The mean-value discrete gradient: the balance of energy at any step, the equation, and what it refuses."""

import pytest
import torch

import liouville as lv
import samples
from liouville.verify.measuring import LINEAR
from measure import EPS, at, far, generator, near, randn, rounding

SCHEME = lv.DiscreteGradient()
NAMES = [f for s, f in samples.PAIRS if s == "DiscreteGradient" and "dropout" not in f]
# the layer's equation is solved to 10 eps of the state; <g, y' - y> sums one such error per feature
RESIDUAL = 100.0


def stored(field, y, theta_j):
    return field.storage(y, theta_j) if isinstance(field, lv.PortHamiltonianField) else field.energy(y, theta_j)


@pytest.mark.parametrize("h", [0.1, 5.0])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_the_storage_falls_by_exactly_what_is_lost(name, h):
    field = getattr(samples.field(name), "field", samples.field(name))  # a budget's inner field
    for j in (0, 2):
        theta_j, y = at(field.theta(), j), 2 * samples.inputs(field, seed=j)
        (after,) = SCHEME.step(field, (y,), theta_j, h)
        lost = 0.0
        if isinstance(field, lv.PortHamiltonianField):
            lost = h * (field.mean_gradient(y, after, theta_j) @ theta_j.L).square().sum(-1)
        change = stored(field, after, theta_j) - stored(field, y, theta_j)
        slope = field.gradient(after, theta_j).abs().sum() + field.gradient(y, theta_j).abs().sum()
        near(change, -lost, RESIDUAL * rounding(slope * max(1.0, float(after.abs().max())), stored(field, y, theta_j)))


@torch.no_grad()
def test_the_midpoint_rule_does_not_keep_the_energy():
    field, y = samples.field("hamiltonian"), 2 * randn(3, 4)
    theta_j = at(field.theta())
    (after,) = lv.ImplicitMidpoint().step(field, (y,), theta_j, 1.0)
    far(field.energy(after, theta_j), field.energy(y, theta_j), 1e-3)


@torch.no_grad()
def test_the_step_solves_the_equation_of_the_averaged_field():
    """Against an integral that is computed otherwise, by 4096 midpoints."""
    field, y, h = samples.field("port-hamiltonian"), randn(3, 4), 0.7
    theta_j = at(field.theta())
    (after,) = SCHEME.step(field, (y,), theta_j, h)
    s = (torch.arange(4096, dtype=torch.float64) + 0.5) / 4096
    points = y + s[:, None, None] * (after - y)
    near(after, y + h * field(points, theta_j).mean(0), 1e-6)  # the midpoints' own error, (1/4096)^2


@torch.no_grad()
def test_on_a_linear_field_it_is_the_midpoint_rule():
    field = lv.PortHamiltonianField(4, 1, activation=LINEAR, init=samples.RANDOM, generator=generator()).double()
    y, theta_j = randn(3, 4), at(field.theta())
    one, other = (s.step(field, (y,), theta_j, 0.4)[0] for s in (SCHEME, lv.ImplicitMidpoint()))
    near(one, other, RESIDUAL * EPS)


@torch.no_grad()
def test_a_dissipative_layer_is_solved_at_every_step_and_undone_at_short_ones():
    for seed in range(2):
        field, y = samples.field("port-hamiltonian", seed=seed), randn(2, 4, seed=seed)
        theta_j = at(field.theta())
        for h in (1.0, 30.0):
            SCHEME.step(field, (y,), theta_j, h)
        (after,) = SCHEME.step(field, (y,), theta_j, 0.1)
        near(SCHEME.inverse(field, (after,), theta_j, 0.1)[0], y, RESIDUAL * EPS * 10)


@pytest.mark.parametrize("name", ["antisymmetric", "separable", "residual", "hamiltonian-images", "dropout-images"])
def test_other_fields_are_refused_with_an_alternative(name):
    with pytest.raises(ValueError, match=r"DiscreteGradient .*(ImplicitMidpoint|splitting scheme)"):
        lv.Flow(samples.field(name), SCHEME, T=1.0)


def test_a_subclass_with_another_velocity_must_state_its_mean():
    class Faster(lv.HamiltonianField):
        def forward(self, y, theta_j):
            return 2 * super().forward(y, theta_j)

    class Stated(Faster):
        def mean_velocity(self, y, z, theta_j):
            return 2 * super().mean_velocity(y, z, theta_j)

    with pytest.raises(ValueError, match="Faster does not state"):
        lv.Flow(Faster(4, 2), SCHEME, T=1.0)
    lv.Flow(Stated(4, 2), SCHEME, T=1.0)(torch.randn(3, 4))


@torch.no_grad()
def test_a_driven_field_is_stepped_with_its_input():
    field, y, u = samples.driven("port"), randn(3, 4), randn(samples.INPUTS, seed=3)
    own, theta = field.field, at(field.theta())
    forced = own.theta()._replace(b=own.b + theta.W_b @ u)
    (expected,) = SCHEME.step(own, (y,), at(forced), 0.3)
    near(lv.Flow(field, SCHEME, T=0.3)(y, u), expected, RESIDUAL * EPS)
