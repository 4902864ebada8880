"""Accuracy at equal parameters and at equal time, compared with a ResNet and an MLP from torch's layers.

Our network and its settings are the data set's recipe. The others train with the same loss, batches, held-out part and
schedule, by AdamW, and choose among three rates by the validation loss, each with the whole budget. With equal
parameters they have the width with the nearest number of parameters, and our epochs. In equal time they have 64
features and as many epochs as fit into the seconds of our training just before, in the same process. Ours uses a
native kernel there; a last row trains the same network layer by layer, in plain torch, for as many seconds.
"""

from __future__ import annotations

__all__ = ["EXPERIMENT", "Config", "cases", "render", "run"]

import contextlib
import functools
import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

from torch import nn

from liouville.data import Split
from liouville.experiments.beyond.baselines import mlp, nearest_width, parameters, resnet
from liouville.experiments.comparing import spread
from liouville.experiments.experiment import Experiment, Rendering, Table
from liouville.experiments.paired import Paired
from liouville.experiments.records import Record
from liouville.runs import Plan
from liouville.train import DivergenceError, History, Settings, evaluate, fit
from liouville.train.trainable import task_of

DATA = ("swiss-roll", "double-circles", "peaks", "digits")
RATES = {"ResNet": (0.003, 0.01, 0.03), "MLP": (0.01, 0.03, 0.1)}
WIDTH = 64  # width in equal time
OURS = "ours"
NETWORKS = {"ResNet": functools.partial(resnet, depth=4), "MLP": functools.partial(mlp, depth=3)}
ROWS = (
    OURS,
    *(f"{name}, equal parameters" for name in NETWORKS),
    *(f"{name}, equal time" for name in NETWORKS),
    "ours in plain torch, equal time",
)
Build = Callable[[], nn.Module]


@dataclass(frozen=True)
class Config:
    """All networks on one data set.

    Args:
        data: a name of `DATA`.
        epochs: epochs of our network; 0 takes the recipe's number.
        seed: seed of the data, of initial weights and of training.
    """

    data: str
    epochs: int
    seed: int


class Row(TypedDict):
    """One network of a case."""

    accuracy: float
    parameters: int
    epochs: int
    seconds: float


class Values(TypedDict):
    """The recorded values of a case."""

    rows: dict[str, Row]


def cases(seeds: int, quick: bool) -> list[Config]:
    """Every data set."""
    if quick:
        return [Config(data, 2, 0) for data in ("swiss-roll", "digits")]
    return [Config(data, 0, seed) for data in DATA for seed in range(seeds)]


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Train all networks on one data set, each within its budget."""
    plan = Plan.of(config.data).changed(
        epochs=config.epochs or None, seed=config.seed, data_options={"seed": config.seed}
    )
    split, settings = plan.load(), plan.fit_settings()
    assert isinstance(settings, Settings)
    ours = plan.network(split.facts())
    history = fit(ours, split, settings)
    number, seconds = parameters(ours), history.metrics["seconds"]
    found = {OURS: _row(history.metrics["test_accuracy"], ours, history)}
    outputs = 1 if split.classes == 2 else split.classes
    theirs = replace(settings, optimizer="adamw", weight_decay=0.01, beta2=0.999, penalty=type(settings.penalty)())
    for name, kind in NETWORKS.items():
        of_width = functools.partial(kind, split.x_train.shape[1], outputs, seed=config.seed)
        width = nearest_width(of_width, number)
        rates = RATES[name]
        found[f"{name}, equal parameters"] = _best(functools.partial(of_width, width), split, theirs, rates)
        in_time = _in_time(functools.partial(of_width, WIDTH), split, theirs, seconds)
        found[f"{name}, equal time"] = _best(functools.partial(of_width, WIDTH), split, in_time, rates)
    plain = functools.partial(plan.changed(engine="stored").network, split.facts())
    found[ROWS[-1]] = _best(plain, split, _in_time(plain, split, settings, seconds), (settings.lr,))
    return {"rows": found}


def _best(build: Build, split: Split, settings: Settings, rates: Sequence[float]) -> dict[str, Any]:
    """The rate with the least validation loss, tested."""
    found: list[tuple[float, nn.Module, History]] = []
    for lr in rates:
        network = build()
        with contextlib.suppress(DivergenceError):
            history = fit(network, split, replace(settings, lr=lr), test=False)
            found.append((history.metrics["validation_loss"], network, history))
    if not found:
        raise DivergenceError("training diverged with every rate.")
    _, network, history = min(found, key=lambda one: one[0])
    accuracy = evaluate(network, split.x_test, split.y_test, task_of(network, split))["accuracy"]
    return _row(accuracy, network, history)


def _in_time(build: Build, split: Split, settings: Settings, seconds: float) -> Settings:
    """The settings with as many epochs as fit into the seconds, by the time of the second of two epochs."""
    epoch = fit(build(), split, replace(settings, epochs=2), test=False).epochs[-1]
    return replace(settings, epochs=max(1, round(seconds / epoch.seconds)))


def _row(accuracy: float, network: nn.Module, history: History) -> dict[str, Any]:
    return {
        "accuracy": accuracy,
        "parameters": parameters(network),
        "epochs": len(history.epochs),
        "seconds": round(history.metrics["seconds"], 3),
    }


def render(records: Sequence[Record], folder: Path) -> Rendering:
    """Accuracy, cost, and the data sets where ours is behind."""
    found = {data: [r for r in records if r.case.data == data and not r.diverged] for data in DATA}
    found = {data: group for data, group in found.items() if group}
    if not found:
        return Rendering()
    head = ("network", *found)
    accuracy = [(row, *(spread(_percents(group, row)) for group in found.values())) for row in ROWS]
    cost = [(row, *(_cost(group, row) for group in found.values())) for row in ROWS]
    tables = [
        Table("Test accuracy in percent", head, accuracy),
        Table(
            "Parameters, epochs, seconds of one training (medians)", head, cost, "On one thread, next to other runs."
        ),
    ]
    return Rendering(_text(found), tables)


def _text(found: dict[str, list[Record]]) -> str:
    """Where the median of ours is lower, and the verdict from pairs of all data sets."""
    sentences = []
    for budget in ("equal parameters", "equal time"):
        rivals = [row for row in ROWS if budget in row and row.split(",")[0] in NETWORKS]
        lower = []
        for data, group in found.items():
            middle = {row: statistics.median(_percents(group, row)) for row in rivals}
            rival = max(rivals, key=lambda row: middle[row])
            short = middle[rival] - statistics.median(_percents(group, OURS))
            if round(short, 2) > 0:
                lower.append(f"{data} (by {short:.2f} points, {rival.split(',')[0]})")
        told = "; ".join(f"{row.split(',')[0]}: {_paired(found, row)}" for row in rivals)
        sentences.append(
            f"With {budget} the median of ours is lower than the better of the two others' on "
            f"{', '.join(lower) or 'none'} of {len(found)} data sets; all data sets pooled, ours against {told}."
        )
    times = [_median(group, OURS, "epochs") / _median(group, ROWS[-1], "epochs") for group in found.values()]
    sentences.append(
        f"In the same time the native kernel makes {min(times):.0f} to {max(times):.0f} times as many epochs as the "
        "same network in plain torch."
    )
    return " ".join(sentences)


def _paired(found: dict[str, list[Record]], row: str) -> Paired:
    """Ours against a row, seed by seed on every data set."""
    both = (zip(_percents(group, OURS), _percents(group, row), strict=True) for group in found.values())
    return Paired.of(itertools.chain(*both))


def _percents(group: Sequence[Record], row: str) -> list[float]:
    return [100 * r.values["rows"][row]["accuracy"] for r in group]


def _median(group: Sequence[Record], row: str, key: str) -> float:
    return statistics.median(r.values["rows"][row][key] for r in group)


def _cost(group: Sequence[Record], row: str) -> str:
    number, epochs, seconds = (_median(group, row, key) for key in ("parameters", "epochs", "seconds"))
    return f"{number:.0f}, {epochs:.0f}, {seconds:.2f}"


EXPERIMENT = Experiment(
    name="equal-budget",
    title="Equal parameters, equal time",
    source="beyond the papers",
    case=Config,
    cases=cases,
    run=run,
    render=render,
    values=Values,
    cost=lambda case: 25.0 * (case.epochs / 60 if case.epochs else 1),
)
