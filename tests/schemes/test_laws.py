"""Order, inverse and symmetry of every scheme, on every field that it accepts, and what catches a wrong one."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

import liouville as lv
import samples
from liouville.backprop import slices
from liouville.testing import check_scheme
from measure import at, first_state, near, randn, reference, rounding, slope, step_jacobian
from turns import one_in

each = pytest.mark.parametrize("scheme", samples.SCHEMES.values(), ids=samples.SCHEMES)
REVERSIBLE = {s: v for s, v in samples.SCHEMES.items() if isinstance(v, lv.ReversibleScheme)}


def run(scheme, field, y, T, N, theta=None):
    """N steps with the weight of layer 0, or with the N layers of ``theta``."""
    h = T / N
    layers = [at(field.theta())] * N if theta is None else list(slices(theta, N))
    state = scheme.init(field, y, layers[0], h)
    for theta_j in layers:
        state = scheme.step(field, state, theta_j, h)
    return scheme.final(field, state)


# ---- order -----------------------------------------------------------------------------------------------------

ORDER_FIELDS = ["separable-X", "pair-rectangular", "hamiltonian", "hamiltonian-full", "antisymmetric", "residual"]
ORDER_PAIRS = [(s, f) for s, f in samples.PAIRS if f in ORDER_FIELDS]


def test_the_order_pairs_cover_all_schemes():
    assert {s for s, _ in ORDER_PAIRS} == set(samples.SCHEMES)


@pytest.mark.parametrize("scheme, name", one_in(2, ORDER_PAIRS))
@torch.no_grad()
def test_measured_order_is_the_stated_one(scheme, name):
    scheme, field = samples.SCHEMES[scheme], samples.field(name)
    y, theta = samples.inputs(field), at(field.theta())
    T = 1.5
    exact = reference(lambda x: field(x, theta), y, T)  # error (1.5 / 1024)^4 = 5e-12 times a constant
    # h small enough for the first term of the error to rule; rounding adds about 1e-14
    steps = (32, 64) if scheme.order == 4 else (64, 128)
    errors = [float((run(scheme, field, y, T, N) - exact).abs().max()) for N in steps]
    assert min(errors) > 1e-11
    assert abs(slope(errors) - scheme.order) < 0.1


def moving(N, place):
    """A separable field whose weights are one function of time, sampled at the middle or the left end of each layer."""
    field = lv.SeparableHamiltonianField(4, N).double()
    t = (torch.arange(N, dtype=torch.float64) + {"middle": 0.5, "left": 0.0}[place]) / N
    with torch.no_grad():
        for seed, w in enumerate(field.parameters()):
            a, b = randn(2, *w.shape[1:], seed=seed)
            w.copy_(a + b * torch.cos(3 * t).reshape(-1, *(1,) * (w.dim() - 1)))
    return field


@pytest.mark.parametrize(
    "scheme, place, order",
    [
        (lv.SymplecticEuler(), "middle", 1),
        (lv.Verlet(), "middle", 2),
        (lv.Yoshida4(), "middle", 2),  # weights frozen over a step limit every scheme to 2
        (lv.RK4(), "middle", 2),
        (lv.Verlet(), "left", 1),
        (lv.RK4(), "left", 1),
    ],
    ids=str,
)
@torch.no_grad()
def test_order_in_depth_depends_on_where_the_weights_are_sampled(scheme, place, order):
    y = randn(3, 4, seed=5)
    exact = lv.Flow(moving(2048, "middle"), lv.RK4(), T=1.0)(y)  # error 1/2048^2 = 2e-7 times a constant
    errors = [float((lv.Flow(moving(N, place), scheme, T=1.0)(y) - exact).abs().max()) for N in (32, 64)]
    assert min(errors) > 2e-5
    assert abs(slope(errors) - order) < 0.1


# ---- inverse and symmetry --------------------------------------------------------------------------------------


def check_inverse(scheme, field, h=0.3):
    theta_j = at(field.theta(), 1)
    state = first_state(scheme, field, samples.inputs(field), h)
    one = first_state(scheme, field, samples.inputs(field, batch=1), h)
    layer = field.in_run(5).at_layer(1)
    A = step_jacobian(scheme, layer, one, h, 1)
    # roundings of the step, carried back by the inverse; implicit equations are solved to 10 eps
    implicit = 10 if isinstance(scheme, lv.ImplicitMidpoint | lv.ImplicitSymplecticEuler) else 1
    with torch.no_grad():
        after = scheme.step(layer, state, theta_j, h)
        back = scheme.inverse(layer, after, theta_j, h)
        again = scheme.step(layer, scheme.inverse(layer, state, theta_j, h), theta_j, h)
    scale = max(float(s.abs().max()) for s in (*after, *state))
    allowed = rounding(scale, terms=10, factor=10.0 * implicit * float(torch.linalg.cond(A)))
    for s, b, a in zip(state, back, again, strict=True):
        near(b, s, allowed)
        near(a, s, allowed)


@pytest.mark.parametrize("scheme, name", samples.REVERSIBLE_PAIRS)
def test_inverse_of_a_step_is_the_identity_on_both_sides(scheme, name):
    check_inverse(samples.SCHEMES[scheme], samples.field(name))


@pytest.mark.parametrize("name", ["Verlet", "Yoshida4", "ImplicitMidpoint"])
@torch.no_grad()
def test_symmetric_schemes_are_undone_by_minus_h(name):
    scheme, field = samples.SCHEMES[name], samples.field("separable-X")
    theta_j, state = at(field.theta()), first_state(scheme, field, samples.inputs(field))
    back = scheme.step(field, scheme.step(field, state, theta_j, 0.4), theta_j, -0.4)
    for b, s in zip(back, state, strict=True):
        near(b, s, rounding(s, terms=10, factor=100))


@pytest.mark.parametrize("name", ["SymplecticEuler", "ForwardEuler", "RK4"])
@torch.no_grad()
def test_the_others_are_not(name):
    scheme, field = samples.SCHEMES[name], samples.field("separable-X")
    theta_j, state = at(field.theta()), first_state(scheme, field, samples.inputs(field))
    back = scheme.step(field, scheme.step(field, state, theta_j, 0.4), theta_j, -0.4)
    assert max(float((b - s).abs().max()) for b, s in zip(back, state, strict=True)) > 1e-6


# ---- check_scheme ----------------------------------------------------------------------------------------------


@each
def test_check_scheme_passes_ours(scheme):
    check_scheme(scheme)


@pytest.mark.parametrize("name", ["second-order-rest", "pair", "separable-rectangular"])
def test_check_scheme_takes_a_field(name):
    with torch.random.fork_rng(devices=[]):
        check_scheme(lv.Verlet(), samples.field(name))


@dataclass(frozen=True)
class WrongSign(lv.SplittingScheme):
    order: ClassVar[int] = 1
    stages: ClassVar = (("p", -1.0), ("q", 1.0))


@dataclass(frozen=True)
class WrongCoefficient(lv.SplittingScheme):
    order: ClassVar[int] = 2
    stages: ClassVar = (("p", 0.5), ("q", 1.0), ("p", 0.4))


@dataclass(frozen=True)
class Overstated(lv.SplittingScheme):
    order: ClassVar[int] = 2
    stages: ClassVar = (("p", 1.0), ("q", 1.0))


@dataclass(frozen=True)
class Understated(lv.SplittingScheme):
    order: ClassVar[int] = 1
    stages: ClassVar = (("p", 0.5), ("q", 1.0), ("p", 0.5))


@dataclass(frozen=True)
class WrongInverse(lv.SymplecticEuler):
    def inverse(self, field, state, theta_j, h):
        return self.step(field, state, theta_j, -h)


@dataclass(frozen=True)
class NotSymmetric(lv.SymmetricScheme):
    order: ClassVar[int] = 1

    def step(self, field, state, theta_j, h):
        return (state[0] + h * field(state[0], theta_j),)


@dataclass(frozen=True)
class Jacobi(lv.SymplecticEuler):
    """Both halves from the old state: forward Euler in disguise, invertible by iteration, of determinant > 1."""

    def step(self, field, state, theta_j, h):
        p, q = state
        return p + h * field.p_dot(q, theta_j), q + h * field.q_dot(p, theta_j)

    def amplification(self, z):
        return torch.maximum((1 + z).abs(), (1 - z).abs())

    def inverse(self, field, state, theta_j, h):
        p, q = after = state
        for _ in range(200):
            p, q = after[0] - h * field.p_dot(q, theta_j), after[1] - h * field.q_dot(p, theta_j)
        return p, q


@dataclass(frozen=True)
class InPlace(lv.SymplecticEuler):
    def step(self, field, state, theta_j, h):
        p, q = state
        p += h * field.p_dot(q, theta_j)
        return p, q + h * field.q_dot(p, theta_j)


@pytest.mark.parametrize(
    "broken, message",
    [
        (WrongSign(), "stages of p add up"),
        (WrongCoefficient(), "stages of p add up"),
        (Overstated(), "order 2: measured 1.0"),
        (Understated(), "order 1: measured 2.0"),
        (WrongInverse(), "inverse undoes a step"),
        (NotSymmetric(), "inverse undoes|symmetric"),
        (Jacobi(), "determinant 1"),
        (InPlace(), "changes nothing"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_a_broken_scheme_is_caught_and_named(broken, message):
    with pytest.raises(AssertionError, match=message):
        check_scheme(broken)


def test_symplecticity_is_caught_where_it_is_claimed_wrongly():
    with pytest.raises(AssertionError, match="symplectic"):
        check_scheme(lv.ForwardEuler(), symplectic=True)
    check_scheme(lv.ImplicitMidpoint(), lv.HamiltonianField(3, 1, J="full"), symplectic=True)
    with pytest.raises(ValueError, match="states no structure"):
        check_scheme(lv.Verlet(), lv.PairField(4, 1), symplectic=True)


# ---- errors ----------------------------------------------------------------------------------------------------


def test_splitting_schemes_refuse_a_field_that_does_not_split():
    for scheme in (lv.SymplecticEuler(), lv.Verlet(), lv.Yoshida4()):
        with pytest.raises(ValueError, match=r"\(p, q\).*got HamiltonianField.*ImplicitMidpoint"):
            lv.Flow(lv.HamiltonianField(4, 2), scheme, T=1.0)


@each
def test_schemes_are_values(scheme):
    assert scheme == type(scheme)()
    assert hash(scheme) == hash(type(scheme)())
    with pytest.raises(AttributeError):
        scheme.h = 0.1
