"""The command as a process: streams that are closed, full or left, Ctrl-C at any moment, the launcher's variables."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from liouville import environment
from liouville.cli import run as command
from liouville.cli.wording import in_options

COMMAND = f"{sys.executable} -m liouville"
FULL = "liouville: error: standard output cannot be written: No space left on device.\n"
CLOSED = "liouville: error: standard output is closed; send it to a file or to /dev/null.\n"


def shell(words):
    return subprocess.run(["bash", "-c", f"set -o pipefail; {words}"], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        ("{} --help | true", 0, ""),
        ("{} --version > /dev/full", 2, FULL),
        ("{} --version >&-", 2, CLOSED),
        ("{} --version >&- 2>&-", 2, ""),
        ("{} nothing 2>&-", 2, ""),
        ("{} nothing 2> /dev/full", 2, ""),
    ],
)
def test_streams_that_fail_are_one_sentence_or_silence(words, code, error):
    if "/dev/full" in words and not os.path.exists("/dev/full"):  # noqa: PTH110
        pytest.skip("this system has no /dev/full")
    done = shell(words.format(COMMAND))
    assert (done.returncode, done.stderr) == (code, error)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", ["list", "train --help", "check {run}", "predict {run} {points}", "verify p1-lemma-1"]
)
def test_every_command_ends_well_when_its_reader_goes_away_and_says_when_the_disk_is_full(words, trained, tmp_path):
    (tmp_path / "points.csv").write_text("0.1,0.2\n")
    words = f"{COMMAND} {words.format(run=trained[0], points=tmp_path / 'points.csv')}"
    done = shell(f"{words} | true")
    assert (done.returncode, done.stderr) == (0, "")
    done = shell(f"{words} > /dev/full")
    assert (done.returncode, done.stderr) == (2, FULL)


@pytest.mark.slow
def test_a_training_that_cannot_say_what_it_does_leaves_no_folder(tmp_path):
    words = (
        f"{COMMAND} train --layers 2 --epochs 1 -d points=40 --no-figures --no-report --out {tmp_path}/run > /dev/full"
    )
    done = shell(words)
    assert (done.returncode, done.stderr) == (2, FULL) and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_names_that_the_terminal_s_encoding_lacks_are_escaped(trained, tmp_path, before):
    import json
    import shutil

    run = before(shutil.copytree(trained[0], tmp_path / "run"))
    config = json.loads((run / "config.json").read_text())
    config["data"]["label_names"] = ["außen", "内"]
    (run / "config.json").write_text(json.dumps(config))
    (tmp_path / "points.csv").write_text("0.1,0.2\n")
    done = shell(f"PYTHONIOENCODING=ascii {COMMAND} predict {run} {tmp_path}/points.csv --probabilities")
    assert done.returncode == 0 and "p(au\\xdfen)" in done.stdout and "p(\\u5185)" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "words", ["train --epochs 100000 --no-figures --no-report --quiet --out {tmp}/new", "list", "check {run}"]
)
def test_ctrl_c_at_any_moment_is_one_line_and_130(words, trained, tmp_path):
    draw = random.Random(words)
    for k in range(7):
        process = subprocess.Popen(
            [sys.executable, "-m", "liouville", *words.format(run=trained[0], tmp=tmp_path / str(k)).split()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # in a background job as well
        )
        time.sleep(draw.uniform(0.05, 3.0))
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=120)
        if process.returncode == 0:  # it had ended
            assert error == ""
        elif "liouville/cli" in error or process.returncode != -signal.SIGINT:  # else still in Python's own start
            assert process.returncode == 130 and "Traceback" not in error, error
            assert len(error.splitlines()) == 1, error


def test_an_interrupt_is_reported_without_importing_torch():
    code = (
        "import sys; from liouville.cli.errors import guarded\n"
        "def stop(): raise KeyboardInterrupt\n"
        "sys.exit(guarded(stop) if 'torch' not in sys.modules else 1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + "\nassert 'torch' not in sys.modules"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (130, "liouville: interrupted.\n")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_whoever_asks_the_command_to_end_is_answered_like_ctrl_c(name):
    code = (
        "import os, signal, sys; from liouville import door\n"
        f"door.guard_interrupts(); number = signal.{name}\n"
        "try: os.kill(os.getpid(), number)\n"
        "except KeyboardInterrupt: sys.stderr.write('liouville: interrupted.\\n'); sys.exit(door.exit_code(130))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (128 + getattr(signal, name), "liouville: interrupted.\n")
    ignoring = f"import signal; signal.signal(signal.{name}, signal.SIG_IGN); "  # as nohup does
    assert subprocess.run([sys.executable, "-c", ignoring + code]).returncode == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_during_an_import_comes_again_as_itself_where_ctrl_c_is_ignored(name, tmp_path):
    (tmp_path / "torch.py").write_text("")
    (tmp_path / "slow.py").write_text(f"import os, signal\nos.kill(os.getpid(), signal.{name})\n")
    code = (  # SIGINT is ignored in what a shell script starts with &
        "import signal, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from liouville import door\n"
        "import torch; door.guard_interrupts()\n"
        "try:\n import slow\n time.sleep(10)\n"
        "except KeyboardInterrupt: sys.exit(door.exit_code(130))"
    )
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": paths})
    assert done.returncode == 128 + getattr(signal, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_training_that_is_told_to_end_saves_what_it_has(name, tmp_path):
    words = f"train --layers 2 --epochs 1000000 -d points=200 --no-figures --no-report --quiet --out {tmp_path}/run"
    process = subprocess.Popen([*COMMAND.split(), *words.split()], stderr=subprocess.PIPE, text=True)
    history, until = tmp_path / "run" / "history.jsonl", time.monotonic() + 100
    while not (history.exists() and history.stat().st_size) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(getattr(signal, name))
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + getattr(signal, name) and "The best weights so far" in error, error
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_processes_that_were_started_end_where_the_next_one_is_not(monkeypatch):
    from liouville.processes import launcher

    started, start = [], subprocess.Popen

    def popen(command, env):
        if started:
            raise KeyboardInterrupt
        started.append(start([sys.executable, "-c", "import time; time.sleep(60)"]))
        return started[0]

    monkeypatch.setattr(launcher.subprocess, "Popen", popen)
    assert launcher.launch(["train"], 2) == 130 and started[0].poll() is not None


def test_a_folder_that_is_gone_is_said(tmp_path):
    (tmp_path / "gone").mkdir()
    done = shell(f"cd {tmp_path}/gone && rmdir {tmp_path}/gone && {COMMAND} list")
    sentence = "liouville: error: the current folder no longer exists; change to one that exists.\n"
    assert (done.returncode, done.stderr) == (2, sentence)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"RANK": "0"}, "RANK is set in the environment and WORLD_SIZE is not"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is set in the environment and RANK is not"),
        ({"RANK": "0", "WORLD_SIZE": "abc"}, "WORLD_SIZE must be a whole number of at least 1, got 'abc'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK must be a whole number from 0 to 1, got '2'"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK must be a whole number from 0 to 1, got '-1'"),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "1"}, "LOCAL_RANK must be"),
        ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_PORT": "abc"}, "MASTER_PORT must be a whole number from 1 to 65535"),
        ({"RANK": "1", "WORLD_SIZE": "²", "MASTER_PORT": "1"}, "WORLD_SIZE must be"),
    ],
)
@pytest.mark.parametrize("words", ["train", "agents --graph none"])
def test_variables_that_describe_no_process_are_named(monkeypatch, capsys, words, variables, sentence):
    if len(variables) > 1:
        variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"} | variables
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert command(words.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"liouville: error: {sentence}") and error.count("\n") == 1


def test_variables_of_torchrun_are_taken(monkeypatch):
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "host", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    environment.require_environment()
    assert environment.processes() == 4


def test_more_processes_than_cores_are_refused(liouville, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    result = liouville("train", "--nproc", 1000)
    assert result.code == 2 and result.err.startswith("liouville: error: --nproc 1000 on a machine of 2 cores makes")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("use flow.with_backprop(lv.Stored()), the plain loop", "use --engine stored, the plain loop"),
        (
            "Use Reversible(exact=True), Checkpointed(), or smaller steps.",
            "Use --engine checkpointed, or smaller steps.",
        ),
        ("Use Fused(exact=True), Checkpointed(), or smaller steps.", "Use --engine checkpointed, or smaller steps."),
        (
            "of the last flow; give HeadSmoothness(shape=(channels, height, width)).",
            "of the last flow; leave --head-smoothness out.",
        ),
        ("needs Penalty(head_decay=1e-3), say, or head='joint'.", "needs --head-decay 1e-3, say, or --head joint."),
        ('use consensus="all-reduce", or more links.', "use --consensus all-reduce, or more links."),
        ("/tmp/layers=3/run and layers=(2, 3)", "/tmp/layers=3/run and layers=(2, 3)"),
        ("config.json: unknown=3", "config.json: unknown=3"),
    ],
)
def test_python_s_spelling_becomes_the_command_s(text, shown):
    assert in_options(text, {"head", "consensus", "layers", "head_decay"}) == shown


def test_exit_codes_stand_in_the_help(liouville):
    out = liouville("--help").out
    assert all(code in out for code in ("130", "129", "143", "70"))


@pytest.mark.parametrize("words", ["--model H2 --scheme verlet", "--data Swiss_Roll --engine STORED --activation Tanh"])
def test_names_are_taken_in_any_case(train, words):
    assert train(*words.split(), "--epochs", 1).code == 0
