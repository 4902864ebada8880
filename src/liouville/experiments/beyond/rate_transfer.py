"""Does a learning rate carry over to other depths, final times and widths? The loss by the rate, before and after.

Before: weights as drawn, rates of the weights as they are. After: weights scaled for one T x rate, rates in units
(`liouville.units`). Everything else is the same: Swiss roll, batches of 125, one-cycle Adam.
"""

from __future__ import annotations

__all__ = ["EXPERIMENT", "Config", "cases", "render", "run"]

import functools
import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch

from liouville import data
from liouville.experiments.experiment import Experiment, Picture, Rendering, Table
from liouville.experiments.records import Record, rounded
from liouville.experiments.starts import smooth_as_drawn
from liouville.fields import Smooth
from liouville.kernels import Auto
from liouville.report.style import canvas, colours, heading, key
from liouville.train import Penalty, Settings, fit
from liouville.zoo import MODELS, classifier

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NETWORKS = ("h2", "antisymmetric")
BEFORE, AFTER = "as drawn, plain rates", "scaled, rates in units"
SHAPES = ((16, 1.0, 4), (64, 4.0, 4), (1024, 64.0, 4), (64, 4.0, 16))  # N, T, n
RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
EPOCHS, FEW_SEEDS = 15, 2
FRESH = 30  # the first seed
DIVERGED = math.log(2)  # loss of an untrained network of two classes; worse counts as this


@dataclass(frozen=True)
class Config:
    """One training run.

    Args:
        network: of `NETWORKS`.
        start: `BEFORE` or `AFTER`.
        layers, T, features: of `SHAPES`.
        lr: of `RATES`.
        epochs: passes over the 3,600 training points.
        seed: of data, weights and batches, counted from `FRESH`.
    """

    network: str
    start: str
    layers: int
    T: float
    features: int
    lr: float
    epochs: int
    seed: int


class Values(TypedDict):
    """What a case records."""

    train_loss: float
    test_accuracy: float


def cases(seeds: int, quick: bool) -> list[Config]:
    """Every network of every shape at every rate, with both starts; `FEW_SEEDS` seeds at most."""
    if quick:
        return [Config(network, start, 16, 1.0, 4, 0.03, 1, 0) for network in NETWORKS for start in (BEFORE, AFTER)]
    kinds = itertools.product(NETWORKS, (BEFORE, AFTER), SHAPES, RATES, range(min(seeds, FEW_SEEDS)))
    return [Config(network, start, *shape, lr, EPOCHS, seed) for network, start, shape, lr, seed in kinds]


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Train one network and test it once."""
    seed, after = FRESH + config.seed, config.start == AFTER
    split = data.load("swiss-roll", seed=seed)
    init = Smooth() if after else smooth_as_drawn(config.network)
    network = classifier(
        functools.partial(MODELS[config.network], init=init),
        2,
        2,
        config.features,
        config.layers,
        config.T,
        generator=torch.Generator().manual_seed(seed),
        backprop=Auto(),
    )
    settings = Settings(
        epochs=config.epochs,
        lr=config.lr,
        penalty=Penalty(smoothness=1e-5, decay=1e-4),
        seed=seed,
        rates="scaled" if after else "plain",
    )
    metrics = fit(network, split, settings).metrics
    return {name: rounded(metrics[name]) for name in ("train_loss", "test_accuracy")}


def render(records: Sequence[Record], folder: Path) -> Rendering:
    """The best rate of every shape, and what one rate for all of them costs."""
    tables = [table for start in (BEFORE, AFTER) if (table := _table(records, start)).rows]
    pictures = {}
    if records:
        pictures["loss-by-rate"] = Picture(
            "Training loss by the learning rate, before and after: a line for each depth, final time and width.",
            lambda: _draw(records),
        )
    return Rendering(_text(records), tables, pictures)


def _loss(records: Sequence[Record]) -> float | None:
    """The geometric mean over the seeds; of what diverged, an untrained network's."""
    if not records:
        return None
    losses = [DIVERGED if r.diverged else min(DIVERGED, max(r.values["train_loss"], 1e-6)) for r in records]
    return statistics.geometric_mean(losses)


def _line(records: Sequence[Record], network: str, start: str, shape: tuple[int, float, int]) -> dict[float, float]:
    """rate -> loss."""
    mine = [r for r in records if (r.case.network, r.case.start) == (network, start)]
    mine = [r for r in mine if (r.case.layers, r.case.T, r.case.features) == shape]
    found = {lr: _loss([r for r in mine if r.case.lr == lr]) for lr in RATES}
    return {lr: loss for lr, loss in found.items() if loss is not None}


def _table(records: Sequence[Record], start: str) -> Table:
    rows = []
    for network, shape in itertools.product(NETWORKS, SHAPES):
        if line := _line(records, network, start, shape):
            best = min(line, key=line.__getitem__)
            cells = (f"{line[lr]:.2g}" if lr in line else "—" for lr in RATES)
            rows.append((f"{network}, {_named(shape)}", *cells, f"{best:g}"))
    note = "Training loss after 15 epochs, the geometric mean over seeds; 0.69 is an untrained or diverged network's."
    return Table(f"Training loss by the learning rate: {start}", ("network", *map(str, RATES), "best"), rows, note)


def _named(shape: tuple[int, float, int]) -> str:
    N, T, n = shape
    return f"{N} layers, T = {T:g}, {n} features"


def _text(records: Sequence[Record]) -> str:
    """How far the best rates of the shapes of one width lie apart, and what the one rate for all would cost."""
    said = []
    for start in (BEFORE, AFTER):
        lines = {(m, s): _line(records, m, start, s) for m in NETWORKS for s in SHAPES if s[2] == 4}
        whole = [line for line in lines.values() if len(line) == len(RATES)]
        if len(whole) < len(lines) or not whole:
            continue
        worst = {lr: max(line[lr] for line in whole) for lr in RATES}
        best = min(worst, key=worst.__getitem__)
        rates = [min(line, key=line.__getitem__) for line in whole]
        said.append(
            f"{start.capitalize()}: with 4 features the best rates are {min(rates):g} to {max(rates):g}; the one rate "
            f"that is best for the worst of them, {best:g}, leaves a loss of {worst[best]:.2g} there."
        )
    return " ".join(said)


def _draw(records: Sequence[Record]) -> Figure:
    figure = canvas(9, 6)
    panels = figure.subplots(2, len(NETWORKS), sharex=True, sharey=True, squeeze=False)
    for row, start in zip(panels, (BEFORE, AFTER), strict=True):
        for axes, network in zip(row, NETWORKS, strict=True):
            for colour, shape in zip(colours(len(SHAPES)), SHAPES, strict=True):
                line = _line(records, network, start, shape)
                style = "o-" if shape[2] == 4 else "s--"
                axes.plot(list(line), list(line.values()), style, ms=4, color=colour, label=_named(shape))
            axes.set(title=f"{network}: {start}", xscale="log", yscale="log")
            axes.grid(axis="y")
    for axes in panels[-1]:
        axes.set_xlabel("learning rate")
    for row in panels:
        row[0].set_ylabel("training loss")
    seeds = len({r.case.seed for r in records})
    key(figure, f"geometric means, seeds: {seeds}")
    heading(figure, "Swiss roll: does a learning rate carry over?")
    return figure


def _cost(case: Config) -> float:
    return 0.5 + case.epochs * (0.02 + 2e-5 * case.layers * max(1.0, (case.features / 8) ** 2))


EXPERIMENT = Experiment(
    name="rate-transfer",
    title="Learning rates across depths, final times and widths",
    source="beyond the papers",
    case=Config,
    cases=cases,
    run=run,
    render=render,
    values=Values,
    cost=_cost,
)
