"""Smoothing a head beside decay: validation chooses, the test part is read once, and a loss is told as one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from liouville.data import Split
from liouville.experiments.p1 import head_smoothing
from liouville.experiments.p1.head_smoothing import KINDS, Config, cases, render, run
from liouville.experiments.records import Record


def digits() -> Split:
    x = torch.randn(120, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    y = torch.arange(120) % 10
    return Split(x, y, x[:20], y[:20], "mnist", 10)


def record(kind: str, seed: int, **values: object) -> Record:
    return Record(Config(kind, (1.0,), 1000, 10_000, 4, 20, seed), values, 1.0, {})


def test_a_run_chooses_by_validation_and_draws_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_smoothing.data, "load", lambda *names, **options: digits())
    reads: list[str] = []
    evaluate = head_smoothing.evaluate
    monkeypatch.setattr(head_smoothing, "evaluate", lambda *given: (reads.append(given[-1]), evaluate(*given))[1])
    case = Config("smoothing", (0.1, 1.0), 30, 20, 2, 1, 0)
    values = run(case, tmp_path)
    best = min(values["tried"], key=lambda each: each["loss"])
    assert values["weight"] == best["weight"] and [each["weight"] for each in values["tried"]] == [0.1, 1.0]
    assert reads == ["test_"]
    rendering = render([Record(case, values, 1.0, {})], tmp_path)
    (picture,) = rendering.pictures.values()
    assert len(picture.draw().axes) == head_smoothing.DIGITS
    assert rendering.tables[0].rows[0][0] == KINDS["smoothing"]


def test_images_are_drawn_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_smoothing.data, "load", lambda *names, **options: digits())
    one, same, other = (head_smoothing._split(Config("none", (0.0,), 30, 20, 2, 1, seed)) for seed in (0, 0, 1))
    assert len(one.x_train) == 60 and torch.equal(one.x_train, same.x_train)
    assert not torch.equal(one.x_train, other.x_train)


@pytest.mark.parametrize(("smooth", "words"), [(0.95, "is higher by 1.00 points"), (0.93, "is **not higher**")])
def test_text_says_who_is_ahead(smooth: float, words: str, tmp_path: Path) -> None:
    records = [record("decay", seed, test_accuracy=0.94, train_accuracy=1.0, weight=1.0) for seed in (0, 1)]
    records += [record("smoothing", seed, test_accuracy=smooth, train_accuracy=1.0, weight=3.0) for seed in (0, 1)]
    rendering = render(records, tmp_path)
    assert words in rendering.text
    assert [row[1] for row in rendering.tables[0].rows] == [
        "94.00 (94.00–94.00)",
        f"{100 * smooth:.2f} " + (f"({100 * smooth:.2f}–{100 * smooth:.2f})"),
    ]


@pytest.mark.parametrize(("weight", "edge"), [(1.0, True), (3.0, False), (10.0, True)])
def test_a_weight_at_the_edge_of_those_tried_is_told(weight: float, edge: bool, tmp_path: Path) -> None:
    tried = (1.0, 3.0, 10.0)
    records = [
        Record(
            Config(kind, tried, 1000, 10_000, 4, 20, 0),
            {"test_accuracy": 0.9, "train_accuracy": 1.0, "weight": w},
            1.0,
            {},
        )
        for kind, w in (("decay", weight), ("smoothing", 3.0))
    ]
    assert render(records, tmp_path).text.endswith("in some run of: decay.") is edge


def test_both_regularisers_go_through_the_same_weights() -> None:
    weights = {case.kind: case.weights for case in cases(5, False)}
    assert weights["decay"] == weights["smoothing"] and weights["none"] == (0.0,)
    assert all(case.images == 1000 for case in cases(5, False)) and len(cases(5, False)) == 15
