"""The bound by multipliers: never below what happens, valid for whatever multipliers, for known objects only."""

import math

import pytest
import torch

import liouville as lv
import samples
from liouville.analysis import backward_sensitivity, log_inverse_bound, log_upper_bound
from liouville.multipliers.proof import proved_log_bound
from liouville.multipliers.recursion import recursion, windows
from liouville.multipliers.search import search, start
from liouville.multipliers.sectors import sectors_of
from measure import generator, randn, rounding

SPLITTINGS = ("SymplecticEuler", "Verlet", "Yoshida4")
KNOWN = [
    (scheme, name)
    for scheme, name in samples.PAIRS
    if scheme in (*SPLITTINGS, "ForwardEuler")
    and name.startswith(("separable", "pair", "hamiltonian", "antisymmetric", "residual"))
    and not name.endswith(("images", "signal", "images-3d", "gated"))
    and (scheme in SPLITTINGS or not name.startswith(("separable", "pair")))
]


def known(scheme, name):
    flow = samples.flow(scheme, name).eval().requires_grad_(False)
    return flow, sectors_of(flow.field, flow.scheme, flow.field.theta(), flow.h, sized=True)


def product(sectors, D):
    """(I + B_M D_M R_M) ... (I + B_1 D_1 R_1) for slopes D, (..., p)."""
    A = torch.eye(len(sectors.B), dtype=torch.float64).expand(*D.shape[:-1], -1, -1)
    for step in sectors.layout.steps:
        A = A + (sectors.B[:, step] * D[..., None, step]) @ sectors.R[step] @ A
    return A


def worst_pattern(sectors, rounds=3, starts=8):
    """The largest norm that ascent finds over slopes in {0, s}, where it must be: the norm is convex in each."""
    D = sectors.slope * (torch.rand(starts, sectors.B.shape[1], generator=generator(), dtype=torch.float64) < 0.5)
    for _ in range(rounds):
        leaf = D.clone().requires_grad_()
        torch.linalg.matrix_norm(product(sectors, leaf), 2).sum().backward()
        better = sectors.slope * (leaf.grad > 0).double()
        now, new = (torch.linalg.matrix_norm(product(sectors, d), 2) for d in (D, better))
        D = torch.where((new > now)[:, None], better, D)
    return float(torch.linalg.matrix_norm(product(sectors, D), 2).max())


@pytest.mark.parametrize(("scheme", "name"), KNOWN)
def test_it_is_above_the_worst_slopes_and_every_sensitivity_and_below_the_norms(scheme, name):
    flow, sectors = known(scheme, name)
    log_u = float(log_upper_bound(flow, 3))
    assert log_u <= float(log_upper_bound(flow, 0))
    slack = rounding(math.exp(log_u), terms=100 * flow.layers)
    assert worst_pattern(sectors) <= math.exp(log_u) + slack
    singular = torch.linalg.svdvals(backward_sensitivity(flow, 3 * samples.inputs(flow.field, batch=5)))
    assert float(singular.max()) <= math.exp(log_u) + slack
    if scheme in SPLITTINGS:
        log_v = float(log_inverse_bound(flow, 3))
        assert worst_pattern(sectors.inverse()) <= math.exp(log_v) + slack
        assert float(singular.min()) >= math.exp(-log_v) - slack


@pytest.mark.parametrize(("scheme", "name"), KNOWN)
def test_the_steps_are_those_of_the_flow(scheme, name):
    """With sigma' at the states in place of the slopes the product is the Jacobian of the run."""
    flow, sectors = known(scheme, name)
    y = samples.inputs(flow.field, batch=2)
    leaf = torch.zeros(2, sectors.B.shape[1], dtype=torch.float64)
    true = backward_sensitivity(flow, y)[0]
    slopes, states = [], torch.cat([torch.cat(s, -1)[None] for s in flow.states(y)])
    biases = [n for n in flow.field.theta()._fields if n[0] in "bc"]
    assert biases and leaf.shape[1] == sum(sectors.layout.widths)
    if scheme != "ForwardEuler":  # states between stages are those that the slopes are taken at
        for j, theta_j in enumerate(lv.backprop.slices(flow.field.theta(), flow.layers)):
            parts = list(flow.field.split(states[j]))
            for half, c in flow.scheme.stages:
                k = "pq".index(half)
                slopes.append(_slopes(flow.field, theta_j, half, parts[1 - k]))
                velocity = flow.field.p_dot if half == "p" else flow.field.q_dot
                parts[k] = parts[k] + c * flow.h * velocity(parts[1 - k], theta_j)
    else:
        for j, theta_j in enumerate(lv.backprop.slices(flow.field.theta(), flow.layers)):
            slopes.append(_slopes(flow.field, theta_j, "y", states[j]))
    torch.testing.assert_close(product(sectors, torch.cat(slopes, -1)), true, rtol=1e-11, atol=1e-11)


def _slopes(field, theta, half, x):
    sigma = field.activation.derivative
    if isinstance(field, lv.PairField):
        return sigma(x @ theta.K + theta.c) if half == "p" else sigma(x @ theta.K.mT + theta.b)
    if isinstance(field, lv.SeparableHamiltonianField):
        K, b = (theta.K_q, theta.b_q) if half == "p" else (theta.K_p, theta.b_p)
        return sigma(x @ K.mT + b)
    if isinstance(field, lv.AntisymmetricField):
        return sigma(x @ (theta.A - field.factor * field.gamma * torch.eye(field.features).double()).mT + theta.b)
    return sigma(x @ theta.K.mT + theta.b)


@pytest.mark.parametrize(("scheme", "name"), KNOWN[::7])
def test_any_multipliers_give_a_bound_and_one_for_every_product_of_consecutive_steps(scheme, name):
    _, sectors = known(scheme, name)
    worst = worst_pattern(sectors)
    first = start(sectors)
    for seed in range(4):
        chosen = first * torch.exp(randn(len(first), seed=seed))
        log_u = proved_log_bound(sectors, chosen)
        if log_u is not None:
            assert worst <= math.exp(log_u) * (1 + 1e-12)
            P, _ = recursion(windows(sectors), chosen, sectors.slope)
            assert bool((torch.linalg.eigvalsh(P) >= 1 - 1e-9).all())
    log_u = proved_log_bound(sectors, first)
    cut = sectors.layout.steps[len(sectors.layout.steps) // 2].start
    for some in (slice(0, cut), slice(cut, None)):
        D = torch.zeros(len(first), dtype=torch.float64)
        D[some] = sectors.slope
        assert float(torch.linalg.matrix_norm(product(sectors, D), 2)) <= math.exp(log_u) * (1 + 1e-12)


def test_windows_give_what_single_steps_give(monkeypatch):
    _, sectors = known("Verlet", "separable-X")
    first, found = start(sectors), []
    for width in (1, 8, 1000):
        sectors.layout.__dict__.pop("windows", None)
        monkeypatch.setattr("liouville.multipliers.sectors._WINDOW", width)
        found.append(recursion(windows(sectors), first, sectors.slope)[0])
    sectors.layout.__dict__.pop("windows", None)
    for P in found[1:]:
        torch.testing.assert_close(P, found[0], rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_more_steps_give_a_smaller_bound():
    flow = lv.zoo.h2(4, layers=32, T=4.0, init=lv.Normal(1.5), generator=generator())
    by_steps = [float(log_upper_bound(flow, steps)) for steps in (0, 1, 20, 100)]
    assert by_steps == sorted(by_steps, reverse=True) and by_steps[3] < by_steps[1] < 0.7 * by_steps[0]


def test_it_is_the_same_for_permuted_features_and_for_the_same_numbers_in_float32():
    flow = lv.zoo.h2(8, layers=6, T=3.0, init=lv.Normal(1.0), generator=generator())
    first = float(log_upper_bound(flow, 5))
    in_double = float(log_upper_bound(flow.double(), 5))
    assert in_double <= first <= in_double * (1 + 2 * torch.finfo(torch.float32).eps)  # rounded upwards
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        for K in (flow.field.K_p, flow.field.K_q):
            K.copy_(K[:, :, order])
    assert float(log_upper_bound(flow, 5)) == pytest.approx(in_double, rel=1e-9)


def test_it_is_differentiable():
    flow = lv.zoo.ms1(4, layers=4, T=3.0, init=lv.Normal(1.0), generator=generator()).double()
    log_u = log_upper_bound(flow, 1)
    log_u.backward()
    K, step = flow.field.K, 1e-6
    direction = randn(*K.shape)
    with torch.no_grad():
        relative = start(_seen(flow)) / _seen(flow).ratio()
        values = []
        for sign in (1, -1):
            K.add_(direction, alpha=sign * step)
            at = _seen(flow)
            P, _ = recursion(windows(at), relative * at.ratio(), at.slope)
            values.append(0.5 * float(torch.linalg.eigvalsh(P)[-1].log()))
            K.sub_(direction, alpha=sign * step)
    assert float((K.grad * direction).sum()) == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5)


def _seen(flow):
    return sectors_of(flow.field, flow.scheme, flow.field.theta(), flow.h)


class Doubled(lv.SeparableHamiltonianField):
    def p_dot(self, q, theta_j):
        return 2 * super().p_dot(q, theta_j)


def hooked():
    flow = lv.zoo.h2(4, layers=6, T=3.0)
    flow.field.register_forward_hook(lambda *args: None)
    return flow


SINE = lv.Activation("sine", torch.sin, lambda x: -torch.cos(x), torch.cos, lipschitz=1.0, monotone=True)


@pytest.mark.parametrize(
    "make",
    [
        lambda: lv.zoo.h2(4, layers=6, T=3.0, operator=lv.Conv(3)),
        lambda: lv.zoo.leapfrog(4, layers=6, T=3.0),
        lambda: lv.zoo.midpoint(4, layers=6, T=3.0),
    ],
    ids=["convolution", "second order", "two-step"],
)
def test_what_was_not_looked_at_has_the_bound_by_norms(make):
    flow = make()
    assert float(log_upper_bound(flow)) == float(log_upper_bound(flow, 0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: lv.Flow(Doubled(4, 6), lv.SymplecticEuler(), 3.0),
        hooked,
        lambda: lv.zoo.h2(4, layers=6, T=3.0, activation=SINE),
    ],
    ids=["subclass", "hook", "activation"],
)
def test_what_is_not_what_it_states_has_no_bound(make):
    with pytest.raises(NotImplementedError):
        log_upper_bound(make())


@pytest.mark.parametrize("steps", [-1, 1.5, True, "many"])
def test_steps_that_are_no_count_are_named(steps):
    with pytest.raises(ValueError, match="steps must be a whole number of at least 0"):
        log_upper_bound(lv.zoo.h2(4, layers=3, T=1.0), steps)


def test_the_inverse_of_what_is_no_shear_has_no_bound():
    with pytest.raises(NotImplementedError, match="no bound of the inverse is known for ForwardEuler"):
        log_inverse_bound(lv.zoo.h1(4, layers=3, T=1.0))


def test_the_search_survives_multipliers_that_give_no_bound():
    _, sectors = known("SymplecticEuler", "separable")
    found = search(sectors, 1e-6 * start(sectors), 5)
    assert found.squared == math.inf and proved_log_bound(sectors, found.multipliers) is None
