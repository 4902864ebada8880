"""Common code of the first paper's planar experiments: its three networks, their starts, and multilevel training.

The starts are from the first paper's code, K = I for Verlet, W = 0 for the antisymmetric network and K = -I/100 for
ResNet, which has one bias per layer; or smooth random weights. Verlet moves p and q; q holds the data, and only q is
classified. Every run uses `train.multilevel` with Gauss-Newton steps.
"""

from __future__ import annotations

__all__ = [
    "NETWORKS",
    "Config",
    "build",
    "by_level",
    "convergence",
    "levels_table",
    "pictures",
    "reached",
    "rendered",
    "through_levels",
    "trained",
]

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor, nn

from liouville.checkpoint import load, save
from liouville.data import Split
from liouville.documents import FileName
from liouville.experiments.comparing import NOT_AVAILABLE, percents, spread
from liouville.experiments.experiment import Picture, Rendering, Table
from liouville.experiments.records import Record, rounded
from liouville.experiments.starts import smooth_as_drawn
from liouville.fields import Smooth
from liouville.kernels import Auto
from liouville.network import Half, Lift, Network
from liouville.randomness import seeded
from liouville.train import GaussNewton, MultilevelHistory, Task, multilevel
from liouville.zoo import MODELS

NETWORKS = {"Verlet": "verlet", "antisymmetric": "antisymmetric", "ResNet": "resnet"}


@dataclass(frozen=True)
class Config:
    """One training run through all levels.

    Args:
        network: a name of `NETWORKS`.
        layers: layers of the first level.
        levels: number of depths, each twice the last.
        iterations: maximum number of iterations of a level.
        points: number of training points; for the ellipses, in each class.
        seed: seed of all points, and of the initial weights.
    """

    network: str
    layers: int
    levels: int
    iterations: int
    points: int
    seed: int


class Level(TypedDict):
    """One depth of a case."""

    layers: int
    arrival: float
    best: float
    iterations: int
    work: int
    gradient: float | None
    stopped: str
    scores: list[float]


class Values(TypedDict):
    """The recorded values of a case."""

    accuracy: float
    validation: float
    work: int
    levels: list[Level]
    left_out: list[str]
    improvements: list[tuple[int, float]]
    model: NotRequired[FileName]


def build(
    name: str,
    start: str,
    features: int,
    layers: int,
    T: float,
    classes: int,
    seed: int,
    *,
    opening: bool = False,
    gamma: float = 1e-4,
) -> Network:
    """A network for points of the plane, in float64.

    Args:
        name: a name of `NETWORKS`.
        start: ``"code"``; ``"near"``, within 0.1 of K = I or 0; or ``"random"``, smooth random weights.
        features: width, for Verlet of p and q together.
        layers, T: layers and final time of the flow.
        classes: number of classes of the data.
        seed: seed of random weights, and of the head's initial weights.
        opening: a learned dense layer with tanh from the plane to the features; else the points lie in the first two.
        gamma: damping of the antisymmetric network.
    """
    generator = torch.Generator().manual_seed(seed)
    mean = 1.0 if name == "Verlet" else 0.0
    inits = {
        "code": Smooth(scale=0.0, mean=mean),
        "near": Smooth(scale=0.1, mean=mean),
        "random": smooth_as_drawn(NETWORKS[name]),
    }
    options: dict[str, Any] = {"init": inits[start], "generator": generator}
    if name == "antisymmetric":
        options |= {"gamma": gamma, "factor": 1.0}
    if name == "ResNet":
        options |= {"scalar_bias": True}
    body = MODELS[NETWORKS[name]](features, layers, T, backprop=Auto(), **options)
    if name == "ResNet" and start == "code":
        with torch.no_grad():
            body.get_parameter("field.K").copy_(-torch.eye(features) / 100)  # equal in every layer
    outputs = 1 if classes == 2 else classes
    with seeded(seed, torch.device("cpu")):
        if opening:
            lift: nn.Module = nn.Sequential(nn.Linear(2, features), nn.Tanh())
            return Network(lift, body, nn.Linear(features, outputs)).double()
        if name == "Verlet":
            head = nn.Sequential(Half("q"), nn.Linear(features // 2, outputs))
            return Network(Lift(features, 2, place="q"), body, head).double()
        return Network(Lift(features, 2, place="front"), body, nn.Linear(features, outputs)).double()


def trained(
    network: Network, split: Split, validation: tuple[Tensor, Tensor], settings: GaussNewton, levels: int = 1
) -> dict[str, Any]:
    """Train on one level or several, with every weight repeated at a doubling, and return the course as JSON.

    ``levels`` has for every depth the validation accuracy at the start, of the best weights, and after every iteration;
    ``improvements`` has pairs of work so far and best validation accuracy so far.
    """
    history = multilevel(network, split, settings, levels=levels, validation=validation)
    return {
        "accuracy": history.metrics["test_accuracy"],
        "validation": history.metrics["validation_accuracy"],
        "work": history.work,
        "levels": list(_levels(history)),
        "left_out": history.skipped,
        "improvements": list(_improvements(history)),
    }


def through_levels(
    config: Config,
    network: Network,
    split: Split,
    validation: tuple[Tensor, Tensor],
    settings: GaussNewton,
    folder: Path,
) -> dict[str, Any]:
    """`trained` through all levels of a case; the model of seed 0 is saved in the folder, for the figures."""
    values = trained(network, split, validation, replace(settings, iterations=config.iterations), config.levels)
    if config.seed == 0:
        values["model"] = save(network, folder / f"{config.network}.safetensors").name
    return values


def _levels(history: MultilevelHistory) -> Iterable[dict[str, Any]]:
    epochs = iter(history.epochs)
    for level in history.levels:
        mine = list(itertools.islice(epochs, level.epochs))
        yield {
            "layers": level.layers[0],
            "arrival": level.start["accuracy"],
            "best": level.end["accuracy"],
            "iterations": level.epochs,
            "work": level.work,
            "gradient": mine[0].gradient_norm if mine else None,
            "stopped": level.stopped,
            "scores": [rounded(e.validation_score or 0.0) for e in mine],
        }


def _improvements(history: MultilevelHistory) -> Iterable[tuple[int, float]]:
    work, best = 0, -1.0
    for epoch in history.epochs:
        work += epoch.work
        if epoch.validation_score is not None and epoch.validation_score > best:
            best = epoch.validation_score
            yield work, rounded(best)


def by_level(records: Iterable[Record]) -> dict[int, list[Mapping[str, Any]]]:
    """The records of every depth, the coarsest first; a run that diverged has none."""
    found: dict[int, list[Mapping[str, Any]]] = {}
    for record in records:
        for level in record.values.get("levels", ()):
            found.setdefault(level["layers"], []).append(level)
    return dict(sorted(found.items()))


def levels_table(title: str, groups: Mapping[str, Sequence[Record]], note: str = "") -> Table:
    """A row for every network and depth: validation accuracy at the start and at the end, iterations, work."""
    columns = ("network", "layers", "on arrival", "validation", "paper", "iterations", "layer evaluations", "runs")
    rows = []
    for name, records in groups.items():
        for layers, found in by_level(records).items():
            rows.append(
                [
                    name,
                    str(layers),
                    spread([100 * level["arrival"] for level in found]),
                    spread([100 * level["best"] for level in found]),
                    NOT_AVAILABLE,
                    spread([level["iterations"] for level in found], 0),
                    f"{statistics.median(level['work'] for level in found):.2g}",
                    _of(len(found), len(records)),
                ]
            )
    return Table(title, columns, rows, note)


def rendered(
    records: Sequence[Record],
    folder: Path,
    points: tuple[Tensor, Tensor],
    task: Task,
    what: str,
    note: str,
    names: Sequence[str] | None = None,
) -> Rendering:
    """Rendering of multilevel cases of each network: a table, the paper's kinds of figures, and test accuracy.

    Args:
        records, folder: as for `Experiment.render`; the cases have a ``network``.
        points: points to show, with their labels.
        task: task of the points.
        what: name of the data in the titles.
        note: note below the table.
        names: one for each class.
    """
    groups = {name: [r for r in records if r.case.network == name] for name in NETWORKS}
    groups = {name: mine for name, mine in groups.items() if mine}
    drawn = pictures(groups, folder, *points, task, what, names) | convergence(groups, f"Level by level, {what}")
    table = levels_table("Validation accuracy in percent by level, every weight repeated at a doubling", groups, note)
    said = "; ".join(f"{name} {spread(percents(mine, 'accuracy'))} %" for name, mine in groups.items())
    text = f"Test accuracy of the finest level, median and range: {said}." if said else ""
    return Rendering(text, [table] * bool(groups), drawn)


def reached(level: Mapping[str, Any]) -> int | None:
    """The iterations until every validation point was right; None if that never happened."""
    return level["iterations"] if level["best"] == 1 else None


def pictures(
    groups: Mapping[str, Sequence[Record]],
    folder: Path,
    x: Tensor,
    y: Tensor,
    task: Task,
    what: str,
    names: Sequence[str] | None = None,
) -> dict[str, Picture]:
    """The paper's kinds of figures for the models in the records: features by depth, and decision regions.

    Args:
        groups: records by the network's name.
        folder: folder of the models.
        x, y, task: points to show.
        what: the networks' depth and data, for the titles.
        names: one for each class.
    """
    files = {
        name: folder / record.values["model"]
        for name, records in groups.items()
        for record in records
        if "model" in record.values and (folder / record.values["model"]).exists()
    }
    if not files:
        return {}

    def features() -> Any:
        from liouville.report.beside import features_beside

        return features_beside({k: load(v) for k, v in files.items()}, x, y, task, f"Features by depth, {what}", names)

    def planes() -> Any:
        from liouville.report.beside import planes_beside

        return planes_beside({k: load(v) for k, v in files.items()}, x, y, task, f"Decision regions, {what}", names)

    return {
        "features": Picture(f"Validation points on their way through the layers, {what}.", features),
        "planes": Picture(f"Decision regions of each network, and its validation accuracy, {what}.", planes),
    }


def convergence(groups: Mapping[str, Sequence[Record]], title: str) -> dict[str, Picture]:
    """Validation accuracy by iteration through the levels, for the first recorded seed of every network."""
    runs = {}
    for name, records in groups.items():
        found = sorted((r for r in records if not r.diverged), key=lambda r: r.case.seed)
        if found:
            runs[name] = [(v["layers"], [v["arrival"], *v["scores"]]) for v in found[0].values["levels"]]
    if not runs:
        return {}

    def draw() -> Any:
        from liouville.report.levels import convergence_by_level

        return convergence_by_level(runs, title)

    return {"levels": Picture(f"{title}: validation accuracy by iteration, one run each; dots: start of level.", draw)}


def _of(found: int, all_: int) -> str:
    return str(found) if found == all_ else f"{found} of {all_}"
