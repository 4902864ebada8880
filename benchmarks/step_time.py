"""How long is a training step (forward, backward, gradients of K and b) in the fused kernel, and in the alternatives?

All run in turn in one process on the same weights; figures are medians, ratios are over the frozen hand-written loop
of ``reference_loop.py``. Peers: Stored, Reversible, torch.utils.checkpoint, and with ``--compile`` torch.compile of the
reference loop (slow to start: a third of a second per layer). GFLOP/s count what inversion really does, 8 B n^2 per
layer (`docs/theory/kernel.md`), beside this machine's own float32 GEMM rate, measured in the same process.
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
from torch.utils.checkpoint import checkpoint

import liouville as lv
from liouville.kernels import isa
from reference_loop import forward

SIZES = (
    (4, 125, 64),
    (4, 125, 1024),
    (4, 4000, 64),
    (16, 256, 64),
    (16, 1024, 64),
    (64, 256, 64),
    (64, 1024, 64),
    (128, 1024, 16),
)
Step = Callable[[], torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="also torch.compile of the reference loop")
    parser.add_argument("--size", type=_size, action="append", help="features,batch,layers; may be given again")
    parser.add_argument("--json", type=Path, help="write the records here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    peak = gemm_rate()
    print(
        f"torch {torch.__version__}, {platform.machine()} ({isa()}), {arguments.threads} threads, medians of "
        f"{arguments.repeats}; float32 GEMM {peak:.0f} GFLOP/s"
    )
    records = []
    for size in arguments.size or SIZES:
        record = measure(*size, arguments.repeats, arguments.compile)
        record["gemm_fraction"] = record["gflops"] / peak
        records.append(record)
        report(record)
    if arguments.json:
        arguments.json.write_text(json.dumps({"gemm_gflops": peak, "isa": isa(), "records": records}, indent=1))


def measure(features: int, batch: int, layers: int, repeats: int, compiled: bool) -> dict[str, float]:
    """Interleaved medians of seconds per step; a step that is short beside the clock is run several times."""
    flow = lv.zoo.h2(features, layers, T=1.0, generator=torch.Generator().manual_seed(0))
    weights = list(flow.field.theta())
    y = torch.randn(batch, features, generator=torch.Generator().manual_seed(1))
    steps = peers(flow, weights, y)
    record: dict[str, float] = {"features": features, "batch": batch, "layers": layers}
    if compiled:
        loop = torch.compile(forward)
        record["compile_seconds"] = timed(lambda: loop(y, *weights, flow.h), weights, 1)
        steps["compile"] = lambda: loop(y, *weights, flow.h)
    times: dict[str, list[float]] = {name: [] for name in steps}
    often = {name: max(1, int(0.005 / min(timed(step, weights, 1) for _ in range(2)))) for name, step in steps.items()}
    for _ in range(repeats):
        for name, step in steps.items():
            times[name].append(timed(step, weights, often[name]))
    seconds = {name: statistics.median(t) for name, t in times.items()}
    record |= {f"{name}_us": 1e6 * s for name, s in seconds.items()}
    record |= {f"{name}_ratio": seconds["reference"] / s for name, s in seconds.items()}
    record["ns_per_layer_and_sample"] = 1e9 * seconds["fused"] / (batch * layers)
    record["gflops"] = 8e-9 * batch * features**2 * layers / seconds["fused"]
    return record


def peers(flow: lv.Flow, weights: list[torch.Tensor], y: torch.Tensor) -> dict[str, Step]:
    """One forward pass of each; ``timed`` adds the backward pass."""
    engines = {"stored": lv.Stored(), "reversible": lv.Reversible(), "fused": lv.Fused(), "exact": lv.Fused(exact=True)}
    flows = {name: flow.with_backprop(engine) for name, engine in engines.items()}
    every = max(1, round(flow.layers**0.5))

    def checkpointed() -> torch.Tensor:
        x, slices = y, zip(*(w.split(every) for w in weights), strict=True)
        for part in slices:
            x = checkpoint(forward, x, *part, flow.h, use_reentrant=False)
        return x

    return {
        "reference": lambda: forward(y, *weights, flow.h),
        "checkpoint": checkpointed,
        **{name: (lambda run=run: run(y)) for name, run in flows.items()},
    }


def timed(step: Step, weights: list[torch.Tensor], often: int) -> float:
    """Seconds of one step, averaged over ``often``."""
    start = time.perf_counter()
    for _ in range(often):
        for w in weights:
            w.grad = None
        step().sum().backward()
    return (time.perf_counter() - start) / often


def gemm_rate(n: int = 1536) -> float:
    """GFLOP/s of torch's own matrix product, the best of ten."""
    a, b = torch.randn(n, n), torch.randn(n, n)
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return 2e-9 * n**3 / min(seconds)


def report(r: dict[str, float]) -> None:
    ratios = ", ".join(f"{k.removesuffix('_ratio')} {v:.3g}" for k, v in r.items() if k.endswith("_ratio"))
    print(
        f"n = {r['features']:.0f}, B = {r['batch']:.0f}, N = {r['layers']:.0f}: reference {r['reference_us']:.0f} us, "
        f"fused {r['fused_us']:.0f} us, {r['ns_per_layer_and_sample']:.2f} ns per layer and sample, "
        f"{r['gflops']:.0f} GFLOP/s ({r['gemm_fraction']:.0%} of GEMM)\n    ratios over the reference: {ratios}",
        flush=True,
    )


def _size(text: str) -> tuple[int, ...]:
    sizes = tuple(int(part) for part in text.split(","))
    if len(sizes) != 3:
        raise argparse.ArgumentTypeError(f"a size is features,batch,layers, for example 4,125,64; got {text!r}")
    return sizes


if __name__ == "__main__":
    main()
