"""Penalties: quadratures in depth, each with the right gradient and counted once."""

from __future__ import annotations

import pytest
import torch

import liouville as lv
from liouville.train import Penalty, decay, head_decay, smoothness


def flow(layers: int, **options: object) -> lv.Flow:
    generator = torch.Generator().manual_seed(0)
    return lv.zoo.h2(4, layers, T=3.0, generator=generator, **options).double()


def test_smoothness_by_hand() -> None:
    f = flow(5)
    total = sum(float((w[1:] - w[:-1]).square().sum()) for w in f.field.theta())
    for scaling, c in (("depth", 1 / (2 * f.h)), ("hdnn", f.h / 2), ("sum", 0.5)):
        assert float(smoothness(f, scaling)) == pytest.approx(c * total, rel=1e-12)


def test_decay_by_hand() -> None:
    f = flow(5)
    total = sum(float(w.square().sum()) for w in f.field.theta())
    assert float(decay(f)) == pytest.approx(f.h / 2 * total, rel=1e-12)
    assert float(decay(f, "sum")) == pytest.approx(total / 2, rel=1e-12)


def test_shared_weights_are_smooth_and_decay_like_their_copies() -> None:
    shared = flow(6, shared=True)
    assert float(smoothness(shared)) == 0.0
    once = sum(float(w.square().sum()) for w in shared.field.theta())
    assert float(decay(shared)) == pytest.approx(3.0 / 2 * once, rel=1e-12)


@pytest.mark.parametrize("penalty", [smoothness, decay])
def test_depth_scaling_converges_in_the_number_of_layers(penalty) -> None:
    """N and 2N layers sample one function of time: mid-point quadratures agree to O(h^2), smoothness to O(h)."""
    values = [float(penalty(flow(N))) for N in (64, 128, 256)]
    first, second = abs(values[0] - values[1]), abs(values[1] - values[2])
    assert second < 0.02 * values[2]
    # at least first order, down to the rounding of weights that were drawn in float32
    assert second < 0.6 * first or second < torch.finfo(torch.float32).eps * values[2]


def test_papers_scaling_is_not_consistent_in_depth() -> None:
    """h/2 sum |dK|^2 falls like h^2: four times less at every doubling. It is an option, not the default."""
    coarse, fine = (float(smoothness(flow(N), "hdnn")) for N in (128, 256))
    assert fine / coarse == pytest.approx(0.25, rel=0.05)


def test_independent_weights_have_no_limit_in_depth() -> None:
    coarse, fine = (float(smoothness(flow(N, init=lv.Normal()))) for N in (64, 256))
    assert fine > 10 * coarse


@pytest.mark.parametrize("scaling", ["depth", "hdnn", "sum"])
def test_taylor(scaling: str) -> None:
    """The remainder of the first-order expansion of a quadratic is exactly of second order."""
    network = lv.classifier("h2", 2, 2, 4, 6, 1.5).double()
    penalty = Penalty(smoothness=0.7, decay=0.3, head=0.2, scaling=scaling)
    weights = list(network.parameters())
    gradient = torch.autograd.grad(penalty(network), weights)
    generator = torch.Generator().manual_seed(1)
    direction = [torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in weights]
    slope = sum(float((g * d).sum()) for g, d in zip(gradient, direction, strict=True))
    base, remainders = float(penalty(network)), []
    for t in (1e-2, 1e-3):
        with torch.no_grad():
            for w, d in zip(weights, direction, strict=True):
                w.add_(d, alpha=t)
            remainders.append(float(penalty(network)) - base - t * slope)
            for w, d in zip(weights, direction, strict=True):
                w.sub_(d, alpha=t)
    assert remainders[0] / remainders[1] == pytest.approx(100.0, rel=1e-6)


def test_each_term_is_counted_once() -> None:
    network = lv.classifier("h1", 2, 2, 4, 6, 1.5).double()
    (f,) = network.flows()
    total = 2 * smoothness(f) + 3 * decay(f) + 5 * head_decay(network)
    assert float(Penalty(2, 3, 5)(network)) == pytest.approx(float(total), rel=1e-12)
    assert float(Penalty()(network)) == 0.0


@pytest.mark.parametrize("penalty", [smoothness, decay])
def test_a_scalar_bias_is_one_number_a_layer(penalty) -> None:
    """theta() spreads it over the features; the penalty counts it once, as what is trained is one number."""
    f = lv.zoo.resnet(4, 5, T=3.0, scalar_bias=True).double()
    factor = 1 / (2 * f.h) if penalty is smoothness else f.h / 2
    torch.nn.init.normal_(f.field.b)
    raw = [f.field.K, f.field.b]
    assert f.field.b.shape == (5, 1)
    total = sum((w.diff(dim=0) if penalty is smoothness else w).square().sum() for w in raw)
    assert float(penalty(f).detach()) == pytest.approx(factor * float(total.detach()), rel=1e-12)


@pytest.mark.parametrize("train_J", [False, True])
def test_J_is_penalised_where_it_is_trained(train_J: bool) -> None:
    """J that changes from layer to layer is in theta(); a fixed one has no part in what is minimised."""
    B = torch.randn(5, 4, 4, generator=torch.Generator().manual_seed(0))
    field = lv.HamiltonianField(4, 5, J=B - B.mT, train_J=train_J).double()
    f = lv.Flow(field, lv.ForwardEuler(), T=3.0)
    weights = [field.K, field.b, *([field.theta().J] if train_J else [])]
    for penalty, factor in ((smoothness, 1 / (2 * f.h)), (decay, f.h / 2)):
        total = sum((w.diff(dim=0) if penalty is smoothness else w).square().sum() for w in weights)
        assert float(penalty(f).detach()) == pytest.approx(factor * float(total.detach()), rel=1e-12)


def test_errors() -> None:
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"the decay weight must be >= 0 and finite, got {bad}"):
            Penalty(decay=bad)
    with pytest.raises(ValueError, match="the smoothness weight must be >= 0 and finite, got -1"):
        Penalty(smoothness=-1)
    with pytest.raises(ValueError, match="unknown scaling 'dept'; did you mean 'depth'"):
        Penalty(scaling="dept")  # type: ignore[arg-type]
