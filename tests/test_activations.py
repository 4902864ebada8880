"""An activation's primitive, derivative and bounds agree with the function itself."""

import copy
import math
import pickle

import pytest
import torch

from liouville.activations import ACTIVATIONS, Activation, activation
from measure import EPS, near, randn

each = pytest.mark.parametrize("a", ACTIVATIONS.values(), ids=repr)
SINE = Activation("sine", torch.sin, lambda x: -torch.cos(x), torch.cos, lipschitz=1.0, monotone=False)


def grid():
    """Dense near 0, reaching 700 on both sides, without 0 itself, where relu has its kink."""
    x = torch.cat((torch.linspace(1e-3, 30, 2001), torch.logspace(1.5, 2.845, 50))).double()
    return torch.cat((-x.flip(0), x)).requires_grad_()


def slope(f, x):
    return torch.autograd.grad(f(x).sum(), x)[0]


def check_primitive(a):
    """primitive' = sigma: both are a few roundings of numbers below |x|."""
    x = grid()
    sigma = a(x).detach()
    assert ((slope(a.primitive, x) - sigma).abs() <= 8 * EPS * sigma.abs().clamp(min=1.0)).all()


def check_derivative(a):
    x = grid()
    # 1 - tanh^2 loses relative, not absolute accuracy: 8 roundings of numbers below 1
    near(slope(a, x), a.derivative(x), 8 * EPS * max(1.0, a.lipschitz))


def check_facts(a):
    d = a.derivative(grid().detach())
    assert d.abs().max() <= a.lipschitz * (1 + 4 * EPS), "lipschitz is no bound"
    assert bool((d >= 0).all()) == a.monotone, "monotone is not what is measured"


@each
def test_primitive_has_the_function_as_its_derivative(a):
    check_primitive(a)


@each
def test_derivative_is_that_of_the_function(a):
    check_derivative(a)


@each
def test_lipschitz_constant_bounds_and_is_attained_and_monotone_is_measured(a):
    check_facts(a)
    assert a.derivative(grid().detach()).abs().max() >= 0.999 * a.lipschitz


def test_the_three_laws_hold_for_a_users_activation_and_catch_wrong_ones():
    check_primitive(SINE)
    check_derivative(SINE)
    check_facts(SINE)
    wrong = {
        check_primitive: Activation("wrong", torch.sin, torch.cos, torch.cos, 1.0, False),
        check_derivative: Activation("wrong", torch.sin, torch.cos, torch.sin, 1.0, False),
        check_facts: Activation("wrong", torch.sin, torch.cos, torch.cos, 0.9, False),
    }
    for check, a in wrong.items():
        with pytest.raises(AssertionError):
            check(a)
    with pytest.raises(AssertionError, match="monotone"):
        check_facts(Activation("wrong", torch.sin, torch.cos, torch.cos, 1.0, True))


@each
def test_at_zero_the_derivative_lies_between_the_one_sided_ones(a):
    zero, h = torch.zeros((), dtype=torch.float64), 1e-6
    left, right = (a(zero) - a(zero - h)) / h, (a(zero + h) - a(zero)) / h
    low, high = min(left, right), max(left, right)
    assert low - 1e-5 <= a.derivative(zero) <= high + 1e-5  # the quotients err by h sigma''/2 < 1e-6
    x = zero.clone().requires_grad_()
    near(slope(a.primitive, x), a(zero), 8 * EPS)


@each
def test_finite_and_accurate_far_out_in_single_precision(a):
    x = torch.tensor([-1e3, -88.0, -20.0, 20.0, 88.0, 1e3])
    for f in (a.function, a.primitive, a.derivative):
        exact = f(x.double())
        assert torch.isfinite(f(x)).all()
        assert ((f(x) - exact).abs() <= 8 * torch.finfo(torch.float32).eps * exact.abs().clamp(min=1.0)).all()


def test_primitives_against_closed_forms_and_quadrature():
    near(ACTIVATIONS["tanh"].primitive(torch.tensor(0.0)), 0.0, 0.0)
    for a in ACTIVATIONS.values():
        for lo, hi in ((-40.0, -30.0), (-3.0, 0.0), (0.0, 3.0), (19.5, 20.5), (30.0, 45.0)):
            lo, hi = torch.tensor(lo, dtype=torch.float64), torch.tensor(hi, dtype=torch.float64)
            # composite Simpson on 4000 intervals of h = 15/4000 at most: error below (hi - lo) h^4 / 180 < 2e-11
            x = torch.linspace(float(lo), float(hi), 4001, dtype=torch.float64)
            w = torch.tensor([1.0, *([4.0, 2.0] * 2000)[:-1], 1.0], dtype=torch.float64)
            integral = (w * a(x)).sum() * (hi - lo) / 12000
            gain = a.primitive(hi) - a.primitive(lo)
            assert abs(gain - integral) <= 2e-11 + 1e3 * EPS * a.primitive(hi).abs()


def test_softplus_primitive_to_full_relative_accuracy_on_both_sides():
    g = ACTIVATIONS["softplus"].primitive
    # -Li_2(-e^x) = e^x - e^2x/4 + e^3x/9 - ...: four terms reach 1e-18 relative at x = -12
    x = torch.tensor([-12.0, -20.0, -100.0, -700.0], dtype=torch.float64)
    series = sum((-1) ** (k + 1) * (k * x).exp() / k**2 for k in range(1, 5))
    assert ((g(x) - series).abs() <= 8 * EPS * series).all()
    x = torch.tensor([50.0, 700.0, 1e5], dtype=torch.float64)
    exact = math.pi**2 / 6 + 0.5 * x.square()
    assert ((g(x) - exact).abs() <= 4 * EPS * exact).all()
    near(g(torch.zeros((), dtype=torch.float64)), math.pi**2 / 12, 4 * EPS)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"unknown activation 'Tanh'; did you mean 'tanh'\?.*softplus"):
        activation("Tanh")
    with pytest.raises(ValueError, match="unknown activation 3"):
        activation(3)
    assert activation(SINE) is SINE


@each
def test_survives_copy_and_pickle(a):
    x = randn(5)
    for other in (copy.deepcopy(a), pickle.loads(pickle.dumps(a))):
        assert other == a
        assert torch.equal(other(x), a(x))


def test_a_known_activation_is_unpickled_as_itself_and_another_one_as_an_equal() -> None:
    """So a network that came back from another process can be saved."""
    for known in ACTIVATIONS.values():
        assert pickle.loads(pickle.dumps(known)) is known
    own = Activation("tanh", torch.sin, torch.cos, torch.cos, lipschitz=1.0, monotone=False)
    assert pickle.loads(pickle.dumps(own)) == own


def near_and_far():
    """Pairs that coincide, lie closely together, on both sides of a kink, and far apart."""
    x = torch.linspace(-3, 3, 24).double()
    steps = torch.tensor([0.0, 1e-12, -1e-6, 1e-3, 0.3, -0.99, 1.01, -4.0, 30.0]).double()
    return tuple(t.reshape(-1) for t in torch.broadcast_tensors(x, x + steps[:, None]))


@each
def test_the_mean_times_the_distance_is_the_difference_of_the_primitive(a):
    x, y = near_and_far()
    change = a.primitive(y) - a.primitive(x)
    near(a.mean(x, y) * (y - x), change, 100 * EPS * float(a.primitive(y).abs().max()))
    near(a.mean(x, x), a(x), 20 * EPS * float(a(x).abs().max()))
    near(a.mean(x, y), a.mean(y, x), 100 * EPS * float(a(y).abs().max()))


@each
def test_the_derivatives_of_the_mean_share_the_mean_slope(a):
    """d/dx and d/dy lie in [0, s_max/2]; that is what the bounds of the discrete gradient rest on."""
    x, y = (t.requires_grad_() for t in near_and_far())
    grads = torch.autograd.grad(a.mean(x, y).sum(), (x, y))
    for d in grads:
        assert float(d.min()) >= -1e-9 and float(d.max()) <= 0.5 * a.lipschitz + 1e-9
    far_apart = (y - x).detach().abs() > 1e-2
    mean_slope = (a(y) - a(x)).detach()[far_apart] / (y - x).detach()[far_apart]
    near((grads[0] + grads[1])[far_apart], mean_slope, 1e-10)


def test_an_activation_of_ones_own_has_a_mean_by_quadrature():
    x, y = near_and_far()
    near(SINE.mean(x, y) * (y - x), SINE.primitive(y) - SINE.primitive(x), 100 * EPS)
