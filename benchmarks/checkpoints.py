"""What does keeping the state of a training cost, as a share of the training?

The recipe of a data set trains for a while; then writing its state is timed, whole: asking, sealing, flushing to the
disk, reading back. A training pays that once in every 300 seconds, or once at its end if it is shorter, and at every
step the question whether it is due. The share is of the time between two states, or of the whole run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import liouville as lv
from liouville.runs import Plan
from liouville.runs.execute import trained
from liouville.train import Checkpoint
from liouville.train.checkpoints import Keeper, belongings
from tables import markdown, plain, write

EVERY = 300.0
PLANS = {
    "default run": Plan.of("swiss-roll"),
    "MNIST": Plan.of("mnist").changed(epochs=1),
}


def timed(plan: Plan, repeats: int) -> tuple[float, float, float, float, int]:
    """Seconds: of a step, of asking at its end, of a state, of identifying the training once; and a state's bytes."""
    split = plan.load()
    network = plan.network(split.facts())
    state: list[Any] = []
    begin, keep = Keeper.begin, Keeper.keep
    Keeper.begin = lambda self, training: state.append((self, training)) or begin(self, training)  # type: ignore[method-assign, func-returns-value]
    try:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Checkpoint(Path(folder) / "state", 1e9)
            start = time.perf_counter()
            history = trained(plan, network, split, checkpoint=checkpoint)
            run = time.perf_counter() - start
            keeper, training = state[0]
            steps = training.steps * len(history.epochs)
            writes, asks = [], []
            for _ in range(repeats):
                start = time.perf_counter()
                keep(keeper, training)
                writes.append(time.perf_counter() - start)
            for _ in range(repeats):
                start = time.perf_counter()
                for _ in range(1000):
                    keeper.step(training)
                asks.append((time.perf_counter() - start) / 1000)
            start = time.perf_counter()
            belongings("fit", network, split, plan.fit_settings(), lv.train.Processes())
            once = time.perf_counter() - start
            return run / steps, statistics.median(asks), statistics.median(writes), once, checkpoint.path.stat().st_size
    finally:
        Keeper.begin = begin  # type: ignore[method-assign]


def main() -> None:
    """Both plans."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--page", type=Path, help="write the table into this page")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, plan in PLANS.items():
        step, ask, one, once, size = timed(plan, options.repeats)
        whole = Plan.of(plan.data or "").epochs / plan.epochs
        steps = whole * round(_steps(plan))
        seconds = steps * step
        states = max(1, int(seconds // EVERY)) + 1
        share = (steps * ask + states * one + once) / seconds
        told = (f"{1e3 * step:.2f} ms", f"{1e6 * ask:.1f} us", f"{1e3 * one:.1f} ms", f"{size / 1e3:,.0f} kB")
        rows.append((name, f"{seconds:.0f} s", *told, f"{1e3 * once:.0f} ms", str(states), f"{100 * share:.2f} %"))
        print(*rows[-1], sep=" | ", flush=True)
    head = ("training", "in all", "a step", "asking", "a state", "its file", "once", "states", "share")
    print(plain(head, rows))
    if options.page:
        write(options.page, "overhead", markdown(head, rows))


def _steps(plan: Plan) -> float:
    """Steps of the plan as it is timed."""
    split, settings = plan.load(), plan.fit_settings()
    held = round(settings.validation * len(split.x_train))
    return -(-(len(split.x_train) - held) // settings.batch_size) * plan.epochs  # type: ignore[operator]


if __name__ == "__main__":
    main()
