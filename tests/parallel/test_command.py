"""`liouville train` in several processes: one run folder, one voice, and an end whatever happens to any of them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("click", reason="the command needs click")
pytest.importorskip("lightning", reason="several processes train through Lightning Fabric")

import liouville as lv
from liouville.runs import Run

SMALL = ("--data", "double-moons", "-d", "points=400", "--layers", "4", "--dtype", "float64")
LIMIT = 100  # seconds


def words(*more, nproc=2):
    return [
        sys.executable,
        "-m",
        "liouville",
        "train",
        *SMALL,
        "--no-figures",
        "--no-report",
        *more,
        "--nproc",
        str(nproc),
    ]


def call(*more):
    return subprocess.run(words(*more), capture_output=True, text=True, timeout=LIMIT)


def test_two_processes_write_one_run(tmp_path):
    """The weights of a run in one process, said once; `metrics.json` tells how many processes there were."""
    more = ("--epochs", "3", "--batch-size", "70", "--out")
    done = call(*more, str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 processes share every batch") == done.stdout.count("read once, now") == 1
    assert done.stderr.count("epoch ") == 3 and "Warning" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["two"]
    subprocess.run(words(*more, str(tmp_path / "one"), nproc=1), capture_output=True, check=True)
    one, two = Run.open(tmp_path / "one"), Run.open(tmp_path / "two")
    assert (one.metrics["processes"], two.metrics["processes"]) == (1, 2)
    assert one.metrics["test_accuracy"] == two.metrics["test_accuracy"]
    for a, b in zip(one.network().parameters(), two.network().parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)  # eight steps; the laws have sharper bounds


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--optimizer", "gauss-newton"), "gauss-newton trains in one process; leave out --nproc"),
        (("--layerz", "8"), "there is no option '--layerz'; did you mean '--layers'?"),
    ],
)
def test_what_cannot_be_is_said_once(tmp_path, more, sentence):
    done = call(*more, "--out", str(tmp_path / "run"))
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and sentence in done.stderr
    assert not (tmp_path / "run").exists()


def test_no_process_is_refused():
    done = subprocess.run(words(nproc=0), capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 2 and done.stderr.startswith("liouville: error: Invalid value for '--nproc'")


def ended(folder, number, rank=None):
    """Exit code and last words of an endless run whose process of this rank, or the launcher, gets a signal."""
    more = ("--epochs", "100000", "--quiet", "--out", str(folder))
    children = {}
    with subprocess.Popen(words(*more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as launcher:
        try:
            wait_for(lambda: (folder / "history.jsonl").is_file() and (folder / "history.jsonl").stat().st_size)
            children = {rank_of(pid): pid for pid in children_of(launcher.pid)}
            os.kill(launcher.pid if rank is None else children[rank], number)
            _, said = launcher.communicate(timeout=LIMIT)
        finally:
            launcher.kill()
            outlived = [pid for pid in children.values() if rank_of(pid) is not None]
            for pid in outlived:
                os.kill(pid, signal.SIGKILL)
    assert not outlived, "a process outlived its launcher"
    return launcher.returncode, said


def wait_for(condition):
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children_of(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def rank_of(pid):
    """RANK in the environment of a process; None if it is gone."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
    except OSError:
        return None
    return dict(entry.split("=", 1) for entry in entries if "=" in entry).get("RANK")


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the processes in /proc")


@linux
@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_run(tmp_path):
    """The first process notices at once, keeps the best weights and says so."""
    code, said = ended(tmp_path / "run", signal.SIGKILL, "1")
    assert code == 1 and said.count("\n") == 1
    assert said.startswith("liouville: error: another process of this run died") and "The best weights so far" in said
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["processes"] == 2 and metrics["best_epoch"] >= 1
    assert isinstance(Run.open(tmp_path / "run").network(), lv.Network)


@linux
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_launcher_ends_all(tmp_path, number):
    code, said = ended(tmp_path / "run", number)
    assert code == 128 + number and said.count("\n") == 1
    assert said.startswith("liouville: interrupted in epoch") and "The best weights so far" in said
    assert Run.open(tmp_path / "run").metrics["stopped"].startswith("interrupted in epoch")


@linux
@pytest.mark.slow
def test_the_first_process_killed_another_one_says_it(tmp_path):
    code, said = ended(tmp_path / "run", signal.SIGKILL, "0")
    assert code == 1 and said == "liouville: error: another process of this run died, stopped or cannot be reached.\n"


@linux
@pytest.mark.slow
def test_processes_end_with_a_launcher_that_is_killed_and_the_run_goes_on(tmp_path):
    folder = tmp_path / "run"
    more = ("--epochs", "100000", "--quiet", "--out", str(folder))
    with subprocess.Popen(words(*more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as launcher:
        wait_for(lambda: (folder / "history.jsonl").is_file() and (folder / "history.jsonl").stat().st_size)
        children = children_of(launcher.pid)
        launcher.kill()
        wait_for(lambda: not any(rank_of(pid) for pid in children))
    assert (folder / "checkpoint.safetensors").is_file() and not (folder / "lock").exists()


@pytest.mark.slow
def test_under_torchrun(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *words()[1:-2]]
    done = subprocess.run(
        [*command, "--epochs", "2", "--out", str(tmp_path / "run")], capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 processes share every batch") == done.stdout.count("read once, now") == 1
    assert Run.open(tmp_path / "run").metrics["processes"] == 2
