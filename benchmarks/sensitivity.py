"""What do exact sensitivities cost, by size of the state, number of layers and number of samples?

Times `analysis.backward_sensitivity` on h2 in float64 (median of the repeats after one warm-up) beside one forward pass
of the flow, and gives the memory that the matrices take; then `analysis.extreme_singular_values` on images, where the
matrices would not fit; then training with and without a `GradientMonitor`, in turn. With --write the tables go into
docs/sensitivities.md.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
import warnings
from pathlib import Path

import torch
from torch import nn

import liouville as lv
from liouville.analysis import backward_sensitivity, extreme_singular_values
from liouville.train import GradientMonitor, GradientWarning, Settings, fit
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


def mlp() -> nn.Module:
    torch.manual_seed(0)
    body = [m for i in range(32) for m in (nn.Linear(16 if i else 2, 16), nn.Tanh())]
    return nn.Sequential(*body, nn.Linear(16, 1))


def h2(engine: lv.Backprop) -> nn.Module:
    return lv.classifier("h2", 2, 2, 4, 64, T=6.4, backprop=engine, generator=torch.Generator().manual_seed(0))


WATCHED = {
    "tanh MLP, 32 layers": mlp,
    "h2, 64 layers, Stored": lambda: h2(lv.Stored()),
    "h2, 64 layers, Auto": lambda: h2(lv.Auto()),
}


def watched(name: str, repeats: int) -> list[str]:
    """Seconds of ten epochs on the Swiss roll, the fastest run without and with a monitor, and its median share."""
    split, settings = lv.data.load("swiss-roll"), Settings(epochs=10, batch_size=125)
    plain_times, watched_times, shares, monitor = [], [], [], GradientMonitor()
    for _ in range(repeats):
        plain_times.append(fit(WATCHED[name](), split, settings).metrics["seconds"])
        monitor = GradientMonitor()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GradientWarning)
            watched_times.append(fit(WATCHED[name](), split, settings, callbacks=[monitor]).metrics["seconds"])
        shares.append(monitor.seconds / watched_times[-1])
    found = f"flagged in step {monitor.records[0].step}" if monitor.flags else "silent"
    times = [min(of) for of in (plain_times, watched_times)]
    share = f"{100 * statistics.median(shares):.1f} %"
    return [name, f"{times[0]:.2f} s", f"{times[1]:.2f} s", share, f"{len(monitor.records)} of {monitor.step}", found]


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
    head = ["network", "alone", "watched", "of it in the monitor", "steps measured", "verdict"]
    torch.set_num_threads(1)  # a layer of 125 x 4 numbers gains nothing from a second one
    cost = head, [watched(name, arguments.repeats) for name in WATCHED]
    print(plain(*cost))
    if arguments.write:
        write(PAGE, "exact", f"Measured with {machine}, float64:\n\n{markdown(*exact)}")
        write(PAGE, "extreme", f"Measured with {machine}, float32:\n\n{markdown(*extreme)}")
        how = f"torch {torch.__version__}, {platform.machine()}, one thread, float32, ten epochs"
        best = f"the fastest of {arguments.repeats} runs"
        write(PAGE, "monitor", f"Measured with {how}, {best}:\n\n{markdown(*cost)}")


if __name__ == "__main__":
    main()
