"""16-bit weights: what is said of a network is said of the map that its weights define, to the digits of float32."""

import copy
import math
import warnings

import pytest
import torch

import liouville as lv
from liouville import train
from liouville.precision import rounding_of

A = lv.analysis
LAYERS = 3
HALVES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
MODELS = pytest.mark.parametrize("name", list(lv.zoo.MODELS))
EPS = torch.finfo(torch.float32).eps

# what is said of a flow, as one tensor each
STATEMENTS = {
    "backward_sensitivity": lambda flow, y: A.backward_sensitivity(flow, y),
    "layer_jacobians": lambda flow, y: A.layer_jacobians(flow, y),
    "norms": lambda flow, y: torch.stack(A.norms(A.backward_sensitivity(flow, y))),
    "extreme_singular_values": lambda flow, y: A.extreme_singular_values(flow, y).largest,
    "layer_spectra": lambda flow, y: A.layer_spectra(flow, y).abs().sum(-1),
    "gradient_norms": lambda flow, y: A.gradient_norms(flow, y, torch.ones_like(y)),
    "flat_states": lambda flow, y: A.states.flat_states(flow, y),
    "log_determinants": lambda flow, y: A.log_determinants(A.layer_jacobians(flow, y)),
    "margin": lambda flow, y: A.margin(flow),
    "log_layer_bounds": lambda flow, y: A.log_layer_bounds(flow),
    "log_upper_bound": lambda flow, y: A.log_upper_bound(flow),
    "log_exponential_bound": lambda flow, y: A.log_exponential_bound(flow),
}


def flow_and_input(name, dtype, conv=False):
    """A flow of rounded weights, the same numbers in float64, and an input."""
    torch.manual_seed(0)
    flow = lv.zoo.MODELS[name](4, layers=LAYERS, T=1.0, **({"operator": lv.Conv(3)} if conv else {})).to(dtype)
    y = torch.randn((2, 4, 3, 3) if conv else (5, 4), generator=torch.Generator().manual_seed(1)).to(dtype)
    return flow, copy.deepcopy(flow).double(), y


@torch.no_grad()
def check(flow, wide, y, statements=STATEMENTS):
    """100 roundings of float32 in every layer, of the size of the largest entry; each is magnified by ||A|| at most."""
    growth = float(A.backward_sensitivity(wide, y.double()).abs().sum(-1).max())
    for name in statements:
        said, true = STATEMENTS[name](flow, y), STATEMENTS[name](wide, y.double())
        assert said.dtype == torch.float32 and true.dtype == torch.float64, name
        allowed = 100 * EPS * LAYERS * growth * max(1.0, float(true.abs().max()))
        assert float((said.double() - true).abs().max()) <= allowed < 0.1 * max(1.0, float(true.abs().max())), name


@MODELS
def test_statements_are_those_of_the_same_weights_in_float64(name):
    check(*flow_and_input(name, torch.bfloat16), [s for s in STATEMENTS if s != "extreme_singular_values"])


@pytest.mark.parametrize("name", ["h2", "resnet"])
def test_singular_values_by_products_of_vectors(name):
    check(*flow_and_input(name, torch.float16), ["extreme_singular_values"])


@pytest.mark.slow
@HALVES
@MODELS
@pytest.mark.parametrize("conv", [False, True], ids=["vectors", "images"])
def test_every_statement_in_both_dtypes_and_on_images(name, dtype, conv):
    check(*flow_and_input(name, dtype, conv))


@HALVES
@pytest.mark.parametrize("name", ["h2", "ms2", "midpoint"])
def test_a_certificate_says_what_it_is_about(name, dtype):
    flow, wide, y = flow_and_input(name, dtype)
    said, true = A.certify(flow, y), A.certify(wide, y.double())
    assert said.holds and "exact arithmetic" in said.subject and "exact arithmetic" not in true.subject
    assert [c.status for c in said.claims] == [c.status for c in true.claims]
    upper = [next(c for c in x.claims if c.name == "upper bound") for x in (said, true)]
    assert all("float64" in each.statement for each in upper)
    assert math.isclose(upper[0].bound["U"], upper[1].bound["U"], rel_tol=1e3 * EPS)


def test_states_that_overflow_float16_are_found_though_float32_holds_them():
    flow, y = lv.zoo.h2(4, layers=2, T=1.0, activation="relu").half(), torch.ones(3, 4).half()
    flow.field.K_q.data.fill_(300.0)
    assert [c.name for c in A.certify(flow, y).broken] == ["finite"]
    assert all(part.isfinite().all() for part in copy.deepcopy(flow).float().final_state(y.float()))


@HALVES
def test_matrices_of_sixteen_bits(dtype):
    M = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    for f in (A.singular_spectra, A.log_determinants, lambda M: A.growth_exponents(M, 0.1), lambda M: A.norms(M).two):
        said, true = f(M), f(M.double())
        assert said.dtype == torch.float32
        torch.testing.assert_close(said.double(), true, rtol=1e3 * EPS, atol=1e3 * EPS * float(true.abs().max()))
    assert A.gradient_verdict(M) and A.symplectic_defect(M, torch.eye(4).to(dtype)).dtype == torch.float32


@HALVES
@pytest.mark.parametrize("budget", [1.2, 5.0])
@pytest.mark.parametrize("name", ["h2", "h1", "ms1", "antisymmetric", "resnet"])
def test_a_budget_holds_for_the_rounded_weights_that_run(name, budget, dtype):
    flow = lv.budgeted(lv.zoo.MODELS[name](8, layers=LAYERS, T=4.0).to(dtype), budget, "norms")
    theta = flow.field.theta()
    assert all(w.dtype == dtype for w in theta)
    inner = copy.deepcopy(flow.field.field).double()
    L = inner.lipschitz(type(theta)(*(w.double() for w in theta)))
    log_u = float(lv.schemes.growth.log_growth(flow.scheme, L, flow.h).expand(LAYERS).sum())
    room = 1 - 3 * 2 * rounding_of(dtype) * 8**0.5  # root and product, squared in L
    assert room * math.log(budget) - 0.01 <= log_u <= math.log(budget)
    assert float(A.log_upper_bound(flow)) <= math.log(budget)


@HALVES
def test_a_drift_warning_is_given_and_not_an_error(dtype):
    flow = lv.zoo.h2(4, layers=100, T=40.0, backprop=lv.Reversible()).to(dtype)
    with pytest.warns(lv.DriftWarning, match="margin h x rate"):
        flow(torch.randn(16, 4, generator=torch.Generator().manual_seed(0)).to(dtype)).sum().backward()


@HALVES
def test_training_in_sixteen_bits(dtype):
    data = lv.data.load("double-moons", points=100)
    network = lv.classifier("h2", 2, 2, 4, layers=2, T=1.0, budget=5.0).to(dtype)
    penalty = train.Penalty(smoothness=1e-3, decay=1e-3, soft_budget=2.0)
    history = train.fit(network, data, train.Settings(epochs=1, penalty=penalty, max_grad_norm=1.0))
    assert all(math.isfinite(v) for v in history.metrics.values())
    with pytest.raises(train.DivergenceError, match="margin"):
        train.fit(network, data, train.Settings(epochs=50, lr=1e4, schedule="constant", optimizer="sgd"))
    with pytest.raises(ValueError, match=r"Gauss-Newton needs float32.*network\.float\(\)"):
        train.gauss_newton(network, data, train.GaussNewton(iterations=1))


@pytest.mark.parametrize("scheme", [lv.ImplicitMidpoint(), lv.ImplicitSymplecticEuler()], ids=str)
def test_implicit_layers_solve_in_float32(scheme):
    torch.manual_seed(0)
    flow = lv.Flow(lv.HamiltonianField(4, layers=LAYERS), scheme, T=0.5).bfloat16()
    y = torch.randn(3, 4).bfloat16()
    out, true = flow(y), copy.deepcopy(flow).double()(y.double())
    assert out.dtype == torch.bfloat16
    assert float((out.double() - true).abs().max()) <= 40 * LAYERS * rounding_of(torch.bfloat16) * float(
        true.abs().max()
    )
    out.float().sum().backward()


def test_autocast_does_not_blur_what_is_said():
    flow, _, y = flow_and_input("h2", torch.float32)
    expected = A.backward_sensitivity(flow, y)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(A.backward_sensitivity(flow, y), expected)


REFUSED = [torch.complex64, torch.int64, torch.float8_e4m3fn]


@pytest.mark.parametrize("dtype", REFUSED, ids=str)
def test_other_numbers_are_refused_in_a_sentence(dtype):
    flow, y = lv.zoo.h2(4, layers=2, T=1.0), torch.ones(3, 4).to(dtype)
    with pytest.raises(ValueError, match=f"floating-point.*{str(dtype)[6:]}"):
        flow(y)
    with pytest.raises(ValueError, match="floating-point"):
        A.backward_sensitivity(flow, y)
    if dtype is not torch.int64:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of complex modules
            other = flow.to(dtype)
        for said in (A.certify, A.log_upper_bound, A.margin):
            with pytest.raises(ValueError, match=str(dtype)[6:]):
                said(other)
    if not dtype.is_complex:
        with pytest.raises(ValueError, match="matrices must be"):
            A.singular_spectra(torch.eye(2).to(dtype))


def test_float16_under_the_autocast_of_bfloat16_is_refused():
    flow, _, y = flow_and_input("h2", torch.float16)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="autocast is on with bfloat16"):
        flow(y)


ODD_TIMES = [1e308, 10**400, True, float("nan"), 0, -1.0, "1", None, torch.tensor(1.0)]


@pytest.mark.parametrize("T", ODD_TIMES, ids=lambda T: repr(T)[:12])
def test_a_time_that_no_step_can_have_is_refused(T):
    with pytest.raises(ValueError, match="T must be a positive, finite time"):
        lv.zoo.h2(4, layers=2, T=T)


def test_depths_and_widths_are_whole_numbers_of_any_kind():
    np = pytest.importorskip("numpy")
    flow = lv.zoo.h2(np.int64(4), layers=np.int32(3), T=np.float32(1.0))
    assert type(flow.layers) is int and type(flow.field.features) is int and type(flow.T) is float
    with pytest.raises(ValueError, match="whole number"):
        lv.zoo.h2(4, layers=True, T=1.0)


def test_spectra_at_states_that_are_not_finite_are_nan():
    """LAPACK raises, or ends the process."""
    flow, y = lv.zoo.h1(4, layers=2, T=1.0), torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    y[1] = float("nan")
    for said in (A.layer_spectra(flow, y), A.extreme_singular_values(flow, y).largest[None]):
        assert said[:, [0, 2]].isfinite().all() and said[:, 1].isnan().all()
    aligned = A.gradient_alignment(A.backward_sensitivity(flow, y), torch.ones(3, 4))
    assert aligned[0, [0, 2]].isfinite().all() and aligned[0, 1].isnan()


def test_nothing_is_said_of_no_samples():
    flow = lv.zoo.h2(4, layers=2, T=1.0)
    for said in (A.certify, A.depth_check, A.reconstruction_error, A.backward_sensitivity, A.extreme_singular_values):
        with pytest.raises(ValueError, match="at least one sample"):
            said(flow, torch.zeros(0, 4))


def test_denormal_states_drift_by_their_own_roundings():
    flow = lv.zoo.h2(4, layers=4, T=1.0, backprop=lv.Reversible())
    flow((1e-42 * torch.randn(5, 4)).requires_grad_()).sum().backward()
