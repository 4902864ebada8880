"""Do two processes train faster than one with two threads? `liouville train` on two cores, in turn, by problem.

Prints the seconds of the training loop, medians, and how many times faster two processes are than the faster of the
runs in one process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import tables

PROBLEMS = {
    "Swiss roll, batches of 500": ("--data", "swiss-roll", "--epochs", "20"),
    "Swiss roll, 256 features, 16 layers": (
        *("--data", "swiss-roll", "--features", "256", "--layers", "16"),
        *("--lift", "linear", "--lr", "0.001", "--epochs", "2"),
    ),
    "MNIST, 4,000 images": ("--data", "mnist", "-d", "train=4000", "-d", "test=1000", "--epochs", "1"),
}
WAYS = {
    "1 process, 1 thread": ("--threads", "1"),
    "1 process, 2 threads": ("--threads", "2"),
    "2 processes": ("--threads", "1", "--nproc", "2"),
}


def seconds(*options: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        run = f"{folder}/run"
        command = [sys.executable, "-m", "liouville", "train", "--quiet", "--no-figures", "--out", run, *options]
        subprocess.run(command, capture_output=True, check=True)
        return float(json.loads(Path(run, "metrics.json").read_text())["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    rows = []
    for problem, options in PROBLEMS.items():
        runs = [[seconds(*options, *how) for how in WAYS.values()] for _ in range(arguments.repeats)]
        *alone, together = (statistics.median(column) for column in zip(*runs, strict=True))
        rows.append([problem, *(f"{s:.2f}" for s in (*alone, together)), f"{min(alone) / together:.2f}"])
    print(tables.plain(["seconds", *WAYS, "gain"], rows))


if __name__ == "__main__":
    main()
