"""The page is what the records say, and the committed one is what the committed records say."""

from __future__ import annotations

import re
import statistics
from pathlib import Path

import pytest

from liouville.experiments import EXPERIMENTS, load
from liouville.experiments.comparing import met, percents, spread, verdict
from liouville.experiments.experiment import Table
from liouville.experiments.page import _markdown, draw, page
from liouville.experiments.records import Record, Store
from toy_experiment import TOY, Config

DOCS = Path(__file__).parent.parent.parent / "docs"


def record(seed: int, **values: object) -> Record:
    return Record(Config("square", seed), values or {"square": seed**2}, 60.0, {"commit": "abc", "torch": "2"})


def test_the_page_holds_the_tables_the_figures_and_where_they_come_from(tmp_path: Path) -> None:
    store = Store(TOY, tmp_path / "toy")
    for seed in (1, 2, 3):
        store.append(record(seed))
    draw(TOY.render(store.read(), tmp_path / "toy"), tmp_path / "toy")
    text = page([TOY], tmp_path)
    assert "| square | 4.00 (1.00–9.00) | 4 |" in text
    assert "3 runs, seeds 1 to 3, 3 min added up; code abc, torch 2." in text
    assert "Of 1 published numbers 1 are met (100%), with" in text
    assert f"({tmp_path.name}/toy/line.png)" in text and f"[SVG]({tmp_path.name}/toy/line.svg)" in text
    assert page([TOY], tmp_path) == text


def test_a_figure_that_was_not_drawn_is_not_linked(tmp_path: Path) -> None:
    Store(TOY, tmp_path / "toy").append(record(1))
    assert "Squares" in page([TOY], tmp_path) and "line.png" not in page([TOY], tmp_path)


def test_records_of_cases_that_are_no_longer_run_are_not_shown(tmp_path: Path) -> None:
    store = Store(TOY, tmp_path / "toy")
    store.append(record(1))
    store.append(Record(Config("gone", 1), {"square": 9}, 60.0, {}))
    assert [r.case.what for r in store.current(quick=False)] == ["square"] and len(store.read()) == 2
    assert "1 runs, seed 1, 60 s" in page([TOY], tmp_path)


def test_a_bar_in_a_cell_is_no_border() -> None:
    lines = _markdown(Table("", ("||dL||", "b"), [("|y|", "2")])).splitlines()
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in lines) and "| \\|y\\| | 2 |" in lines


def test_an_experiment_without_records_is_not_on_the_page(tmp_path: Path) -> None:
    assert "Squares" not in page([TOY], tmp_path)


def test_pictures_are_drawn_as_png_and_svg(tmp_path: Path) -> None:
    assert [path.name for path in draw(TOY.render([record(1)], tmp_path), tmp_path)] == ["line.png", "line.svg"]
    assert all(path.stat().st_size > 1000 for path in tmp_path.glob("line.*"))


@pytest.mark.parametrize("published", [90.0, 96.9, 97.0, 99.0, 99.1])
def test_met_means_within_the_range_or_within_the_points_above_the_median(published: float) -> None:
    values = [93.0, 95.0, 99.0]
    expected = published <= 99.0
    assert met(values, published, points=2.0) is expected
    assert (verdict(values, published, 2.0) == "met") is expected
    close = [94.9, 95.0, 95.1]
    assert met(close, published, points=2.0) is (published <= statistics.median(close) + 2.0)


def test_words_for_what_is_missing() -> None:
    assert verdict([95.0], 99.0, 2.0) == "4.0 points below"
    assert verdict([95.0], None, 2.0) == "not available" and verdict([], 99.0, 2.0) == "—"
    assert spread([0.0], 1) == "0.0" and spread([]) == "—"
    assert percents([record(1, accuracy=1.0), record(2, diverged="x")], "accuracy") == [100.0, 0.0]


def test_the_committed_page_is_made_from_the_committed_records() -> None:
    text = page([load(name) for name in EXPERIMENTS], DOCS / "reproduce")
    assert (DOCS / "reproduce.md").read_text(encoding="utf-8") == text


def test_every_picture_of_the_committed_page_is_there() -> None:
    for name in EXPERIMENTS:
        experiment, folder = load(name), DOCS / "reproduce" / name
        records = Store(experiment, folder).read()
        for stem in experiment.render(records, folder).pictures if records else ():
            assert list(folder.glob(f"{stem}.png")) or list(folder.glob(f"{stem}.gif")), f"{name}/{stem}"
