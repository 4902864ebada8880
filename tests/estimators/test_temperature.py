"""The factor of a classifier's scores: where it is best, how few rows hold it back, what it leaves as it was."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("sklearn")

import numpy as np
import torch

from liouville.estimators import HamiltonianClassifier, HamiltonianRegressor, member
from liouville.estimators.temperature import best_factor
from liouville.task import Task
from liouville.train import tabular

TASKS = {"logistic": Task("logistic", 2), "softmax": Task("softmax", 3), "multilabel": Task("multilabel", 3)}


def drawn(task: Task, rows: int, factor: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores, and targets of which factor * scores are the logits."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(rows, 1 if task.kind == "logistic" else 3, generator=generator, dtype=torch.float64)
    if task.kind == "softmax":
        return scores, torch.multinomial((factor * scores).softmax(1), 1, generator=generator)[:, 0]
    y = (torch.rand(scores.shape, generator=generator, dtype=torch.float64) < (factor * scores).sigmoid()).long()
    return scores, y[:, 0] if task.kind == "logistic" else y


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_the_factor_of_many_rows_is_the_true_one_and_of_few_is_near_one(name: str, factor: float) -> None:
    """Of n rows the estimate errs by 1 / sqrt(n I); I is at least 0.1 here for every kind of task, and six of these
    errors are allowed."""
    task = TASKS[name]
    scores, y = drawn(task, 20_000, factor)
    assert abs(math.log(best_factor(scores, y, task) / factor)) < 6 / math.sqrt(0.1 * len(scores))
    alone = best_factor(scores[:1], y[:1], task)
    slope = float(scores[0].abs().max()) * math.exp(1.5) * 2  # of the loss by log b, at most
    assert abs(math.log(alone)) <= 0.2**2 * slope


@pytest.mark.parametrize("name", TASKS)
def test_a_weight_is_a_number_of_copies(name: str) -> None:
    """But for the prior, which counts rows: it moves log b by log b / (sigma^2 n I), I at least 0.1."""
    task = TASKS[name]
    scores, y = drawn(task, 4000, 1.5)
    weight = torch.arange(4000) % 3 + 1.0
    copies = torch.repeat_interleave(torch.arange(4000), weight.long())
    once, often = best_factor(scores, y, task, weight), best_factor(scores[copies], y[copies], task)
    assert abs(math.log(once / often)) <= math.log(1.6) / (0.2**2 * 4000 * 0.1)


def trained_as(monkeypatch: pytest.MonkeyPatch, few: int, **more: object) -> tuple[HamiltonianClassifier, np.ndarray]:
    monkeypatch.setattr(member, "FEW", few)
    monkeypatch.setattr(tabular, "_LEAST", 12)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3))
    y = X[:, 0] + 0.3 * rng.normal(size=60) > 0
    return HamiltonianClassifier(random_state=0, layers=2, features=8, **more).fit(X, y), X


def test_few_rows_are_all_trained_on_for_the_steps_of_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    many, _ = trained_as(monkeypatch, 0)
    few, _ = trained_as(monkeypatch, 1000)
    assert many.histories_[0].epochs[0].validation_loss is not None
    assert few.histories_[0].epochs[0].validation_loss is None and few.n_iter_ <= round(
        member.TRIAL * tabular.steps_for(51)
    )
    said, _ = trained_as(monkeypatch, 1000, max_iter=4)
    assert said.histories_[0].epochs[0].validation_loss is not None and said.n_iter_ == 4
    none, _ = trained_as(monkeypatch, 1000, early_stopping=False)
    assert none.histories_[0].epochs[0].validation_loss is None and none.n_iter_ >= 12


def test_the_factor_changes_probabilities_and_no_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """All scores of the head are multiplied by one number, and nothing else of the network moves."""
    sure, X = trained_as(monkeypatch, 1000)
    monkeypatch.setattr(member, "best_factor", lambda *args: 1.0)
    plain, _ = trained_as(monkeypatch, 1000)
    ratio = sure.decision_function(X) / plain.decision_function(X)
    assert not np.allclose(ratio, 1.0) and np.ptp(ratio) <= 1e-4 * ratio[0]
    assert (sure.predict(X) == plain.predict(X)).all()


def test_real_targets_have_no_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabular, "_LEAST", 8)
    monkeypatch.setattr(member, "best_factor", None)
    X = np.linspace(-1, 1, 40)[:, None]
    assert HamiltonianRegressor(random_state=0, layers=2, features=8).fit(X, X[:, 0]).score(X, X[:, 0]) < 1
