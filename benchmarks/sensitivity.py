"""What do exact sensitivities cost, by size of the state, number of layers and number of samples?

Times `analysis.backward_sensitivity` on h2 in float64 (median of the repeats after one warm-up) beside one forward pass
of the flow, and gives the memory that the matrices take; then `analysis.extreme_singular_values` on images, where the
matrices would not fit. With --write the table goes into docs/sensitivities.md.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from pathlib import Path

import torch

import liouville as lv
from liouville.analysis import backward_sensitivity, extreme_singular_values
from tables import markdown, plain, write

PAGE = Path(__file__).parent.parent / "docs" / "sensitivities.md"
DENSE = [(4, 64, 256), (16, 64, 256), (16, 256, 32), (16, 256, 256), (64, 256, 16), (16, 1024, 64)]
IMAGES = [(8, 8, 28), (32, 16, 28)]


def seconds(run, repeats: int) -> float:
    """The median of a few runs, after one that does not count."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def dense(n: int, layers: int, samples: int, repeats: int) -> list[str]:
    flow = lv.zoo.h2(n, layers, T=0.025 * layers, generator=torch.Generator().manual_seed(0)).double()
    y = torch.randn(samples, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        forward = seconds(lambda: flow(y), repeats)
    exact = seconds(lambda: backward_sensitivity(flow, y), repeats)
    size = (layers + 1) * samples * n * n * 8
    return [f"{n}", f"{layers}", f"{samples}", f"{exact:.3f} s", f"{exact / forward:.1f}", f"{size / 2**20:.4g} MiB"]


def images(channels: int, layers: int, width: int, samples: int = 4) -> list[str]:
    flow = lv.zoo.h2(channels, layers, T=2.0, operator=lv.Conv(3), generator=torch.Generator().manual_seed(0))
    y = torch.randn(samples, channels, width, width, generator=torch.Generator().manual_seed(1))
    start = time.perf_counter()
    found = extreme_singular_values(flow, y)
    taken, n = time.perf_counter() - start, channels * width**2
    error = float((found.largest_error / found.largest).max())
    full = (layers + 1) * samples * n * n * 4
    return [
        f"{n}",
        f"{layers}",
        f"{samples}",
        f"{taken:.2f} s",
        f"{found.steps}",
        f"{error:.1g}",
        f"{full / 2**30:.4g} GiB",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PAGE.name}")
    arguments = parser.parse_args()
    machine = f"torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} threads"
    print(machine)
    exact = (
        ["n", "layers", "samples", "time", "forward passes", "matrices"],
        [dense(*of, arguments.repeats) for of in DENSE],
    )
    print(plain(*exact))
    extreme = (
        ["n", "layers", "samples", "time", "steps", "largest error", "all matrices"],
        [images(*of) for of in IMAGES],
    )
    print(plain(*extreme))
    if arguments.write:
        write(PAGE, "exact", f"Measured with {machine}, float64:\n\n{markdown(*exact)}")
        write(PAGE, "extreme", f"Measured with {machine}, float32:\n\n{markdown(*extreme)}")


if __name__ == "__main__":
    main()
