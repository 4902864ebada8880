"""Does anything grow in ten thousand steps? Resident memory and live tensors of `fit`, engine by engine.

Every engine trains in a process of its own, with dropout off, a checkpoint every second, and the collector of cycles
left alone. Memory is read from step 1,000 on, when the allocator has what it needs, ten times; tensors are those that
Python still reaches.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import liouville as lv
from liouville.train import Callback, Checkpoint, Settings
from tables import markdown, plain, write

ENGINES: dict[str, Any] = {
    "stored": lv.Stored(),
    "checkpointed": lv.Checkpointed(),
    "reversible": lv.Reversible(),
    "reversible, exact": lv.Reversible(exact=True),
    "fused": lv.Fused(),
    "fused, exact": lv.Fused(exact=True),
    "batch-last": lv.kernels.BatchLast(),
    "auto": lv.Auto(),
}
GROWTH = 8.0  # MB that resident memory may grow by from the first reading to the largest later one


class Readings(Callback):
    """Resident memory in MB and live tensors, every ``every`` steps from ``every`` on."""

    def __init__(self, every: int) -> None:
        self.every, self.step = every, 0
        self.memory: list[float] = []
        self.tensors: list[int] = []

    def on_train_batch_end(self, loss: float) -> None:
        self.step += 1
        if self.step % self.every:
            return
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.memory.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
        self.tensors.append(sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()))


def soak(name: str, steps: int) -> None:
    """Train with one engine, and print the readings as JSON."""
    torch.set_num_threads(1)
    data = lv.data.load("swiss-roll", points=200)  # 90 samples beside those held out: nine steps an epoch
    network = lv.classifier("h2", 2, 2, 4, 16, 2.0, backprop=ENGINES[name])
    readings = Readings(steps // 10)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(Path(folder) / "state", 1.0)
        settings = Settings(epochs=-(-steps // 9), batch_size=10)
        lv.train.fit(network, data, settings, callbacks=[readings], checkpoint=checkpoint)
    print(json.dumps({"memory": readings.memory, "tensors": readings.tensors, "steps": readings.step}))


def main() -> None:
    """Every engine, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--engine", choices=ENGINES, help="in this process, one engine")
    parser.add_argument("--page", type=Path, help="write the table into this page")
    options = parser.parse_args()
    if options.engine:
        soak(options.engine, options.steps)
        return
    rows, bad = [], 0
    for name in ENGINES:
        line = [sys.executable, __file__, "--engine", name, "--steps", str(options.steps)]
        done = subprocess.run(line, capture_output=True, text=True, check=True)
        seen = json.loads(done.stdout)
        memory, tensors = seen["memory"], seen["tensors"]
        grown, more = max(memory[1:]) - memory[0], max(tensors[1:]) - tensors[0]
        bad += grown > GROWTH or more > 0
        rows.append(
            (name, f"{seen['steps']:,}", f"{memory[0]:.1f}", f"{memory[-1]:.1f}", f"{grown:+.1f}", f"{more:+d}")
        )
        print(*rows[-1], sep=" | ", flush=True)
    head = ("engine", "steps", "MB after a tenth", "MB at the end", "largest growth, MB", "live tensors")
    print(plain(head, rows))
    if options.page:
        write(options.page, "soak", markdown(head, rows))
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
