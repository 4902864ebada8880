"""Is `Stored` within 1.25 x of the frozen hand-written loop? One training step (forward, backward, weight gradients).

Both run in turn in one process on the same weights; the figure is the ratio of the medians. Exit code 1 if a size
exceeds the bound.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import liouville as lv
from reference_loop import forward

SIZES = ((4, 125, 64), (4, 125, 1024), (4, 4000, 64), (16, 1024, 64), (64, 1024, 64))
BOUND = 1.25


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the records here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    records = [measure(*size, arguments.repeats) for size in SIZES]
    print(f"torch {torch.__version__}, {platform.machine()}, {arguments.threads} threads, {arguments.repeats} repeats")
    print(
        f"{'features':>8} {'batch':>6} {'layers':>6} {'reference ms':>13} {'Stored ms':>10} {'ratio':>6} {'spread':>12}"
    )
    for r in records:
        spread = f"{r['ratio_low']:.2f}..{r['ratio_high']:.2f}"
        row = f"{r['features']:8d} {r['batch']:6d} {r['layers']:6d} {r['reference_ms']:13.2f} {r['stored_ms']:10.2f}"
        print(f"{row} {r['ratio']:6.2f} {spread:>12}")
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=1))
    return int(any(r["ratio"] > BOUND for r in records))


def measure(features: int, batch: int, layers: int, repeats: int) -> dict[str, float]:
    """Interleaved medians; the spread is the middle half of the ratios of neighbouring runs."""
    flow = lv.zoo.h2(features, layers, T=1.0, generator=torch.Generator().manual_seed(0))
    weights = list(flow.field.theta())
    y = torch.randn(batch, features, generator=torch.Generator().manual_seed(1))
    steps = {
        "reference": lambda: forward(y, *weights, flow.h),
        "stored": lambda: flow(y),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 2):
        for name, step in steps.items():
            seconds = timed(step, weights)
            if repeat >= 2:
                times[name].append(seconds)
    ratios = sorted(s / r for s, r in zip(times["stored"], times["reference"], strict=True))
    reference, stored = statistics.median(times["reference"]), statistics.median(times["stored"])
    return {
        "features": features,
        "batch": batch,
        "layers": layers,
        "reference_ms": 1e3 * reference,
        "stored_ms": 1e3 * stored,
        "ratio": stored / reference,
        "ratio_low": ratios[len(ratios) // 4],
        "ratio_high": ratios[(3 * len(ratios)) // 4],
    }


def timed(step: Callable[[], torch.Tensor], weights: list[torch.Tensor]) -> float:
    """Seconds of one forward pass, backward pass and all gradients."""
    for w in weights:
        w.grad = None
    start = time.perf_counter()
    step().sum().backward()
    return time.perf_counter() - start


if __name__ == "__main__":
    raise SystemExit(main())
