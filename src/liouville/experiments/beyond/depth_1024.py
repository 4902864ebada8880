"""Do 1024 layers train without normalisation from the first epoch on? The papers' networks and three others.

The Swiss roll with noise 0.01, batches of 125, 4 features throughout, one optimiser for all. Every flow has the start,
the rate and the penalties of `stable_depth`, in units in which the final time does not count. Networks that are no
flows, a plain MLP and residual networks that are built for this depth, are shown at each of several rates.
"""

from __future__ import annotations

__all__ = ["EXPERIMENT", "Config", "cases", "render", "run"]

import functools
import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import torch
from torch import nn

from liouville import data
from liouville.documents import AT_LEAST_ONE
from liouville.experiments.beyond.baselines import deep_mlp, deep_resnet
from liouville.experiments.beyond.stable_depth import PENALTY, RATE
from liouville.experiments.comparing import percents, spread
from liouville.experiments.experiment import Experiment, Picture, Rendering, Table
from liouville.experiments.records import Record, rounded
from liouville.kernels import Auto
from liouville.report.style import canvas, heading, look_of
from liouville.train import Settings, fit
from liouville.zoo import classifier

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAYERS, EPOCHS, FEATURES = 1024, 20, 4
FLOWS = ("h2", "h1", "ms1", "ms2", "ms3", "verlet", "antisymmetric", "resnet")
T = 4.0  # of flows; it does not count
MLP = "tanh MLP"
NORMALISED, SCALED = "ResNet with LayerNorm", "ResNet with scaled start"
DEEP = {NORMALISED: "layer-norm", SCALED: "scaled"}  # names in `deep_resnet`
RATES = {MLP: (0.07, 0.005, 0.0005)} | dict.fromkeys(DEEP, (0.07, 0.02, 0.005, 0.0005))
FEW_SEEDS = 3  # for networks that run layer by layer and take fifty times as long as a flow
LEARNED = 90.0  # percent; the meaning of "learns" in the text
START = math.log(2)  # loss of an untrained network of two classes


@dataclass(frozen=True)
class Config:
    """One training run.

    Args:
        network: one of `FLOWS`, ``"tanh MLP"`` or a name of `DEEP`.
        lr: largest rate of the one-cycle schedule.
        layers: N.
        epochs: passes over 3,600 training points.
        points: number of training and test points together.
        seed: seed of the initial weights, of training and of the data.
    """

    network: str
    lr: float
    layers: int
    epochs: int
    points: int
    seed: int


class Values(TypedDict):
    """The recorded values of a case."""

    accuracy: float
    validation: float
    loss: Annotated[list[float], AT_LEAST_ONE]
    gradient_norm: float


def cases(seeds: int, quick: bool) -> list[Config]:
    """Every network at its rates; at most `FEW_SEEDS` seeds for networks that are not flows."""
    if quick:
        return [Config(*key, LAYERS, 1, 500, 0) for key in _keys()]
    often = {key: seeds if key[0] in FLOWS else min(seeds, FEW_SEEDS) for key in _keys()}
    return [Config(*key, LAYERS, EPOCHS, 8000, seed) for key in _keys() for seed in range(often[key])]


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Train one network and test it once."""
    split = data.load("swiss-roll", points=config.points, seed=config.seed)
    settings = Settings(epochs=config.epochs, batch_size=125, lr=config.lr, penalty=PENALTY, seed=config.seed)
    history = fit(_network(config), split, settings)
    return {
        "accuracy": history.metrics["test_accuracy"],
        "validation": history.metrics["validation_accuracy"],
        "loss": [rounded(epoch.loss) for epoch in history.epochs],
        "gradient_norm": rounded(history.epochs[0].gradient_norm),
    }


def _network(config: Config) -> nn.Module:
    if config.network == MLP:
        return deep_mlp(2, 1, FEATURES, config.layers, config.seed)
    if config.network in DEEP:
        return deep_resnet(2, 1, FEATURES, config.layers, DEEP[config.network], config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    return classifier(config.network, 2, 2, FEATURES, config.layers, T, generator=generator, backprop=Auto())


def render(records: Sequence[Record], folder: Path) -> Rendering:
    """The table by network, and the losses of all seeds."""
    groups = {key: found for key in _keys() if (found := [r for r in records if _key(r.case) == key])}
    rows = [
        (
            _name(key),
            f"{key[1]:g}",
            str(len(found)),
            spread(percents(found, "accuracy")),
            spread([r.values["loss"][0] for r in found if not r.diverged], 3),
            spread([r.values["loss"][-1] for r in found if not r.diverged], 3),
            str(sum(r.diverged for r in found)),
        )
        for key, found in groups.items()
    ]
    head = ("network", "rate", "runs", "test accuracy, %", "loss, first epoch", "loss, last epoch", "diverged")
    note = (
        f"An untrained network of two classes has the loss log 2 = {START:.3f}. Networks that are not flows have at "
        f"most {FEW_SEEDS} seeds. Flows have one start and one rate, {RATE:g}, in units in which T does not count; the "
        "resnet is a flow and starts around the same rotation. The others are shown at each rate that was tried. A "
        "ResNet with LayerNorm (before each branch) or scaled start (each branch times a learned number that begins at "
        f"0) has {LAYERS // 2} blocks of two layers with ReLU."
    )
    table = Table("The Swiss roll, network by network", head, rows, note)
    picture = Picture("Training loss by epoch, a line for every seed.", functools.partial(_draw, groups))
    return Rendering(_text(groups), [table], {"losses": picture} if groups else {})


def _text(groups: Mapping[tuple[str, float], Sequence[Record]]) -> str:
    if not groups:
        return ""
    middle = {key: statistics.median(percents(found, "accuracy")) for key, found in groups.items()}
    learn = [_name(key) for key, value in middle.items() if value >= LEARNED]
    first = {key: [r.values["loss"][0] for r in found if not r.diverged] for key, found in groups.items()}
    moved = [_name(key) for key, losses in first.items() if losses and statistics.median(losses) < START]
    rest = [f"{_name(key)} ({value:.1f} %)" for key, value in middle.items() if value < LEARNED]
    lacking = [_name(key) for key in _keys() if key not in groups]
    case = next(iter(groups.values()))[0].case
    return (
        f"{case.layers} layers of {FEATURES} features, {case.epochs} epochs. "
        f"A median of at least {LEARNED:g} % is reached by {', '.join(learn) or 'none'}. "
        f"Below it stay {', '.join(rest) or 'none'}. In the first epoch the median loss is below log 2 with "
        f"{', '.join(moved) or 'none'}."
    ) + (f" **Not run yet: {'; '.join(lacking)}.**" if lacking else "")


def _draw(groups: Mapping[tuple[str, float], Sequence[Record]]) -> Figure:
    """A panel for every network, all with the same axes."""
    across = min(5, len(groups))
    figure = canvas(1.55 * across + 0.4, 1.6 * math.ceil(len(groups) / across) + 0.9)
    grid = figure.subplots(math.ceil(len(groups) / across), across, sharex=True, sharey=True, squeeze=False)
    learn = 0
    for axes, (key, found) in zip(grid.flat, groups.items(), strict=False):
        look = look_of(key[0])
        learn += statistics.median(percents(found, "accuracy")) >= LEARNED
        for r in (r for r in found if not r.diverged):
            losses = [START, *r.values["loss"]]
            axes.semilogy(range(len(losses)), losses, color=look.colour, linestyle=look.dashes, linewidth=1.1)
        axes.set_title(
            "\n".join(line for part in _name(key).split(", ") for line in textwrap.wrap(part, 20)), fontsize=8.5
        )
        axes.set_xlim(0, found[0].case.epochs)
        axes.grid(axis="y")
    for axes in grid.flat[len(groups) :]:
        axes.set_axis_off()
    case = next(iter(groups.values()))[0].case
    figure.supylabel("training loss", fontsize=9)
    title = f"{learn} of {len(groups)} ways to train {case.layers} layers learn the Swiss roll"
    heading(figure, title, f"across: epoch; a line for every seed; learned: a median accuracy of {LEARNED:g} %")
    return figure


def _key(case: Config) -> tuple[str, float]:
    return case.network, case.lr


def _keys() -> list[tuple[str, float]]:
    return [(name, RATE) for name in FLOWS] + [(name, lr) for name in (*DEEP, MLP) for lr in RATES[name]]


def _name(key: tuple[str, float]) -> str:
    return key[0] if key[0] in FLOWS else f"{key[0]}, rate {key[1]:g}"


_EPOCH = {MLP: 0.04, NORMALISED: 0.12, SCALED: 0.1}  # seconds for 250 points
EXPERIMENT = Experiment(
    name="depth-1024",
    title="1024 layers",
    source="beyond the papers",
    case=Config,
    cases=cases,
    run=run,
    render=render,
    values=Values,
    cost=lambda case: 1.0 + _EPOCH.get(case.network, 0.0015) * case.epochs * case.points / 250,
)
