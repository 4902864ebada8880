"""The steps that both bounds read: those of the flow, and what a field states of its weights is true of it."""

import pytest
import torch

import liouville as lv
import samples
from liouville.analysis.bounds import log_upper_bound, proved_bound, rounding_of_norms
from liouville.backprop import slices
from liouville.budget import budgeted
from liouville.multipliers.scaling import estimate
from liouville.multipliers.search import start
from liouville.multipliers.sectors import sectors_of
from liouville.multipliers.steps import FIELDS, steps_of
from measure import generator, randn, rounding

KNOWN = [
    (scheme, name)
    for scheme, name in samples.PAIRS
    if scheme in ("SymplecticEuler", "Verlet", "Yoshida4", "ForwardEuler")
    and name.startswith(("separable", "pair", "hamiltonian", "antisymmetric", "residual"))
    and not name.endswith(("images", "signal", "images-3d", "gated"))
]


@torch.no_grad()
@pytest.mark.parametrize(("scheme", "name"), KNOWN)
def test_parts_one_after_the_other_are_the_flow(scheme, name):
    flow = samples.flow(scheme, name).eval()
    y = samples.inputs(flow.field, batch=3)
    parts, at_once = steps_of(flow.field, flow.scheme, flow.field.theta(), flow.h)
    found = y.clone()
    for j in range(flow.layers):
        before = found.clone()
        for to, of, length, (left, R, b, size) in parts:
            R, b, *left = (
                w[min(j, len(w) - 1)] if w.dim() > own else w for own, w in ((2, R), (1, b), *((2, x) for x in left))
            )
            step = flow.field.activation((before if at_once else found)[:, of] @ R.mT + b)
            for factor in reversed(left):
                step = step @ factor.mT
            found[:, to] += length * step
            assert size is None or bool((size[min(j, len(size) - 1)] >= R.abs() - 1e-15).all())
    torch.testing.assert_close(found, flow(y), rtol=1e-12, atol=rounding(flow(y), terms=100 * flow.layers))


@torch.no_grad()
@pytest.mark.parametrize("model", ["h2", "h1", "ms1", "ms2", "resnet"])
def test_a_field_says_which_weights_rescale_its_derivative(model):
    field = lv.zoo.MODELS[model](4, 3, 1.0, generator=generator()).double().field
    theta, t = field.theta(), 0.3
    root = t ** (1 / field.scaling.power)
    unbiased = theta._replace(**{n: torch.zeros_like(w) for n, w in theta._asdict().items() if n[0] in "bc"})
    scaled = unbiased._replace(**{n: root * getattr(theta, n) for n in field.scaling.weights})
    at = torch.zeros(1, 4, dtype=torch.float64)
    for whole, less in zip(slices(unbiased, 3), slices(scaled, 3), strict=True):
        a, b = (torch.autograd.functional.jacobian(lambda y, w=w: field(y, w), at) for w in (whole, less))
        torch.testing.assert_close(b, t * a, rtol=1e-12, atol=1e-15)
    for L, smaller in zip(
        field.lipschitz(theta).parts, field.lipschitz(field.scaled(theta, torch.tensor(t))).parts, strict=True
    ):
        torch.testing.assert_close(smaller, t * L, rtol=1e-6, atol=0.0)


class Silent(lv.SeparableHamiltonianField):
    """A subclass that says nothing of its weights."""


def test_what_says_nothing_of_its_own_is_refused():
    assert lv.SeparableHamiltonianField in FIELDS and Silent not in FIELDS and lv.VectorField not in FIELDS
    with pytest.raises(NotImplementedError, match="the steps of Silent are not known"):
        steps_of(Silent(4, 2), lv.SymplecticEuler(), None, 0.1)
    with pytest.raises(ValueError, match=r"scaled\(theta, factor\); got Silent"):
        budgeted(lv.Flow(Silent(4, 2), lv.SymplecticEuler(), 1.0), 2.0)
    with pytest.raises(ValueError, match=r"a budget needs one of .*AntisymmetricField"):
        budgeted(lv.zoo.ms2(4, 2, 1.0, gamma=0.1), 2.0)
    halves = lv.Network(torch.nn.Identity(), lv.Flow(lv.PairField(4, 2), lv.ForwardEuler(), 1.0), torch.nn.Linear(4, 2))
    with pytest.raises(NotImplementedError, match=r"ForwardEuler.*through PairField"):
        lv.analysis.certified_radius(halves.eval(), torch.zeros(1, 4), "local")


@torch.no_grad()
def test_rounding_is_added_to_what_does_not_prove_its_own():
    flow = lv.zoo.h2(4, 16, 4.0, init=lv.Normal(1.0), generator=generator()).double()
    by_multipliers = proved_bound(flow)
    assert by_multipliers == (float(log_upper_bound(flow)), "multipliers", 0.0)
    flow.field.activation = lv.Activation("own", torch.tanh, torch.log, lambda x: 1 - x.tanh() ** 2, 1.0, True)
    by_norms = proved_bound(flow)
    assert by_norms.way == "norms" and by_norms.rounding == rounding_of_norms(flow) > 0
    assert by_norms.log_u == float(log_upper_bound(flow, 0)) + by_norms.rounding


@torch.no_grad()
@pytest.mark.parametrize("seed", range(3))
def test_the_guess_of_a_scale_is_from_below_and_near(seed):
    flow = lv.zoo.h2(4, 12, 3.0, init=lv.Normal(1.5), generator=generator(seed))
    sectors = sectors_of(flow.field, flow.scheme, flow.field.theta(), flow.h)
    multipliers = start(sectors) * torch.exp(0.3 * randn(sectors.B.shape[1], seed=seed))
    B, R, M, s = sectors.B, sectors.R, torch.diag(multipliers), sectors.slope
    L = (R @ B) * sectors.layout.later(slice(0, len(R)))
    V = B + s * R.mT @ M
    G = s * (M @ L + L.mT @ M) + B.mT @ B + V.mT @ V / (5.0**2 - 1)
    root = multipliers.rsqrt()
    largest = float(torch.linalg.eigvalsh(root[:, None] * G * root)[-1])
    found = estimate(sectors, multipliers, 5.0)
    assert found <= largest * (1 + 1e-12) and found >= 0.99 * largest


@torch.no_grad()
@pytest.mark.parametrize("size", [1e8, 1e10, 1e12])
@pytest.mark.parametrize("model", ["h2", "h1"])
def test_weights_of_any_size_have_a_bound(model, size):
    """Beside such products what balances a multiplier is less than their rounding: a singular matrix ended the run."""
    for seed in range(3):
        flow = lv.zoo.MODELS[model](4, 6, 3.0, init=lv.Normal(size), generator=generator(seed)).double()
        assert float(log_upper_bound(flow, 3)) <= float(log_upper_bound(flow, 0))
