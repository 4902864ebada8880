"""Logs in a run folder: beside the history, removed with the run, whole after a resumed training."""

import pytest

from liouville import runs
from liouville.runs import logs


def plan(**changes):
    return runs.Plan.of("double-moons").changed(layers=2, epochs=2, data_options={"points": 80}, **changes)


def test_a_run_writes_the_logs_it_is_asked_for_and_force_removes_them(tmp_path):
    runs.train(plan(), out=tmp_path / "run", log=["csv"])
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 3
    (tmp_path / "run" / "tensorboard").mkdir()
    (tmp_path / "run" / "tensorboard" / "mine.txt").write_text("stays")
    (tmp_path / "run" / "tensorboard" / "events.out.tfevents.1").write_text("goes")
    runs.train(plan(), out=tmp_path / "run", force=True)
    assert not (tmp_path / "run" / "history.csv").exists()
    assert [file.name for file in (tmp_path / "run" / "tensorboard").iterdir()] == ["mine.txt"]


def test_levels_and_gauss_newton_are_logged_too(tmp_path):
    run = runs.train(plan(levels=2), out=tmp_path / "levels", log=["csv", "csv"])
    rows = (tmp_path / "levels" / "history.csv").read_text().splitlines()
    assert len(rows) == 1 + len(run.history())


def test_a_name_that_is_no_log_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"unknown log 'cvs'.*csv, tensorboard"):
        runs.train(plan(), out=tmp_path / "run", log=["cvs"])
    assert not (tmp_path / "run").exists()


def test_a_link_is_removed_and_not_followed(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "events.out.tfevents.1").write_text("stays")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").symlink_to(tmp_path / "theirs")
    logs.remove(tmp_path / "run")
    assert (tmp_path / "theirs" / "events.out.tfevents.1").exists()
    assert not (tmp_path / "run" / "tensorboard").exists()
