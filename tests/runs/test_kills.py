"""Trainings killed at seeded moments go on to the bits of those that nothing ended; `make crash` has a hundred."""

import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).parents[2] / "benchmarks" / "crash.py"
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")


@linux
@pytest.mark.parametrize(("cases", "seed"), [(2, 5), pytest.param(20, 6, marks=pytest.mark.slow)])
def test_a_few_kills(cases, seed):
    line = [sys.executable, str(HARNESS), "--cases", str(cases), "--seed", str(seed)]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Outcome(bitwise=True, torn=[]") == cases and "orphans=0" in done.stdout
