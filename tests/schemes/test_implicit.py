"""The implicit equations: solved to 10 eps by either method, unique or refused, and differentiated exactly."""

import pytest
import torch

import liouville as lv
import samples
from liouville.schemes import solver
from measure import EPS, at, generator, near, randn, rounding

MIDPOINT, EULER = lv.ImplicitMidpoint(), lv.ImplicitSymplecticEuler()


def hamiltonian(seed=0, **more):
    return lv.HamiltonianField(4, 1, init=samples.RANDOM, generator=generator(seed), **more).double()


def step(scheme, field, y, h):
    flow = lv.Flow(field, scheme, T=h)
    return flow(y)


def residual_midpoint(field, y, after, h):
    return after - y - h * field((y + after) / 2, at(field.theta()))


def residual_euler(field, y, after, h):
    """p' = p + h f_p(p', q), q' = q + h f_q(p', q): the general field at (p', q)."""
    return after - y - h * field(torch.cat((after[:, :2], y[:, 2:]), 1), at(field.theta()))


@pytest.fixture
def newton_calls(monkeypatch):
    calls = []
    newton = solver._newton
    monkeypatch.setattr(solver, "_newton", lambda *a: calls.append(1) or newton(*a))
    return calls


@pytest.mark.parametrize(
    "scheme, residual", [(MIDPOINT, residual_midpoint), (EULER, residual_euler)], ids=["midpoint", "euler"]
)
@pytest.mark.parametrize("h, by_newton", [(0.1, False), (8.0, True)])
@torch.no_grad()
def test_contraction_and_newton_both_reach_ten_eps(scheme, residual, h, by_newton, newton_calls):
    solved = 0
    for seed in range(5):
        field, y = hamiltonian(seed), randn(3, 4, seed=seed)
        try:
            after = step(scheme, field, y, h)
        except ArithmeticError:
            assert scheme is EULER  # midpoint's equation is unique for every Hamiltonian field
            assert by_newton
            continue
        solved += 1
        # 10 eps of the equation's own stopping rule; y + y' doubles it and the field rounds once more per term
        near(residual(field, y, after, h), torch.zeros_like(y), rounding(after, h, factor=100))
    assert solved >= 2
    assert bool(newton_calls) == by_newton


@torch.no_grad()
def test_both_methods_agree(monkeypatch):
    field, y = hamiltonian(), randn(3, 4)
    for scheme in (MIDPOINT, EULER):
        contracted = step(scheme, field, y, 0.2)
        with monkeypatch.context() as m:
            m.setattr(solver, "_fixed_point", lambda *a: None)
            near(step(scheme, field, y, 0.2), contracted, rounding(y, factor=100))


# ---- uniqueness ------------------------------------------------------------------------------------------------


def bistable_euler():
    """p' = 0 + 2 tanh(p'): X = 1, K = [1, -2], h = 1, at p = q = 0, three solutions."""
    field = lv.HamiltonianField(2, 1, hidden=1).double()
    with torch.no_grad():
        field.K.copy_(torch.tensor([[[1.0, -2.0]]]))
        field.b.zero_()
    return field


def bistable_midpoint(n=1):
    """z = y + h/2 tanh(z) with h = 4."""
    field = lv.ResidualField(n, 1).double()
    with torch.no_grad():
        field.K.copy_(torch.eye(n))
        field.b.zero_()
    return field


def test_p_equals_two_tanh_p_raises():
    with pytest.raises(ArithmeticError, match=r"no unique solution.*h = 1.*smaller h"):
        step(EULER, bistable_euler(), torch.zeros(1, 2, dtype=torch.float64), 1.0)
    with pytest.raises(ArithmeticError, match="no unique solution"):
        step(MIDPOINT, bistable_midpoint(), torch.zeros(1, 1, dtype=torch.float64), 4.0)


def test_one_bad_sample_or_feature_is_enough():
    y = torch.tensor([[3.0, 3.0], [3.0, 0.0]], dtype=torch.float64)
    assert torch.isfinite(step(MIDPOINT, bistable_midpoint(2), y[:1], 4.0)).all()
    with pytest.raises(ArithmeticError, match="no unique solution"):
        step(MIDPOINT, bistable_midpoint(2), y, 4.0)


def test_the_same_equation_is_solved_where_it_is_unique():
    y = torch.zeros(1, 2, dtype=torch.float64)
    near(step(EULER, bistable_euler(), y, 0.4), y, 10 * EPS)
    y = torch.tensor([[0.1]], dtype=torch.float64)
    z = (y + step(MIDPOINT, bistable_midpoint(), y, 1.5)) / 2
    near(z, y + 0.75 * torch.tanh(z), rounding(factor=100))


@pytest.mark.parametrize("k", [0.5, 0.9, 1.2, 2.0, 5.0])
@torch.no_grad()
def test_what_is_returned_solves_the_equation_with_a_positive_derivative(k):
    """z = a + k tanh z: one solution for k < 1. For k > 1 up to three, and only a positive 1 - k / cosh^2 z is taken;
    that is necessary for the branch that grows from z = a, not sufficient, and a jump between branches stays possible.
    """
    taken = 0
    for a in torch.linspace(-3, 3, 40, dtype=torch.float64).tolist():
        y = torch.tensor([[a]], dtype=torch.float64)
        try:
            z = (y + step(MIDPOINT, bistable_midpoint(), y, 2 * k)) / 2
        except ArithmeticError:
            assert k > 1
            continue
        taken += 1
        near(z, y + k * torch.tanh(z), rounding(k, a, factor=100))
        assert 1 - k * (1 - torch.tanh(z).square()) > 0
    assert taken >= 30


@torch.no_grad()
def test_midpoint_has_one_solution_for_every_hamiltonian_field_and_step():
    """I - h/2 J P has determinant prod(1 + (h mu/2)^2) > 0 everywhere, so nothing is ever refused."""
    for seed in range(5):
        for h in (1.0, 10.0, 50.0):
            for J in ("canonical", "full"):
                field, y = hamiltonian(seed, J=J), randn(2, 4, seed=seed)
                after = step(MIDPOINT, field, y, h)
                near(residual_midpoint(field, y, after, h), torch.zeros_like(y), rounding(after, h, factor=100))


def test_a_smoothing_step_that_cannot_be_undone_is_refused():
    """y' = -K^T tanh(K y) is solvable forwards at every h; backwards the rates change sign, and h ||K||^2 / 2 > 1."""
    field, y = lv.SymmetricField(3, 1).double(), 0.1 * randn(2, 3)
    with torch.no_grad():
        field.K.copy_(3 * torch.eye(3))
        field.b.zero_()
    flow = lv.Flow(field, MIDPOINT, T=0.5)
    after = flow(y)
    assert after.abs().max() < y.abs().max()
    with pytest.raises(ArithmeticError, match="no unique solution"):
        flow.inverse(0 * after)
    near(lv.Flow(field, MIDPOINT, T=0.1).inverse(lv.Flow(field, MIDPOINT, T=0.1)(y)), y, rounding(factor=100))


def test_an_equation_without_solution_raises():
    grows = lv.Activation("exp", torch.exp, torch.exp, torch.exp, float("inf"), True)
    field = lv.ResidualField(1, 1, activation=grows).double()
    with torch.no_grad():
        field.K.fill_(1.0)
        field.b.zero_()
    with pytest.raises(ArithmeticError, match=r"not solved in 50|no unique"):
        step(MIDPOINT, field, torch.zeros(1, 1, dtype=torch.float64), 2.0)  # z = e^z


# ---- derivatives -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", [MIDPOINT, EULER], ids=str)
@pytest.mark.parametrize("h", [0.2, 2.0])
def test_gradients_against_finite_differences(scheme, h):
    field = hamiltonian(2)

    def f(y, K, b):
        theta_j = type(field.theta())(K, b)
        state = scheme.init(field, y, theta_j, h)
        return scheme.step(field, state, theta_j, h)

    inputs = [w[0].detach().clone().requires_grad_() for w in field.theta()]
    assert torch.autograd.gradcheck(f, (randn(2, 4, seed=3).requires_grad_(), *inputs))


def unrolled_midpoint(field, y, theta_j, h):
    z = y
    for _ in range(200):
        z = y + h / 2 * field(z, theta_j)
    return 2 * z - y


def unrolled_euler(field, y, theta_j, h):
    p, q = y[:, :2], y[:, 2:]
    for _ in range(200):
        p = y[:, :2] + h * field(torch.cat((p, q), 1), theta_j)[:, :2]
    return torch.cat((p, q + h * field(torch.cat((p, q), 1), theta_j)[:, 2:]), 1)


@pytest.mark.parametrize(
    "scheme, unrolled", [(MIDPOINT, unrolled_midpoint), (EULER, unrolled_euler)], ids=["midpoint", "euler"]
)
def test_value_and_gradients_against_unrolled_iteration(scheme, unrolled):
    field, y, h = hamiltonian(1), randn(3, 4, seed=4), 0.25

    def results(f):
        x = y.clone().requires_grad_()
        out = f(x)
        return [out.detach(), *torch.autograd.grad(out.square().sum() + out[:, 0].sum(), [x, *field.parameters()])]

    expected = results(lambda x: unrolled(field, x, at(field.theta()), h))
    for a, b in zip(results(lambda x: step(scheme, field, x, h)), expected, strict=True):
        near(a, b, rounding(b, terms=4, factor=1000))  # 10 eps of the solver, amplified by 1 / (1 - h L) < 10


def test_inverse_is_differentiable_too():
    field = hamiltonian(1)
    for scheme in (MIDPOINT, EULER):
        flow = lv.Flow(field, scheme, T=0.3)
        assert torch.autograd.gradcheck(flow.inverse, randn(2, 4).requires_grad_(), fast_mode=True)


@pytest.mark.parametrize("scheme", [MIDPOINT, EULER, lv.DiscreteGradient()], ids=str)
def test_second_derivatives_raise(scheme):
    """In every input: torch's own mark went unnoticed by torch.autograd.grad, and parts of the sum were missing."""
    field, y = hamiltonian(), randn(1, 4).requires_grad_()
    (grad,) = torch.autograd.grad(step(scheme, field, y, 0.2).square().sum(), y, create_graph=True)
    for x in (y, field.K):
        with pytest.raises(RuntimeError, match="no second derivatives"):
            torch.autograd.grad(grad.sum(), x, retain_graph=True)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        grad.sum().backward()


# ---- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", [MIDPOINT, EULER], ids=str)
@pytest.mark.parametrize("h", [0.1, 4.0])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("grad", [False, True])
def test_a_sample_that_is_not_finite_propagates_and_leaves_the_others_alone(scheme, h, bad, grad):
    field, y = hamiltonian(1), randn(3, 4, seed=1)
    broken = y.clone()
    broken[1, 0] = bad
    with torch.set_grad_enabled(grad):
        good, out = step(scheme, field, y, h), step(scheme, field, broken, h)
    assert not torch.isfinite(out[1]).all()
    near(out[::2], good[::2], rounding(good, factor=100))


@pytest.mark.parametrize(
    "scheme, residual", [(MIDPOINT, residual_midpoint), (EULER, residual_euler)], ids=["midpoint", "euler"]
)
@pytest.mark.parametrize("h, by_newton", [(0.2, False), (1.6, True)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@torch.no_grad()
def test_a_batch_of_mixed_scales_is_solved_sample_by_sample(scheme, residual, h, by_newton, dtype, newton_calls):
    """Each sample to 10 eps of its own size: a tolerance for the batch would leave small ones where they are."""
    field = hamiltonian(1).to(dtype)
    y = (randn(5, 4, seed=1) * torch.tensor([1.0, 1e6, 1e-3, 1e3, 1.0])[:, None]).to(dtype)
    together, eps = step(scheme, field, y, h), torch.finfo(dtype).eps
    assert bool(newton_calls) == by_newton
    for i in range(5):
        alone, size = step(scheme, field, y[i : i + 1], h), max(1.0, float(y[i].abs().max()))
        near(together[i], alone[0], 200 * eps * size)
        near(residual(field, y[i : i + 1], together[i : i + 1], h), torch.zeros(1, 4), 200 * eps * size)


def test_a_large_sample_does_not_hide_an_equation_without_solution():
    grows = lv.Activation("exp", torch.exp, torch.exp, torch.exp, float("inf"), True)
    field = lv.ResidualField(1, 1, activation=grows).double()
    with torch.no_grad():
        field.K.fill_(1.0)
        field.b.zero_()
    y = torch.tensor([[-1e20], [0.2], [-1e20]], dtype=torch.float64)  # z = y + e^z: z = y, or none at 0.2
    assert torch.equal(step(MIDPOINT, field, y[::2], 2.0), y[::2])
    with pytest.raises(ArithmeticError, match=r"not solved in 50 Newton iterations .*in 1 samples"):
        step(MIDPOINT, field, y, 2.0)


@pytest.mark.parametrize("scheme", [MIDPOINT, EULER], ids=str)
@pytest.mark.parametrize("h", [0.1, 4.0])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("weight", ["K", "b"])
def test_weights_that_are_not_finite_propagate(scheme, h, grad, weight):
    field = hamiltonian(1)
    with torch.no_grad():
        getattr(field, weight)[0, 0] = torch.nan
    flow, y = lv.Flow(field, scheme, T=h), randn(3, 4)
    with torch.set_grad_enabled(grad):
        for out in (*flow.final_state(y), *flow.inverse_state(scheme.init(field, y, None, h))):
            assert out.isnan().any(-1).all()


@pytest.mark.parametrize("scheme", [MIDPOINT, EULER], ids=str)
@pytest.mark.parametrize("h", [0.2, 1.6])
@pytest.mark.parametrize("engine", ["stored", "checkpointed", "reversible", "reversible-anchors"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_does_not_reach_the_equation(scheme, h, engine, dtype):
    """Also for a state that autocast has rounded: its step and gradients are those of its float32 value."""
    flow = lv.Flow(hamiltonian(1).float(), scheme, T=h, backprop=samples.BACKPROPS[engine])
    y = randn(3, 4, seed=4).to(dtype)

    def results(low):
        x = y.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            out = flow(x if low else x.float())
            back = flow.inverse(out)
        return [out, back, *torch.autograd.grad(out.square().sum() + back.sum(), [x, *flow.parameters()])]

    for a, b in zip(results(True), results(False), strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def test_an_all_nan_batch_returns():
    y = torch.full((2, 4), float("nan"), dtype=torch.float64)
    for scheme in (MIDPOINT, EULER):
        for h in (0.1, 4.0):
            assert step(scheme, hamiltonian(), y, h).isnan().all()


def test_no_samples_at_all():
    for scheme in (MIDPOINT, EULER):
        assert step(scheme, hamiltonian(), torch.zeros(0, 4, dtype=torch.float64), 0.1).shape == (0, 4)


def test_extra_batch_axes():
    field, y = hamiltonian(), randn(2, 3, 4)
    for scheme in (MIDPOINT, EULER):
        near(
            step(scheme, field, y, 0.3),
            step(scheme, field, y.flatten(0, 1), 0.3).reshape(2, 3, 4),
            rounding(factor=100),
        )


def test_dropout_freezes_the_equation_of_a_layer():
    field = lv.dropout(hamiltonian(), 0.5)
    layer, y = field.in_run(3).at_layer(0), randn(2, 4)
    (after,) = MIDPOINT.step(layer, (y,), at(field.theta()), 0.3)
    near(after, y + 0.3 * layer((y + after) / 2, at(field.theta())), rounding(y, factor=100))


def test_single_precision():
    for scheme in (MIDPOINT, EULER):
        field, y = hamiltonian().float(), randn(3, 4).float()
        exact = step(scheme, hamiltonian(), y.double(), 0.5)
        near(step(scheme, field, y, 0.5), exact, 1e3 * torch.finfo(torch.float32).eps)


@pytest.mark.parametrize(
    "scheme, field, message",
    [
        (MIDPOINT, "hamiltonian-images", "needs vectors, got a field on images"),
        (EULER, "hamiltonian-images", "needs vectors"),
        (EULER, "separable", "got SeparableHamiltonianField; use SymplecticEuler"),
        (EULER, "hamiltonian-trained-J", "constant J"),
        (EULER, "hamiltonian-full", 'halves of equal size.*use J="canonical"'),
    ],
)
def test_errors(scheme, field, message):
    with pytest.raises(ValueError, match=message):
        lv.Flow(samples.field(field), scheme, T=1.0)
