"""Few images: test accuracy on MNIST after training on 1,000 and 5,000 images, ours and networks of plain torch."""

from __future__ import annotations

__all__ = ["EXPERIMENT", "cases", "render", "run"]

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from liouville.experiments.beyond.image_networks import NETWORKS, SEEDS, Config, some_images, standing, trained
from liouville.experiments.comparing import percents, spread
from liouville.experiments.experiment import Experiment, Rendering, Table
from liouville.experiments.paired import Paired, pairs
from liouville.experiments.records import Record

OURS = "h2, 3x3"
EPOCHS = {1000: 30, 5000: 10}


class Values(TypedDict):
    """The recorded values of a case."""

    accuracy: float
    train_accuracy: float
    parameters: int
    best_epoch: int


def cases(seeds: int, quick: bool) -> list[Config]:
    """Both sizes of the training part."""
    if quick:
        return [Config(network, 200, 1, 500, 0) for network in NETWORKS]
    return [
        Config(network, images, epochs, 10_000, seed)
        for images, epochs in EPOCHS.items()
        for network in NETWORKS
        for seed in range(min(seeds, SEEDS))
    ]


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Train one network on its draw of images."""
    network, history = trained(config, some_images(config))
    return {
        "accuracy": history.metrics["test_accuracy"],
        "train_accuracy": history.metrics["train_accuracy"],
        "parameters": sum(p.numel() for p in network.parameters()),
        "best_epoch": history.best_epoch,
    }


def render(records: Sequence[Record], folder: Path) -> Rendering:
    """A table by the number of training images."""
    sizes = sorted({r.case.images for r in records})
    found = {
        (name, size): [r for r in records if (r.case.network, r.case.images) == (name, size)]
        for name in NETWORKS
        for size in sizes
    }
    names = [name for name in NETWORKS if any(found[name, size] for size in sizes)]
    rows = []
    for name in names:
        parameters = {f"{r.values['parameters']:,}" for size in sizes for r in found[name, size] if not r.diverged}
        cells = [spread(percents(found[name, size], "accuracy")) for size in sizes]
        rows.append((name, ", ".join(parameters), *cells))
    columns = ("network", "weights", *(f"{size:,} images" for size in sizes))
    note = f"At most {SEEDS} seeds; each draws other images. Trained in the same way, without augmentation."
    sentences = [
        f"With {size:,} training images: {standing({name: percents(found[name, size], 'accuracy') for name in names})}"
        for size in sizes
    ]
    contests = {
        name: [pair for size in sizes for pair in pairs(found[OURS, size], found[name, size], _accuracy)]
        for name in names
        if name != OURS
    }
    told = [f"{name}: {Paired.of(both)}" for name, both in contests.items() if both]
    if told:
        sentences.append(f"Both sizes pooled, {OURS} against {'; '.join(told)}.")
    return Rendering(" ".join(sentences), [Table("Test accuracy in percent", columns, rows, note)])


def _accuracy(record: Record) -> float:
    return percents([record], "accuracy")[0]


EXPERIMENT = Experiment(
    name="scarcity",
    title="Few images: MNIST with 1,000 and 5,000",
    source="beyond the papers",
    case=Config,
    cases=cases,
    run=run,
    render=render,
    values=Values,
    cost=lambda case: 2.0 + case.images * case.epochs * NETWORKS[case.network].cost,
)
