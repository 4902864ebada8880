"""Norms, spectra, determinants, growth and alignment by hand; the lower bound 1, and an MLP beside it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import liouville as lv
from liouville.analysis import (
    backward_sensitivity,
    gradient_alignment,
    gradient_norms,
    growth_exponents,
    layer_jacobians,
    log_determinants,
    norms,
    singular_spectra,
)
from measure import EPS, generator, near, randn, rounding
from samples import PAIRS, inputs
from samples import flow as flow_of
from turns import one_in


def test_norms_are_torchs() -> None:
    A = randn(3, 5, 4)
    for measured, order in zip(norms(A), (1, 2, math.inf, "fro"), strict=True):
        near(measured, torch.linalg.matrix_norm(A, ord=order), rounding(A, terms=20))


def test_what_is_not_finite_is_nan_and_spares_the_others() -> None:
    A = randn(2, 3, 3)
    A[0, 0, 0] = math.inf
    spectra = singular_spectra(A)
    assert spectra[0].isnan().all()
    near(spectra[1], torch.linalg.svdvals(A[1]), rounding(A, terms=20))


BOUNDED = ("h1", "h2", "ms1", "ms2", "ms3")


def lower_bound_holds(flow: lv.Flow, y: torch.Tensor) -> None:
    for name, values in norms(backward_sensitivity(flow, y))._asdict().items():
        assert values.min() >= 1 - 1e-9, f"{name}: {float(values.min())}"


@pytest.mark.parametrize("layers", [4, 16, 64, 256, 1024])
@pytest.mark.parametrize("init", [lv.Smooth(), lv.Normal(1.0)], ids=["smooth", "normal"])
@pytest.mark.parametrize("model", BOUNDED)
def test_every_norm_of_every_sensitivity_is_at_least_one(model: str, init: lv.Smooth, layers: int) -> None:
    flow = getattr(lv.zoo, model)(4, layers, T=0.05 * layers, init=init, generator=generator(layers)).double()
    lower_bound_holds(flow, randn(20, 4))


@pytest.mark.slow
@pytest.mark.parametrize("layers", [4, 64, 256, 1024])
@pytest.mark.parametrize("model", BOUNDED)
def test_the_bound_holds_before_during_and_after_training(model: str, layers: int) -> None:
    network = lv.classifier(model, 2, 2, 4, layers, T=4.0, generator=generator(0)).double()
    split = lv.data.load("swiss-roll", points=400)
    y = network.lift(split.x_train[:50].double())
    lower_bound_holds(network.body, y)

    class During(lv.train.Callback):
        steps = 0

        def on_train_batch_end(self, loss: float) -> None:
            self.steps += 1
            if self.steps % 5 == 0:
                lower_bound_holds(network.body, y)

    lv.train.fit(network, split, lv.train.Settings(epochs=5, batch_size=50), callbacks=[During()])
    lower_bound_holds(network.body, y)


def test_a_short_training_run_keeps_the_bound() -> None:
    network = lv.classifier("h2", 2, 2, 4, 32, T=4.0, generator=generator(0)).double()
    split = lv.data.load("swiss-roll", points=200)
    before = network.body.field.K_p.detach().clone()
    lv.train.fit(network, split, lv.train.Settings(epochs=3, batch_size=20))
    assert (network.body.field.K_p - before).abs().max() > 0.01
    lower_bound_holds(network.body, network.lift(split.x_test.double()))


def test_the_bound_fails_where_nothing_proves_it() -> None:
    """The test above can fail: diffusion, a residual network, and the mean of a batch all go below 1."""
    y = randn(20, 4)
    damped = lv.zoo.ms2(4, 64, T=6.4, gamma=2.0, generator=generator(0)).double()
    assert norms(backward_sensitivity(damped, y))[1].min() < 0.5
    averaged = lv.zoo.h2(4, 64, T=20.0, generator=generator(0)).double()
    assert norms(backward_sensitivity(averaged, 2 * randn(200, 4)).mean(1))[1].min() < 0.9
    residual = lv.Flow(lv.SymmetricField(4, 64, generator=generator(0)).double(), lv.ForwardEuler(), T=3.0)
    assert norms(backward_sensitivity(residual, y))[1].min() < 0.5


def test_a_32_layer_mlp_vanishes_beside_an_h2_of_32_layers() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mlp = nn.Sequential(*[m for _ in range(32) for m in (nn.Linear(4, 4), nn.Tanh())]).double()
    y = randn(50, 4)
    assert norms(backward_sensitivity(mlp, y)[0])[1].max() < 1e-6
    h2 = lv.zoo.h2(4, 32, T=3.2, generator=generator(0)).double()
    assert norms(backward_sensitivity(h2, y)[0])[1].min() >= 1 - 1e-9


def test_log_determinants_are_sums_over_layers() -> None:
    A = 0.3 * randn(7, 2, 3, 3) + torch.eye(3).double()
    found = log_determinants(A)
    assert found.shape == (8, 2)
    product = torch.eye(3).double().expand(2, 3, 3)
    for j in reversed(range(7)):
        product = product @ A[j]
        near(found[j], torch.linalg.slogdet(product).logabsdet, rounding(7.0, terms=100))


def test_a_symplectic_net_of_1024_layers_keeps_its_volume_by_layers_not_by_the_product() -> None:
    flow = lv.zoo.h2(4, 1024, T=400.0, init=lv.Normal(1.0), generator=generator(0)).double()
    y = randn(5, 4)
    sizes = log_determinants(layer_jacobians(flow, y)).abs().amax()
    assert sizes <= 1024 * 100 * EPS * 4
    assert norms(backward_sensitivity(flow, y)[0])[1].max() > 1e8  # the product's own determinant is rounding here


def test_growth_exponents_of_a_known_matrix() -> None:
    """Constant layers exp(h diag(1, -2)): the exponents are 1 and -2 at every depth."""
    h, N = 0.1, 8
    powers = [torch.diag(torch.tensor([1.0, -2.0]).double() * h * (N - j)).matrix_exp() for j in range(N + 1)]
    exponents = growth_exponents(torch.stack(powers)[:, None], h)
    near(exponents, torch.tensor([1.0, -2.0]).double().expand(N, 1, 2), 1000 * EPS)


def test_alignment_with_the_direction_that_grows() -> None:
    A, g = randn(4, 5, 3, 3), randn(5, 3)
    u, s, _ = torch.linalg.svd(A)
    aligned = gradient_alignment(A, g)
    assert aligned.shape == (4, 5)
    near(aligned, ((u[..., 0] * g).sum(-1) / g.norm(dim=-1)).abs(), 100 * EPS)
    near(gradient_alignment(A, u[..., 0]), torch.ones(4, 5), 100 * EPS)
    pulled = (A.mT @ g[..., None])[..., 0].norm(dim=-1)
    assert (pulled >= aligned * s[..., 0] * g.norm(dim=-1) * (1 - 100 * EPS)).all()


@pytest.mark.parametrize(("scheme", "name"), one_in(3, PAIRS))
def test_gradient_norms_are_sensitivities_times_the_gradient(scheme: str, name: str) -> None:
    flow = flow_of(scheme, name).eval()
    y = inputs(flow.field, batch=2)
    M, out = backward_sensitivity(flow, y), flow(y).detach()
    weights = randn(*out.shape, seed=5)
    state = tuple(part.detach().requires_grad_() for part in flow.final_state(y))
    costate = torch.autograd.grad(flow.scheme.final(flow.field, state), state, weights, materialize_grads=True)
    g = torch.cat(costate, flow.field.feature_axis).flatten(1)
    expected = (M.mT @ g[..., None])[..., 0].norm(dim=-1)
    near(gradient_norms(flow, y, weights), expected, 1000 * EPS * float(expected.max()) * M.shape[-1])
