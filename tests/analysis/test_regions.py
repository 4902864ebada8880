"""Stability regions are those of the schemes' own steps; margins are spectral radii."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

import liouville as lv
from liouville.analysis import amplification, certify, imaginary_limit, layer_spectra, margin, step_margin
from liouville.analysis.stability import modes
from liouville.budget import BudgetedField
from liouville.schemes import StabilityWarning
from measure import at, generator, randn, step_jacobian
from samples import FIELDS, PAIRS, inputs
from samples import field as sample
from samples import flow as flow_of
from turns import one_in

SCHEMES = (
    lv.ForwardEuler(),
    lv.RK4(),
    lv.LeapfrogMidpoint(),
    lv.ImplicitMidpoint(),
    lv.SymplecticEuler(),
    lv.Verlet(),
    lv.Yoshida4(),
)


def line() -> lv.Activation:
    return lv.Activation("line", lambda x: x, lambda x: x.square() / 2, torch.ones_like, 1.0, True)


def oscillator(scheme: lv.Scheme, omega: float, activation: lv.Activation | str | None = None) -> lv.Flow:
    """y' = omega [[0, -1], [1, 0]] y, one step of length 1."""
    activation = activation or line()
    if isinstance(scheme, lv.SplittingScheme):
        field = lv.SeparableHamiltonianField(2, 1, activation=activation).double()
        weights = (field.K_p, field.K_q)
    else:
        field = lv.HamiltonianField(2, 1, activation=activation).double()
        weights = (field.K,)
    with torch.no_grad():
        for K in weights:
            K.copy_(math.sqrt(omega) * torch.eye(K.shape[-1]))
    return lv.Flow(field, scheme, T=1.0)


def damped(gamma: float) -> lv.AntisymmetricField:
    """y' = [[-gamma, 1/2], [-1/2, -gamma]] y in 160 layers."""
    field = lv.AntisymmetricField(2, 160, gamma=gamma, shared=True, activation=line()).double()
    with torch.no_grad():
        field.W.copy_(torch.tensor([[0.0, 0.5], [0.0, 0.0]]))
        field.b.zero_()
    return field


def step_claim(flow: lv.Flow, y: torch.Tensor) -> lv.analysis.Claim:
    return next(claim for claim in certify(flow, y).claims if claim.name == "step size")


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("omega", [0.3, 0.9, 1.3, 1.9, 2.5, 3.5])
def test_amplification_is_the_spectral_radius_of_a_step(scheme: lv.Scheme, omega: float) -> None:
    flow = oscillator(scheme, omega)
    state = tuple(x.detach() for x in next(iter(flow.states(randn(1, 2)))))
    A = step_jacobian(scheme, flow.field, state, 1.0)
    radius = float(torch.linalg.eigvals(A).abs().max())
    # eigenvalues of modulus 1 are as sensitive as they are close to each other: eps over the gap, above 0.1 here
    assert float(amplification(scheme, torch.tensor(1j * omega))) == pytest.approx(radius, rel=1e-6)


@pytest.mark.parametrize(
    ("scheme", "limit"),
    [
        (lv.SymplecticEuler(), 2.0),
        (lv.Verlet(), 2.0),
        (lv.LeapfrogMidpoint(), 1.0),
        (lv.RK4(), 2 * math.sqrt(2)),
        (lv.ForwardEuler(), 0.0),
        (lv.ImplicitMidpoint(), math.inf),
    ],
)
def test_limits_on_the_imaginary_axis(scheme: lv.Scheme, limit: float) -> None:
    # where two roots meet, |r| - 1 is the square root of the distance: 1e-9 above 1 is seen 1e-18 beyond the limit
    assert imaginary_limit(scheme) == pytest.approx(limit, abs=1e-6)


def test_the_region_of_forward_euler_is_a_disc_and_unknown_ones_say_so() -> None:
    z = torch.tensor([-1.0 + 0.9j, -1.0 + 1.1j, -2.1 + 0j, 0.1 + 0j])
    assert (amplification(lv.ForwardEuler(), z) <= 1).tolist() == [True, False, False, False]
    with pytest.raises(NotImplementedError, match="ImplicitSymplecticEuler"):
        amplification(lv.ImplicitSymplecticEuler(), z)


def test_antisymmetric_euler_is_stable_exactly_if_gamma_allows_it() -> None:
    """At D = I: 2 gamma >= h (gamma^2 + mu^2)."""
    h, mu = 0.2, 1.5
    for gamma in (0.1, 0.2, 0.24, 0.25, 0.3, 1.0):
        inside = float(amplification(lv.ForwardEuler(), torch.tensor(h * complex(-gamma, mu)))) <= 1
        assert inside == (2 * gamma >= h * (gamma**2 + mu**2))


def test_layer_spectra_are_h_times_the_eigenvalues_of_the_field() -> None:
    for scheme, name in (
        ("ForwardEuler", "hamiltonian-full"),
        ("LeapfrogMidpoint", "antisymmetric"),
        ("SymplecticEuler", "separable"),
        ("RK4", "pair"),
        ("Verlet", "second-order-rest"),
    ):
        flow = flow_of(scheme, name)
        y = inputs(flow.field)
        spectra = layer_spectra(flow, y)
        assert spectra.shape[:2] == (3, 3)
        assert spectra.real.abs().max() <= 1e-7 * spectra.abs().max()  # a double 0 is exact to sqrt(eps)
    residual = flow_of("ForwardEuler", "residual")
    y = inputs(residual.field)
    states = list(residual.states(y))
    J = torch.autograd.functional.jacobian(
        lambda v: residual.field(v, at(residual.field.theta(), 1)), states[1][0][2].detach()
    )
    expected = torch.linalg.eigvals(residual.h * J)
    ordered = sorted(layer_spectra(residual, y)[1, 2].tolist(), key=lambda z: (z.real, z.imag))
    for a, b in zip(ordered, sorted(expected.tolist(), key=lambda z: (z.real, z.imag)), strict=True):
        assert abs(a - b) < 1e-10


@pytest.mark.parametrize(
    ("scheme", "name"),
    [
        ("SymplecticEuler", "separable"),
        ("Verlet", "second-order-rest"),
        ("ForwardEuler", "hamiltonian"),
        ("LeapfrogMidpoint", "antisymmetric"),
        ("RK4", "hamiltonian-full"),
        ("ImplicitSymplecticEuler", "hamiltonian"),
    ],
)
def test_step_margins_are_spectral_radii(scheme: str, name: str) -> None:
    flow = flow_of(scheme, name)
    y = inputs(flow.field, batch=4)
    found = step_margin(flow, y, iterations=400)
    expected = layer_spectra(flow, y).abs().amax(-1)
    assert found.values.shape == (3, 4)
    # the factor before the power takes its share: eigenvalues close in modulus separate slowly
    torch.testing.assert_close(found.values, expected, rtol=0.02, atol=1e-6)
    assert (found.values <= margin(flow)[:, None] * 1.02).all()


def test_step_margins_of_images_stay_below_the_bound() -> None:
    flow = lv.zoo.h2(8, 4, 1.0, operator=lv.Conv(3), generator=generator(0))
    found = step_margin(flow, torch.randn(2, 8, 10, 10))
    assert found.values.shape == (4, 2)
    assert (found.values <= margin(flow)[:, None]).all() and (found.values > 0).all()


def test_the_verdict_is_plain() -> None:
    y = 1e-6 * randn(5, 2)
    inside, beyond = (step_margin(oscillator(lv.SymplecticEuler(), w, "tanh"), y) for w in (1.9, 2.1))
    assert "frozen layers, linearised" in str(inside) and "below the limit 2 of SymplecticEuler" in str(inside)
    assert "1 of 1 layers reach the limit 2" in str(beyond)
    assert "amplifies every oscillation" in str(step_margin(oscillator(lv.ForwardEuler(), 0.3, "tanh"), y))
    own = step_margin(oscillator(lv.SymplecticEuler(), 1.9), y)  # of an activation of one's own modes are measured
    assert "no mode grows in a step of SymplecticEuler at these states" in str(own)


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if type(s) not in (lv.SymplecticEuler, lv.Verlet, lv.Yoshida4)])
@pytest.mark.parametrize("gamma", [0.5, 4.0])
@pytest.mark.slow
def test_off_the_imaginary_axis_the_verdict_is_about_the_modes_and_tells_growth_from_none(scheme, gamma) -> None:
    """160 layers, one weight: what grows in a step grows 160 times, and a limit of imaginary rates says nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StabilityWarning)
        flow = lv.Flow(damped(gamma), scheme, T=16.0)
    y = torch.ones(1, 2, dtype=torch.float64)
    found, claim = step_margin(flow, y), step_claim(flow, y)
    times = flow.h * torch.arange(flow.layers + 1, dtype=torch.float64)
    beside_exact = flow.trajectory(y).detach().norm(dim=-1)[:, 0] * torch.exp(gamma * times)
    grows = float(beside_exact[-20:].max()) > 100 * float(y.norm())
    assert found.imaginary is False and "not applicable" in str(found) and "below the limit" not in str(found)
    assert (found.growth > 1 + 1e-6) == grows == (claim.status == "not applicable")
    assert grows == isinstance(scheme, lv.LeapfrogMidpoint)
    assert "no mode" in claim.statement and "largest growth a step" in claim.measured


@pytest.mark.slow
def test_too_little_damping_for_forward_euler_is_growth() -> None:
    """|1 + h (-gamma + i/2)| > 1 for gamma = 0.01 and h = 0.1."""
    flow, y = lv.Flow(damped(0.01), lv.ForwardEuler(), T=16.0), torch.ones(1, 2, dtype=torch.float64)
    ends = flow.trajectory(y).detach().norm(dim=-1)
    found = step_margin(flow, y)
    assert float(ends[-1] / ends[0]) == pytest.approx(found.growth**160, rel=1e-6) and found.growth > 1 + 1e-4
    assert step_claim(flow, y).status == "not applicable"


def test_a_field_of_ones_own_is_measured_and_a_wide_one_is_not_applicable() -> None:
    class Turn(lv.ResidualField):
        def forward(self, y, theta_j):
            return torch.stack((-y[..., 1], y[..., 0]), -1)

        def jacobian(self, y, theta):
            return None

    turn = Turn(2, 8).double()
    for T, grows in ((4.0, False), (12.0, True)):  # RK4, h = 0.5 and 1.5; Midpoint's limit is 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StabilityWarning)
            flow = lv.Flow(turn, lv.LeapfrogMidpoint(), T)
        found = step_margin(flow, randn(2, 2))
        assert found.imaginary and (found.growth > 1.1) == grows and ("grows by" in str(found)) == grows
    wide = lv.zoo.resnet(8, 2, 1.0, operator=lv.Conv(3), generator=generator(0))
    found = step_margin(wide, torch.randn(1, 8, 10, 10))
    assert found.imaginary is None and "the rates of ResidualField are not known to be imaginary" in str(found)
    assert step_claim(wide, torch.randn(1, 8, 10, 10)).status == "not applicable"


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_states_imaginary_rates_has_them(name: str) -> None:
    """And those of a damped one are nowhere to the right; at random states, where eigenvalues 0 are exact to 1e-6."""
    field = flow_of("SymplecticEuler", name).field if name.startswith(("second", "dropout-second")) else sample(name)
    field = field.eval()
    scheme = lv.SymplecticEuler() if isinstance(field, lv.PartitionedField) else lv.ForwardEuler()
    if isinstance(field, BudgetedField):
        scheme = field.scheme
    found = modes(lv.Flow(field, scheme, T=0.9), inputs(field))
    assert found is not None
    size = 1e-5 * (1 + found.growth)
    if field.spectrum == "imaginary":
        assert max(-found.low, found.high) <= size
    elif field.spectrum == "damped":
        assert found.high <= size
        assert found.low < -size or name.endswith("lossless")  # R = 0, of a class that damps in general


def test_two_stable_layers_in_turn_may_grow() -> None:
    """Each is far within the limit for itself; their product is not: a margin is advice, not proof."""
    field = lv.SeparableHamiltonianField(2, 40, activation=line()).double()
    with torch.no_grad():
        field.K_p[0::2], field.K_q[0::2] = 0.3, 1.8
        field.K_p[1::2], field.K_q[1::2] = 1.8, 0.3
    flow = lv.Flow(field, lv.Verlet(), T=40 * 2.0)
    found = step_margin(flow, 0.01 * randn(1, 2))
    assert float(found.values.max()) < 1.2
    assert lv.analysis.backward_sensitivity(flow, 0.01 * randn(1, 2))[0].norm() > 1e3


@pytest.mark.parametrize(("scheme", "name"), one_in(5, PAIRS))
def test_every_pair_has_a_margin_or_says_that_no_limit_is_known(scheme: str, name: str) -> None:
    flow = flow_of(scheme, name).eval()
    found = step_margin(flow, inputs(flow.field, batch=1), iterations=4)
    assert found.values.isfinite().all() and found.verdict.startswith("frozen layers, linearised")
