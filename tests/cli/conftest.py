"""The command in this process, and one tiny run that many tests read."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from dataclasses import dataclass

import pytest
import torch

pytest.importorskip("click", reason="the command needs click")
pytest.importorskip("rich", reason="the command needs rich")

import liouville as lv
from liouville.__main__ import main

NETWORK = ("--features", "4", "--layers", "4", "--T", "2")
TINY = (*NETWORK, "--epochs", "2", "--batch-size", "50", "--validation", "0.1", "-d", "points=200", "--threads", "1")


def as_written_before(folder):
    """The run as versions wrote it whose model files knew nothing of the data."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    del config["data"]["outputs"], config["data"]["fingerprint"]
    digest = hashlib.sha256(json.dumps(config["data"], sort_keys=True).encode()).hexdigest()
    file.write_text(json.dumps(config | {"data_sha256": digest}))
    network = lv.load(folder / "model.safetensors")
    network.facts = None
    lv.save(network, folder / "model.safetensors")
    return folder


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


def call(*words: object) -> Result:
    """Run the command; a traceback would end the test."""
    out, err, threads = io.StringIO(), io.StringIO(), torch.get_num_threads()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(word) for word in words])
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)
    return Result(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def liouville():
    return call


@pytest.fixture
def train(tmp_path):
    """A tiny training without figures, into a folder of the test."""

    def run(*words: object, out: str = "run") -> Result:
        return call("train", *TINY, "--no-figures", "--no-report", "--quiet", "--out", tmp_path / out, *words)

    return run


@pytest.fixture(scope="session")
def before():
    """Turns a run into one of an earlier version."""
    return as_written_before


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder of one tiny run on the Swiss roll, with figures, and what it printed."""
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("runs") / "swiss"
    return folder, call("train", *TINY, "--out", folder)
