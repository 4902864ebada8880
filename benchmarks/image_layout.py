"""How long is a step of the network of `liouville train --data mnist` with channels last before the lift, and after?

Forward, backward and all gradients of 100 images, in turn in one process with equal weights; medians in milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import nn

import liouville as lv
from liouville.data import Split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--threads", type=int, nargs="*", default=[1], help="more on a quiet machine only")
    options = parser.parse_args()
    x, y = torch.rand(100, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.arange(100) % 10
    networks = both(Split(x, y, x, y, "mnist", 10))
    for threads in options.threads:
        torch.set_num_threads(threads)
        found = [[timed(network, x, y) for network in networks] for _ in range(options.repeats)]
        before, after = (1e3 * statistics.median(column) for column in zip(*found, strict=True))
        ratio = statistics.median(after / before for before, after in found)
        print(f"{threads} threads: after the lift {before:.1f}, before it {after:.1f}, ratio {ratio:.2f}")


def both(split: Split) -> list[lv.Network]:
    """The layout changes behind the pooling, as it did, and before the convolution."""
    now = lv.runs.Plan.of("mnist").network(split.facts())
    last, convolution, pool = now.lift
    outermost = nn.Conv2d(1, convolution.out_channels, 3, padding=1)
    outermost.load_state_dict(convolution.state_dict())
    return [lv.Network(nn.Sequential(outermost, pool, last), now.body, now.head), now]


def timed(network: lv.Network, x: torch.Tensor, y: torch.Tensor) -> float:
    """Seconds of a step."""
    network.zero_grad()
    start = time.perf_counter()
    nn.functional.cross_entropy(network(x), y).backward()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
