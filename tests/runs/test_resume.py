"""A run that was ended goes on by its folder, and nothing that is refused changes what is there."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from liouville import runs
from liouville.locks import Lock, LockedError, holder
from liouville.runs import Plan, Run
from liouville.runs.folder import figures
from liouville.runs.overview import overview
from liouville.train import Progress
from runs import own

PLAN = Plan.of("double-moons").changed(layers=2, T=1.0, epochs=4, batch_size=30, data_options={"points": 88}, threads=1)


class Ending(Progress):
    """Ends a training after an epoch, in a way of the test's choice."""

    def __init__(self, epoch, how):
        self.last, self.how = epoch, how

    def run(self, epochs, steps, score_name):
        import contextlib

        bar = Progress.Bar()
        bar.epoch = lambda record: self.how() if record.epoch == self.last else None
        return contextlib.nullcontext(bar)


def end():
    raise RuntimeError("ended by the test")


def numbers(value):
    if isinstance(value, dict):
        return {k: numbers(v) for k, v in value.items() if k != "seconds"}
    return [numbers(v) for v in value] if isinstance(value, list) else value


def same(one, other):
    models = [(path / "model.safetensors").read_bytes() for path in (one, other)]
    a, b = Run.open(one), Run.open(other)
    told = [numbers([run.history(), run.metrics, run.config["data"]]) for run in (a, b)]
    return models[0] == models[1] and told[0] == told[1]


def contents(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.fixture
def ended(tmp_path):
    """A run that was ended after its second epoch, its last state being that of its first."""
    with pytest.raises(runs.Failed, match="those of epoch"):
        runs.train(PLAN, out=tmp_path / "run", progress=Ending(2, end), checkpoint_every=0.0)
    return tmp_path / "run"


def test_it_goes_on_to_the_run_that_nothing_ended(ended, tmp_path):
    runs.train(PLAN, out=tmp_path / "whole")
    assert {"checkpoint.safetensors", "checkpoint.safetensors.previous"} <= set(contents(ended))
    assert "lock" not in contents(ended) and not Run.open(ended).finished
    run = runs.train(PLAN, out=ended, resume=True)
    assert same(ended, tmp_path / "whole") and run.finished
    assert set(contents(ended)) == set(contents(tmp_path / "whole"))
    before = contents(ended)
    assert runs.train(PLAN, out=ended, resume=True).metrics == run.metrics and contents(ended) == before


def test_without_a_state_it_begins_again_to_the_same_bits(ended, tmp_path):
    runs.train(PLAN, out=tmp_path / "whole")
    for file in ended.glob("checkpoint*"):
        file.unlink()
    runs.train(PLAN, out=ended, resume=True)
    assert same(ended, tmp_path / "whole")


def test_what_a_process_left_that_was_killed_at_once_is_no_run(tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("lock", ".reserve", ".config.json.x1y2z3_4.json"):
        (tmp_path / "run" / name).write_text("")
    assert runs.train(PLAN, out=tmp_path / "run").finished
    assert not {"lock", ".reserve", ".config.json.x1y2z3_4.json"} & set(contents(tmp_path / "run"))


def test_nothing_to_go_on_with_begins(tmp_path):
    assert runs.train(PLAN, out=tmp_path / "run", resume=True).finished


def damaged(path, at=-9):
    content = bytearray(path.read_bytes())
    content[at] ^= 64
    path.write_bytes(content)


def test_a_damaged_state_gives_way_to_the_one_before_and_says_so(ended, tmp_path):
    notes = []
    watch = Progress()
    watch.note = notes.append
    runs.train(PLAN, out=tmp_path / "whole")
    damaged(ended / "checkpoint.safetensors")
    runs.train(PLAN, out=ended, resume=True, progress=watch)
    assert same(ended, tmp_path / "whole")
    assert "was changed after it was written" in notes[0] and "checkpoint.safetensors.previous" in notes[0]


def as_of_another_version(path):
    config = json.loads((path / "config.json").read_text())
    config["versions"]["torch"] = "1.0"
    (path / "config.json").write_text(json.dumps(config))


def both_damaged(path):
    damaged(path / "checkpoint.safetensors")
    damaged(path / "checkpoint.safetensors.previous", 4000)


REFUSED = {
    "plan.settings.lr was 0.07, is 0.5": ({"lr": 0.5}, None),
    "plan.seed was 0, is 1": ({"seed": 1}, None),
    'plan.engine was "auto", is "stored"': ({"engine": "stored"}, None),
    "data.fingerprint was": ({"data_options": {"points": 88, "seed": 5}}, None),
    'torch was "1.0"': ({}, as_of_another_version),
    "There is no state before it": ({}, both_damaged),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_does_not_fit_is_refused_by_name_and_nothing_changes(sentence, ended):
    changes, harm = REFUSED[sentence]
    if harm:
        harm(ended)
    before = contents(ended)
    with pytest.raises(ValueError) as refused:
        runs.train(PLAN.changed(**changes), out=ended, resume=True)
    assert sentence in str(refused.value) and "\n" not in str(refused.value)
    assert contents(ended) == before


def test_data_of_one_s_own_are_known_by_their_numbers(tmp_path):
    plan = own.PLAN.changed(epochs=3, batch_size=4)
    with pytest.raises(runs.Failed):
        runs.train(plan, own.split(), tmp_path / "run", progress=Ending(2, end), checkpoint_every=0.0)
    other = own.split()
    other.x_train[0] += 1
    with pytest.raises(ValueError, match=r"data\.fingerprint was"):
        runs.train(plan, other, tmp_path / "run", resume=True)
    runs.train(plan, own.split(), tmp_path / "whole")
    runs.train(plan, own.split(), tmp_path / "run", resume=True)
    assert same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_waits_for_the_step_and_its_state_is_that_step_s(name, tmp_path):
    number = getattr(signal, name)
    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(runs.Interrupted, match=r"goes on\.$") as stopped:
            ending = Ending(2, lambda: os.kill(os.getpid(), number))
            runs.train(PLAN, out=tmp_path / "run", progress=ending)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    assert stopped.value.run.metrics["epochs"] == 2
    runs.train(PLAN, out=tmp_path / "whole")
    runs.train(PLAN, out=tmp_path / "run", resume=True, progress=Ending(2, end))  # the second epoch is not run again
    assert same(tmp_path / "run", tmp_path / "whole")


def test_a_second_ctrl_c_does_not_wait():
    from liouville.interrupts import Interrupts

    with pytest.raises(KeyboardInterrupt), Interrupts() as held:
        signal.raise_signal(signal.SIGINT)
        assert held.pending == signal.SIGINT
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it must not be heard later than now")


def test_two_writers_never_share_a_folder(tmp_path):
    seen = []

    def second():
        for more in ({"force": True}, {"resume": True}):
            with pytest.raises(LockedError, match=f"is being written by process {os.getpid()} on ") as refused:
                runs.train(PLAN, out=tmp_path / "run", **more)
            seen.append(str(refused.value))
        assert overview(tmp_path)[0].state == "being trained"

    runs.train(PLAN, out=tmp_path / "run", progress=Ending(1, second))
    assert len(seen) == 2 and len(Run.open(tmp_path / "run").history()) == PLAN.epochs
    assert overview(tmp_path)[0].state == "finished" and not overview(tmp_path)[0].resumable


def test_a_lock_is_stale_when_its_process_is_gone_and_another_host_s_never(tmp_path):
    path = tmp_path / "lock"
    code = f"import os, pathlib\nfrom liouville.locks import Lock\nlock = Lock(pathlib.Path({str(path)!r}), 'it')\n"
    subprocess.run([sys.executable, "-c", code + "os._exit(0)"], check=True)
    assert path.exists() and holder(path) is None
    lock = Lock(path, "it")
    assert holder(path)["process"] == os.getpid()
    with pytest.raises(LockedError):
        Lock(path, "it")
    lock.release()
    assert not path.exists()
    path.write_text(json.dumps({"process": 1, "host": "elsewhere", "started": "1"}))
    with pytest.raises(LockedError, match="cannot be seen from here; if it has ended, remove"):
        Lock(path, "it")


@pytest.mark.parametrize("content", ["[" * 4000, "\xff", '"text"', "process -1", f"process {10**30}", "process 0.5"])
def test_a_lock_file_that_says_nothing_true_holds_nothing_up(content, tmp_path):
    path = tmp_path / "lock"
    if content.startswith("process"):
        process = json.loads(content.removeprefix("process"))
        content = json.dumps({"process": process, "host": socket.gethostname(), "started": "1"})
    path.write_text(content)
    assert holder(path) is None
    Lock(path, "it").release()
    assert not path.exists()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/etc/passwd")])
def test_what_is_no_file_is_no_lock_and_nobody_waits_for_it(make, tmp_path):
    make(tmp_path / "lock")
    assert holder(tmp_path / "lock") is None
    with pytest.raises(OSError):
        Lock(tmp_path / "lock", "it")


def test_a_finished_run_loses_what_a_kill_at_its_very_end_left(ended, tmp_path):
    path = tmp_path / "other"
    shutil.copytree(ended, path)
    run = runs.train(PLAN, out=path, resume=True)
    weights = (path / "model.safetensors").read_bytes()
    shutil.copy(ended / "checkpoint.safetensors", path)
    (path / "lock").touch()
    (path / ".reserve").touch()
    assert runs.train(PLAN, out=path, resume=True).metrics == run.metrics
    assert not any((path / name).exists() for name in ("checkpoint.safetensors", "lock", ".reserve"))
    assert (path / "model.safetensors").read_bytes() == weights


def test_a_full_disk_tears_no_line_and_keeps_the_weights(tmp_path, monkeypatch):
    """The disk fills up in the third epoch; the reserve has room for the weights, and then there is room again."""
    write, full = os.write, [False]

    def limited(handle, content):
        if full[0] and Path(f"/proc/self/fd/{handle}").readlink().name == "history.jsonl":
            full[0] = False
            write(handle, content[:10])
            raise OSError(28, "No space left on device")
        return write(handle, content)

    monkeypatch.setattr(os, "write", limited)
    with pytest.raises(runs.Failed, match=r"history\.jsonl: No space left on device; free some space") as failed:
        runs.train(PLAN, out=tmp_path / "run", checkpoint_every=0.0, progress=Ending(3, lambda: full.__setitem__(0, 1)))
    assert len(Run.open(tmp_path / "run").history()) == failed.value.run.metrics["epochs"] == 3
    runs.train(PLAN, out=tmp_path / "whole")
    runs.train(PLAN, out=tmp_path / "run", resume=True)
    assert same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("epoch", [2, 4])
def test_a_folder_that_was_removed_is_there_again_with_what_there_is(epoch, tmp_path):
    ending = Ending(epoch, lambda: shutil.rmtree(tmp_path / "run"))
    runs.train(PLAN, out=tmp_path / "run", progress=ending, checkpoint_every=0.0)
    runs.train(PLAN, out=tmp_path / "whole")
    assert same(tmp_path / "run", tmp_path / "whole")
    assert set(contents(tmp_path / "run")) == set(contents(tmp_path / "whole"))


def test_figures_are_never_drawn_through_a_link(tmp_path):
    (tmp_path / "victim").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "figures").symlink_to(tmp_path / "victim")
    (figures(tmp_path / "run") / "training.png").write_text("")
    assert not any((tmp_path / "victim").iterdir())
