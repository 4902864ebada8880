"""Fields that differentiate by themselves, p' = -dH/dq from an energy alone: a graph inside of every layer."""

import pytest
import torch

import liouville as lv
from backprop.runs import MODES, compare
from measure import generator, near, randn, rounding


class Energy(lv.SeparableHamiltonianField):
    """The sample of the same name without its formula for the force."""

    def energy(self, q, theta_j):
        return self.energy_density(q @ theta_j.K_q.mT + theta_j.b_q).sum()


class ByTransform(Energy):
    def p_dot(self, q, theta_j):
        return -torch.func.grad(self.energy)(q, theta_j)


class ByAutograd(Energy):
    """Makes a leaf of its argument only where nobody follows it yet: the way of most Hamiltonian networks."""

    def p_dot(self, q, theta_j):
        with torch.enable_grad():
            q = q if q.requires_grad else q.detach().requires_grad_()
            return -torch.autograd.grad(self.energy(q, theta_j), q, create_graph=True)[0]


class ByAutogradInPlace(Energy):
    def p_dot(self, q, theta_j):
        with torch.enable_grad():
            q = q.requires_grad_()
            return -torch.autograd.grad(self.energy(q, theta_j), q, create_graph=True)[0]


def flow_of(kind):
    field = kind(4, 6, init=lv.Normal(0.5), generator=generator()).double()
    return lv.Flow(field, lv.SymplecticEuler(), T=0.6)


ENGINES = {**MODES, "auto": lv.Auto(), "auto-tight": lv.Auto(memory=1)}


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize("kind", [ByTransform, ByAutograd, ByAutogradInPlace])
@pytest.mark.parametrize("needs_grad", [True, False], ids=["input", "no-input"])
def test_a_force_from_an_energy_equals_stored(engine, kind, needs_grad):
    flow = flow_of(kind)
    compare(flow, engine, randn(3, 4), needs_grad=needs_grad)


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize("kind", [ByTransform, ByAutograd, ByAutogradInPlace])
def test_a_force_from_an_energy_needs_no_gradient_of_its_own(engine, kind):
    flow = flow_of(kind).requires_grad_(False)
    expected = flow(randn(3, 4))
    out = flow.with_backprop(engine)(randn(3, 4))
    near(out, expected, rounding(expected, terms=60))
    with torch.no_grad():
        near(flow.with_backprop(engine)(randn(3, 4)), expected, rounding(expected, terms=60))


def test_the_force_is_that_of_the_formula():
    """What the engines are compared with above is right by itself."""
    y = randn(3, 4)
    expected = flow_of(lv.SeparableHamiltonianField)(y)
    for kind in (ByTransform, ByAutograd, ByAutogradInPlace):
        near(flow_of(kind)(y), expected, rounding(expected, terms=60))
