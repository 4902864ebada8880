r"""The two pictures in the README of the Hamiltonian networks: features by depth in 64 layers of H1, T = 2.

Two presets train the network: "hdnn-script" as in the authors' script, "h1-64" with settings of this library. The
pictures show test points in the network of the second, in a basis whose first vector is the normal of the classifier's
plane: classes that are mixed at the input lie on two sides of that plane after the last layer.
"""

from __future__ import annotations

__all__ = ["EXPERIMENT", "PUBLISHED", "Config", "cases", "render", "run"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from liouville.checkpoint import load, save
from liouville.documents import FileName
from liouville.experiments.comparing import beside, percents, spread, verdict
from liouville.experiments.experiment import Experiment, Picture, Rendering, Table
from liouville.experiments.records import Record
from liouville.network import Network
from liouville.report import features_at_depths, features_in_motion
from liouville.runs import Plan
from liouville.train import Settings, fit
from liouville.train.trainable import task_of

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation
    from matplotlib.figure import Figure

PUBLISHED = {"swiss-roll": 100.00, "double-circles": 99.76}
"""Test accuracy in percent in the README of HamiltonianNet, H1 with 64 layers, T = 2."""

NAMES = {"swiss-roll": "Swiss roll", "double-circles": "double circles"}
PAPERS, OURS = "hdnn-script", "h1-64"  # presets
PROCEDURES = {PAPERS: "the script's procedure", OURS: "this library's settings"}
POINTS = 2.0


@dataclass(frozen=True)
class Config:
    """One training run.

    Args:
        data: ``"swiss-roll"`` or ``"double-circles"``.
        preset: a name of `PROCEDURES`.
        epochs: passes over the training part; 0 takes the preset's number.
        seed: seed of the initial weights, of training, and of the circles' noise.
    """

    data: str
    preset: str
    epochs: int
    seed: int


class Values(TypedDict):
    """The recorded values of a case."""

    accuracy: float
    model: NotRequired[FileName]


def cases(seeds: int, quick: bool) -> list[Config]:
    """Both data sets by both procedures."""
    return [
        Config(data, preset, 10 if quick else 0, seed)
        for data in PUBLISHED
        for preset in PROCEDURES
        for seed in range(1 if quick else seeds)
    ]


def plan_of(config: Config) -> Plan:
    """The training run as in `liouville train`, on the authors' points."""
    own = {"seed": config.seed} if config.data == "double-circles" else {}
    return Plan.of(config.data, config.preset).changed(
        layers=64,
        T=2.0,
        epochs=config.epochs or None,
        seed=config.seed,
        data_options={**Plan.of(config.data, OURS).data_options, **own},
    )


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Train; seed 0 of our settings saves its model for the pictures."""
    plan = plan_of(config)
    split = plan.load()
    network, settings = plan.network(split.facts()), plan.fit_settings()
    assert isinstance(settings, Settings)
    metrics = fit(network, split, settings).metrics
    values: dict[str, Any] = {"accuracy": metrics["test_accuracy"]}
    if config.seed == 0 and config.preset == OURS:  # the model in the pictures
        name = f"{config.data}-{config.epochs or settings.epochs}.safetensors"
        save(network, folder / name)
        values["model"] = name
    return values


def render(records: Sequence[Record], folder: Path) -> Rendering:
    """Accuracies compared with the README's two, stills and animations."""
    rows, verdicts = [], []
    for data, published in PUBLISHED.items():
        found: list[str | None] = []
        for preset, name in PROCEDURES.items():
            values = percents(_mine(records, data, preset), "accuracy")
            found.append(verdict(values, published, POINTS) if values else None)
            if values:
                row = (NAMES[data], name, str(len(values)), spread(values), f"{published:.2f}")
                rows.append((*row, beside(values, published, POINTS, digits=2)))
        verdicts += [(found[0], found[1])] if any(found) else []
    if not rows:
        return Rendering()
    head = ("data", "trained by", "runs", "test accuracy, here", "the authors' README", "")
    note = (
        f"In percent; the tolerance is {POINTS:g} points. The script's procedure takes the weights of the last epoch, "
        "this library's settings the weights of the best epoch on a validation part."
    )
    tables = [Table("H1, 64 layers, T = 2", head, rows, note)]
    return Rendering(_text(records), tables, _pictures(records, folder), verdicts)


def _mine(records: Sequence[Record], data: str, preset: str) -> list[Record]:
    return [r for r in records if (r.case.data, r.case.preset) == (data, preset)]


def _text(records: Sequence[Record]) -> str:
    said = []
    for preset, name in PROCEDURES.items():
        reached = []
        for data, published in PUBLISHED.items():
            values = percents(_mine(records, data, preset), "accuracy")
            least = sum(v >= published - 0.005 for v in values)  # two decimals are printed
            if values:
                reached.append(f"on the {NAMES[data]} in {least} of {len(values)} runs ({published:.2f} %)")
        if reached:
            said.append(f"With {name} the published number is reached {', '.join(reached)}.")
    return (
        f"{' '.join(said)} The animations show 400 test points in one basis for all layers, the normal of "
        "the classifier's plane first: the layers carry the classes to its two sides."
    )


def _pictures(records: Sequence[Record], folder: Path) -> Mapping[str, Picture]:
    pictures = {}
    for data, name in NAMES.items():
        shown = next((r for r in records if r.case.data == data and "model" in r.values), None)
        if shown is None or not (folder / shown.values["model"]).exists():
            continue
        still = f"{name}: test points after some layers; horizontal axis: the normal of the classifier's plane."
        moving = f"{name}: the same test points, layer by layer, in one basis."
        pictures[f"{data}-features"] = Picture(still, _still(shown, folder))
        pictures[f"{data}-motion"] = Picture(moving, _moving(shown, folder))
    return pictures


def _still(record: Record, folder: Path) -> Callable[[], Figure]:
    def draw() -> Figure:
        network, split = _trained(record, folder)
        return features_at_depths(network, split.x_test, split.y_test, task_of(network, split), split.label_names)

    return draw


def _moving(record: Record, folder: Path) -> Callable[[], FuncAnimation]:
    def draw() -> FuncAnimation:
        network, split = _trained(record, folder)
        task, names = task_of(network, split), split.label_names
        title = f"{NAMES[record.case.data][0].upper()}{NAMES[record.case.data][1:]}, "
        return features_in_motion(network, split.x_test, split.y_test, task, names, title=title)

    return draw


def _trained(record: Record, folder: Path) -> tuple[Network, Any]:
    network = load(folder / record.values["model"])
    assert isinstance(network, Network)
    return network.eval(), plan_of(record.case).load()


EXPERIMENT = Experiment(
    name="propagation",
    title="Features through 64 layers",
    source="the README of HamiltonianNet, the code of 2105.13205",
    case=Config,
    cases=cases,
    run=run,
    render=render,
    values=Values,
    cost=lambda case: (4.0 if case.data == "swiss-roll" else 5.0) if not case.epochs else 0.5,
)
