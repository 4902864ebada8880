"""P1, Sec. 6.2: the Swiss roll with 16 to 1024 layers, T = 20, by Gauss-Newton with variable projection.

There are 513 points for training, the 513 between them for validation, which chooses the iteration as in the paper, and
513 new points for the test. Weights of the regularisers, starts and safeguards are from the first paper's code, except
the antisymmetric network's alpha, 5e-5 instead of 5e-4. Three kinds of runs: from the start at one depth; a cascade of
depths, each from the weights of the previous one; and the paper's stochastic block coordinate descent.
"""

from __future__ import annotations

__all__ = ["EXPERIMENT", "SETTINGS", "Config", "cases", "render", "run"]

import functools
import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from liouville import data
from liouville.checkpoint import save
from liouville.data import Split
from liouville.experiments.comparing import NOT_AVAILABLE, spread
from liouville.experiments.experiment import Experiment, Rendering, Table
from liouville.experiments.p1.firstpaper import (
    Values,
    build,
    by_level,
    convergence,
    levels_table,
    pictures,
    reached,
    trained,
)
from liouville.experiments.records import Record
from liouville.train import GaussNewton, Penalty, Task

T = 20.0
# The settings of the first paper's code; its alpha of the antisymmetric network is 5e-4.
SETTINGS = {
    "Verlet": GaussNewton(safeguard="trust-region", penalty=Penalty(smoothness=5e-3, head_decay=1e-4)),
    "antisymmetric": GaussNewton(penalty=Penalty(smoothness=5e-5, head_decay=1e-3)),
    "ResNet": GaussNewton(penalty=Penalty(smoothness=5e-3, head_decay=1e-3)),
}
STARTS = {"code": "", "random": ", random start"}
BATCH = 128
PATIENCE = 25  # iterations; the antisymmetric network leaves its saddle point late


@dataclass(frozen=True)
class Config:
    """One training run.

    Args:
        kind: ``"alone"``: one depth from the start; ``"cascade"``; ``"blocks"``: the block coordinate descent.
        network: a name of `SETTINGS`.
        start: a name of `STARTS`.
        layers: layers of the first level.
        levels: number of depths, each twice the last.
        iterations: maximum number of iterations of a level.
        seed: seed of the head's initial weights, which matter only by rounding under elimination, of random starts, of
            batches, and of the test points.
    """

    kind: str
    network: str
    start: str
    layers: int
    levels: int
    iterations: int
    seed: int


def cases(seeds: int, quick: bool) -> list[Config]:
    """Every network at two single depths, as a cascade through all depths, and Verlet by blocks."""
    kinds = [("Verlet", "code"), ("antisymmetric", "code"), ("ResNet", "code"), ("ResNet", "random")]
    if quick:
        small = [Config("alone", network, start, 64, 1, 2, 0) for network, start in kinds]
        return [
            *small,
            Config("cascade", "Verlet", "code", 16, 3, 2, 0),
            Config("blocks", "Verlet", "code", 16, 1, 4, 0),
        ]
    return [
        *(Config("alone", *kind, N, 1, 60, seed) for kind in kinds for N in (16, 64) for seed in range(seeds)),
        *(Config("cascade", *kind, 16, 7, 100, seed) for kind in kinds for seed in range(seeds)),
        *(Config("blocks", "Verlet", "code", 16, 1, 200, seed) for seed in range(seeds)),
    ]


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Train by the kind of the case; models of seed 0 are saved for the figures."""
    split, validation = load(config.seed)
    network = build(config.network, config.start, 4, config.layers, T, split.classes, config.seed)
    settings = replace(
        SETTINGS[config.network],
        iterations=config.iterations,
        target_score=1.0,
        patience=PATIENCE if config.kind == "cascade" else None,
        seed=config.seed,
    )
    if config.kind == "blocks":
        settings = replace(settings, head="alternating", batch_size=BATCH, curvature=0.5)
    values = trained(network, split, validation, settings, config.levels)
    if config.kind == "alone" and config.layers == 64 and config.seed == 0:
        values["model"] = save(network, folder / f"{config.network}-{config.start}.safetensors").name
    return values


def load(seed: int) -> tuple[Split, tuple[Tensor, Tensor]]:
    """Training points with new test points, and the points between the training points."""
    made = functools.partial(data.load, "swiss-roll", version="meganet", noise=0.0, dtype=torch.float64, seed=seed)
    between = made(test="interleaved")
    return made(test="fresh"), (between.x_test, between.y_test)


def render(records: Sequence[Record], folder: Path) -> Rendering:
    """Accuracy at one depth, by level of the cascade, and by blocks; the figures of the paper's kind."""
    alone, cascade, blocks = ([r for r in records if r.case.kind == kind] for kind in ("alone", "cascade", "blocks"))
    split, (x, y) = load(0)
    deep = _groups([r for r in alone if r.case.layers == 64])
    drawn = pictures(deep, folder, x, y, Task("logistic", 2), "64 layers on the Swiss roll", split.label_names)
    drawn |= convergence(_groups(cascade), "Cascade on the Swiss roll, T = 20")
    levels = levels_table(
        "Validation accuracy in percent by level of the cascade, every weight repeated at a doubling",
        _groups(cascade),
        f"A level ends once all validation points are right, or after {PATIENCE} iterations without improvement, "
        "or 100 in all.",
    )
    text = "\n\n".join(part for part in (_said_alone(alone), _said_cascade(cascade)) if part)
    tables = [_alone(alone)] * bool(alone) + [levels] * bool(cascade) + [_blocks(blocks, alone)] * bool(blocks)
    return Rendering(text, tables, drawn)


def _groups(records: Sequence[Record]) -> dict[str, list[Record]]:
    """By network and start, in the order of the cases."""
    found: dict[str, list[Record]] = {}
    for name, start in itertools.product(SETTINGS, STARTS):
        mine = [r for r in records if (r.case.network, r.case.start) == (name, start)]
        if mine:
            found[name + STARTS[start]] = mine
    return found


def _alone(records: Sequence[Record]) -> Table:
    head = (
        "network",
        "layers",
        "iterations to 100 %",
        "validation",
        "test",
        "paper",
        "first gradient",
        "layer evaluations",
    )
    rows = []
    for name, mine in _groups(records).items():
        for layers in sorted({r.case.layers for r in mine}):
            runs = [r.values for r in mine if r.case.layers == layers and not r.diverged]
            levels = [level for values in runs for level in values["levels"]]
            counts = sorted((reached(level) for level in levels), key=lambda k: (k is None, k))
            rows.append(
                (
                    name,
                    str(layers),
                    ", ".join("—" if k is None else str(k) for k in counts),
                    spread([100 * values["validation"] for values in runs]),
                    spread([100 * values["accuracy"] for values in runs]),
                    NOT_AVAILABLE,
                    f"{statistics.median(level['gradient'] for level in levels):.1e}" if levels else "—",
                    f"{statistics.median(values['work'] for values in runs):.2g}" if runs else "—",
                )
            )
    note = (
        "At most 60 iterations from the start, one number for each run; a dash: never 100 %. Accuracies in percent. "
        "Starts: K = I (Verlet), W = 0 (antisymmetric), K = -I/100 (ResNet), else smooth random weights."
    )
    return Table("One depth: iterations until every validation point is right", head, rows, note)


def _blocks(records: Sequence[Record], alone: Sequence[Record]) -> Table:
    """Block coordinate descent after the work of variable projection with the same network and seed, and at the end."""
    other = {
        r.case.seed: r.values for r in alone if (r.case.network, r.case.layers) == ("Verlet", 16) and not r.diverged
    }
    pairs = [(r.values, other[r.case.seed]) for r in records if r.case.seed in other and not r.diverged]
    equal = [max([s for w, s in mine["improvements"] if w <= theirs["work"]] or [0.0]) for mine, theirs in pairs]
    mine = [r.values for r in records if not r.diverged]
    rows = [
        _row("variable projection", [100 * v["validation"] for _, v in pairs], [v["work"] for _, v in pairs]),
        _row("block coordinate descent, equal work", [100 * s for s in equal], [v["work"] for _, v in pairs]),
        _row("block coordinate descent, at the end", [100 * v["validation"] for v in mine], [v["work"] for v in mine]),
    ]
    note = (
        f"Verlet, 16 layers. One iteration of the descent draws {BATCH} training points, takes at most four Newton "
        "steps for the head and one Gauss-Newton step for the rest, with products on half of the points."
    )
    return Table(
        "The paper's method and its code's", ("method", "best validation", "paper", "layer evaluations"), rows, note
    )


def _row(name: str, percents: Sequence[float], works: Sequence[int]) -> tuple[str, ...]:
    return name, spread(percents), NOT_AVAILABLE, f"{statistics.median(works):.2g}" if works else "—"


def _said_alone(records: Sequence[Record]) -> str:
    parts = []
    for name, mine in _groups(records).items():
        right = sum(r.values.get("validation") == 1 for r in mine)
        parts.append(f"{name} in {right} of {len(mine)}")
    return f"From its start at one depth, every validation point is right: {'; '.join(parts)} runs." if parts else ""


def _said_cascade(records: Sequence[Record]) -> str:
    parts = []
    for name, mine in _groups(records).items():
        lowest = {N: min(level["best"] for level in found) for N, found in by_level(mine).items()}
        if lowest:
            where = min(lowest, key=lambda N: lowest[N])
            parts.append(f"{name} {100 * lowest[where]:.2f} % ({where} layers)")
    return (
        f"In the cascade the lowest validation accuracy of any level and run is: {'; '.join(parts)}." if parts else ""
    )


def cost(config: Config) -> float:
    """Seconds measured on one core, for 60 iterations at one depth, and for all levels."""
    alone, levels = {"Verlet": (4.0, 15.0), "antisymmetric": (9.0, 90.0), "ResNet": (11.0, 25.0)}[config.network]
    if config.kind == "cascade":
        return (250.0 if config.start == "random" else levels) * config.iterations / 100
    return (alone if config.kind == "alone" else 2.5) * config.iterations / 60


EXPERIMENT = Experiment(
    name="swiss-roll",
    title="The Swiss roll with 16 to 1024 layers, by Gauss-Newton",
    source="1705.03341, Sec. 6.2",
    case=Config,
    cases=cases,
    run=run,
    render=render,
    values=Values,
    cost=cost,
)
