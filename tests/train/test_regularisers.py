"""Penalties: quadratures in depth, each with the right gradient and counted once."""

from __future__ import annotations

import functools

import pytest
import torch

import liouville as lv
from liouville.train import (
    L1,
    ConvexRegulariser,
    Decay,
    HeadDecay,
    HeadSmoothness,
    Penalty,
    Regulariser,
    Smoothness,
    SoftBudget,
    Variation,
)
from liouville.train.regularisers.depth import decay, smoothness
from liouville.train.regularisers.head import head_decay, laplacian

EPS = torch.finfo(torch.float64).eps
TERMS = {
    "smoothness": Smoothness(0.7),
    "smoothness-hdnn": Smoothness(0.7, "hdnn"),
    "decay": Decay(0.3),
    "variation": Variation(0.6, smoothing=0.2),
    "l1": L1(0.4, smoothing=0.1),
    "head-decay": HeadDecay(0.2),
    "head-smoothness": HeadSmoothness(0.9),
    "penalty": Penalty(0.7, 0.3, 0.2, variation=0.6, l1=0.4, head_smoothness=0.5),
}
MODELS = {
    "h2": "h2",
    "ms2": "ms2",  # A = W - W^T: theta is a linear function of what is trained
    "scalar-bias": functools.partial(lv.zoo.ms1, scalar_bias=True),
    "trained-J": lambda n, N, T, **o: lv.Flow(
        lv.HamiltonianField(n, N, train_J=True, **{k: v for k, v in o.items() if k != "backprop"}), lv.ForwardEuler(), T
    ),
}


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
    penalty = Penalty(smoothness=0.7, decay=0.3, head_decay=0.2, scaling=scaling)
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


@pytest.mark.parametrize("model", [lv.zoo.resnet, lv.zoo.ms1])
@pytest.mark.parametrize("penalty", [smoothness, decay])
def test_a_scalar_bias_is_one_number_a_layer(penalty, model) -> None:
    """theta() spreads it over the features, and both halves; the penalty counts it once, as it is trained."""
    f = model(4, 5, T=3.0, scalar_bias=True).double()
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


def images(model: object = "h2") -> lv.Network:
    """Two flows and a head on 3 x 3 feature images of 4 channels, no weight of it zero."""
    generator = torch.Generator().manual_seed(0)
    net = lv.classifier(model, (1, 6, 6), 3, 4, 4, 1.5, conv=lv.zoo.Images(), generator=generator).double()
    for w in net.parameters():
        torch.nn.init.normal_(w, generator=generator)
    return net


def along(net: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(w.shape, generator=generator, dtype=w.dtype) for name, w in net.named_parameters()}


def dot(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return sum(float((a[name] * b[name]).sum()) for name in a)


def below(kind: type) -> set[type]:
    return {kind for one in kind.__subclasses__() for kind in {one, *below(one)}}


def test_every_regulariser_has_a_sample() -> None:
    concrete = below(Regulariser) - {ConvexRegulariser}
    ours = {kind for kind in concrete if kind.__module__.startswith("liouville.") and kind.__name__[0] != "_"}
    assert ours - {SoftBudget} == {type(term) for term in TERMS.values()}  # its residual is not linear: see below


def test_the_curvature_of_a_soft_budget_is_its_gauss_newton_part() -> None:
    """value = 3 r^2 with r = log U - log C: the product is 6 r' (r' . v), and r' = gradient / (6 r)."""
    network = lv.classifier("h2", 2, 2, 4, 6, T=9.0).double()
    term = SoftBudget(3.0, budget=1.5)
    value, gradient = term(network).detach(), term.gradient(network)
    assert value > 0
    slope = {name: g / (6 * (value / 3).sqrt()) for name, g in gradient.items()}
    v = along(network, 1)
    inner = sum((slope[name] * v[name]).sum() for name in v)
    for name, product in term.curvature(network, v).items():
        torch.testing.assert_close(product, 6 * slope[name] * inner, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", TERMS)
def test_curvature_is_the_hessian(name: str, model: str) -> None:
    """The product with a direction is the derivative of the gradient along it, by autograd of the value."""
    net, term = images(MODELS[model]), TERMS[name]
    v, weights = along(net, 1), dict(net.named_parameters())
    gradient = torch.autograd.grad(term.value(net), list(weights.values()), create_graph=True, materialize_grads=True)
    assert all(torch.equal(a, b) for a, b in zip(term.gradient(net).values(), gradient, strict=True))
    slope = sum((g * d).sum() for g, d in zip(gradient, v.values(), strict=True))
    hessian = dict(
        zip(weights, torch.autograd.grad(slope, list(weights.values()), materialize_grads=True), strict=True)
    )
    product = term.curvature(net, v)
    size = max(float(h.abs().max()) for h in hessian.values())
    assert size > 0
    for key, h in hessian.items():
        assert not product[key].requires_grad
        # sums of a few hundred products each
        assert float((product[key] - h).abs().max()) <= 300 * EPS * size


@pytest.mark.parametrize("name", TERMS)
def test_curvature_is_symmetric_and_positive_semidefinite(name: str) -> None:
    net, term = images(), TERMS[name]
    u, v = along(net, 1), along(net, 2)
    Cu, Cv = term.curvature(net, u), term.curvature(net, v)
    assert dot(u, Cu) > 0 and dot(v, Cv) > 0
    assert dot(u, Cv) == pytest.approx(dot(Cu, v), rel=1e-12)


def test_curvature_in_some_of_the_parameters_is_that_block_of_it() -> None:
    net, term = images(), TERMS["penalty"]
    v = {name: d for name, d in along(net, 1).items() if name.startswith("head")}
    whole = term.curvature(net, {name: v.get(name, torch.zeros_like(w)) for name, w in net.named_parameters()})
    part = term.curvature(net, v)
    assert part.keys() == v.keys()
    assert all(torch.equal(part[name], whole[name]) for name in v)


def test_frozen_weights_are_no_direction() -> None:
    net = images()
    net.head[-1].weight.requires_grad_(False)
    assert "head.2.weight" not in Penalty(head_decay=1.0).gradient(net)
    with pytest.raises(ValueError, match=r"trains no parameter 'head.2.weight'; it has"):
        Penalty(head_decay=1.0).curvature(net, {"head.2.weight": net.head[-1].weight})
    with pytest.raises(ValueError, match=r"direction of head.2.bias must have the shape \(3,\), got \(2,\)"):
        HeadDecay().curvature(net, {"head.2.bias": torch.zeros(2)})


@pytest.mark.parametrize("term", [Variation(smoothing=0.05), L1(smoothing=0.05)], ids=["variation", "l1"])
def test_smoothed_norms_by_hand_and_their_distance_to_the_corner(term: ConvexRegulariser) -> None:
    f, e = flow(5), 0.05
    theta = [w.detach() for w in f.field.theta()]
    rates = [w.diff(dim=0) / f.h for w in theta] if isinstance(term, Variation) else theta
    by_hand = f.h * sum(float(((r**2 + e**2).sqrt() - e).sum()) for r in rates)
    sharp = f.h * sum(float(r.abs().sum()) for r in rates)
    entries = sum(w[0].numel() for w in theta)
    value = float(term(f).detach())
    assert value == pytest.approx(by_hand, rel=1e-12)
    assert sharp - e * f.T * entries <= value < sharp


def test_terms_without_differences_do_not_see_a_constant_refinement() -> None:
    """Every weight twice and half the step: the quadratures of theta are the same sums."""
    f = flow(6)
    for term in (Decay(), L1()):
        values = [float(term(g).detach()) for g in (f, f.refined("constant"))]
        assert values[1] == pytest.approx(values[0], rel=1e-13)


def test_variation_and_l1_converge_in_the_number_of_layers() -> None:
    for term in (Variation(), L1()):
        values = [float(term(flow(N)).detach()) for N in (64, 128, 256)]
        assert abs(values[2] - values[1]) < 0.6 * abs(values[1] - values[0]) + 1e-6 * values[2]
        assert values[2] == pytest.approx(values[1], rel=0.02)


def test_variation_of_a_jump_is_its_height_at_every_depth() -> None:
    for N in (8, 64):
        f = flow(N)
        for w in f.field.parameters():
            torch.nn.init.zeros_(w)
        f.field.K_p.data[N // 2 :, 0, 0] = 3.0
        assert float(Variation(smoothing=1e-6)(f).detach()) == pytest.approx(3.0, rel=1e-4)


def test_laplacian_is_symmetric_kills_constants_and_is_exact_for_a_parabola() -> None:
    """The Neumann Laplacian of i^2 is 2 inside, and what one neighbour alone says at an edge."""
    u, v = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float((u * laplacian(v)).sum()) == pytest.approx(float((laplacian(u) * v).sum()), rel=1e-12)
    assert float((u * laplacian(u)).sum()) < 0
    assert laplacian(torch.ones(3, 4)).abs().max() == 0
    i = torch.arange(5.0)[:, None].expand(5, 4)
    assert laplacian(i**2)[:, 1].tolist() == [1.0, 2.0, 2.0, 2.0, -7.0]


def test_the_head_is_smoothed_over_the_pixels_that_it_reads() -> None:
    """By hand: one weight of one channel stands out by 1, four neighbours or fewer see it."""
    net = images()
    torch.nn.init.ones_(net.head[-1].weight)
    assert float(HeadSmoothness()(net)) == 0.0
    w = net.head[-1].weight.data.view(3, 4, 3, 3)
    w[1, 2, 1, 1] += 1.0
    assert float(HeadSmoothness()(net)) == pytest.approx(0.5 * (16 + 4))
    w[1, 2, 1, 1] -= 1.0
    w[1, 2, 0, 0] += 1.0
    assert float(HeadSmoothness(2.0)(net)) == pytest.approx(2.0 * 0.5 * (4 + 2))
    same = HeadSmoothness(2.0, shape=(4, 3, 3))(net)
    assert float(same) == float(HeadSmoothness(2.0)(net))


def test_a_head_that_reads_half_of_the_channels_is_smoothed_over_these() -> None:
    """As in the first paper's Verlet network: 4 + 4 channels of 3 x 3 pixels, of which q is read."""
    body = lv.zoo.ms1(8, 2, 1.0, operator=lv.operators.Conv(3))
    head = torch.nn.Sequential(lv.network.Half("q", axis=-3), torch.nn.Flatten(), torch.nn.Linear(36, 3))
    net = lv.Network(torch.nn.Identity(), body, head)
    assert float(HeadSmoothness()(net)) == float(HeadSmoothness(shape=(4, 3, 3))(net)) > 0


def test_a_head_that_reads_no_image_cannot_be_smoothed() -> None:
    dense = lv.classifier("h2", 2, 2, 4, 3, 1.0)
    with pytest.raises(ValueError, match="reads 4 values, which are not a square image with the 4 channels"):
        HeadSmoothness()(dense)
    with pytest.raises(ValueError, match=r"reads 36 values, not a feature image of shape \(4, 2, 2\)"):
        HeadSmoothness(shape=(4, 2, 2))(images())
    with pytest.raises(ValueError, match="needs a Network whose head has a linear map"):
        HeadSmoothness()(flow(3))


def test_a_term_without_a_curvature_says_so() -> None:
    class Heavy(Regulariser):
        def value(self, network: torch.nn.Module) -> torch.Tensor:
            return torch.stack([w.abs().max() for w in network.parameters()]).max()

    with pytest.raises(NotImplementedError, match="Heavy has a value and a gradient, but states no curvature"):
        Heavy().curvature(images(), {})


@pytest.mark.parametrize("kind", [Variation, L1])
def test_smoothing_must_be_positive(kind: type) -> None:
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="smoothing must be positive and finite"):
            kind(smoothing=bad)
    with pytest.raises(ValueError, match=f"the {kind.__name__} weight must be >= 0 and finite, got -1"):
        kind(-1)
