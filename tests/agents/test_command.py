"""``liouville agents`` with real processes: started by itself or by torchrun, killed, resumed."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("click")

TINY = (
    "--layers",
    "2",
    "--batch",
    "100",
    "-d",
    "points=200",
    "-d",
    "noise=0.02",
    "--dtype",
    "float64",
    "--timeout",
    "3",
)


@pytest.fixture
def ring(tmp_path):
    path = tmp_path / "ring.txt"
    path.write_text("0 1\n1 2\n2 3\n3 0\n")
    return path


def command(ring, *words, launcher=()):
    start = [sys.executable, "-m", *(launcher or ("liouville",))]
    start += ["-m", "liouville"] if launcher else []
    return [*start, "agents", "--graph", str(ring), *TINY, *map(str, words)]


def run(*args, **more):
    return subprocess.run(command(*args, **more), capture_output=True, text=True, timeout=240, env=ENV)


ENV = os.environ | {"OMP_NUM_THREADS": "1"}


def result(done):
    """What does not depend on the number of processes: every line that it printed."""
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if re.match("epoch|test|  node|local", line)]


@pytest.mark.slow
def test_two_processes_by_nproc_and_by_torchrun_print_what_one_prints(ring):
    one = result(run(ring, "--epochs", 2))
    assert len(one) > 6
    assert result(run(ring, "--epochs", 2, "--nproc", 2)) == one
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    assert result(run(ring, "--epochs", 2, launcher=torchrun)) == one


@pytest.mark.slow
def test_a_killed_run_stops_with_a_sentence_and_goes_on_with_the_same_result(ring, tmp_path):
    whole = result(run(ring, "--epochs", 6, "--out", tmp_path / "whole"))[-1:]
    out = tmp_path / "killed"
    start = command(ring, "--epochs", 6, "--nproc", 2, "--out", out)
    with subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV) as launcher:
        deadline = time.monotonic() + 120
        while not list(out.glob("node-3.epoch-2.*")):
            assert time.monotonic() < deadline and launcher.poll() is None
            time.sleep(0.002)
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(launcher.pid)], capture_output=True, text=True)
        os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
        _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 1
    assert "the process of nodes" in said and "died" in said
    assert "Traceback" not in said
    done = run(ring, "--epochs", 6, "--out", out)  # in one process: a checkpoint belongs to a node
    assert result(done)[-1:] == whole
    assert "epoch 1:" not in done.stdout
    from safetensors.torch import load_file

    for node in range(4):
        a, b = (load_file(folder / f"node-{node}.epoch-6.safetensors") for folder in (tmp_path / "whole", out))
        assert a.keys() == b.keys()
        for name in a:  # the head's sum is added in another order in two processes: not to the last bit
            assert (a[name] - b[name]).abs().max() <= 1e-9 * (1 + a[name].abs().max())


@pytest.mark.parametrize(
    "words, message",
    [
        (("--nproc", 9), "4 nodes run in 1 to 4 processes, got 9"),
        (("--layers", 0), "--layers must be positive"),
        (("--mask", "nowhere.txt"), "no graph file nowhere.txt"),
        (("--protocol", "gossip"), "unknown protocol 'gossip'"),
        (("--model", "h3"), "unknown model 'h3'"),
        (("--sizes", "1,2"), "one for each of the 4 nodes"),
        (("--inputs", "0,8"), "from 0 to 7"),
        (("--data", "wine"), "agents need vectors of at most 8 inputs"),
        (("--host", "no.such.host", "--nproc", 2), "cannot listen on 'no.such.host'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(ring, words, message, capsys):
    from liouville.__main__ import main

    if "wine" in words:
        pytest.importorskip("sklearn")
    assert main(["agents", "--graph", str(ring), *map(str, words)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err


def listening(port):
    """The addresses on which a port of this machine listens, as the kernel writes them."""
    lines = [
        line.split() for kind in ("tcp", "tcp6") for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]
    ]
    return {words[1].split(":")[0] for words in lines if words[1].endswith(f":{port:04X}") and words[3] == "0A"}


@pytest.mark.skipif(not Path("/proc/net/tcp6").exists(), reason="needs Linux's list of sockets")
def test_the_rendezvous_listens_on_loopback_alone():
    from liouville.agents.launch import LOOPBACK, _is_loopback, keep_store

    store = keep_store(LOOPBACK, 5)
    assert listening(store.port) == {"0100007F"}
    assert _is_loopback("127.3.4.5") and _is_loopback("::1") and _is_loopback("localhost")
    assert not _is_loopback("10.0.0.1") and not _is_loopback("node7")
