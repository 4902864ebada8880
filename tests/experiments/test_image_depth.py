"""Images by depth: every depth with one setting, and a lower median of a deeper network is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from liouville.data import Split
from liouville.experiments.beyond import image_depth
from liouville.experiments.beyond.image_depth import DEPTHS, SIZES, STARTS, Config, cases, render, run
from liouville.experiments.records import Record


def record(activation: str, layers: int, accuracy: float, seed: int = 0, images: int = 10_000) -> Record:
    case = Config(activation, layers, SIZES[images], images, seed)
    return Record(case, {"train_loss": 0.1, "test_accuracy": accuracy}, 1.0, {})


def test_every_depth_has_equal_epochs_on_some_images_and_on_all() -> None:
    made = cases(3, False)
    assert len(set(made)) == len(SIZES) * len(STARTS) * len(DEPTHS) * 3 and max(SIZES) == 60_000
    for N in DEPTHS:
        assert {(case.images, case.epochs) for case in made if case.layers == N} == set(SIZES.items())


@pytest.mark.parametrize("activation", STARTS)
def test_a_run_leaves_what_the_table_reads(activation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.rand(60, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 10
    monkeypatch.setattr(image_depth.data, "load", lambda *names, **sizes: Split(x, y, x[:20], y[:20], "mnist", 10))
    case = Config(activation, 2, 1, 300, 0)
    rendering = render([Record(case, run(case, tmp_path), 1.0, {})], tmp_path)
    (table,) = rendering.tables
    assert len(table.rows) == 1 and len(table.rows[0]) == len(table.columns)


def test_text_names_the_depths_with_a_lower_median(tmp_path: Path) -> None:
    found = [record("tanh", N, a, s) for N, a in ((4, 0.97), (16, 0.98), (64, 0.96)) for s in (0, 1, 2)]
    assert "96.00 % at 64 layers; **lower at 64**" in render(found, tmp_path).text
    assert "lower" not in render([r for r in found if r.case.layers < 64], tmp_path).text
    assert not render([], tmp_path).tables


def test_each_number_of_images_has_its_own_table_and_is_compared_with_itself_only(tmp_path: Path) -> None:
    few = [record("tanh", N, a, s) for N, a in ((4, 0.96), (16, 0.97)) for s in (0, 1, 2)]
    full = [record("tanh", N, a, s, 60_000) for N, a in ((4, 0.99), (16, 0.98)) for s in (0, 1, 2)]
    rendering = render([*full, *few], tmp_path)
    assert "10,000 training" in rendering.tables[0].title and "60,000 training" in rendering.tables[1].title
    some, all_ = rendering.text.split("\n\n")
    assert "10,000 images, 4 epochs" in some and "lower" not in some
    assert "60,000 images, 2 epochs" in all_ and "**lower at 16**" in all_
