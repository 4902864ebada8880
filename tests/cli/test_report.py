"""`liouville report`, and the report that a training leaves."""

import sys
import webbrowser

import pytest

import liouville as lv

pytest.importorskip("plotly")
pytest.importorskip("matplotlib")


def words(path):
    return path.read_text(encoding="utf-8")


def test_a_training_leaves_its_report_and_says_where(trained):
    folder, printed = trained
    assert str(folder / "report.html") in printed.out and "no report" not in printed.err
    text = words(folder / "report.html")
    assert f"Report of the run {folder.name}" in text and "Features through the layers" in text
    assert f"network = lv.load(&#39;{folder}/model.safetensors&#39;)" in text


def test_a_report_can_be_written_again_with_the_same_numbers(trained, liouville, tmp_path):
    folder, _ = trained
    result = liouville("report", folder, "--out", tmp_path / "again.html")
    assert result.code == 0 and result.out.strip() == str(tmp_path / "again.html")
    assert words(tmp_path / "again.html") == words(folder / "report.html")


def test_several_runs_are_compared(trained, train, liouville, tmp_path, monkeypatch):
    assert train("--seed", 1).code == 0
    monkeypatch.chdir(tmp_path)
    result = liouville("report", trained[0], tmp_path / "run")
    assert result.code == 0 and result.out.strip() == "report.html"
    assert "2 runs beside each other" in words(tmp_path / "report.html")


def test_no_report_is_no_report_and_force_removes_an_old_one(train, tmp_path):
    assert train().code == 0 and not (tmp_path / "run" / "report.html").exists()
    (tmp_path / "run" / "report.html").write_text("old")
    assert train("--force").code == 0 and not (tmp_path / "run" / "report.html").exists()


def test_a_run_that_never_finished_and_one_of_an_earlier_version_have_reports(train, before, liouville, tmp_path):
    assert train().code == 0
    old = before(tmp_path / "run")
    assert liouville("report", old).code == 0 and "Confusion matrix" in words(old / "report.html")
    (old / "model.safetensors").unlink()
    (old / "metrics.json").unlink()
    result = liouville("report", old)
    assert result.code == 0 and "training did not come to its end" in words(old / "report.html")
    assert "has no model.safetensors" in words(old / "report.html")


def test_a_damaged_model_is_called_broken(train, liouville, tmp_path):
    assert train().code == 0
    file = tmp_path / "run" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    assert liouville("report", tmp_path / "run").code == 0
    assert "This network is not what it claims to be" in words(tmp_path / "run" / "report.html")


@pytest.mark.parametrize("reason", ["nothing can draw", "no room"])
def test_a_report_that_cannot_be_written_costs_one_note(reason, trained, liouville, tmp_path, monkeypatch):
    if reason == "nothing can draw":
        monkeypatch.setitem(sys.modules, "plotly.offline", None)
    else:
        monkeypatch.setattr(
            "liouville.report.page.written.write", lambda *_: (_ for _ in ()).throw(OSError(28, reason))
        )
    options = ("--layers", 2, "--epochs", 1, "-d", "points=100", "--no-figures", "--out", tmp_path / "run")
    result = liouville("train", *options)
    assert result.code == 0 and "\nliouville: note: no report: " in result.err
    assert result.err.count("no report") == 1 and "Errno" not in result.err
    assert lv.load(tmp_path / "run" / "model.safetensors").body.layers == 2


def test_a_table_is_shown_where_it_is_named(liouville, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.csv").write_text(
        "a,b,y\n" + "".join(f"{k % 7},{k % 5},{'yes' if k % 2 else 'no'}\n" for k in range(60))
    )
    options = ("--layers", 2, "--epochs", 1, "--no-figures", "--quiet", "--out", "run")
    assert liouville("train", "--data", "my.csv", "--target", "y", *options).code == 0
    assert "Confusion matrix" in words(tmp_path / "run" / "report.html")
    result = liouville("report", "run", "--out", "without.html")
    assert result.code == 0 and "--data FILE shows its table" in result.err
    assert "the data were not read" in words(tmp_path / "without.html")
    result = liouville("report", "run")  # which would replace a report with the table by one without
    assert result.code == 0 and "stays as it is" in result.err
    assert "Confusion matrix" in words(tmp_path / "run" / "report.html")
    assert liouville("report", "run", "--data", "my.csv").err == ""
    assert "Confusion matrix" in words(tmp_path / "run" / "report.html")


def test_open_shows_the_report(trained, liouville, monkeypatch):
    shown = []
    monkeypatch.setattr(webbrowser, "open", lambda address: shown.append(address) or False)
    result = liouville("report", trained[0], "--open")
    assert result.code == 0 and shown == [(trained[0] / "report.html").resolve().as_uri()]
    assert "there is no browser here" in result.err


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("report nowhere", "there is no run folder nowhere."),
        ("report {run} --out {tmp}/no/where.html", "cannot be written: No such file or directory"),
        ("report {run} {other} --data iris", "--data names the data of one run"),
        ("report {run} -d points=10", "-d belongs to --data"),
        ("report {run} --data iris", "the network is for samples of shape (2,), the data have (4,)"),
        ("report", "Missing argument 'RUN"),
        ("train --open --no-report", "--open shows the report that --no-report leaves out"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(line, sentence, trained, liouville, tmp_path):
    result = liouville(*line.format(run=trained[0], other=tmp_path, tmp=tmp_path).split())
    assert result.code == 2 and sentence in result.err and result.err.count("\n") == 1
