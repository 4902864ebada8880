"""Every objective: Taylor and adjoint tests, a symmetric, positive semidefinite product, the right quadratic model."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import liouville as lv
from liouville.train import FullObjective, Penalty, Task
from liouville.train.flat import Evaluation, Jacobian, Weights
from liouville.train.objective import Objective
from train.problems import MODELS, OUTPUTS, PENALTY, TASKS, data, full, network, objectives, randn

EPS = torch.finfo(torch.float64).eps
NAMES = ("full", "reduced", "reduced, head not differentiated")
KINDS = tuple(TASKS)


def networks() -> dict[str, Callable[[], lv.Network]]:
    """All models, and engines and surroundings that an objective must not see."""
    made = {model: functools.partial(network, "logistic", model) for model in MODELS}
    made["RK4"] = lambda: lv.Network(lv.Lift(4), lv.Flow(lv.AntisymmetricField(4, 3), lv.RK4(), 1.0), nn.Linear(4, 1))
    made["implicit"] = lambda: lv.Network(
        lv.Lift(4), lv.Flow(lv.HamiltonianField(4, 3), lv.ImplicitMidpoint(), 0.3), nn.Linear(4, 1)
    )
    made["shared"] = lambda: lv.Network(lv.Lift(4), lv.zoo.h2(4, 3, 1.0, shared=True), nn.Linear(4, 1, bias=False))
    made["learned lift"] = lambda: network(lift="linear")
    made["noise"] = lambda: network(dropout_rate=0.5).train()
    engines = (lv.Checkpointed(), lv.Reversible(), lv.Auto())
    made |= {repr(engine): functools.partial(network, "logistic", "h2", 4, engine) for engine in engines}
    return {name: lambda make=make: make().double() for name, make in made.items()}


NETWORKS = networks()


def taylor(objective: Objective, w: Tensor, d: Tensor) -> list[float]:
    """Remainders of first order at t and t/2; t is such that the second-order term rules both."""
    value, gradient, _ = objective.expand(w)
    return [abs(objective.value(w + t * d) - value - t * float(gradient @ d)) for t in (2e-4, 1e-4)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_taylor_slope_is_2(kind: str, name: str) -> None:
    """A remainder c t^2 + O(t^3): its ratio is 4 to within O(t), here t times a factor of a hundred."""
    objective = objectives(kind)[name]
    w = objective.vector()
    far, near = taylor(objective, w, randn(len(w), seed=1))
    assert far / near == pytest.approx(4.0, abs=100 * 2e-4)


@pytest.mark.parametrize("network_name", NETWORKS)
@pytest.mark.parametrize("name", NAMES)
def test_taylor_slope_is_2_for_every_network(name: str, network_name: str) -> None:
    objective = objectives("logistic", NETWORKS[network_name]())[name]
    w = objective.vector()
    far, near = taylor(objective, w, randn(len(w), seed=1))
    assert far / near == pytest.approx(4.0, abs=100 * 2e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_adjoint(name: str) -> None:
    """<J v, r> = <v, J^T r> for scores and features, to the rounding of both sums and of the layers before."""
    net = NETWORKS[name]()
    x, _ = data("logistic")
    weights = Weights(net, [n for n, p in net.named_parameters() if not n.startswith("head")])
    for k, function in enumerate((lambda n, x: n(x), lambda n, x: n.features(x))):
        J = Jacobian(Evaluation(net), weights, weights.vector(), function, x)
        v, r = randn(weights.size, seed=k), randn(*J.outputs.shape, seed=k + 5)
        Jv, JTr = J.forward(v), J.transpose(r)
        scale = float(Jv.norm() * r.norm() + v.norm() * JTr.norm())
        assert abs(float((Jv * r).sum() - v @ JTr)) <= 100 * EPS * scale
        assert 100 * EPS < 1e-12 and float(Jv.norm()) > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_forward_mode_is_the_derivative(name: str) -> None:
    """Against central differences, accurate to t^2 and eps / t."""
    net = NETWORKS[name]()
    x, _ = data("logistic")
    weights, evaluation = Weights(net, [n for n, _ in net.named_parameters()]), Evaluation(net)
    w, t = weights.vector(), 1e-5
    v = randn(weights.size) / weights.size**0.5
    Jv = Jacobian(evaluation, weights, w, lambda n, x: n(x), x).forward(v)
    with torch.no_grad():
        after, before = (evaluation(weights.named(w + s * v), lambda n, x: n(x), x) for s in (t, -t))
    assert float(((after - before) / (2 * t) - Jv).abs().max()) <= 1e3 * (t**2 + EPS / t)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_product_is_symmetric_and_positive_semidefinite(kind: str, name: str) -> None:
    objective = objectives(kind)[name]
    w = objective.vector()
    product = objective.expand(w).product
    H = torch.stack([product(e) for e in torch.eye(len(w), dtype=torch.float64)])
    size = float(torch.linalg.matrix_norm(H, 2))
    assert float((H - H.mT).abs().max()) <= 100 * EPS * size
    assert float(torch.linalg.eigvalsh(H).min()) >= -100 * EPS * size
    rank = int((torch.linalg.eigvalsh(H) > 1e-8 * size).sum())
    assert rank > len(w) // 2  # not trivially so


@pytest.mark.parametrize("kind", KINDS)
def test_product_is_the_hessian_where_the_scores_are_linear(kind: str) -> None:
    """Over the head alone, Gauss-Newton is Newton: the change of the gradient, to the error of central differences."""
    net = network(kind)
    objective = full(kind, net, names=["head.weight", "head.bias"])
    w = objective.vector()
    v, t = randn(len(w), seed=3), 1e-5
    after, before = (objective.expand(w + s * v).gradient for s in (t, -t))
    difference = float(((after - before) / (2 * t) - objective.expand(w).product(v)).abs().max())
    assert difference <= 1e2 * (t**2 + EPS / t)


@pytest.mark.parametrize("kind", KINDS)
def test_curvature_is_the_second_derivative_of_the_loss(kind: str) -> None:
    task, (_, y) = TASKS[kind], data(kind)
    s = randn(30, OUTPUTS[kind], seed=2).requires_grad_()
    v = randn(*s.shape, seed=3)
    (gradient,) = torch.autograd.grad(task.loss(s, y), s, create_graph=True)
    (expected,) = torch.autograd.grad((gradient * v).sum(), s)
    assert torch.allclose(task.curvature(s.detach(), v), expected, rtol=0, atol=10 * EPS)


def test_gradient_is_autograds_and_the_network_is_left_alone() -> None:
    net = network().train()
    objective = full(net=net)
    w, (x, y) = objective.vector(), data("logistic")
    loss = TASKS["logistic"].loss(net(x), y) + PENALTY(net)
    expected = torch.autograd.grad(loss, list(net.parameters()))
    value, gradient, product = objective.expand(w)
    product(gradient)
    assert value == pytest.approx(float(loss.detach()), rel=10 * EPS)
    assert torch.allclose(gradient, torch.cat([g.flatten() for g in expected]), rtol=0, atol=100 * EPS)
    assert net.training and torch.equal(objective.vector(), w)
    assert all(p.grad is None for p in net.parameters())


def test_products_on_a_subsample() -> None:
    """The product is that of the few rows, the gradient that of all."""
    net, (x, y) = network(), data("logistic")
    few = torch.tensor([3, 1, 12])
    whole = FullObjective(net, x, y, TASKS["logistic"], PENALTY)
    part = FullObjective(net, x, y, TASKS["logistic"], PENALTY, curvature=few)
    alone = FullObjective(net, x[few], y[few], TASKS["logistic"], PENALTY)
    w, v = whole.vector(), randn(whole.weights.size)
    assert torch.equal(part.expand(w).gradient, whole.expand(w).gradient)
    assert torch.allclose(part.expand(w).product(v), alone.expand(w).product(v), rtol=0, atol=100 * EPS)
    assert not torch.allclose(part.expand(w).product(v), whole.expand(w).product(v))


def test_work_counts_layers_times_samples() -> None:
    objective = full(net=network(layers=4))
    w = objective.vector()
    objective.value(w)
    assert objective.work == 4 * 30
    product = objective.expand(w).product
    assert objective.work == (1 + 2) * 4 * 30
    product(w)
    assert objective.work == (1 + 2 + 2) * 4 * 30


def test_images() -> None:
    """Two flows, pooling, dropout in the head: Taylor and adjoint."""
    net = lv.classifier(
        "h2", (1, 8, 8), 3, [4, 6], [2, 2], 1.0, conv=lv.zoo.Images(dropout=0.5), generator=torch.Generator()
    ).double()
    x, y = randn(12, 1, 8, 8), torch.arange(12) % 3
    for penalty in (Penalty(head_decay=1e-2), Penalty(head_decay=1e-2, head_smoothness=1e-2)):
        for make in (FullObjective, lv.train.ReducedObjective):
            objective = make(net, x, y, Task("softmax", 3), penalty)
            w = objective.vector()
            far, near = taylor(objective, w, randn(len(w), seed=1))
            assert far / near == pytest.approx(4.0, abs=500 * 2e-4)
            product = objective.expand(w).product
            u, v = randn(len(w), seed=4), randn(len(w), seed=5)
            scale = float(product(u).norm() * v.norm())
            assert abs(float(u @ product(v) - v @ product(u))) <= 1e3 * EPS * scale


def test_forward_mode_refuses_an_implicit_layer_that_needs_newton() -> None:
    """There is one, and its value is fine; the derivative says what to do instead."""
    flow = lv.Flow(lv.HamiltonianField(4, 2, generator=torch.Generator().manual_seed(0)), lv.ImplicitMidpoint(), 3.0)
    net = lv.Network(lv.Lift(4), flow, nn.Linear(4, 1)).double()
    product = full(net=net).expand(torch.cat([p.detach().flatten() for p in net.parameters()])).product
    with pytest.raises(ArithmeticError, match=r"forward mode through an implicit layer needs h Lip\(f\) < 1"):
        product(randn(sum(p.numel() for p in net.parameters())))
