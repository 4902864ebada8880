"""Does `liouville train` gain by default? The command with the engine it chooses and with ``--engine stored``, in turn.

Prints the split that the command itself reports (import, data, train, figures) and the ratios of the training loop and
of the whole, medians; exit code 1 below 8 and 2.5.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import tables

LAPS = ("import", "data", "train", "figures")


def split_of(*options: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "liouville", "train", "--out", f"{folder}/run", *options]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    laps = re.search(r"^([\d.]+) s \((.*?)\)", said, re.M)
    assert laps is not None
    return {"total": float(laps[1]), **{k: float(v) for k, v in (part.split() for part in laps[2].split(", "))}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--page", type=Path, help="write the table between its marks in this page")
    arguments = parser.parse_args()
    commands = {"liouville train": (), "liouville train --engine stored": ("--engine", "stored")}
    runs = [{name: split_of(*options) for name, options in commands.items()} for _ in range(arguments.repeats)]
    found = {
        name: {lap: statistics.median(run[name][lap] for run in runs) for lap in (*LAPS, "total")} for name in commands
    }
    rows = [[f"`{name}`", *(f"{s:.1f}" for s in laps.values())] for name, laps in found.items()]
    ours, stored = found.values()
    ratios = {lap: stored[lap] / ours[lap] for lap in ("train", "total")}
    rows.append(["ratio", "", "", f"{ratios['train']:.1f}", "", f"{ratios['total']:.1f}"])
    head = ["seconds", *LAPS, "start to end"]
    print(tables.plain(head, rows))
    if arguments.page:
        tables.write(arguments.page, "train", tables.markdown(head, rows))
    return int(ratios["train"] < 8 or ratios["total"] < 2.5)


if __name__ == "__main__":
    raise SystemExit(main())
