"""Equal budgets: they are equal, and the text says where ours loses."""

from __future__ import annotations

import functools

import pytest

from liouville.data import load
from liouville.experiments.beyond.baselines import mlp
from liouville.experiments.beyond.equal_budget import OURS, ROWS, Config, _in_time, render, run
from liouville.experiments.records import Record
from liouville.train import Settings


def test_a_run_gives_every_row_its_budget(tmp_path) -> None:
    pytest.importorskip("sklearn")
    rows = run(Config("iris", 3, 0), tmp_path)["rows"]
    assert tuple(sorted(rows)) == tuple(sorted(ROWS))
    for name, row in rows.items():
        assert 0 <= row["accuracy"] <= 1 and row["seconds"] > 0
        if "parameters" in name:  # one unit of width changes less than a fifth of them here
            assert abs(row["parameters"] / rows[OURS]["parameters"] - 1) < 0.2 and row["epochs"] == rows[OURS]["epochs"]
    assert rows[ROWS[-1]]["parameters"] == rows[OURS]["parameters"]


def test_more_seconds_are_more_epochs_and_none_still_one() -> None:
    split = load("double-moons", points=80)
    build = functools.partial(mlp, 2, 1, 4, 1, 0)
    none, few, many = (_in_time(build, split, Settings(), seconds).epochs for seconds in (0.0, 1.0, 1000.0))
    assert none == 1 < few < many


def _record(data: str, **accuracy: float) -> Record:
    rows = {row: {"accuracy": 0.5, "parameters": 100, "epochs": 10, "seconds": 1.0} for row in ROWS}
    for row, value in accuracy.items():
        rows[row.replace("_", ", ").replace("equal, ", "equal ")]["accuracy"] = value
    rows[ROWS[-1]]["epochs"] = 2
    return Record(Config(data, 0, 0), {"rows": rows}, 1.0, {})


def test_the_text_says_where_ours_is_behind(tmp_path) -> None:
    records = [
        _record("swiss-roll", ours=0.9, MLP_equal_time=0.95, ResNet_equal_time=0.92),
        _record("peaks", ours=0.9, ResNet_equal_parameters=0.91),
    ]
    text = render(records, tmp_path).text
    assert "With equal parameters the median of ours is lower than the better" in text
    assert "on peaks (by 1.00 points, ResNet) of 2 data sets; all data sets pooled, ours against ResNet: not" in text
    assert "on swiss-roll (by 5.00 points, MLP) of 2 data sets; all data sets pooled, ours against ResNet: not" in text
    assert "MLP: not told apart (1 pairs of 2, p = 1)" in text
    assert "makes 5 to 5 times as many epochs" in text


def test_a_data_set_without_a_sound_record_has_no_column(tmp_path) -> None:
    bad = Record(Config("digits", 0, 0), {"diverged": "..."}, 1.0, {})
    assert render([bad], tmp_path).tables == ()
    assert render([bad, _record("peaks")], tmp_path).tables[0].columns == ("network", "peaks")
