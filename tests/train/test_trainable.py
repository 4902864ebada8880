"""The learning problem: losses by their formulas, tasks by data and network."""

from __future__ import annotations

import pytest
import torch

import liouville as lv
from liouville.data import Split
from liouville.train import Task
from liouville.train.trainable import task_of

EPS = torch.finfo(torch.float64).eps


def test_logistic_is_softmax_of_two_scores() -> None:
    s = torch.randn(20, 1, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    y = (torch.arange(20) % 3 == 0).long()
    two = torch.cat((torch.zeros_like(s), s), 1)
    one, soft = Task("logistic", 2), Task("softmax", 2)
    assert float(one.loss(s, y)) == pytest.approx(float(soft.loss(two, y)), rel=1e-12)
    assert torch.allclose(one.probabilities(s), soft.probabilities(two))
    assert torch.equal(one.labels(s), soft.labels(two))
    assert one.score(s, y) == soft.score(two, y)


def test_least_squares_by_hand() -> None:
    task = Task("least-squares", 0)
    scores, y = torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 4.0])
    assert float(task.loss(scores, y)) == pytest.approx(0.5 * (1 + 4) / 2)
    assert task.score(y[:, None], y) == 1.0
    assert task.score(y.mean().expand(2, 1), y) == pytest.approx(0.0)


@pytest.mark.parametrize("task", [Task("logistic", 2), Task("softmax", 3), Task("least-squares", 0)])
def test_taylor(task: Task) -> None:
    """Slope 2 of the first-order remainder, from t to t/2."""
    g = torch.Generator().manual_seed(0)
    width = {"logistic": 1, "softmax": 3, "least-squares": 1}[task.kind]
    s = torch.randn(30, width, dtype=torch.double, generator=g, requires_grad=True)
    y = torch.randint(task.classes, (30,), generator=g) if task.classes else torch.randn(30, generator=g).double()
    d = torch.randn(s.shape, dtype=torch.double, generator=g)
    (gradient,) = torch.autograd.grad(task.loss(s, y), s)
    closed = task.gradient(s.detach(), y)
    assert closed.shape == gradient.shape and torch.allclose(closed, gradient, rtol=0, atol=4 * EPS)
    with torch.no_grad():
        r = [float(task.loss(s + t * d, y) - task.loss(s, y) - t * (gradient * d).sum()) for t in (2e-3, 1e-3)]
    assert r[0] / r[1] == pytest.approx(4.0, rel=0.02)


def split(classes: int, y: torch.Tensor) -> Split:
    x = torch.randn(len(y), 2)
    return Split(x, y, x, y, name="made", classes=classes)


def test_task_of_network_and_data() -> None:
    two, three = split(2, torch.tensor([0, 1, 0])), split(3, torch.tensor([0, 1, 2]))
    real = split(0, torch.tensor([0.5, 1.5, 2.5]))
    assert task_of(lv.classifier("h2", 2, 2, 4, 2, 1.0), two).kind == "logistic"
    assert task_of(lv.classifier("h2", 2, 3, 4, 2, 1.0), three).kind == "softmax"
    assert task_of(lv.regressor("h2", 2, 1, 4, 2, 1.0), real).kind == "least-squares"
    with pytest.raises(ValueError, match="made has 3 classes, but the network puts out 1 score"):
        task_of(lv.classifier("h2", 2, 2, 4, 2, 1.0), three)
    with pytest.raises(ValueError, match=r"1 real value.* network puts out 3"):
        task_of(lv.classifier("h2", 2, 3, 4, 2, 1.0), real)
    with pytest.raises(ValueError, match="expected 5 inputs on axis -1, got 2"):
        task_of(lv.classifier("h2", 5, 2, 6, 2, 1.0), two)
