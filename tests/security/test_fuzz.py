"""A few of the cases of `make fuzz`: every damaged file ends in a right answer or in one sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

SWEEPS = Path(__file__).parents[2] / "benchmarks" / "sweeps"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's measure of memory")
def test_strangers_files_end_in_an_answer_or_a_sentence():
    """In a process of its own: an audit hook cannot be taken away again."""
    words = [sys.executable, str(SWEEPS / "strangersfiles.py"), "--count", "1000", "--seed", "1"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout
    assert "executed 0; hung 0; over the memory bound 0" in done.stdout
    assert "0 wrong, 0 defect, 0 traceback" in done.stdout
