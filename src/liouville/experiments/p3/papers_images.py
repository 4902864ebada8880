"""The papers' networks for MNIST, and their training in the authors' script.

    x (1, 28, 28) -> 3x3 convolution, 8 channels -> N layers at every pixel -> linear map of all 8 x 28 x 28 values

There is no pooling, and the layers of the papers see one pixel at a time; wider stencils see its neighbours. N = 0
leaves the convolution and the linear map. A 1x1 convolution is a dense layer at every pixel, so the channels are moved
last and the dense kernels run it.
"""

from __future__ import annotations

__all__ = ["COLUMNS", "FEATURES", "Column", "FeaturesLast", "network", "optimizer", "settings"]

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from liouville.fields import Initial
from liouville.kernels import Auto
from liouville.network import ChannelsLast, Network
from liouville.operators import Conv, Dense
from liouville.train import Penalty, Settings
from liouville.train.optimizers import Adam
from liouville.zoo import MODELS

FEATURES, PIXELS, CLASSES = 8, 28 * 28, 10
LR = 0.04


@dataclass(frozen=True)
class Column:
    """A network and its training in the authors' script.

    Args:
        model: a name of ``liouville.zoo.MODELS``.
        h: step size.
        decay: Adam's weight decay, for all weights.
        smoothness: alpha of h/2 sum ||theta_{j+1} - theta_j||^2.
        options: options of the model.
    """

    model: str
    h: float
    decay: float
    smoothness: float
    options: Mapping[str, str] = field(default_factory=dict)


# h2 is in neither the paper nor the script; it has the settings of MS1, the other symplectic network.
COLUMNS: dict[str, Column] = {
    "MS1": Column("ms1", 0.4, 1e-3, 1e-3),
    "H2 (J full)": Column("h1", 0.05, 2e-4, 1e-3, {"J": "full"}),
    "H1": Column("h1", 0.5, 4e-3, 8e-3),
    "h2": Column("h2", 0.4, 1e-3, 1e-3),
}


def network(model: str, layers: int, h: float, init: Initial, kernel: int = 1, **options: str) -> Network:
    """The papers' network for MNIST, with layers of any model."""
    body: nn.Module = nn.Identity()
    if layers:
        build = functools.partial(MODELS[model], operator=Dense() if kernel == 1 else Conv(kernel), **options)
        body = build(FEATURES, layers, layers * h, init=init, backprop=Auto())
    lift = nn.Sequential(nn.Conv2d(1, FEATURES, 3, padding=1), FeaturesLast() if kernel == 1 else ChannelsLast())
    return Network(lift, body, nn.Sequential(nn.Flatten(), nn.Linear(FEATURES * PIXELS, CLASSES)))


class FeaturesLast(nn.Module):
    """Images (B, C, H, W) -> vectors at every pixel (B, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """x with the channels on the last axis."""
        return x.movedim(-3, -1).contiguous()


def settings(column: Column, epochs: int, seed: int, *, times: int = 1, validation: float = 0.1) -> Settings:
    """The script's settings.

    Args:
        column: the network.
        epochs: passes over the training part; the script has 2.
        seed: seed of training.
        times: how often the penalty, a sum over layers, is added; the script's loop does it N - 1 times, not once.
        validation: fraction held out to choose the epoch; the script has none, and chooses on the test part.
    """
    return Settings(
        epochs=epochs,
        batch_size=100,
        lr=LR,
        beta2=0.999,
        schedule="step",
        validation=validation,
        penalty=Penalty(smoothness=times * column.h * column.smoothness, scaling="sum"),
        seed=seed,
    )


def optimizer(model: nn.Module, column: Column) -> Adam:
    """Adam with the weight decay in the gradient, for all weights."""
    return Adam([{"params": list(model.parameters()), "lr": LR}], weight_decay=column.decay)
