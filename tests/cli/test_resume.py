"""The command goes on with what was ended, lists what can go on, and refuses the rest in one line."""

import json

import pytest

from cli.conftest import call
from liouville.train.checkpoints import Keeper


@pytest.fixture
def ended(train, tmp_path, monkeypatch):
    """The folder of a run that Ctrl-C ended after its third step."""
    step, taken = Keeper.step, []

    def interrupt(self, training):
        taken.append(1)
        if len(taken) == 3:
            self.keep(training)
            raise KeyboardInterrupt
        step(self, training)

    with monkeypatch.context() as patched:
        patched.setattr(Keeper, "step", interrupt)
        result = train()
    folder = tmp_path / "run"
    assert result.code == 130 and result.err.endswith(f"; `liouville train --resume {folder}` goes on.\n")
    return folder


def test_a_run_goes_on_and_then_is_finished(train, tmp_path, ended):
    train(out="whole")
    assert "interrupted" in call("list", "runs", tmp_path).out
    assert call("train", "--resume", ended, "--quiet", "--no-figures", "--no-report").out.strip() == str(ended)
    models = [(path / "model.safetensors").read_bytes() for path in (ended, tmp_path / "whole")]
    assert models[0] == models[1]
    again = call("train", "--resume", ended)
    assert again.code == 0 and again.out == f"{ended} is finished: all epochs done; nothing is left to train\n"
    longer = call("train", "--resume", ended, "--epochs", "99")
    assert longer.code == 2 and "plan.settings.epochs was" in longer.err and "is 99" in longer.err
    listed = call("list", "runs", tmp_path).out
    assert listed.count("finished") == 2 and "can go on" not in listed


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--lr", "0.5"), "plan.settings.lr was "),
        (
            ("--out", "elsewhere"),
            "goes on with a run in its own folder; leave --out, --like, --preset and --config out.",
        ),
        (("--checkpoint-every", "-1"), "every must be a number of seconds, at least 0, got -1.0."),
    ],
)
def test_what_does_not_fit_is_one_line(words, sentence, ended):
    before = {path.name: path.read_bytes() for path in ended.iterdir()}
    result = call("train", "--resume", ended, "--no-figures", "--no-report", *words)
    assert result.code == 2 and result.err.count("\n") == 1 and sentence in result.err
    assert {path.name: path.read_bytes() for path in ended.iterdir()} == before


def test_runs_that_cannot_be_read_are_listed_as_damaged(train, tmp_path):
    train()
    config = tmp_path / "run" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"plan": {}}))
    assert "damaged" in call("list", "runs", tmp_path).out
    assert call("list", "runs", tmp_path / "nowhere").code == 2 and call("list", "models", "here").code == 2


def test_agents_go_on_by_their_folder(tmp_path):
    (tmp_path / "ring").write_text("0 1\n1 2\n2 3\n3 0\n")
    words = ("--graph", tmp_path / "ring", "--layers", 2, "-d", "points=80", "--quiet", "--epochs", 3, "--out")
    for name in ("whole", "parts"):
        assert call("agents", *words, tmp_path / name).code == 0
    for file in (tmp_path / "parts").glob("node-*.epoch-3.*"):
        file.unlink()
    refused = call("agents", "--resume", tmp_path / "parts", "--lr", 1)
    assert refused.code == 2 and "leave --lr out" in refused.err
    (tmp_path / "ring").unlink()
    assert call("agents", "--resume", tmp_path / "parts", "--quiet").code == 0
    for file in (tmp_path / "whole").glob("node-*"):
        assert file.read_bytes() == (tmp_path / "parts" / file.name).read_bytes()
