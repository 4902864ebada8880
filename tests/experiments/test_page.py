"""The page is what the records say, and the committed one is what the committed records say."""

from __future__ import annotations

import math
import re
import statistics
from pathlib import Path

import pytest
from scipy.stats import binom, binomtest

from liouville.experiments import EXPERIMENTS, load
from liouville.experiments.comparing import beside, binomial_points, percents, spread, verdict
from liouville.experiments.experiment import Table
from liouville.experiments.page import _markdown, draw, page
from liouville.experiments.paired import Paired, pairs, sign_test
from liouville.experiments.records import Record, Store
from toy_experiment import TOY, Config

DOCS = Path(__file__).parent.parent.parent / "docs"
RECORDS = pytest.mark.skipif(not (DOCS / "reproduce").is_dir(), reason="an sdist has no records")


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
    assert "**By the papers' own procedure 0 of 1 published numbers are met**, 0 exceeded, 0 missed, 1 not run." in text
    assert "including ours: 1 met, 0 exceeded, 0 missed. Missed by both: 0." in text
    assert "| 1 | **0 met, 0 exceeded, 0 missed, 1 not run** | 1 met, 0 exceeded, 0 missed | 0 |" in text
    assert "with probability 4/6, of 3 with\n2/4" in text
    assert f"({tmp_path.name}/toy/line.png)" in text and "SVG" not in text
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


def test_pictures_are_drawn_as_png_and_as_svg_if_asked(tmp_path: Path) -> None:
    rendering = TOY.render([record(1)], tmp_path)
    assert [path.name for path in draw(rendering, tmp_path)] == ["line.png"]
    assert [path.name for path in draw(rendering, tmp_path, svg=True)] == ["line.png", "line.svg"]
    assert all(path.stat().st_size > 1000 for path in tmp_path.glob("line.*"))


@pytest.mark.parametrize("published", [90.0, 92.9, 93.0, 96.9, 97.0, 99.0, 99.1])
def test_met_means_within_the_range_or_within_the_points_around_the_median(published: float) -> None:
    values = [93.0, 95.0, 99.0]
    word = "exceeded" if published < 93.0 else "met" if published <= 99.0 else "missed"
    assert verdict(values, published, points=2.0) == word
    assert beside(values, published, 2.0).startswith(word)
    close = [94.9, 95.0, 95.1]
    word = "met" if abs(published - statistics.median(close)) <= 2.0 else "missed" if published > 95.0 else "exceeded"
    assert verdict(close, published, points=2.0) == word
    assert verdict(values, published, points=2.0, in_range=False) == word


def test_words_for_what_is_missing() -> None:
    assert beside([95.0], 99.0, 2.0) == "missed by 4.0" and beside([95.0], 90.0, 2.0, digits=2) == "exceeded by 5.00"
    assert beside([95.0], None, 2.0) == "not available" and beside([], 99.0, 2.0) == "—"
    assert spread([0.0], 1) == "0.0" and spread([]) == "—"
    assert percents([record(1, accuracy=1.0), record(2, diverged="x")], "accuracy") == [100.0, 0.0]


def test_a_binomial_tolerance_is_two_standard_deviations_of_the_share_that_is_right() -> None:
    for p, n in ((0.98, 10_000), (0.5, 100), (0.999, 60_000)):
        deviation = math.sqrt(binom.var(n, p)) / n
        assert binomial_points([100 * p, 100.0], n) == pytest.approx(200 * deviation, rel=1e-12)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (5, 0), (0, 1), (9, 1), (12, 30), (31, 6), (7, 7)])
def test_the_sign_test_is_scipy_s(wins: int, losses: int) -> None:
    expected = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert sign_test(wins, losses) == pytest.approx(expected, rel=1e-12)


def test_what_the_sign_test_does_not_tell_apart_is_neither_ahead_nor_behind() -> None:
    assert [Paired(w, l, 3).verdict for w, l in ((5, 0), (6, 0), (0, 6), (3, 3))] == [
        "not told apart",
        "ahead",
        "behind",
        "not told apart",
    ]
    one, other = (
        [record(s, x=v) for s, v in ((0, 1.0), (1, 5.0), (2, 3.0))],
        [record(2, x=3.0 + 1e-9), record(1, x=4.0)],
    )
    assert Paired.of(pairs(one, [*other, record(7, x=0.0)], lambda r: r.values["x"])) == Paired(1, 0, 1)


@RECORDS
def test_the_committed_page_is_made_from_the_committed_records() -> None:
    text = page([load(name) for name in EXPERIMENTS], DOCS / "reproduce")
    assert (DOCS / "reproduce.md").read_text(encoding="utf-8") == text


@RECORDS
def test_every_picture_of_the_committed_page_is_there() -> None:
    for name in EXPERIMENTS:
        experiment, folder = load(name), DOCS / "reproduce" / name
        records = Store(experiment, folder).read()
        for stem in experiment.render(records, folder).pictures if records else ():
            assert list(folder.glob(f"{stem}.png")) or list(folder.glob(f"{stem}.gif")), f"{name}/{stem}"
