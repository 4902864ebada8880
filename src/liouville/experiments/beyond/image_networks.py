"""The networks compared on few and on noisy images: two of ours, three of plain torch with as many weights.

All are trained by the same loop: AdamW, a one-cycle schedule, batches of 50, no augmentation, the epoch chosen on
a held-out tenth. The rate of each is the best of 0.001, 0.003 and 0.01 on that tenth, with 2,000 images of another
seed than in the tables.
"""

from __future__ import annotations

__all__ = ["NETWORKS", "SEEDS", "Config", "ResNet", "cnn", "mlp", "network_of", "some_images", "standing", "trained"]

import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from liouville.data import Split, load
from liouville.experiments.p3 import papers_images
from liouville.fields import Normal, Smooth
from liouville.kernels import Auto
from liouville.randomness import seeded
from liouville.train import History, Settings, fit
from liouville.zoo import Images, classifier, h2

CLASSES = 10
SEEDS = 3  # at most


@dataclass(frozen=True)
class Config:
    """One training run of the experiments with these networks.

    Args:
        network: a name of `NETWORKS`.
        images: number of training images, drawn at random; a tenth of them is held out.
        epochs: passes over the rest.
        test: number of test images, from the first on.
        seed: seed of the draw, the initial weights, training and any noise.
    """

    network: str
    images: int
    epochs: int
    test: int
    seed: int


@dataclass(frozen=True)
class Contestant:
    """A network, its learning rate, and the seconds of one core per image and epoch."""

    build: Callable[[], nn.Module]
    lr: float
    cost: float


class ResNet(nn.Module):
    """Residual blocks of two 3x3 convolutions with batch normalisation, at 14 x 14 and at 7 x 7 pixels.

    Args:
        widths: channels of the two resolutions.
        blocks: numbers of blocks at the two resolutions.

    Examples:
        >>> ResNet()(torch.randn(5, 1, 28, 28)).shape
        torch.Size([5, 10])
    """

    def __init__(self, widths: tuple[int, int] = (24, 32), blocks: tuple[int, int] = (1, 2)) -> None:
        super().__init__()
        (a, b), pool = widths, nn.MaxPool2d(2)
        first = [nn.Conv2d(1, a, 3, padding=1), pool, *(_Block(a) for _ in range(blocks[0]))]
        second = [pool, nn.Conv2d(a, b, 3, padding=1), *(_Block(b) for _ in range(blocks[1]))]
        self.layers = nn.Sequential(*first, *second, pool, nn.Flatten(), nn.Dropout(0.1), nn.Linear(9 * b, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the classes."""
        scores: Tensor = self.layers(x)
        return scores


class _Block(nn.Module):
    """y + F(y), F two convolutions, each after batch normalisation and ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for _ in range(2):
            parts += [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, bias=False)]
        self.branch = nn.Sequential(*parts)

    def forward(self, y: Tensor) -> Tensor:
        """One block."""
        moved: Tensor = y + self.branch(y)
        return moved


def cnn(a: int = 24, b: int = 50) -> nn.Module:
    """Four 3x3 convolutions with ReLU and pooling: neither residuals nor normalisation."""
    return nn.Sequential(
        *(nn.Conv2d(1, a, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(b, b, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(b, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Dropout(0.1), nn.Linear(9 * b, CLASSES)),
    )


def mlp(width: int = 72) -> nn.Module:
    """Two hidden layers of ReLU."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(28 * 28, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(width, CLASSES),
    )


def _convolutional() -> nn.Module:
    build = functools.partial(h2, activation="relu", init=Smooth(scale=0.5, mean=0.0, action=None))
    conv = Images(head_pool=2, dropout=0.1)
    return classifier(build, (1, 28, 28), CLASSES, (32, 48), (2, 3), 1.0, conv=conv, backprop=Auto())


def _pixelwise() -> nn.Module:
    return papers_images.network("h2", layers=4, h=0.4, init=Normal(0.5))


NETWORKS: dict[str, Contestant] = {
    "h2, 3x3": Contestant(_convolutional, 3e-3, 6.5e-4),
    "h2, pixelwise": Contestant(_pixelwise, 1e-2, 1.3e-4),
    "ResNet": Contestant(ResNet, 1e-2, 4.5e-4),
    "CNN": Contestant(cnn, 1e-2, 4.9e-4),
    "MLP": Contestant(mlp, 3e-3, 1.5e-5),
}


def network_of(name: str, seed: int) -> nn.Module:
    """One of `NETWORKS` with its initial weights."""
    with seeded(seed):
        return NETWORKS[name].build()


def some_images(config: Config) -> Split:
    """MNIST with some random images of the training part, and the first of the test part."""
    split = load("mnist", test=config.test)
    rows = torch.randperm(len(split.x_train), generator=torch.Generator().manual_seed(config.seed))[: config.images]
    return replace(split, x_train=split.x_train[rows], y_train=split.y_train[rows])


def trained(config: Config, split: Split) -> tuple[nn.Module, History]:
    """The network, trained on the split, and what happened."""
    network = network_of(config.network, config.seed)
    settings = Settings(
        epochs=config.epochs,
        batch_size=50,
        lr=NETWORKS[config.network].lr,
        optimizer="adamw",
        weight_decay=0.01,
        beta2=0.999,
        warmup=0.3,
        seed=config.seed,
    )
    return network, fit(network, split, settings)


def standing(values: Mapping[str, Sequence[float]], smaller: bool = False) -> str:
    """The network with the best median, in percent, and the distances of the others.

    Examples:
        >>> standing({"h2, 3x3": [97.0, 98.0, 99.0], "h2, pixelwise": [94.0], "MLP": [98.5]})
        'MLP has the highest median, 98.5 %; h2, 3x3 is 0.5 points, h2, pixelwise is 4.5 points below.'
    """
    medians = {name: statistics.median(mine) for name, mine in values.items() if mine}
    if not medians:
        return "no run ended."
    best = (min if smaller else max)(medians, key=lambda name: medians[name])
    others = [f"{name} is {abs(medians[best] - medians[name]):.1f} points" for name in medians if name != best]
    extreme, side = ("lowest", "above") if smaller else ("highest", "below")
    rest = f"; {', '.join(others)} {side}" if others else ""
    return f"{best} has the {extreme} median, {medians[best]:.1f} %{rest}."
