"""What does it cost not to store the states: how much time, and how many digits?

Time: one training step (forward, backward, gradients of all weights) over the same step with `Stored`, in turn in one
process; the ratio of the medians. "Black box" is symplectic Euler handed over as a scheme of which only step and
inverse are known, so that a layer is inverted first and evaluated again: at least 10 products instead of 6, against 8
where one evaluation serves both.

Digits: float32 gradients of all weights against `Stored` in float64, ||g32 - g64|| / ||g64||, and the error of the
state rebuilt at the input. Growth is that of the costate, ||dL/dy_0|| / ||dL/dy_N||. Geometric means over
three networks.

Exit code 1 if a bound fails: 1.45 (shears) and 1.8 (black box) at n = 512 and for convolutions; reconstruction exactly
0 in exact mode; the gradient of exact mode within 5 x of stored float32, and of compensated mode no worse than stored
float32, where gradients grow less than 1e5.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

import liouville as lv
import tables

ENGINES = {
    "stored": lv.Stored(),
    "checkpointed": lv.Checkpointed(),
    "reversible": lv.Reversible(),
    "compensated": lv.Reversible(compensated=True),
    "exact": lv.Reversible(exact=True),
    "exact, compensated": lv.Reversible(exact=True, compensated=True),
}


@dataclass(frozen=True)
class BlackBox(lv.ReversibleScheme):
    """Symplectic Euler without a word about its stages."""

    order: ClassVar[int] = 1
    inner: ClassVar[lv.SplittingScheme] = lv.SymplecticEuler()

    def init(self, field, y, theta_0, h):
        return self.inner.init(field, y, theta_0, h)

    def step(self, field, state, theta_j, h):
        return self.inner.step(field, state, theta_j, h)

    def inverse(self, field, state, theta_j, h):
        return self.inner.inverse(field, state, theta_j, h)

    def final(self, field, state):
        return self.inner.final(field, state)


# title -> (flow, input, whether the bounds on time hold for it)
def workloads() -> dict[str, tuple[lv.Flow, Tensor, bool]]:
    return {
        "n = 4, batch 125, 64 layers": (lv.zoo.h2(4, 64, T=1.0), torch.randn(125, 4), False),
        "n = 64, batch 1024, 64 layers": (lv.zoo.h2(64, 64, T=1.0), torch.randn(1024, 64), False),
        "n = 512, batch 1024, 16 layers": (lv.zoo.h2(512, 16, T=1.0), torch.randn(1024, 512), True),
        "conv 3x3, 8 x 28 x 28, batch 100, 16 layers": (
            lv.zoo.h2(8, 16, T=1.0, operator=lv.Conv(3)),
            torch.randn(100, 8, 28, 28),
            True,
        ),
    }


def times(flow: lv.Flow, y: Tensor, repeats: int) -> dict[str, float]:
    """Seconds over those of `Stored`, by engine."""
    flows = {name: flow.with_backprop(engine) for name, engine in ENGINES.items()}
    flows["black box"] = lv.Flow(flow.field, BlackBox(), flow.T, lv.Reversible())
    seconds: dict[str, list[float]] = {name: [] for name in flows}
    for repeat in range(repeats + 2):
        for name, run in flows.items():
            flow.zero_grad()
            start = time.perf_counter()
            run(y).sum().backward()
            if repeat >= 2:
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(s) for name, s in seconds.items()}
    return {"stored ms": 1e3 * medians["stored"], **{k: v / medians["stored"] for k, v in medians.items()}}


# title -> (features, standard deviation of the weights, h)
REGIMES = {
    "n = 4, weights 1, h = 0.1": (4, 1.0, 0.1),
    "n = 64, weights 0.1, h = 0.5": (64, 0.1, 0.5),
    "n = 64, weights 1/sqrt(32), h = 0.1": (64, 32**-0.5, 0.1),
}
DEPTHS = (64, 256, 1024, 4096)
SEEDS = 3


def digits(features: int, std: float, h: float, layers: int) -> dict[str, float]:
    """Geometric means over `SEEDS` networks; the largest where one is 0."""
    found = [of_one(features, std, h, layers, seed) for seed in range(SEEDS)]
    values = {key: [f[key] for f in found] for key in found[0]}
    return {key: statistics.geometric_mean(v) if min(v) > 0 else max(v) for key, v in values.items()}


def of_one(features: int, std: float, h: float, layers: int, seed: int) -> dict[str, float]:
    """Errors of the gradient and of the rebuilt input, by engine; growth of the costate."""
    g = torch.Generator().manual_seed(seed)
    double = lv.zoo.h2(features, layers, T=h * layers, init=lv.Normal(std), generator=g).double()
    y = torch.randn(64, features, generator=g).double()
    single = copy.deepcopy(double).float()
    double.load_state_dict({k: v.double() for k, v in single.state_dict().items()})
    y = y.float().double()
    exact, first, last = gradients(double, y)
    found = {"growth": float(first.norm() / last.norm())}
    for name, engine in (ENGINES | {"anchors 64": lv.Reversible(anchors=64)}).items():
        flow = single.with_backprop(engine)
        got, _, _ = gradients(flow, y.float())
        found[name] = float((got.double() - exact).norm() / exact.norm())
        if isinstance(engine, lv.Reversible):
            found[f"{name}, input"] = float(lv.analysis.reconstruction_error(flow, y.float())[0])
    return found


def gradients(flow: lv.Flow, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All weights' gradients in one vector, and those of the first and the last state."""
    y = y.clone().requires_grad_()
    final = flow(y)
    weights = torch.linspace(-1, 1, final.numel()).to(final).reshape(final.shape)
    loss = (final.sin() * weights).sum()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lv.DriftWarning)
        found = torch.autograd.grad(loss, [*flow.parameters(), y, final])
    return torch.cat([x.flatten() for x in found[:-2]]), found[-2], found[-1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("time", "digits"), default=("time", "digits"))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the records here")
    parser.add_argument("--page", type=Path, help="write the tables into this page")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(
        f"torch {torch.__version__}, {platform.machine()}, {arguments.threads} threads, {arguments.repeats} repeats.\n"
    )
    records, good = {}, True
    for part in arguments.parts:
        if part == "time":
            found = {title: times(flow, y, arguments.repeats) for title, (flow, y, _) in workloads().items()}
            table, fine = time_table(found), all(in_time(found))
        else:
            found = {f"{t}, {n} layers": digits(*r, n) for t, r in REGIMES.items() for n in DEPTHS}
            table, fine = digits_table(found), all(in_digits(found))
        print(tables.plain(*table), "\n", flush=True)
        records[part], good = found, good and fine
        if arguments.page:
            tables.write(arguments.page, part, tables.markdown(*table))
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=1))
    return int(not good)


def time_table(timed: dict[str, dict[str, float]]) -> tuple[list[str], list[list[str]]]:
    columns = ["checkpointed", "reversible", "black box", "compensated", "exact", "exact, compensated"]
    rows = [[t, f"{r['stored ms']:.1f}", *(f"{r[k]:.2f}" for k in columns)] for t, r in timed.items()]
    return ["one step", "stored, ms", *columns], rows


def digits_table(exact: dict[str, dict[str, float]]) -> tuple[list[str], list[list[str]]]:
    columns = ["stored", "reversible", "anchors 64", "compensated", "exact", "exact, compensated"]
    columns += ["reversible, input", "compensated, input", "exact, input"]
    rows = [[t, f"{r['growth']:.0e}", *(f"{r[k]:.1e}" if r[k] else "0" for k in columns)] for t, r in exact.items()]
    return ["float32", "growth", *columns], rows


def in_time(timed: dict[str, dict[str, float]]) -> list[bool]:
    judged = [timed[title] for title, (_, _, judge) in workloads().items() if judge]
    return [r["reversible"] <= 1.45 and r["black box"] <= 1.8 for r in judged]


def in_digits(exact: dict[str, dict[str, float]]) -> list[bool]:
    tame = [r for r in exact.values() if r["growth"] < 1e5]
    kept = [r["exact"] <= 5 * r["stored"] and r["compensated"] <= r["stored"] for r in tame]
    return kept + [r["exact, input"] == 0 for r in exact.values()]


if __name__ == "__main__":
    raise SystemExit(main())
