"""Variable projection: the laws that tie the reduced objective to the full one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import liouville as lv
from liouville.train import ReducedObjective
from liouville.train.varpro import linear_head
from train.problems import PENALTY, TASKS, data, full, network, randn, reduced

EPS = torch.finfo(torch.float64).eps
KINDS = tuple(TASKS)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_the_full_gradient_at_the_optimal_head(kind: str) -> None:
    """And there the gradient of the head vanishes, to the 2^10 eps that its solver stops at."""
    net = network(kind)
    objective = reduced(kind, net)
    value, gradient, _ = objective.expand(objective.vector())
    objective.assign(objective.vector())
    whole = full(kind, net)
    at = whole.expand(whole.vector())
    named = whole.weights.named(at.gradient)
    head = {n for n in named if n.startswith("head")}
    theta = torch.cat([g.flatten() for n, g in named.items() if n not in head])
    assert value == pytest.approx(at.value, rel=100 * EPS)
    assert float((theta - gradient).abs().max()) <= 2**10 * EPS
    assert max(float(named[n].abs().max()) for n in head) <= 2**10 * EPS
    assert float(gradient.norm()) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_adjoint_of_scores_and_head(kind: str) -> None:
    """<dS, r> + <dW, Q> = <v, J^T (r, Q)>, with and without the derivative of the head."""
    for whole in (True, False):
        objective = reduced(kind, full=whole)
        J = objective.jacobian(objective.vector())
        v = randn(objective.weights.size, seed=1)
        dS, dW = J.forward(v)
        r, Q = randn(*dS.shape, seed=2), randn(*dW.shape, seed=3)
        back = J.transpose(r, Q)
        left = float((dS * r).sum() + (dW * Q).sum())
        scale = float(dS.norm() * r.norm() + dW.norm() * Q.norm() + v.norm() * back.norm())
        assert abs(left - float(back @ v)) <= 1e-12 * scale
        assert bool(dW.abs().max() > 1e-3) == whole


@pytest.mark.parametrize("kind", KINDS)
def test_full_derivative_follows_the_head(kind: str) -> None:
    """dS and dW against central differences of the solved problem, the head solved to about 1e-12."""
    objective = reduced(kind)
    w, t = objective.vector(), 1e-4
    v = randn(len(w), seed=1) / len(w) ** 0.5
    dS, dW = objective.jacobian(w).forward(v)
    after, before = objective.jacobian(w + t * v), objective.jacobian(w - t * v)
    assert float(((after.W - before.W) / (2 * t) - dW).abs().max()) <= 1e2 * (t**2 + 1e-12 / t)
    assert float(((after.S - before.S) / (2 * t) - dS).abs().max()) <= 1e2 * (t**2 + 1e-12 / t)


def test_derivative_of_the_head_brings_the_hessian_closer() -> None:
    """Least squares: v^T H v of GNvpro is below that without the derivative, as the true curvature is."""
    with_head, without = reduced("least-squares"), reduced("least-squares", full=False)
    w = with_head.vector()
    t, closer = 1e-4, 0
    for seed in range(5):
        v = randn(len(w), seed=seed) / len(w) ** 0.5
        exact = with_head.expand(w + t * v).gradient - with_head.expand(w - t * v).gradient
        exact = exact @ v / (2 * t)
        errors = [abs(v @ o.expand(w).product(v) - exact) for o in (with_head, without)]
        closer += bool(errors[0] < errors[1])
    assert closer >= 4


def test_head_of_the_network_does_not_matter() -> None:
    """The reduced objective is a function of theta: another first head gives the same value, to the solver's stop."""
    first, second = network(), network()
    with torch.no_grad():
        second.head.weight.add_(1.0)
    a, b = reduced(net=first), reduced(net=second)
    assert a.value(a.vector()) == pytest.approx(b.value(b.vector()), abs=2**10 * EPS)


def test_assign_writes_theta_and_its_head() -> None:
    net = network()
    objective = reduced(net=net)
    w = objective.vector() + 0.1
    value = objective.value(w)
    objective.assign(w)
    x, y = data("logistic")
    now = TASKS["logistic"].loss(net(x), y) + PENALTY(net)
    assert torch.equal(objective.vector(), w)
    assert float(now.detach()) == pytest.approx(value, rel=100 * EPS)


def test_only_a_linear_head_can_be_eliminated() -> None:
    body = lv.zoo.h2(4, 2, 1.0)
    deep = lv.Network(lv.Lift(4), body, nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1)))
    with pytest.raises(ValueError, match=r"head must be one nn\.Linear"):
        linear_head(deep)
    with pytest.raises(ValueError, match="needs a liouville Network"):
        linear_head(nn.Linear(2, 1))
    frozen = network()
    for p in frozen.body.parameters():
        p.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing is left to train"):
        ReducedObjective(frozen, *data("logistic"), TASKS["logistic"], PENALTY)
