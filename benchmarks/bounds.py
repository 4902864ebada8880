"""How far is U above what sensitivities reach, by norms and by multipliers, and what does a budget by each let learn?

Trains networks by the library's recipes. The first table has log U by the norms of the weights and by multipliers,
after the default number of steps and after 40 and 400, with processor seconds; beside them the largest norm that
ascent finds over all slopes in {0, s}, which any bound by slopes alone is above, and the largest norm at held-out
inputs and random states. The second has the held-out accuracy of the Swiss roll within a budget, by either bound, and
the processor time of a training step over that of the same network without a budget, medians of interleaved steps.
With --write they go into docs/certificates.md, the first one for each --start of `radius.py`, the second as drawn.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

import liouville as lv
from liouville.analysis import backward_sensitivity, log_inverse_bound, log_upper_bound
from liouville.multipliers.sectors import Sectors, sectors_of
from liouville.runs import recipe
from radius import CASES, STARTS, trained
from tables import markdown, plain, write

PAGE = Path(__file__).parent.parent / "docs" / "certificates.md"
BOUNDED = (
    "default Swiss roll",
    "the same, seed 1",
    "relu",
    "forward Euler, h1",
    "ms1, 8 features",
    "32 features",
    "peaks, 5 classes",
    "digits, 10 classes",
)
# features, layers, lift, budget, seeds
BUDGETS = (
    (8, 16, "linear", 20.0, (0, 1)),
    (4, 16, None, 100.0, (0, 1, 2, 3, 4)),
    (4, 64, None, 20.0, (0,)),
)
HEAD = [
    "network",
    "norms",
    "multipliers",
    "40 steps",
    "400 steps",
    "the inverse",
    "worst slopes found",
    "measured",
]
HEAD_BUDGETS = [
    "Swiss roll, T = 4",
    "budget",
    "seeds",
    "accuracy by norms",
    "by multipliers",
    "a step by norms",
    "a step by multipliers",
]


def worst_slopes(sectors: Sectors, starts: int = 16, rounds: int = 12) -> float:
    """The log of the largest norm of a product of steps over slopes in {0, s}, by ascent from random ones."""
    generator = torch.Generator().manual_seed(0)
    share = torch.linspace(0.3, 1.0, starts, dtype=torch.float64)[:, None]
    D = sectors.slope * (torch.rand(starts, sectors.B.shape[1], generator=generator, dtype=torch.float64) < share)
    best = 0.0
    for _ in range(rounds):
        leaf = D.double().requires_grad_()
        A = torch.eye(len(sectors.B), dtype=torch.float64).expand(starts, -1, -1)
        for step in sectors.layout.steps:
            A = A + (sectors.B[:, step] * leaf[:, None, step]) @ (sectors.R[step] @ A)
        largest = torch.linalg.matrix_norm(A, 2)
        best = max(best, float(largest.max()))
        largest.log().sum().backward()
        D = sectors.slope * (leaf.grad > 0).double()
    return float(torch.tensor(best).log())


@torch.no_grad()
def measured(network: lv.Network, x: Tensor) -> float:
    """The log of the largest norm of dState_N/dState_0 at the inputs, and at random states of three sizes."""
    flow = network.body
    states = [network.lift(x)]
    generator = torch.Generator().manual_seed(0)
    states += [s * torch.randn(500, flow.field.features, generator=generator, dtype=x.dtype) for s in (0.3, 1.0, 3.0)]
    return float(backward_sensitivity(flow, torch.cat(states))[0].svd().S.max().log())


def bounds(name: str, start: str) -> list[str]:
    network, split = trained(CASES[name], start)
    flow, line = network.body, [name, f"{float(log_upper_bound(network.body, 0)):.2f}"]
    for steps in (None, 40, 400):
        began = time.process_time()
        log_u = float(log_upper_bound(flow, steps))
        line.append(f"{log_u:.2f} ({time.process_time() - began:.1f} s)")
    shears = isinstance(flow.scheme, lv.schemes.SplittingScheme)
    line.append(f"{float(log_inverse_bound(flow)):.2f}" if shears else "-")
    sectors = sectors_of(flow.field, flow.scheme, flow.field.theta(), flow.h)
    found, seen = worst_slopes(sectors), measured(network, split.x_test[:256].double())
    assert seen <= log_u + 1e-9 and found <= log_u + 1e-9, "a norm exceeds its bound"
    return [*line, f"{found:.2f}", f"{seen:.2f}"]


def network_of(n: int, layers: int, lift: str | None, budget: float | None, bound: str | None, seed: int) -> lv.Network:
    g = torch.Generator().manual_seed(seed)
    build = functools.partial(lv.zoo.h2, init=STARTS["drawn"])
    network = lv.classifier(build, 2, 2, n, layers, 4.0, lift=lift, generator=g, backprop=lv.Auto())
    if budget is not None:
        network.body = lv.budgeted(network.body, budget, bound)
    return network


def accuracy(network: lv.Network, seed: int) -> float:
    split = lv.data.load("swiss-roll", seed=seed)
    lv.train.fit(network, split, replace(recipe("swiss-roll").settings, seed=seed), test=False)
    network.eval()
    for flow in network.flows():
        log_u = float(log_upper_bound(flow).detach())
        assert log_u <= torch.tensor(flow.field.budget).double().log(), "a budget was exceeded"
    with torch.no_grad():
        scores = network(split.x_test)
    found = (scores[:, 0] >= 0).long() if scores.shape[1] == 1 else scores.argmax(1)
    return float((found == split.y_test.reshape(-1)).double().mean())


def seconds_of_steps(networks: list[lv.Network], count: int = 100) -> list[float]:
    """Of one training step of each, medians of interleaved ones."""
    split = lv.data.load("swiss-roll")
    x, y = split.x_train[:100], split.y_train[:100].reshape(-1).float()
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    optimizers = [torch.optim.Adam(network.parameters(), lr=1e-3) for network in networks]
    times: list[list[float]] = [[] for _ in networks]
    for k in range(count + 5):
        for network, optimizer, spent in zip(networks, optimizers, times, strict=True):
            start = time.process_time()
            optimizer.zero_grad()
            loss(network(x)[:, 0], y).backward()
            optimizer.step()
            if k >= 5:
                spent.append(time.process_time() - start)
    return [statistics.median(spent) for spent in times]


def budgets(n: int, layers: int, lift: str | None, budget: float, seeds: tuple[int, ...]) -> list[str]:
    kinds = ("norms", "multipliers")
    reached = [
        ", ".join(f"{accuracy(network_of(n, layers, lift, budget, kind, s), s):.4f}" for s in seeds) for kind in kinds
    ]
    free, *kept = seconds_of_steps([network_of(n, layers, lift, budget if k else None, k, 0) for k in (None, *kinds)])
    what = f"{n} features, {layers} layers, {lift or 'zero'} lift"
    return [what, f"{budget:g}", ", ".join(map(str, seeds)), *reached, *(f"{t / free:.1f} x" for t in kept)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="Put the tables into docs/certificates.md.")
    parser.add_argument("--only", choices=("bounds", "budgets"), help="One of the two tables.")
    parser.add_argument("--start", choices=list(STARTS), default="drawn", help="Initial weights of the first table.")
    parser.add_argument("--networks", nargs="*", choices=BOUNDED, default=BOUNDED, help="Rows of the first table.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    jobs = {
        "bounds": (f"bounds {options.start}", HEAD, [(bounds, (name, options.start)) for name in options.networks]),
        "budgets": ("budgets", HEAD_BUDGETS, [(budgets, case) for case in BUDGETS]),
    }
    for part, (name, head, calls) in jobs.items():
        if options.only in (None, part):
            rows = []
            for call, arguments in calls:
                rows.append(call(*arguments))
                print("  ".join(rows[-1]), flush=True)
            print(plain(head, rows))
            if options.write:
                write(PAGE, name, markdown(head, rows))


if __name__ == "__main__":
    main()
