"""`liouville verify`: a line for each statement, JSON, exit codes, pictures."""

import json

import pytest

from liouville import verify
from liouville.verify.statements import STATEMENTS, Finding, Statement, at_most


@pytest.fixture
def failing(monkeypatch):
    """One more statement, which fails."""
    number = at_most("number", 3.0, 2.0)
    wrong = Statement("p3-wrong", "P3", "three is at most two", lambda: Finding((number,)))
    monkeypatch.setitem(STATEMENTS, "p3-wrong", wrong)


def test_a_line_for_each_statement_and_a_summary(liouville):
    result = liouville("verify", "p1-lemma-1", "p3-16")
    first, second, summary = result.out.splitlines()
    assert result.code == 0 and result.err == ""
    assert first.split()[:2] == ["corrected", "p1-lemma-1"] and second.split()[:2] == ["holds", "p3-16"]
    assert "P1 (3.9), Lemma 1: forward Euler is stable" in first
    assert "as printed: fails (" in first and "; corrected: for equal layers" in first
    assert "difference from autograd " in second and "(<= 3.6e-13)" in second
    assert summary.startswith("2 statements in ") and summary.endswith(" s, all hold; 1 of them only as corrected.")


def test_a_paper_stands_for_its_statements(liouville):
    lines = liouville("verify", "p1").out.splitlines()[:-1]
    assert [line.split()[1] for line in lines] == [s.name for s in verify.select(["p1"])]


def test_a_failing_check_says_so_and_exits_with_1(liouville, failing):
    result = liouville("verify", "p3-wrong", "p3-16")
    assert result.code == 1 and result.err == ""
    assert "FAILS      p3-wrong  P3: three is at most two: number 3 (<= 2)" in result.out.splitlines()
    assert "FAILED: p3-wrong; 0 of them only as corrected." in result.out


def test_json_carries_the_records(liouville, failing):
    result = liouville("verify", "--json", "p3-wrong", "p1-lemma-1")
    report = json.loads(result.out)
    assert result.code == 1 and report["holds"] is False and report["seconds"] > 0
    right, wrong = report["statements"]
    assert (right["name"], right["source"], right["holds"]) == ("p1-lemma-1", "P1 (3.9), Lemma 1", True)
    assert right["correction"].startswith("for equal layers") and right["as_printed"][0]["value"] > 1
    assert wrong["measured"] == [{"what": "number", "value": 3.0, "low": None, "high": 2.0}]
    assert (wrong["expected"], wrong["holds"], wrong["correction"]) == ("number <= 2", False, "")


def test_an_unknown_statement_is_answered_with_the_nearest(liouville):
    result = liouville("verify", "p2-theorem-3")
    assert result.code == 2 and result.out == "" and "did you mean 'p2-theorem-2'?" in result.err


@pytest.mark.slow
def test_the_pictures_are_drawn_where_asked(liouville, tmp_path):
    pytest.importorskip("matplotlib")
    result = liouville("verify", "p1-3.7", "--json", "--figures", tmp_path / "new")
    names = ["phase-planes", "sensitivity", "singular-values", "stability-regions", "counterexample"]
    assert result.code == 0 and json.loads(result.out)["holds"]
    assert result.err.splitlines() == [f"wrote {tmp_path / 'new' / name}.png" for name in names]
    assert all((tmp_path / "new" / f"{name}.png").stat().st_size > 20_000 for name in names)


def test_figures_into_a_file_are_refused_in_one_line(liouville, tmp_path):
    (tmp_path / "file").write_text("")
    result = liouville("verify", "p1-3.7", "--figures", tmp_path / "file")
    assert result.code == 2 and result.err.count("\n") == 1 and "Traceback" not in result.err
