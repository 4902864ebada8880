"""The task's loss: its derivatives in closed form, weights, labels that may all hold, smoothed labels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from liouville.task import Task

EPS = torch.finfo(torch.float64).eps
TASKS = [
    Task("logistic", 2, 0.1),
    Task("softmax", 3, 0.1),
    Task("multilabel", 3),
    Task("multilabel", 3, 0.1),
    Task("least-squares", 0),
]


def problem(task: Task) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    outputs = 1 if task.kind == "logistic" else 3
    scores = torch.randn(20, outputs, generator=g, dtype=torch.float64, requires_grad=True)
    if task.kind == "least-squares":
        return scores, torch.randn(20, 3, generator=g, dtype=torch.float64)
    if task.kind == "multilabel":
        return scores, torch.randint(2, (20, 3), generator=g)
    return scores, torch.randint(task.classes, (20,), generator=g)


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_gradient_and_curvature_are_those_of_the_loss(task: Task) -> None:
    """Numbers of order 1: 10 eps bounds their rounding."""
    s, y = problem(task)
    v = torch.randn(s.shape, generator=torch.Generator().manual_seed(1), dtype=s.dtype)
    (gradient,) = torch.autograd.grad(task.loss(s, y), s, create_graph=True)
    assert torch.allclose(task.gradient(s, y), gradient, rtol=0, atol=10 * EPS)
    (expected,) = torch.autograd.grad((gradient * v).sum(), s)
    assert torch.allclose(task.curvature(s.detach(), v), expected, rtol=0, atol=10 * EPS)


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_weights_are_copies_in_loss_and_score(task: Task) -> None:
    s, y = problem(task)
    s, w = s.detach(), torch.arange(20) % 3
    copies = torch.arange(20).repeat_interleave(w)
    weight = w.double() / w.double().mean()
    assert float(task.loss(s, y, weight)) == pytest.approx(float(task.loss(s[copies], y[copies])), rel=1e-13)
    assert task.score(s, y, weight) == pytest.approx(task.score(s[copies], y[copies]), rel=1e-13)


def test_a_sample_with_several_labels_is_right_when_all_are() -> None:
    task, y = Task("multilabel", 2), torch.tensor([[0, 1], [1, 1]])
    scores = torch.tensor([[-1.0, 1.0], [1.0, -1.0]])
    assert task.score(scores, y) == 0.5
    assert torch.equal(task.labels(scores), torch.tensor([[0, 1], [1, 0]]))
    assert torch.equal(task.probabilities(scores), scores.sigmoid())
