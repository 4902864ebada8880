"""How long is a training step on images (forward, backward, gradients of K and b) in the fused kernel?

All run in turn in one process on the same weights; figures are medians, in microseconds per layer and image, and ratios
are over the frozen hand-written loop of ``reference_convolution.py`` on images (B, C, H, W), channels outermost. That
loop with the channels innermost in memory, `Stored`, and the exact grid stand beside it.
With --page the table goes between its marks in that page.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import liouville as lv
import tables
from liouville.kernels.library import isa
from reference_convolution import forward

# kernel, channels, height and width, batch, layers
SIZES = (
    *((1, channels, 28, 100, 16) for channels in (4, 8, 16, 32, 64)),
    *((3, channels, 28, 100, 8) for channels in (4, 8, 16, 32, 64)),
    (3, 32, 14, 100, 8),
    (3, 64, 14, 100, 8),
    (3, 64, 7, 100, 8),
    (3, 128, 14, 100, 4),
)
Step = Callable[[], torch.Tensor]
COLUMNS = ("reference", "channels last", "stored", "fused", "fused, channels last", "exact")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=_size, action="append", help="kernel,channels,size,batch,layers; repeatable")
    parser.add_argument("--page", type=Path, help="write the table between its marks in this page")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    note = (
        f"torch {torch.__version__}, {platform.machine()} ({isa()}), {arguments.threads} threads, medians of "
        f"{arguments.repeats}; microseconds per layer and image, in brackets the ratio over the reference"
    )
    print(note)
    rows = []
    for size in arguments.size or SIZES:
        seconds = measure(*size, arguments.repeats)
        kernel, channels, side, batch, layers = size
        cells = [f"{1e6 * s / batch / layers:.1f} ({seconds['reference'] / s:.2f})" for s in seconds.values()]
        rows.append([f"{kernel}x{kernel}", str(channels), f"{side}x{side}", str(batch), str(layers), *cells])
        print(*rows[-1], sep="  ", flush=True)
    if arguments.page:
        head = ["kernel", "channels", "image", "batch", "layers", *COLUMNS]
        tables.write(arguments.page, "convolution", f"{note}\n\n{tables.markdown(head, rows)}")


def measure(kernel: int, channels: int, side: int, batch: int, layers: int, repeats: int) -> dict[str, float]:
    """Interleaved medians of seconds per step."""
    generator = torch.Generator().manual_seed(0)
    flow = lv.zoo.h2(channels, layers, T=1.0, operator=lv.Conv(kernel), generator=generator)
    weights = list(flow.field.theta())
    y = torch.randn(batch, channels, side, side, generator=generator)
    last = y.contiguous(memory_format=torch.channels_last)
    fused, exact = flow.with_backprop(lv.Fused()), flow.with_backprop(lv.Fused(exact=True))
    runs: tuple[Step, ...] = (
        lambda: forward(y, *weights, flow.h),
        lambda: forward(last, *weights, flow.h),
        lambda: flow(y),
        lambda: fused(y),
        lambda: fused(last),
        lambda: exact(y),
    )
    steps = dict(zip(COLUMNS, runs, strict=True))
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        timed(step, weights)
    for _ in range(repeats):
        for name, step in steps.items():
            times[name].append(timed(step, weights))
    return {name: statistics.median(t) for name, t in times.items()}


def timed(step: Step, weights: list[torch.Tensor]) -> float:
    """Seconds of one step."""
    for w in weights:
        w.grad = None
    start = time.perf_counter()
    step().sum().backward()
    return time.perf_counter() - start


def _size(text: str) -> tuple[int, ...]:
    sizes = tuple(int(part) for part in text.split(","))
    if len(sizes) != 5:
        raise argparse.ArgumentTypeError(f"a size is kernel,channels,size,batch,layers, as 3,8,28,100,8; got {text!r}")
    return sizes


if __name__ == "__main__":
    main()
