"""Are 16 and 64 layers on images as good as 4, at equal epochs and with one setting?

The 3 x 3 networks of `mnist-table`, which were worse at 16 layers than at 4, with the start and the rate in the units
of the network: Omega = 20 or what the layers carry, and a first step that moves y_N by half its size.
"""

from __future__ import annotations

__all__ = ["EXPERIMENT", "Config", "cases", "render", "run"]

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch

from liouville import data
from liouville.experiments.comparing import percents, spread
from liouville.experiments.experiment import Experiment, Rendering, Table
from liouville.experiments.records import Record, rounded
from liouville.fields import Smooth
from liouville.kernels import Auto
from liouville.train import Settings, fit
from liouville.zoo import Images, classifier

# The start of each activation: around a rotation, or around 0.
STARTS = {"tanh": Smooth(), "relu": Smooth(scale=0.5, mean=0.0)}
DEPTHS = (4, 16, 64)
SIZES = {10_000: 4, 60_000: 2}  # training images: epochs
FEATURES, TEST, SHARE, SEEDS = 8, 10_000, 0.5, 3


@dataclass(frozen=True)
class Config:
    """One training run.

    Args:
        activation: of `STARTS`.
        layers: N; T is 4, and does not matter.
        epochs: passes over the training images.
        images: number of training images, from the first on.
        seed: of weights and batches.
    """

    activation: str
    layers: int
    epochs: int
    images: int
    seed: int


class Values(TypedDict):
    """What a case records."""

    train_loss: float
    test_accuracy: float


def cases(seeds: int, quick: bool) -> list[Config]:
    """Both activations at every depth, on some images and on all, `SEEDS` seeds at most."""
    if quick:
        return [Config(activation, 2, 1, 300, 0) for activation in STARTS]
    kinds = itertools.product(SIZES.items(), STARTS, DEPTHS, range(min(seeds, SEEDS)))
    return [Config(activation, N, epochs, images, seed) for (images, epochs), activation, N, seed in kinds]


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Train one network, and read the test part once."""
    split = data.load("mnist", train=config.images, test=min(TEST, config.images))
    network = classifier(
        "h2",
        (1, 28, 28),
        10,
        FEATURES,
        config.layers,
        4.0,
        conv=Images(),
        activation=config.activation,
        init=STARTS[config.activation],
        generator=torch.Generator().manual_seed(config.seed),
        backprop=Auto(),
    )
    settings = Settings(
        epochs=config.epochs, batch_size=100, lr=SHARE, rates="share", head_lr=0.004, warmup=0.3, seed=config.seed
    )
    metrics = fit(network, split, settings).metrics
    return {name: rounded(metrics[name]) for name in ("train_loss", "test_accuracy")}


def render(records: Sequence[Record], folder: Path) -> Rendering:
    """Accuracy by activation and depth, and whether a deeper network's median is lower, by the number of images."""
    groups = {size: [r for r in records if (r.case.images, r.case.epochs) == size] for size in _sizes(records)}
    tables = [_table(size, mine) for size, mine in groups.items()]
    said = [f"{images:,} images, {epochs} epochs: {_words(mine)}" for (images, epochs), mine in groups.items()]
    return Rendering("\n\n".join(said), tables)


def _sizes(records: Sequence[Record]) -> list[tuple[int, int]]:
    return sorted({(r.case.images, r.case.epochs) for r in records})


def _table(size: tuple[int, int], records: Sequence[Record]) -> Table:
    depths = sorted({r.case.layers for r in records})
    rows = [
        (activation, *(spread(_accuracies(records, activation, N)) for N in depths)) for activation in _named(records)
    ]
    note = (
        f"h2, 3x3 stencils on {FEATURES} channels of 14 x 14 pixels, at most {TEST:,} images for the test, Adam, its "
        f"first step {SHARE:g} of y_N. Start and share were chosen on seed 10 and 10,000 images."
    )
    title = f"Test accuracy in percent, {size[0]:,} training images, {size[1]} epochs"
    return Table(title, ("activation", *(f"{N} layers" for N in depths)), rows, note)


def _words(records: Sequence[Record]) -> str:
    """The medians, and which are below that of the fewest layers."""
    said = []
    for activation in _named(records):
        depths = sorted({r.case.layers for r in records if r.case.activation == activation})
        middle = {N: statistics.median(_accuracies(records, activation, N)) for N in depths}
        shown = ", ".join(f"{middle[N]:.2f} % at {N} layers" for N in middle)
        low = [N for N in middle if middle[N] < middle[min(middle)]]
        said.append(f"{activation}: {shown}" + (f"; **lower at {', '.join(map(str, low))}**." if low else "."))
    return " ".join(said)


def _named(records: Sequence[Record]) -> list[str]:
    return [name for name in STARTS if any(r.case.activation == name for r in records)]


def _accuracies(records: Sequence[Record], activation: str, layers: int) -> list[float]:
    mine = [r for r in records if (r.case.activation, r.case.layers) == (activation, layers)]
    return percents(mine, "test_accuracy")


EXPERIMENT = Experiment(
    name="image-depth",
    title="Images by depth, with one setting",
    source="beyond the papers, after 2104.13166, Table 2",
    case=Config,
    cases=cases,
    run=run,
    render=render,
    values=Values,
    cost=lambda case: 2.0 + case.epochs * case.images * (1e-4 + 1.5e-5 * case.layers),
)
