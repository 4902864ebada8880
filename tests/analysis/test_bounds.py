"""Upper bounds are never exceeded, are attained where they can be, and follow the weights."""

import math

import pytest
import torch

import liouville as lv
import samples
from liouville.analysis import (
    backward_sensitivity,
    log_exponential_bound,
    log_inverse_bound,
    log_layer_bounds,
    log_upper_bound,
)
from liouville.backprop import slices
from liouville.testing.measure import jacobian, velocity
from measure import EPS, generator, randn

BOUNDED = [(s, f) for s, f in samples.PAIRS if s != "ImplicitSymplecticEuler" and not f.startswith("shear")]
SHEARS = ("SymplecticEuler", "Verlet", "Yoshida4", "LeapfrogMidpoint")


@torch.no_grad()
def bound(flow, log=False, of=log_upper_bound):
    """U, or log U, by the first multipliers: every iterate of the search is a bound."""
    value = float(of(flow, 1))
    return value if log else math.exp(value)


def values(flow, y):
    """Singular values of every dState_N/dState_j, j < N, per sample, and how far they may be off."""
    singular = torch.linalg.svdvals(backward_sensitivity(flow, y)[:-1])
    return singular, 100 * EPS * flow.layers * float(singular.max())


def state(field, y):
    if not isinstance(field, lv.PartitionedField):
        return (y,)
    return (randn(*y.shape, seed=5), y) if isinstance(field, lv.SecondOrderField) else field.split(y)


@pytest.mark.parametrize(("scheme", "name"), BOUNDED)
def test_no_sensitivity_exceeds_the_bound(scheme, name):
    flow = samples.flow(scheme, name).eval()
    singular, slack = values(flow, samples.inputs(flow.field))
    U = bound(flow)
    assert float(singular.max()) <= U + slack
    if scheme in SHEARS:
        assert float(singular.min()) >= 1 / bound(flow, of=log_inverse_bound) - slack
        assert float(singular.min()) >= math.exp(-float(log_upper_bound(flow, 0).detach())) - slack  # norms bound both
    assert bound(flow, log=True) <= float(log_exponential_bound(flow).detach()) * (1 + 1e-12) or scheme in (
        "ImplicitMidpoint",
        "DiscreteGradient",
        "Momentum",
    )


@pytest.mark.parametrize("name", [f for f in samples.FIELDS if not f.startswith("shear")])
def test_lipschitz_constants_bound_the_jacobian_of_every_layer(name):
    field = samples.field(name).eval()
    theta = field.theta()
    parts, one_sided = field.lipschitz(theta)
    run = field.in_run(0)
    for seed in range(3):
        y = 2.0 * samples.inputs(field, batch=2, seed=seed)
        for j, theta_j in enumerate(slices(theta, field.layers)):
            for i in range(len(y)):
                parted = state(getattr(field, "field", field), y[i : i + 1])
                A = jacobian(lambda *s, t=theta_j: velocity(run, s, t), parted)
                n = parted[0].numel()
                blocks = (A,) if len(parted) == 1 else (A[:n, n:], A[n:, :n])
                for L, block in zip(parts, blocks, strict=True):
                    assert float(torch.linalg.matrix_norm(block, ord=2)) <= float(L.expand(field.layers)[j]) * (
                        1 + 1e-12
                    )
                fastest = float(torch.linalg.eigvalsh(0.5 * (A + A.mT)).max())
                assert fastest <= float(one_sided.expand(field.layers)[j]) + 1e-12 * float(parts[0].max())


def random_flow(seed):
    """A network of a random kind, depth, step, width and size of its weights."""
    g = generator(seed)

    def draw(low, high):
        return low + (high - low) * float(torch.rand((), generator=g))

    model = list(lv.zoo.MODELS)[seed % len(lv.zoo.MODELS)]
    more = {"gamma": draw(0.0, 1.0)} if model in ("ms2", "antisymmetric", "midpoint") else {}
    more |= {"activation": ("tanh", "relu", "softplus", "logistic")[seed % 4]}
    features, layers = 2 * round(draw(1, 3)), round(draw(1, 12))
    return lv.zoo.MODELS[model](features, layers, draw(0.1, 4.0), init=lv.Normal(draw(0.1, 1.5)), generator=g, **more)


def check_random(seeds):
    tightest = 0.0
    for seed in seeds:
        flow = random_flow(seed).double()
        singular, slack = values(flow, 2.0 * randn(4, flow.field.features, seed=seed))
        U = bound(flow)
        assert float(singular.max()) <= U + slack, (seed, flow)
        if isinstance(flow.scheme, lv.ShearScheme):
            assert float(singular.min()) >= 1 / bound(flow, of=log_inverse_bound) - slack, (seed, flow)
        if U > 1.1:
            tightest = max(tightest, math.log(float(singular.max())) / math.log(U))
    return tightest


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_random_networks_keep_the_bound(count):
    assert check_random(range(count)) > 0.8  # and it is not vacuous


def test_a_shear_at_rest_attains_the_bound():
    """K_p = 0, K_q = 3 I, at the origin, where sigma' = 1: A = [[I, -9 h I], [0, I]]."""
    field = lv.SeparableHamiltonianField(4, layers=1).double()
    with torch.no_grad():
        field.K_p.zero_()
        field.K_q.copy_(3 * torch.eye(2))
    flow = lv.Flow(field, lv.SymplecticEuler(), T=0.2)
    singular, slack = values(flow, torch.zeros(1, 4).double())
    assert abs(float(singular.max()) - bound(flow)) <= slack


def test_forward_euler_at_rest_attains_the_bound():
    field = lv.ResidualField(3, layers=5).double()
    with torch.no_grad():
        field.K.copy_(torch.eye(3))
    flow = lv.Flow(field, lv.ForwardEuler(), T=1.0)
    singular, slack = values(flow, torch.zeros(1, 3).double())
    assert abs(float(singular.max()) - 1.2**5) <= slack
    assert abs(bound(flow) - 1.2**5) <= slack


def test_symmetry_halves_the_exponent():
    """A fine step: the exponents tend to T max(L_p, L_q) / 2 and to T (L_p + L_q)."""
    flow = lv.zoo.h2(4, layers=4096, T=1.0, init=lv.Smooth(modes=1, scale=0.0)).double()
    assert float(log_upper_bound(flow, 0)) == pytest.approx(0.5 * 4.0, rel=2e-3)
    assert float(log_exponential_bound(flow).detach()) == pytest.approx(8.0, rel=1e-6)


def test_an_activation_that_is_not_monotone_gets_the_larger_bound():
    sine = lv.Activation("sine", torch.sin, lambda x: -torch.cos(x), torch.cos, lipschitz=1.0, monotone=False)
    bounds = [
        bound(lv.zoo.h1(4, 32, 1.0, activation=sigma, generator=generator()), log=True) for sigma in ("tanh", sine)
    ]
    assert bounds[1] > 1.5 * bounds[0]


@pytest.mark.parametrize("name", ["h1", "h2", "ms1", "ms2", "leapfrog", "midpoint", "resnet"])
def test_the_bound_is_differentiable(name):
    flow = lv.zoo.MODELS[name](4, 3, 1.0, generator=generator()).double()
    weights = dict(flow.named_parameters())
    key = next(iter(weights))

    def of(w):
        return torch.func.functional_call(Bound(flow), {f"flow.{key}": w}, ())

    assert torch.autograd.gradcheck(of, (weights[key].detach().clone().requires_grad_(),))


class Bound(torch.nn.Module):
    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def forward(self):
        return log_upper_bound(self.flow, 0)


@pytest.mark.parametrize("name", ["h1", "h2", "ms1", "ms2", "leapfrog", "midpoint", "resnet"])
def test_weights_of_zero_have_finite_gradients(name):
    flow = lv.zoo.MODELS[name](4, 3, 1.0)
    with torch.no_grad():
        for w in flow.parameters():
            w.zero_()
    log_upper_bound(flow, 0).backward()
    assert all(w.grad is None or w.grad.isfinite().all() for w in flow.parameters())


def test_one_number_per_layer_also_where_layers_share_a_weight():
    assert log_layer_bounds(lv.zoo.h2(4, 7, 1.0, shared=True)).shape == (7,)


def test_what_has_no_bound_says_so():
    shear = lv.Flow(samples.field("shear"), lv.Verlet(), T=1.0)
    with pytest.raises(NotImplementedError, match="ShearField states no Lipschitz constants"):
        log_upper_bound(shear)
    implicit = lv.Flow(lv.HamiltonianField(4, 2), lv.ImplicitSymplecticEuler(), T=1.0)
    with pytest.raises(NotImplementedError, match="ImplicitSymplecticEuler has its own step and states no bound"):
        log_upper_bound(implicit)


def test_an_implicit_layer_that_may_be_singular_has_an_infinite_bound():
    field = lv.ResidualField(2, layers=2)
    with torch.no_grad():
        field.K.copy_(5 * torch.eye(2))
    assert math.isinf(float(log_upper_bound(lv.Flow(field, lv.ImplicitMidpoint(), T=1.0))))
