"""Block coordinate descent: one batch and one objective for both sub-steps, each of which lowers it."""

from __future__ import annotations

import pytest
import torch

from liouville.train import FullObjective, Penalty, ReducedObjective, Task
from liouville.train.blockcoordinate import BlockCoordinate
from liouville.train.descent import LineSearch, TrustRegion
from train.hand import network, points, weights
from train.problems import randn

PENALTY = Penalty(smoothness=1e-3, decay=1e-3, head_decay=1e-2)
TASK = Task("logistic", 2)


def blocks(net, batch: int = 20, safe: object = None, **more: object) -> BlockCoordinate:
    split = points(60)
    safe = safe or LineSearch(20, 0.01, 1e-3, 10, 1.0)
    g = torch.Generator().manual_seed(1)
    return BlockCoordinate(net, split.x_train, split.y_train, TASK, PENALTY, safe, batch=batch, generator=g, **more)


def value(net, objective: FullObjective) -> float:
    """By hand: the batch's mean loss and every regulariser once."""
    with torch.no_grad():
        return float(TASK.loss(net(objective.x), objective.y) + PENALTY(net))


@pytest.mark.parametrize("safe", [LineSearch(20, 0.01, 1e-3, 10, 1.0), TrustRegion(20, 0.01, 1e-3, 10)])
def test_each_sub_step_lowers_the_batchs_objective(safe: object) -> None:
    net = network()
    descent = blocks(net, safe=safe)
    for _ in range(5):
        before = {k: v.clone() for k, v in net.state_dict().items()}
        objective, at, step = descent.step()
        after = value(net, objective)
        now = {k: v.clone() for k, v in net.state_dict().items()}
        net.load_state_dict({k: now[k] if k.startswith("head") else before[k] for k in now})
        between = value(net, objective)
        net.load_state_dict(before)
        first = value(net, objective)
        net.load_state_dict(now)
        assert len(objective.x) == 20
        assert between < first and after < between
        assert at.value == pytest.approx(between, rel=1e-12) and step.value == pytest.approx(after, rel=1e-12)


def test_head_starts_from_the_one_before_and_stays_in_the_second_sub_step() -> None:
    """With enough steps it is at its optimum on the batch; with one step it is not yet."""
    exact, few = network(), network()
    for net, steps in ((exact, 50), (few, 1)):
        objective, at, _ = blocks(net, head_steps=steps).step()
        assert not any(name.startswith("head") for name in objective.weights.parameters)
        start = network()
        head = ReducedObjective(start, objective.x, objective.y, TASK, PENALTY)
        best = head.value(head.vector())
        assert (at.value == pytest.approx(best, abs=1e-12)) == (steps == 50)
        assert at.value >= best - 1e-12


def test_gradient_and_products_are_of_that_batch() -> None:
    """The products on the first half of the batch, the gradient on all of it, both with the penalty."""
    net = network()
    objective, _, step = blocks(net, curvature=0.5).step()
    assert objective.curvature is not None and torch.equal(objective.curvature, torch.arange(10))
    half = FullObjective(net, objective.x[:10], objective.y[:10], TASK, PENALTY, list(objective.weights.parameters))
    v = randn(len(step.w))
    there = FullObjective(
        net, objective.x, objective.y, TASK, PENALTY, list(objective.weights.parameters), torch.arange(10)
    )
    assert torch.allclose(there.expand(step.w).product(v), half.expand(step.w).product(v), atol=1e-12)


def test_a_step_that_does_not_lower_the_objective_is_not_kept() -> None:
    net = network()
    before = weights(net)
    _, _, step = blocks(net, safe=LineSearch(20, 0.01, 0.999999, 1, 1e3)).step()
    after = weights(net)
    assert step.length == 0.0
    assert all(torch.equal(after[k], before[k]) for k in before if not k.startswith("head"))
    assert not torch.equal(after["head.weight"], before["head.weight"])


def test_batches_cover_the_training_part() -> None:
    net = network()
    descent = blocks(net, batch=30)
    rows = {tuple(x.tolist()) for _ in range(16) for x in descent.step()[0].x}
    assert len(rows) == 60  # a row is missed sixteen times with probability 2^-16
