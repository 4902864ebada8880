"""The runs of P3's Table 1: test accuracy on the Swiss roll and the double moons, by network and depth.

The papers' procedure has four features, i.i.d. N(0, 1) weights, the papers' alternation and the script's Adam, with
both published positions of the inputs. Others are this library's settings, and for H1 the papers' settings with plain
Adam. The paper does not state the final time T of the table, so every network and depth is run with several. The shown
T has the highest median accuracy on a held-out tenth of the training part. In this library's settings T is a unit.
"""

from __future__ import annotations

__all__ = ["COLUMNS", "PAPERS", "PROCEDURES", "PUBLISHED", "Config", "Values", "cases", "plan_of", "run"]

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

import torch

from liouville.runs import Plan
from liouville.train import Settings, evaluate, fit
from liouville.train.trainable import task_of


@dataclass(frozen=True)
class Column:
    """A column of the table: our model, its options, positions of the paper's [x1, x2, 0, 0] in our state, and T."""

    model: str
    options: Mapping[str, str] = field(default_factory=dict)
    front: str = "front"
    times: tuple[float, ...] = (0.8, 2.0)  # for H1: P3's Fig. 1, the authors' README


@dataclass(frozen=True)
class Procedure:
    """A training procedure: a preset of the recipes, the positions of the inputs (None: the default), and values of T.

    ``epochs`` 0 and ``schedule`` None take the preset's values; ``shallow`` leaves out networks with more layers than
    `SHALLOW`.
    """

    title: str
    preset: str
    lift: str | None
    times: tuple[float, ...] | None = None  # None: T of the column
    columns: tuple[str, ...] = ("MS1", "MS2", "MS3", "H1", "H2 (J full)", "h2")
    epochs: int = 0
    schedule: str | None = None
    shallow: bool = False

    @property
    def any_time(self) -> bool:
        """Whether T does not count."""
        return self.times == _ANY


_SLOWER = (2.0, 4.0)  # no T is published for the older networks
_ANY = (4.0,)  # T of this library's settings, which scale the start and the rate to it
DEPTHS = {"swiss-roll": (4, 8, 16, 32, 64), "double-moons": (1, 2, 4)}
# The state of MS1 is [y; z] in the paper and (z, y) here.
COLUMNS = {
    "MS1": Column("ms1", front="q", times=_SLOWER),
    "MS2": Column("ms2", times=_SLOWER),
    "MS3": Column("ms3", times=_SLOWER),
    "H1": Column("h1"),
    "H2 (J full)": Column("h1", {"J": "full"}),
    "h2": Column("h2"),
}
# Test accuracy in percent; P3, Table 1. Its H2 is forward Euler with the full J; the symplectic h2 is not in it.
PUBLISHED: dict[tuple[str, int], tuple[float | None, ...]] = {
    ("swiss-roll", 4): (77.1, 79.7, 90.1, 93.6, 98.9, None),
    ("swiss-roll", 8): (91.5, 90.7, 87.0, 99.0, 99.4, None),
    ("swiss-roll", 16): (97.7, 99.7, 97.1, 99.8, 99.8, None),
    ("swiss-roll", 32): (100, 100, 98.4, 99.8, 99.2, None),
    ("swiss-roll", 64): (100, 100, 100, 99.8, 100, None),
    ("double-moons", 1): (92.5, 91.3, 97.6, 100, 99.9, None),
    ("double-moons", 2): (98.2, 94.9, 99.8, 100, 100, None),
    ("double-moons", 4): (99.5, 100, 100, 100, 100, None),
}
LONGER = 1500
PROCEDURES = {
    "front": Procedure("the papers' procedure, inputs [x1, x2, 0, 0] as in the paper", "hdnn-script", "front"),
    "ends": Procedure("the papers' procedure, inputs [x1, 0, 0, x2] as in the script", "hdnn-script", "ends"),
    "ours": Procedure("this library's settings", "default", None, _ANY),
    "longer": Procedure(
        f"this library's settings, {LONGER:,} epochs", "default", None, _ANY, epochs=LONGER, shallow=True
    ),
    "adam": Procedure(
        "as ends, but Adam counts its steps", "hdnn-script", "ends", (2.0,), ("H1",), schedule="constant"
    ),
}
PAPERS = ("front", "ends")  # the papers' own procedure, with both published positions of the inputs
SHALLOW = {"swiss-roll": 8, "double-moons": 1}
HELD_OUT = 0.1


@dataclass(frozen=True)
class Config:
    """One training run.

    Args:
        data: ``"swiss-roll"`` or ``"double-moons"``, the authors' 4,000 training and 4,000 test points.
        column: a name of `COLUMNS`.
        layers: N.
        procedure: a name of `PROCEDURES`.
        T: final time.
        epochs: passes over the training points; 0 takes the preset's number.
        seed: seed of the data, the initial weights and the training.
    """

    data: str
    column: str
    layers: int
    procedure: str
    T: float
    epochs: int
    seed: int


class Values(TypedDict):
    """The recorded values of a case."""

    accuracy: float
    validation: float
    training: float


def cases(seeds: int, quick: bool) -> list[Config]:
    """Every network and depth under every procedure at its final times, once for each seed."""
    if quick:
        return [
            Config("double-moons", column, 2, name, 2.0, 2, 0) for name, p in PROCEDURES.items() for column in p.columns
        ]
    return [
        Config(data, column, layers, name, T, procedure.epochs, seed)
        for data, depths in DEPTHS.items()
        for layers in depths
        for name, procedure in PROCEDURES.items()
        for column in procedure.columns
        for T in procedure.times or COLUMNS[column].times
        if layers <= SHALLOW[data] or not procedure.shallow
        for seed in range(seeds)
    ]


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Train, and measure the accuracy on the test, the held-out and the training points."""
    plan = plan_of(config)
    split = plan.load()
    held = split.holdout(HELD_OUT, torch.Generator().manual_seed(config.seed))
    network, settings = plan.network(split.facts()), plan.fit_settings()
    if not isinstance(settings, Settings):
        raise TypeError(f"the procedures train by gradients, got {type(settings).__name__}.")
    metrics = fit(network, replace(split, x_train=held.x_train, y_train=held.y_train), settings).metrics
    metrics |= evaluate(network, held.x_validation, held.y_validation, task_of(network, split), "held_")
    return {
        "accuracy": round(metrics["test_accuracy"], 5),
        "validation": round(metrics["held_accuracy"], 5),
        "training": round(metrics["train_accuracy"], 5),
    }


def plan_of(config: Config) -> Plan:
    """The training run as in `liouville train`."""
    column, procedure = COLUMNS[config.column], PROCEDURES[config.procedure]
    data = {"noise": 0.0, "test": "interleaved"} if config.data == "swiss-roll" else {}
    return Plan.of(config.data, procedure.preset).changed(
        model=column.model,
        layers=config.layers,
        T=config.T,
        lift=column.front if procedure.lift == "front" else procedure.lift,
        epochs=config.epochs or None,
        schedule=procedure.schedule,
        seed=config.seed,
        data_options=data | {"seed": config.seed},
        **column.options,
    )
