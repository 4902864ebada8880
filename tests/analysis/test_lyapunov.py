"""Lyapunov spectra against products whose singular values are known, and the laws of sums, pairs and the largest."""

from __future__ import annotations

import math

import pytest
import torch

import liouville as lv
from liouville.analysis import (
    backward_sensitivity,
    growth_exponents,
    layer_jacobians,
    log_determinants,
    lyapunov_spectrum,
    singular_spectra,
)
from measure import EPS, generator, near, randn
from samples import PAIRS, inputs
from samples import flow as flow_of


def tolerance(A: torch.Tensor) -> float:
    """Of the logarithms: each layer adds eps times the size n of its products and its condition number."""
    values = singular_spectra(A)
    condition = float((values[..., 0] / values[..., -1]).max())
    return 20 * A.shape[-1] ** 2 * (len(A) + 1) * EPS * condition


def product(n: int, N: int, rates: torch.Tensor) -> torch.Tensor:
    """(N, 5, n, n) whose product has the singular values exp(sum of the rates (N, 5, n))."""
    W = torch.linalg.qr(randn(N + 1, 5, n, n, seed=n)).Q
    return W[1:] @ (rates.exp()[..., None] * W[:-1].mT)


@pytest.mark.parametrize(("n", "N", "drift"), [(1, 9, 1.0), (2, 200, 1.0), (4, 300, 1.0), (5, 60, 0.01), (8, 100, 0.3)])
def test_singular_values_that_are_known_are_found_however_far_apart(n: int, N: int, drift: float) -> None:
    """Up to exp(600) apart, where the product itself has none of the smaller ones left."""
    rates = drift * torch.linspace(-1, 1, n, dtype=torch.float64) * torch.ones(N, 5, 1) + 0.1 * randn(N, 5, n)
    A = product(n, N, rates)
    expected = rates.sum(0).sort(-1, descending=True).values
    near(N * lyapunov_spectrum(A), expected, tolerance(A))
    near(lyapunov_spectrum(A, T=2.0), expected / 2, tolerance(A))
    if n == 4:
        assert float(expected[:, 0].min() - expected[:, -1].max()) > 500
        lost = singular_spectra(torch.linalg.multi_dot([*A[:100, 0].flip(0)])).log()
        assert float((lost - rates[:100, 0].sum(0).sort(descending=True).values).abs().max()) > 1


def sums_and_spectra_agree(scheme: str, field: str) -> None:
    flow = flow_of(scheme, field).double().eval()
    y = inputs(flow.field)
    A = layer_jacobians(flow, y)
    found = lyapunov_spectrum(flow, y)
    spectra = singular_spectra(backward_sensitivity(flow, y)[0])
    condition = float((spectra[..., 0] / spectra[..., -1]).max())
    near(found.sum(-1), log_determinants(A)[0] / flow.T, found.shape[-1] * tolerance(A) / flow.T)
    near(found, spectra.log() / flow.T, (tolerance(A) + 10 * A.shape[-1] ** 2 * EPS * condition) / flow.T)


FIRST = list({scheme: (scheme, field) for scheme, field in reversed(PAIRS) if "Implicit" not in scheme}.values())


@pytest.mark.parametrize(("scheme", "field"), FIRST)
def test_exponents_are_those_of_the_product_and_add_up_to_the_volume(scheme: str, field: str) -> None:
    sums_and_spectra_agree(scheme, field)


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "field"), PAIRS)
def test_so_they_do_for_every_pair(scheme: str, field: str) -> None:
    sums_and_spectra_agree(scheme, field)


@pytest.mark.parametrize(("model", "T"), [("h2", 40.0), ("ms3", 40.0), ("leapfrog", 2.0)])
def test_exponents_of_symplectic_flows_pair(model: str, T: float) -> None:
    """lambda_k = -lambda_(n + 1 - k), also where the smallest singular value is 1e-18 of the largest or less."""
    flow = getattr(lv.zoo, model)(4, 64, T, init=lv.Normal(1.5), generator=generator(0)).double()
    y = randn(20, 4)
    found = lyapunov_spectrum(flow, y)
    near(found, -found.flip(-1), 2 * tolerance(layer_jacobians(flow, y)) / T)


def test_exponents_of_a_linear_field_are_those_of_its_eigenvalues() -> None:
    """y' = A y, A skew: forward Euler's layers are normal, so lambda = log(1 + h^2 mu^2) / (2 h) for each +-i mu."""
    identity = lv.Activation("identity", lambda x: x, lambda x: x * x / 2, torch.ones_like, 1.0, True)
    flow = lv.Flow(lv.AntisymmetricField(4, 100, shared=True, activation=identity), lv.ForwardEuler(), 30.0).double()
    mu = torch.linalg.eigvals(flow.field.theta().A[0].detach()).imag.sort(descending=True).values.abs()
    expected = (1 + (flow.h * mu).square()).log().sort(descending=True).values / (2 * flow.h)
    y = randn(3, 4)
    near(lyapunov_spectrum(flow, y), expected.expand(3, 4), tolerance(layer_jacobians(flow, y)) / flow.T)


def test_what_is_lost_is_minus_infinity_and_what_is_not_finite_spares_the_others() -> None:
    A = randn(6, 3, 3, 3)
    A[2, 0, :, 1] = 0
    A[4, 1, 0, 0] = math.nan
    found = lyapunov_spectrum(A)
    assert found[1].isnan().all() and found[2].isfinite().all()
    assert float(found[0, 2]) < math.log(EPS) / 6 and found[0, :2].isfinite().all()
    assert (lyapunov_spectrum(torch.zeros(3, 2, 3, 3)) == -math.inf).all()
    assert (lyapunov_spectrum(torch.diag(torch.tensor([2.0, 0.0])).expand(3, 2, 2))).tolist() == [
        pytest.approx(math.log(2)),
        -math.inf,
    ]


def test_growth_exponents_agree_while_the_product_keeps_them() -> None:
    flow, y = lv.zoo.h2(4, 16, 2.0, generator=generator(1)).double(), randn(9, 4)
    slow = growth_exponents(backward_sensitivity(flow, y), flow.h)[0]
    near(lyapunov_spectrum(flow, y), slow, 100 * tolerance(layer_jacobians(flow, y)))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((torch.eye(2).expand(3, 2, 2), torch.ones(2)), "a flow and its input"),
        ((lv.zoo.h2(4, 2, 1.0),), "a flow and its input"),
        ((torch.ones(3, 2),), "got the shape"),
        ((torch.ones(3, 2, 3),), "got the shape"),
        ((torch.ones(0, 2, 2),), "got the shape"),
    ],
)
def test_what_does_not_fit_is_named(arguments: tuple[object, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        lyapunov_spectrum(*arguments)
    with pytest.raises(ValueError, match="must be positive, got 0"):
        lyapunov_spectrum(torch.eye(2).expand(3, 2, 2), T=0.0)
