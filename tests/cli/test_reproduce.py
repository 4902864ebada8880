"""`liouville reproduce`: records, a page, and one line for what is wrong."""

from __future__ import annotations

import pytest

import toy_experiment
from liouville import experiments


@pytest.fixture
def toy(monkeypatch):
    """One experiment, the toy."""
    monkeypatch.setattr(experiments, "EXPERIMENTS", {"toy": "toy_experiment"})
    monkeypatch.setattr(experiments, "load", lambda name: toy_experiment.TOY)


def test_it_runs_prints_and_writes_the_page(liouville, toy, tmp_path):
    result = liouville("reproduce", "toy", "--seeds", "3", "--jobs", "2", "--out", tmp_path)
    assert result.code == 0
    assert "square  1.00 (0.00–4.00)  4" in result.out and "Squares grow." in result.out
    assert "[3/3]" in result.err and "3 cases to run, 2 at a time, about 3 s" in result.err
    assert "| square | 1.00 (0.00–4.00) | 4 |" in (tmp_path / "reproduce.md").read_text()
    folder = tmp_path / "reproduce" / "toy"
    assert (folder / "line.png").exists() and not (folder / "line.svg").exists()
    assert liouville("reproduce", "toy", "--render", "--svg", "--out", tmp_path).code == 0
    assert (folder / "line.svg").exists() and "[SVG](reproduce/toy/line.svg)" in (tmp_path / "reproduce.md").read_text()


def test_what_is_recorded_is_not_run_again(liouville, toy, tmp_path):
    liouville("reproduce", "toy", "--seeds", "1", "--out", tmp_path, "--no-figures")
    assert not list((tmp_path / "reproduce" / "toy").glob("*.png"))
    again = liouville("reproduce", "toy", "--seeds", "2", "--out", tmp_path)
    assert "1 cases to run" in again.err
    assert liouville("reproduce", "--all", "--seeds", "2", "--out", tmp_path).err == (
        "every case is recorded; nothing to run\n"
    )
    forced = liouville("reproduce", "toy", "--seeds", "1", "--out", tmp_path, "--again")
    assert "1 cases to run" in forced.err
    shown = liouville("reproduce", "toy", "--render", "--out", tmp_path)
    assert shown.code == 0 and shown.err == "" and "0.00" in shown.out


@pytest.mark.slow
def test_quick_has_records_of_its_own(liouville, toy, tmp_path):
    assert liouville("reproduce", "--all", "--quick", "--out", tmp_path).code == 0
    assert (tmp_path / "reproduce-quick.md").read_text().splitlines()[2].startswith("**Made with `--quick`")
    assert not (tmp_path / "reproduce.md").exists()


def test_a_case_that_fails_is_said_in_a_line_and_the_code_is_1(liouville, toy, tmp_path, monkeypatch):
    def cases(seeds, quick):
        return [toy_experiment.Config("fail", 0), toy_experiment.Config("square", 1)]

    broken = toy_experiment.Experiment(**{**vars(toy_experiment.TOY), "cases": cases})
    monkeypatch.setattr(experiments, "load", lambda name: broken)
    result = liouville("reproduce", "toy", "--out", tmp_path)
    assert result.code == 1 and "1.00" in result.out
    assert result.err.splitlines()[-1].startswith("liouville: failed: toy")
    assert result.err.splitlines()[-1].endswith("the data are not there.")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give the name of an experiment, or --all"),
        (["planar-tabel"], "did you mean 'planar-table'?"),
        (["planar-table", "--all"], "give names or --all, not both"),
        (["planar-table", "--seeds", "0"], "0 is not in the range"),
        (["planar-table", "--jobs", "x"], "'x' is not a valid integer"),
    ],
)
def test_wrong_words_get_one_line(liouville, words, said):
    result = liouville("reproduce", *words)
    assert result.code == 2 and result.out == "" and said in result.err and len(result.err.splitlines()) == 1


def test_a_file_in_the_way_gets_one_line(liouville, toy, tmp_path):
    (tmp_path / "reproduce").write_text("")
    result = liouville("reproduce", "toy", "--out", tmp_path)
    assert result.code == 2 and "choose another --out" in result.err and len(result.err.splitlines()) == 1


def test_render_without_records_says_so(liouville, toy, tmp_path):
    result = liouville("reproduce", "toy", "--render", "--out", tmp_path)
    assert result.code == 2 and "has no records of toy" in result.err


def test_rendering_all_of_nothing_is_refused(liouville, toy, tmp_path):
    result = liouville("reproduce", "--all", "--render", "--out", tmp_path)
    assert result.code == 2 and result.err.endswith("has no records of any experiment; leave out --render.\n")
    assert not list(tmp_path.iterdir())
