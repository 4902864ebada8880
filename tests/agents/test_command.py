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
        (("--out", ""), "--out is empty"),
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


GRAPHML = '<graphml><graph edgedefault="directed"><node id="tank"/><node id="pump"/>{}</graph></graphml>'
ONE_WAY = '<edge source="tank" target="pump"/>'


@pytest.mark.parametrize(
    "content, words, message",
    [
        ("0 1\n1 2\n2 7\n", (), "graph.txt: nodes 3 to 6 have no link, so the sums of the head"),
        ("1 2\n2 4\n", (), "node 0, node 3 have no link (does the list count from 1?)"),
        ("0 1\n2 3\n", (), "no path leads from node 0 to node 2"),
        (GRAPHML.format(ONE_WAY), (), "no link goes both ways, node tank -> node pump for example"),
        (GRAPHML.format(ONE_WAY), (), "add --undirected, more links, or --consensus all-reduce."),
        ("a b\nb c", ("--mask", "numbers.txt"), "one names its nodes, and the other numbers them"),
        ("a b\nb c", ("--mask", "other.txt"), "only one of them has a node c"),
        ("0 1\n1 2", ("--mask", "four.txt"), "four.txt has 4 nodes, and --graph"),
        ("0 1\n1 z", (), "graph.txt, line 2: nodes are called by numbers or by names"),
    ],
)
def test_a_graph_is_refused_before_data_are_loaded(content, words, message, tmp_path, monkeypatch, capsys):
    import liouville.data
    from liouville.__main__ import main

    monkeypatch.setattr(liouville.data, "load", lambda *args, **more: pytest.fail("loaded data"))
    monkeypatch.chdir(tmp_path)
    for name, text in (("numbers", "0 1\n1 2"), ("other", "a b\nb d"), ("four", "0 1\n1 2\n2 3")):
        Path(f"{name}.txt").write_text(text)
    Path("graph.txt").write_text(content)
    assert main(["agents", "--graph", "graph.txt", *words]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and message in err
    assert "consensus=" not in err


def test_the_report_calls_nodes_by_their_names_and_says_what_is_kept(tmp_path, capsys):
    from liouville.__main__ import main

    path = tmp_path / "drawn.graphml"
    path.write_text(GRAPHML.format(ONE_WAY))
    words = ["agents", "--graph", str(path), "--undirected", "--epochs", "1", "--layers", "1", "-d", "points=40"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "2 nodes (tank ... pump), 1 links both ways" in said and "  node pump " in said
    assert said.splitlines()[-1] == "nothing is kept; --out RUN keeps the weights of every node, and the network"
    out = ["--out", str(tmp_path / "out")]
    assert main([*words, *out]) == 0 and "nothing is kept" not in capsys.readouterr().out
    for nproc in ((), ("--nproc", "2")):  # found before a process is started
        assert main([*words, *out, "--T", "2", *nproc]) == 2
        assert "--T was 0.5, is 2.0" in capsys.readouterr().err


def test_data_are_loaded_once(ring, monkeypatch):
    import liouville.data
    from liouville.__main__ import main

    loaded, load = [], liouville.data.load
    monkeypatch.setattr(liouville.data, "load", lambda *args, **more: loaded.append(args) or load(*args, **more))
    assert main(["agents", "--graph", str(ring), *TINY, "--epochs", "1", "--quiet"]) == 0
    assert loaded == [("swiss-roll",)]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs process groups")
@pytest.mark.parametrize("nproc", [1, 2])
def test_an_interrupted_run_says_so_in_one_line(nproc, ring, tmp_path):
    out = tmp_path / "out"
    start = command(ring, "--epochs", 5000, "--nproc", nproc, "--out", out)
    with subprocess.Popen(
        start, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ENV, start_new_session=True
    ) as launcher:
        deadline = time.monotonic() + 120
        while not list(out.glob("node-3.epoch-2.*")):
            assert time.monotonic() < deadline and launcher.poll() is None
            time.sleep(0.01)
        os.killpg(launcher.pid, signal.SIGINT)
        _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 130
    assert said.count("\n") == 1 and "interrupted" in said and str(out) in said


def listening(port):
    """The addresses on which a port of this machine listens, as the kernel writes them."""
    lines = [
        line.split() for kind in ("tcp", "tcp6") for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]
    ]
    return {words[1].split(":")[0] for words in lines if words[1].endswith(f":{port:04X}") and words[3] == "0A"}


@pytest.mark.skipif(not Path("/proc/net/tcp6").exists(), reason="needs Linux's list of sockets")
def test_the_rendezvous_listens_on_loopback_alone():
    from liouville.processes.rendezvous import LOOPBACK, _is_loopback, keep_store

    store = keep_store(LOOPBACK, 5)
    assert listening(store.port) == {"0100007F"}
    assert _is_loopback("127.3.4.5") and _is_loopback("::1") and _is_loopback("localhost")
    assert not _is_loopback("10.0.0.1") and not _is_loopback("node7")
