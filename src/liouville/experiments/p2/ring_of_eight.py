"""P2's distributed example: how deep must a network on a ring of eight agents be, compared with a full one?

There are 8 nodes in a ring and 16 features; node i owns p[i] and q[i]. The inputs are p[1] and q[5], counted from 1, on
opposite sides. K is sparse (self and two neighbours: 24 of 64 entries) or full; T = layers / 2. Training uses the
masked central network, which computes the same as the distributed one.
"""

from __future__ import annotations

__all__ = ["EXPERIMENT", "Config", "cases", "network", "render", "run"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import torch
from torch import nn

from liouville import data, zoo
from liouville.checkpoint import load, save
from liouville.documents import FileName
from liouville.experiments.comparing import NOT_AVAILABLE, percents, spread
from liouville.experiments.experiment import Experiment, Picture, Rendering, Table
from liouville.experiments.p2.ring_figures import accuracy_by_depth, features_by_node
from liouville.experiments.records import Record
from liouville.network import Lift, Network
from liouville.operators import Dense, Graph
from liouville.randomness import seeded
from liouville.train import Settings, fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RING = tuple((i, (i + 1) % 8) for i in range(8))
PLACES = (0, 12)  # p[1] and q[5], counted from 0
DEPTHS = (1, 2, 4, 8)
DATA = {"swiss-roll": "Swiss roll", "double-circles": "double circles"}
GRAPHS = ("ring", "full")
EPOCHS = 40
SHOWN = 4  # depth of the networks with drawn features


@dataclass(frozen=True)
class Config:
    """One training run.

    Args:
        data: ``"swiss-roll"`` or ``"double-circles"``.
        graph: ``"ring"``, or ``"full"`` for K without zeros.
        layers: N.
        epochs: passes over the training part.
        seed: seed of the initial weights and of training.
    """

    data: str
    graph: str
    layers: int
    epochs: int
    seed: int


class Values(TypedDict):
    """The recorded values of a case."""

    accuracy: float
    model: NotRequired[FileName]


def cases(seeds: int, quick: bool) -> list[Config]:
    """Both data sets, with the ring and the full graph, at four depths."""
    if quick:
        return [Config(name, graph, SHOWN, 2, 0) for name in DATA for graph in GRAPHS]
    kinds = [(name, graph, layers) for name in DATA for graph in GRAPHS for layers in DEPTHS]
    return [Config(*kind, EPOCHS, seed) for kind in kinds for seed in range(seeds)]


def network(config: Config) -> Network:
    """The network with its initial weights."""
    operator = Graph(RING) if config.graph == "ring" else Dense()
    with seeded(config.seed, torch.device("cpu")):
        flow = zoo.h2(16, config.layers, 0.5 * config.layers, operator=operator)
        return Network(Lift(16, 2, place=PLACES), flow, nn.Linear(16, 1))


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Train; one run of the ring saves its model for the pictures."""
    made = network(config)
    metrics = fit(made, data.load(config.data), Settings(epochs=config.epochs, seed=config.seed)).metrics
    values: dict[str, Any] = {"accuracy": metrics["test_accuracy"]}
    if config.graph == "ring" and config.seed == 0 and config.layers == SHOWN:
        values["model"] = f"{config.data}-{config.layers}-{config.epochs}.safetensors"
        save(made, folder / values["model"])
    return values


def render(records: Sequence[Record], folder: Path) -> Rendering:
    """Accuracy by depth and graph, and the features of the nodes."""
    depths = sorted({r.case.layers for r in records})
    if not depths:
        return Rendering()
    head = ("layers", *(f"{name}, {graph}" for name in DATA.values() for graph in GRAPHS))
    rows = [
        (str(N), *(f"{spread(_accuracies(records, name, graph, N))}" for name in DATA for graph in GRAPHS))
        for N in depths
    ]
    note = (
        "In percent. Weights of the best epoch on a validation part. The paper's own figures for this example are "
        f"{NOT_AVAILABLE}."
    )
    table = Table("Test accuracy of eight nodes, by depth", head, rows, note)
    title = "Communication graph, and test accuracy by depth: median and range over seeds."
    pictures = {"accuracy": Picture(title, lambda: accuracy_by_depth(records, RING, DATA))}
    for name in DATA:
        shown = _shown(records, name, folder)
        if shown is not None:
            caption = f"{DATA[name]}: p and q of every node after {shown.case.layers} layers on the ring, test points."
            pictures[f"{name}-features"] = Picture(caption, _features(shown, folder))
    return Rendering(_text(records, depths), [table], pictures)


def _accuracies(records: Sequence[Record], name: str, graph: str, layers: int) -> list[float]:
    wanted = (name, graph, layers)
    return percents([r for r in records if (r.case.data, r.case.graph, r.case.layers) == wanted], "accuracy")


def _text(records: Sequence[Record], depths: Sequence[int]) -> str:
    said = []
    for name, title in DATA.items():
        runs = {N: _accuracies(records, name, "ring", N) for N in depths}
        good = [f"{sum(a >= 99 for a in found)} of {len(found)} with {N}" for N, found in runs.items() if found]
        if good:
            said.append(f"On the {title} the ring reaches 99 % in {', '.join(good)} layers.")
    last = depths[-1]
    full = [a for name in DATA for a in _accuracies(records, name, "full", last)]
    if full:
        said.append(f"The full network, with {last} layers, does so in {sum(a >= 99 for a in full)} of {len(full)}.")
    return " ".join(said)


def _shown(records: Sequence[Record], name: str, folder: Path) -> Record | None:
    found = [r for r in records if r.case.data == name and "model" in r.values]
    found = [r for r in found if (folder / r.values["model"]).exists()]
    return max(found, key=lambda r: r.case.layers, default=None)


def _features(record: Record, folder: Path) -> Callable[[], Figure]:
    def draw() -> Figure:
        made = load(folder / record.values["model"])
        assert isinstance(made, Network)
        return features_by_node(made, data.load(record.case.data), DATA[record.case.data])

    return draw


EXPERIMENT = Experiment(
    name="ring-of-eight",
    title="Eight agents in a ring, compared with a full network",
    source="2105.13205, the distributed example",
    case=Config,
    cases=cases,
    run=run,
    render=render,
    values=Values,
    cost=lambda case: (0.4 + 0.25 * case.layers) * case.epochs / EPOCHS,
)
