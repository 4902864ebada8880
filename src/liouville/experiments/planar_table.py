"""P3's Table 1: test accuracy on the Swiss roll and the double moons, by network and depth.

Each network is trained as the papers did (`PRESETS["hdnn"]`: alternation, i.i.d. weights, the last epoch), with both
published embeddings of the two inputs into four features, and with this library's own settings.
"""

from __future__ import annotations

__all__ = ["EXPERIMENT", "PUBLISHED", "Config", "cases", "render", "run"]

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liouville.experiments.comparing import NOT_AVAILABLE, met, percents, spread
from liouville.experiments.experiment import Experiment, Rendering, Table
from liouville.experiments.records import Record
from liouville.plan import Plan
from liouville.train import Settings, fit

DEPTHS = {"swiss-roll": (4, 8, 16, 32, 64), "double-moons": (1, 2, 4)}
# The paper's column: our model and its options.
COLUMNS: dict[str, tuple[str, dict[str, str]]] = {
    "MS1": ("ms1", {}),
    "MS2": ("ms2", {}),
    "MS3": ("ms3", {}),
    "H1": ("h1", {}),
    "H2 (J full)": ("h1", {"J": "full"}),
    "h2": ("h2", {}),
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
PROCEDURES = {
    "papers-front": "as in the papers, inputs in the first two features",
    "papers-ends": "as in the papers, inputs in the first and the last feature",
    "ours": "this library's settings",
}
POINTS = 2.0


@dataclass(frozen=True)
class Config:
    """One training run.

    Args:
        data: ``"swiss-roll"`` or ``"double-moons"``.
        column: of `COLUMNS`.
        layers: N.
        procedure: of `PROCEDURES`.
        epochs: passes over the 4,000 training points; 0 leaves the procedure's own.
        seed: of the initial weights, of training and of the data's noise.
    """

    data: str
    column: str
    layers: int
    procedure: str
    epochs: int
    seed: int


def cases(seeds: int, quick: bool) -> list[Config]:
    if quick:
        return [Config("double-moons", column, 2, name, 2, 0) for column in COLUMNS for name in PROCEDURES]
    return [
        Config(data, column, layers, name, 0, seed)
        for data, depths in DEPTHS.items()
        for layers in depths
        for column in COLUMNS
        for name in PROCEDURES
        for seed in range(seeds)
    ]


def run(config: Config, folder: Path) -> dict[str, Any]:
    plan = plan_of(config)
    split = plan.load()
    network = plan.network(split)
    settings = plan.fit_settings()
    assert isinstance(settings, Settings)
    metrics = fit(network, split, settings).metrics
    return {"accuracy": metrics["test_accuracy"], "parameters": sum(p.numel() for p in network.parameters())}


def plan_of(config: Config) -> Plan:
    """The training run as `liouville train` would do it."""
    model, options = COLUMNS[config.column]
    base = Plan.of(config.data, "default" if config.procedure == "ours" else "hdnn")
    lift = None if config.procedure == "ours" else config.procedure.removeprefix("papers-")
    data = {"noise": 0.0, "test": "interleaved"} if config.data == "swiss-roll" else {}
    return base.changed(
        model=model,
        layers=config.layers,
        lift=lift,
        epochs=config.epochs or None,
        seed=config.seed,
        data_options=data | ({"seed": config.seed} if not data else {}),
        **options,
    )


def render(records: Sequence[Record], folder: Path) -> Rendering:
    tables, count, good = [], 0, 0
    for procedure, title in PROCEDURES.items():
        rows = []
        for (data, layers), row in PUBLISHED.items():
            cells = [f"{data}, {layers}"]
            for column, published in zip(COLUMNS, row, strict=True):
                mine = [
                    r
                    for r in records
                    if (r.case.data, r.case.layers, r.case.column, r.case.procedure)
                    == (data, layers, column, procedure)
                ]
                values = percents(mine, "accuracy")
                cells.append(f"{spread(values, 1)} / {NOT_AVAILABLE if published is None else published}")
                if published is not None and values and procedure == "papers-front":
                    count, good = count + 1, good + met(values, published, POINTS)
            rows.append(cells)
        tables.append(Table(f"Test accuracy in percent, ours / paper: {title}", ("data, layers", *COLUMNS), rows))
    return Rendering(tables=tables, cells=(good, count))


EXPERIMENT = Experiment(
    name="planar-table",
    title="Two-dimensional classification by network and depth",
    source="2104.13166, Table 1",
    case=Config,
    cases=cases,
    run=run,
    render=render,
    cost=lambda case: 2.0 + 0.05 * case.layers,
)
