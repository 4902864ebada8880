"""What does a doubling cost, and what does multilevel training save at 1024 layers?

Part ``doublings``: validation loss and accuracy right before and right after every doubling, by network, interpolation
and final time. Part ``work``: layer evaluations until 99 % validation accuracy at 1024 layers, from 16 layers on and
from a cold start that begins with the same function of time, at three learning rates each; a run that does not get
there counts with its cap. Every run is a line of --json, and a run that has its line is not repeated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import liouville as lv
from liouville.backprop import DriftWarning
from liouville.train import DivergenceError, Penalty, Settings, fit, multilevel
from tables import markdown, plain, write

TARGET = 0.99
RATES = {"swiss-roll": (0.01, 0.03, 0.1), "peaks": (0.001, 0.002, 0.004)}  # the middle one is multilevel's
SWISS_ROLL = Settings(
    epochs=60,
    batch_size=125,
    lr=0.03,
    schedule="constant",
    validation=0.2,
    target_score=TARGET,
    penalty=Penalty(smoothness=1e-5, decay=1e-4),
)
PEAKS = replace(SWISS_ROLL, batch_size=500, ema_decay=0.98)
NETWORKS = {
    "Verlet": (lv.SeparableHamiltonianField, lv.Verlet),
    "symplectic Euler": (lv.SeparableHamiltonianField, lv.SymplecticEuler),
    "antisymmetric, forward Euler": (lv.AntisymmetricField, lv.ForwardEuler),
}
HOWS = ("constant", "linear", "linear-left")
TIMES = (3.0, 6.0)


@dataclass(frozen=True)
class Case:
    """One run: everything that decides it."""

    part: str
    data: str
    network: str
    T: float
    how: str
    start: int
    levels: int
    lr: float
    seed: int


def cases(parts: Sequence[str], seeds: int) -> Iterator[Case]:
    """All runs, the seeds outermost, so that what is cut short is a table of fewer seeds."""
    for seed in range(seeds):
        if "doublings" in parts:
            for name, how, T in itertools.product(NETWORKS, HOWS, TIMES):
                yield Case("doublings", "swiss-roll", name, T, how, 16, 5, SWISS_ROLL.lr, seed)
        if "work" in parts:
            for data, (start, levels) in itertools.product(("swiss-roll", "peaks"), ((16, 7), (1024, 1))):
                for lr in RATES[data]:
                    yield Case("work", data, "Verlet", 3.0, "constant", start, levels, lr, seed)


def run(case: Case) -> dict[str, Any]:
    """One record: levels with figures before and after, work, and whether the target was reached."""
    options = {"train": 20_000} if case.data == "peaks" else {}
    split = lv.data.load(case.data, seed=case.seed, **options)
    chosen = replace(SWISS_ROLL if case.data == "swiss-roll" else PEAKS, lr=case.lr, seed=case.seed)
    network = build(case, split.classes)
    record: dict[str, Any] = asdict(case)
    try:
        if case.levels > 1:
            history = multilevel(network, split, chosen, levels=case.levels, how=case.how)
            record |= {"levels_run": [asdict(level) for level in history.levels], "skipped": history.skipped}
        else:
            history = fit(network, split, chosen)
    except DivergenceError as error:
        return record | {"reached": False, "work": cap(case, split), "stopped": str(error)}
    score = history.metrics["validation_accuracy"]
    kept = ("train_accuracy", "validation_accuracy", "test_accuracy", "seconds")
    record |= {name: history.metrics[name] for name in kept}
    record["curve"] = [(epoch.work, epoch.validation_score) for epoch in history.epochs]
    return record | {"reached": score >= TARGET, "work": history.work, "stopped": history.stopped}


def cap(case: Case, split: lv.data.Split) -> int:
    """Layer evaluations of all epochs of all levels."""
    chosen = SWISS_ROLL if case.data == "swiss-roll" else PEAKS
    held = round(chosen.validation * len(split.x_train))
    return chosen.epochs * case.start * (2**case.levels - 1) * (2 * len(split.x_train) - held)


def build(case: Case, classes: int) -> lv.Network:
    """The same function of time at every depth: the generator alone decides it."""
    features, outputs = (4, 1) if classes == 2 else (16, classes)  # 2 + 2 and 8 + 8
    field, scheme = NETWORKS[case.network]
    generator = torch.Generator().manual_seed(case.seed)
    flow = lv.Flow(field(features, case.start, generator=generator), scheme(), case.T, lv.Fused())
    head = nn.Linear(features, outputs)
    bound = features**-0.5
    for weight in head.parameters():
        nn.init.uniform_(weight, -bound, bound, generator=generator)
    return lv.Network(lv.Lift(features, 2, place="ends"), flow, head)


def doublings(records: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Accuracy before -> after and the change in points, medians over the seeds; below them the loss."""
    made = [r for r in records if r["part"] == "doublings"]
    pairs = [(2**k, 2 ** (k + 1)) for k in range(4, 8)]
    head = ["network", "weights", "T", *(f"{a} -> {b}" for a, b in pairs), "runs"]
    rows = []
    for name, how, T in itertools.product(NETWORKS, HOWS, TIMES):
        mine = [r for r in made if (r["network"], r["how"], r["T"]) == (name, how, T)]
        if mine:
            rows.append([name, how, f"{T:g}", *(_doubling(mine, b) for _, b in pairs), str(len(mine))])
    return head, rows


def _doubling(records: Sequence[dict[str, Any]], layers: int) -> str:
    found = []
    for r in records:
        for coarse, fine in itertools.pairwise(r.get("levels_run", [])):
            if fine["layers"][0] == layers:
                found.append((coarse["end"], fine["start"]))
    if not found:
        return "-"
    before, after = (
        {key: statistics.median(pair[side][key] for pair in found) for key in ("accuracy", "loss")} for side in (0, 1)
    )
    change = statistics.median(100 * (b["accuracy"] - a["accuracy"]) for a, b in found)
    accuracy = f"{100 * before['accuracy']:.1f} -> {100 * after['accuracy']:.1f} % ({change:+.1f})"
    few = f", {len(found)} of {len(records)} runs" if len(found) < len(records) else ""
    return f"{accuracy}, {before['loss']:.3f} -> {after['loss']:.3f}{few}"


def work(records: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Median work by data, start and rate; the last column is the share of the best cold start, run by run."""
    head = ["data", "start", "rate", "work, median (range)", "reached 99 %", "test accuracy"]
    head += ["work / best cold", "cold at equal work"]
    rows = []
    made = [r for r in records if r["part"] == "work"]
    for data, start in itertools.product(("swiss-roll", "peaks"), (16, 1024)):
        for lr in RATES[data]:
            mine = [r for r in made if (r["data"], r["start"], r["lr"]) == (data, start, lr)]
            if not mine:
                continue
            spent = sorted(r["work"] for r in mine)
            tests = [r["test_accuracy"] for r in mine if "test_accuracy" in r]
            rows.append(
                [
                    data,
                    f"{start} layers, doubled" if start == 16 else "cold, 1024 layers",
                    f"{lr:g}",
                    f"{statistics.median(spent):.3g} ({spent[0]:.2g} to {spent[-1]:.2g})",
                    f"{sum(r['reached'] for r in mine)} of {len(mine)}",
                    f"{100 * statistics.median(tests):.2f} %" if tests else "-",
                    *(_against_cold(mine, made, data) if start == 16 else ("", "")),
                ]
            )
    return head, rows


def _against_cold(mine: Sequence[dict[str, Any]], made: Sequence[dict[str, Any]], data: str) -> tuple[str, str]:
    """Share of the work of the cold start with the best rate for each seed, chosen by hindsight; and the best
    validation accuracy of a cold start of the same seed behind the epoch in which it had done as much work."""
    shares, scores = [], []
    for r in mine:
        cold = [c for c in made if (c["data"], c["start"], c["seed"]) == (data, 1024, r["seed"])]
        if cold:
            shares.append(r["work"] / min(c["work"] for c in cold))
            curves = [c["curve"] for c in cold if "curve" in c]  # a run that diverged has none
            scores += [max(_score_at(curve, r["work"]) for curve in curves)] if curves else []
    if not shares:
        return "-", "-"
    share = f"{statistics.median(shares):.3f} ({min(shares):.2g} to {max(shares):.2g})"
    return share, f"{100 * statistics.median(scores):.1f} %" if scores else "-"


def _score_at(curve: Sequence[tuple[int, float]], work: int) -> float:
    total = itertools.accumulate(spent for spent, _ in curve)
    behind = [score for before, (_, score) in zip(total, curve, strict=True) if before >= work]
    return behind[0] if behind else max((score for _, score in curve), default=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=("doublings", "work"), help="one part only; both by default")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=Path("multilevel.jsonl"), help="a record per line; resumed")
    parser.add_argument("--page", type=Path, help="write the tables between the marks of this page")
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", DriftWarning)
    lines = arguments.json.read_text().splitlines() if arguments.json.exists() else []
    records = [json.loads(line) for line in lines]
    parts = arguments.part or ["doublings", "work"]
    done = {json.dumps({key: r[key] for key in Case.__dataclass_fields__}) for r in records}
    with arguments.json.open("a") as file:
        for case in cases(parts, arguments.seeds):
            if json.dumps(asdict(case)) not in done:
                records.append(run(case))
                file.write(json.dumps(records[-1]) + "\n")
                file.flush()
    for part, table in (("doublings", doublings), ("work", work)):
        if part in parts:
            print(plain(*table(records)))
            if arguments.page:
                write(arguments.page, part, markdown(*table(records)))


if __name__ == "__main__":
    main()
