"""P1's derivative-based regulariser of an image classifier's head compared with decay, on 1,000 MNIST images.

The head is linear on all 6 x 28 x 28 features. Decay, 1/2 ||W||^2, makes each of its weights small; smoothing,
1/2 sum_k ||L w_k||^2 with L the Laplacian, makes neighbours similar. Both use the same list of weights, and validation
images choose among them.
"""

from __future__ import annotations

__all__ = ["EXPERIMENT", "Config", "cases", "render", "run"]

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from liouville import data
from liouville.data import Split
from liouville.experiments.comparing import percents, spread
from liouville.experiments.experiment import Experiment, Picture, Rendering, Table
from liouville.experiments.p1.mnist_network import CHANNELS, T, network_of
from liouville.experiments.paired import Paired, pairs
from liouville.experiments.records import Record
from liouville.files import atomic
from liouville.network import Network
from liouville.report.style import canvas, heading
from liouville.train import DivergenceError, Penalty, Settings, evaluate, fit
from liouville.train.trainable import task_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIGITS = 6  # digits shown
KINDS = {"none": "no regulariser", "decay": "decay", "smoothing": "smoothing in space"}
WEIGHTS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True)
class Config:
    """One regulariser: a training run for each of its weights; the validation loss chooses one.

    Args:
        kind: a name of `KINDS`.
        weights: tried values of alpha.
        images: number of training images, and of validation images.
        test: number of MNIST's 10,000 test images.
        layers: layers of the Verlet network.
        epochs: epochs of every run.
        seed: seed of the images, the initial weights and the batches.
    """

    kind: str
    weights: tuple[float, ...]
    images: int
    test: int
    layers: int
    epochs: int
    seed: int


class Values(TypedDict):
    """The recorded values of a case."""

    weight: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float


def cases(seeds: int, quick: bool) -> list[Config]:
    """Without a regulariser there is one run, with weight 0."""
    weights = {kind: (0.0,) if kind == "none" else WEIGHTS[-2:] if quick else WEIGHTS for kind in KINDS}
    if quick:
        return [Config(kind, weights[kind], 100, 100, 2, 2, 0) for kind in KINDS]
    return [Config(kind, weights[kind], 1000, 10_000, 4, 15, seed) for seed in range(seeds) for kind in KINDS]


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Train with every weight; raises DivergenceError only if all diverged."""
    split = _split(config)
    tried: list[dict[str, float]] = []
    best: tuple[float, Network, dict[str, float]] | None = None
    for weight in config.weights:
        network = network_of("verlet", config.layers, config.seed)
        head, smooth = (weight if config.kind == kind else 0.0 for kind in ("decay", "smoothing"))
        penalty = Penalty(smoothness=1e-4, decay=1e-4, head_decay=head, head_smoothness=smooth)
        settings = Settings(
            epochs=config.epochs, batch_size=50, lr=0.01, validation=0.5, penalty=penalty, seed=config.seed
        )
        try:
            found = fit(network, split, settings, test=False).metrics
        except DivergenceError:
            continue
        tried.append({"weight": weight, **{k: round(found[f"validation_{k}"], 5) for k in ("loss", "accuracy")}})
        if best is None or found["validation_loss"] < best[0]:
            best = found["validation_loss"], network, {"weight": weight, "train_accuracy": found["train_accuracy"]}
    if best is None:
        raise DivergenceError(f"training diverged with every weight of {KINDS[config.kind]}.")
    _, network, values = best
    test = evaluate(network, split.x_test, split.y_test, task_of(network, split), "test_")
    if config.seed == 0:
        with atomic(_file(folder, config)) as path:
            save_file({"head": _strongest(network).half()}, path)
    return {**values, **test, "tried": tried}


def render(records: Sequence[Record], folder: Path) -> Rendering:
    """Test accuracy by regulariser, and the weights of two heads as images."""
    found = {kind: sorted((r for r in records if r.case.kind == kind), key=lambda r: r.case.seed) for kind in KINDS}
    found = {kind: mine for kind, mine in found.items() if mine}
    rows = [
        (
            KINDS[kind],
            spread(percents(mine, "test_accuracy")),
            spread(percents(mine, "train_accuracy"), 1),
            ", ".join("—" if r.diverged else f"{r.values['weight']:g}" for r in mine),
        )
        for kind, mine in found.items()
    ]
    head = ("head", "test accuracy, %", "training accuracy, %", "weights chosen")
    tables = [Table("The head's regulariser, 1,000 training images", head, rows, _note(records))] if rows else []
    drawn = {k: _file(folder, mine[0].case) for k, mine in found.items() if _file(folder, mine[0].case).exists()}
    pictures = {}
    if drawn:
        pictures["head-weights"] = Picture(
            f"The head's weights for the digits 0 to {DIGITS - 1} on one of the six feature images (the one with the "
            "largest weights), by regulariser; red counts for the digit, blue against it.",
            lambda: _draw(drawn),
        )
    return Rendering(_text(found), tables, pictures)


def _split(config: Config) -> Split:
    """Images for training and validation, drawn by the seed; the test part is from the files."""
    whole = data.load("mnist", test=config.test)
    order = torch.randperm(len(whole.x_train), generator=torch.Generator().manual_seed(config.seed))
    rows = order[: 2 * config.images]
    return dataclasses.replace(whole, x_train=whole.x_train[rows], y_train=whole.y_train[rows])


def _strongest(network: Network) -> torch.Tensor:
    """(digits, 28, 28): the head's weights for the first digits, on the channel where they are largest."""
    (linear,) = (module for module in network.head.modules() if isinstance(module, nn.Linear))
    weight = linear.weight.detach().unflatten(1, (CHANNELS, 28, 28))
    return weight[:DIGITS, int(weight.square().sum((0, 2, 3)).argmax())].contiguous()


def _file(folder: Path, case: Config) -> Path:
    return folder / f"{case.kind}-{case.seed}.safetensors"


def _note(records: Sequence[Record]) -> str:
    case = max((r.case for r in records), key=lambda case: case.images)
    return (
        f"Verlet, {case.layers} layers, T = {T:g}; {case.images:,} random training images and as many others for "
        f"validation, whose loss chooses the weight among {', '.join(f'{w:g}' for w in WEIGHTS)}; {case.test:,} test "
        "images, read once. The paper has no such table."
    )


def _text(found: dict[str, list[Record]]) -> str:
    if not {"decay", "smoothing"} <= found.keys():
        return ""
    both = pairs(found["smoothing"], found["decay"], lambda r: percents([r], "test_accuracy")[0])
    if not both:
        return ""
    gains = [smooth - decayed for smooth, decayed in both]
    gain = statistics.median(gains)
    said = f"higher by {gain:.2f} points" if gain > 0 else f"**not higher** ({gain:+.2f} points)"
    edges = [KINDS[kind] for kind in ("decay", "smoothing") if any(_is_at_edge(r) for r in found[kind])]
    return (
        f"On the same images the accuracy with smoothing is {said} than with decay (median of {len(gains)}, "
        f"{min(gains):+.2f} to {max(gains):+.2f}): {Paired.of(both)}."
    ) + (f" The smallest or largest weight tried is chosen in some run of: {', '.join(edges)}." if edges else "")


def _is_at_edge(record: Record) -> bool:
    weights = record.case.weights
    return not record.diverged and record.values["weight"] in (min(weights), max(weights))


def _draw(files: dict[str, Path]) -> Figure:
    figure = canvas(1.15 * DIGITS + 0.5, 1.15 * len(files) + 0.75)
    grid = figure.subplots(len(files), DIGITS, squeeze=False)
    for row, (kind, path) in zip(grid, files.items(), strict=True):
        images = load_file(path)["head"].float()
        bound = float(images.abs().quantile(0.995))
        for digit, (axes, image) in enumerate(zip(row, images, strict=True)):
            axes.imshow(image.numpy(), cmap="RdBu_r", vmin=-bound, vmax=bound, interpolation="none")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if axes in grid[0]:
                axes.set_title(str(digit), loc="center")
        row[0].set_ylabel(KINDS[kind].replace(" in space", "\nin space").replace("no r", "no\nr"))
    heading(figure, "The head's weights, decayed and smoothed", "each row has its own scale")
    return figure


EXPERIMENT = Experiment(
    name="head-smoothing",
    title="A head that is smooth in space, compared with decay",
    source="1705.03341, the derivative-based regulariser of section 6.4; the table is beyond the paper",
    case=Config,
    cases=cases,
    run=run,
    render=render,
    values=Values,
    cost=lambda case: 3.0 + len(case.weights) * case.epochs * case.images * case.layers * 1e-4,
)
