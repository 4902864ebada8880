"""Does `liouville train --model M --layers N --T T --features n` learn the planar data whatever M, N, T and n are?

A cell is one training by the recipe of its data with no other option. T changes no bit where it is a power of 4, which
``--times`` shows on some cells, so every cell has one T. Cells run from cheap to dear until the time is over, or only
--count of them, drawn with --pick; records are kept, and finished cells are not run again. A kind of cell counts by the
median of its seeds. With --page the table goes there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from liouville import runs
from liouville.runs.cautions import cautions
from liouville.zoo import MODELS
from tables import markdown, write

GOALS = {"swiss-roll": 0.99, "double-circles": 0.99, "peaks": 0.975}
DEPTHS, TIMES, WIDTHS = (16, 64, 256, 1024), (1.0, 4.0, 16.0, 64.0), (4, 8, 16, 32, 64)
STEPS = {"swiss-roll": 840, "double-circles": 1520, "peaks": 1360}
LAYER_BY_LAYER = ("leapfrog", "midpoint")  # which have no kernel
WHOLE = ("h1", "antisymmetric", "ms2", "resnet", *LAYER_BY_LAYER)  # whose K is n x n
HEAD = ["data", "layers", "kinds", "at the goal", "warned of", "median", "below the goal, in percent"]


@dataclass(frozen=True)
class Cell:
    """One training; the seed is that of data, weights and batches."""

    data: str
    model: str
    layers: int
    features: int
    T: float
    seed: int

    @property
    def cost(self) -> float:
        """Seconds of one thread, roughly."""
        width = self.features if self.model in WHOLE else self.features / 2
        layer = 2.5e-6 * max(1.0, width / 2) ** 1.45 + (1e-4 if self.model in LAYER_BY_LAYER else 0)
        return 1.0 + STEPS[self.data] * (4e-4 + self.layers * layer)


def cells(seeds: Sequence[int]) -> list[Cell]:
    """All of them, T in turn, the cheapest first."""
    kinds = itertools.product(GOALS, MODELS, DEPTHS, WIDTHS, seeds)
    made = [Cell(data, model, N, n, TIMES[k % 4], seed) for k, (data, model, N, n, seed) in enumerate(kinds)]
    return sorted(made, key=lambda cell: cell.cost)


def run(cell: Cell) -> dict[str, object]:
    """Train it."""
    plan = _plan(cell.data, cell.layers, cell.model, cell.features, T=cell.T, seed=cell.seed)
    start = time.process_time()
    try:
        metrics = runs.train(plan).metrics
        result = {k: metrics[k] for k in ("train_loss", "validation_loss", "test_accuracy")}
    except runs.Failed as error:
        result = {"test_accuracy": 0.0, "failed": str(error)}
    return asdict(cell) | result | {"seconds": round(time.process_time() - start, 1)}


def _plan(data: str, layers: int, model: str, features: int, T: float = 4.0, seed: int = 0) -> runs.Plan:
    plan = runs.Plan.of(data).changed(data_options={"seed": seed}, seed=seed)
    return plan.changed(model=model, layers=layers, features=features, T=T)


def _warned(kind: tuple) -> bool:
    """Whether something is said before it is trained."""
    plan = _plan(*kind)
    return bool(cautions(plan.network(plan.load().facts())))


def table(records: Sequence[dict], missing: Iterable[Cell]) -> str:
    """By data and depth; what is below its goal by name; what was not run."""
    kinds: dict[tuple, list[dict]] = {}
    for r in records:
        kinds.setdefault((r["data"], r["layers"], r["model"], r["features"]), []).append(r)
    rows = []
    for data, N in itertools.product(GOALS, DEPTHS):
        found = {kind: _median(mine) for kind, mine in kinds.items() if kind[:2] == (data, N)}
        if not found:
            continue
        low = sorted((kind for kind in found if found[kind] < 100 * GOALS[data]), key=found.__getitem__)
        warned = [kind for kind in low if _warned(kind)]
        named = [f"{m}, {n} features: {found[data, N, m, n]:.2f} ({len(kinds[data, N, m, n])})" for _, _, m, n in low]
        rows.append(
            [data, str(N), str(len(found)), str(len(found) - len(low)), str(len(warned)),
             f"{statistics.median(found.values()):.1f}", "; ".join(named) or "none"]
        )  # fmt: skip
    left = {(c.data, c.model, c.layers, c.features) for c in missing} - {(d, m, N, n) for d, N, m, n in kinds}
    counts = [f"{count} of {N} layers" for N in DEPTHS if (count := sum(kind[2] == N for kind in left))]
    seeds = ", ".join(map(str, sorted({r["seed"] for r in records})))
    note = f"In brackets: runs. Seeds {seeds}. Kinds not run: {', '.join(counts) or 'none'}."
    return f"{markdown(HEAD, rows)}\n\n{note}"


def _median(records: Sequence[dict]) -> float:
    return statistics.median(100 * r["test_accuracy"] for r in records)


def _kept(record: dict) -> dict:
    return {name: value for name, value in record.items() if name not in ("T", "seconds")}


def same(count: int, pick: int) -> str:
    """Train some cells at every T, and count those whose metrics are equal to the last digit."""
    some = random.Random(pick).sample([c for c in cells([60]) if c.cost < 2], count)
    equal, other = 0, []
    for cell in some:
        found = {json.dumps(_kept(run(replace(cell, T=T)))) for T in TIMES}
        equal += len(found) == 1
        other += [f"{cell}"] * (len(found) > 1)
        print(cell, len(found), flush=True)
    return f"{equal} of {count} cells have equal losses and accuracies, to the last digit, at T = 1, 4, 16 and 64." + (
        f" Not: {'; '.join(other)}." if other else ""
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".jsonl"), help="records; resumed")
    parser.add_argument("--minutes", type=float, default=10.0, help="no cell is begun that would end later")
    parser.add_argument("--seeds", type=int, nargs="*", default=[60])
    parser.add_argument("--low", action="store_true", help="only kinds with a run below the goal so far")
    parser.add_argument("--count", type=int, help="so many of the cells without a record, at random")
    parser.add_argument("--pick", type=int, default=0, help="seed of what --count draws")
    parser.add_argument("--only", nargs="*", default=[], help="of these data, models, depths and widths (n4, n8 ...)")
    parser.add_argument("--times", action="store_true", help="train --count cells at every T instead, and compare")
    parser.add_argument("--page", type=Path, help="write the table between the marks of this page")
    options = parser.parse_args()
    if options.times:
        text = same(options.count or 4, options.pick)
        print(text)
        if options.page:
            write(options.page, "times", text)
        return
    records = [json.loads(line) for line in options.json.read_text().splitlines()] if options.json.exists() else []
    known = {tuple(r[k] for k in Cell.__dataclass_fields__) for r in records}
    left = [cell for cell in cells(options.seeds) if tuple(asdict(cell).values()) not in known]
    low = {
        (r["data"], r["model"], r["layers"], r["features"]) for r in records if r["test_accuracy"] < GOALS[r["data"]]
    }
    chosen = [c for c in left if _fits(c, options.only)]
    if options.low:
        chosen = [c for c in chosen if (c.data, c.model, c.layers, c.features) in low]
    if options.count is not None:
        chosen = random.Random(options.pick).sample(chosen, min(options.count, len(chosen)))
    end = time.time() + 60 * options.minutes
    with options.json.open("a") as file:
        for cell in chosen:
            if time.time() + cell.cost > end:
                continue
            records.append(run(cell))
            left.remove(cell)
            print(*records[-1].values(), f"({cell.cost:.0f})", flush=True)
            file.write(json.dumps(records[-1]) + "\n")
            file.flush()
    text = table(records, left)
    print(text)
    if options.page:
        write(options.page, "depth-grid", text)


def _fits(cell: Cell, only: Sequence[str]) -> bool:
    """Whether each kind of fact that ``only`` names has the cell's."""
    facts = (cell.data, cell.model, str(cell.layers), f"n{cell.features}")
    known = (tuple(GOALS), tuple(MODELS), tuple(map(str, DEPTHS)), tuple(f"n{n}" for n in WIDTHS))
    return all(fact in only or not set(only) & set(names) for fact, names in zip(facts, known, strict=True))


if __name__ == "__main__":
    main()
