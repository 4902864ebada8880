r"""One network of an estimator: built, trained, or trained on.

    x -> head(Phi(W x + c)),    Phi: `layers` steps of the model's scheme over [0, T]

with the columns' features x, some of them dropped at random in training. Its weights start at zero mean, so that the
untrained flow is near the identity and the network near a linear model. The numbers are those that were best on half of
twenty tables and were then measured on the other half; nothing else is chosen here.
"""

from __future__ import annotations

__all__ = ["Member", "Recipe", "Rows", "built", "trained", "trained_on"]

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from liouville.data.split import held_out
from liouville.fields import Smooth
from liouville.kernels import Auto
from liouville.names import lookup
from liouville.network import Network
from liouville.randomness import seeded
from liouville.train import History, Settings, fit, optimizer_of
from liouville.train.losses import Loss
from liouville.train.progress import Progress, silent
from liouville.zoo import MODELS

STEPS = (600, 1500)  # at least, at most
PASSES = 30  # over the training rows, where that is between the two
LOOKS = 30  # at the validation rows
EMA_DECAY, BETA2, WARMUP = 0.98, 0.95, 0.1


@dataclass(frozen=True)
class Recipe:
    """What a network is and how it is trained; see the estimators for each."""

    model: str
    features: int
    layers: int
    T: float
    activation: str
    input_dropout: float
    learning_rate: float
    batch_size: int
    max_iter: int | None
    validation_fraction: float
    patience: int | None
    label_smoothing: float
    loss: Loss | None
    device: str

    def settings(self, **more: Any) -> Settings:
        """Those of a training of any length."""
        return Settings(
            batch_size=self.batch_size,
            lr=self.learning_rate,
            optimizer="adam",
            beta2=BETA2,
            rates="plain",
            label_smoothing=self.label_smoothing,
            **more,
        )


class Rows(NamedTuple):
    """Encoded rows: features, targets, weights or None; ``strata`` are classes to divide evenly, or None."""

    x: Tensor
    y: Tensor
    weight: Tensor | None
    strata: Tensor | None

    def part(self, rows: Tensor) -> Rows:
        """Some of them."""
        return Rows(*(None if t is None else t[rows] for t in self))  # type: ignore[arg-type]


class Member(NamedTuple):
    """A trained network, what happened, and how often it saw every row."""

    network: Network
    history: History
    passes: int


def built(recipe: Recipe, inputs: int, outputs: int, seed: int) -> Network:
    """The untrained network.

    Raises:
        ValueError: an unknown model or activation, or a width that the model does not take.
    """
    build = lookup(MODELS, recipe.model, "model")
    if recipe.model == "verlet":
        raise ValueError("verlet starts with p = 0, which a learned lift would overwrite; use model='ms1'.")
    n, start = recipe.features, Smooth(scale=1.0, mean=0.0)
    with seeded(seed):
        lift = nn.Sequential(nn.Dropout(recipe.input_dropout), nn.Linear(inputs, n))
        flow = build(n, recipe.layers, recipe.T, activation=recipe.activation, init=start, backprop=Auto())
        return Network(lift, flow, nn.Linear(n, outputs)).to(recipe.device)


def trained(
    recipe: Recipe, rows: Rows, outputs: int, seed: int, network: Network | None = None, progress: Progress = silent
) -> Member:
    """A network trained on some of the rows, and chosen by the others; ``network`` is one to start from."""
    network = network or built(recipe, rows.x.shape[1], outputs, seed)
    held, left = None, rows
    if 0 < round(recipe.validation_fraction * len(rows.x)) < len(rows.x):
        generator = torch.Generator().manual_seed(seed)
        kept, out = held_out(len(rows.x), recipe.validation_fraction, generator, rows.strata)
        held, left = rows.part(out), rows.part(kept)
    steps = math.ceil(len(left.x) / recipe.batch_size)
    length: dict[str, Any] = {"epochs": recipe.max_iter}
    passes = 1
    if recipe.max_iter is None:
        total = int(min(max(PASSES * len(left.x) / recipe.batch_size, STEPS[0]), STEPS[1]))
        passes = max(1, round(total / LOOKS / steps))  # between two looks at the validation rows
        length = {"steps": total}
    settings = recipe.settings(
        **length,
        schedule="one-cycle",
        warmup=WARMUP,
        validation=0.0 if held is None else 0.5,  # the rows themselves are given
        patience=None if held is None else recipe.patience,
        ema_decay=EMA_DECAY,
        seed=seed,
    )
    history = fit(
        network,
        _tensors(left, passes),
        settings,
        validation=None if held is None else _tensors(held),
        loss=recipe.loss,
        progress=progress,
    )
    return Member(network, history, len(history.epochs) * passes)


def trained_on(
    recipe: Recipe, rows: Rows, network: Network, optimizer: torch.optim.Optimizer | None, seed: int
) -> tuple[History, torch.optim.Optimizer]:
    """One more pass over the rows at a constant rate; the optimiser carries on."""
    settings = recipe.settings(
        epochs=1,
        schedule="constant",
        validation=0.0,
        seed=seed,
    )
    optimizer = optimizer or optimizer_of(network, settings)
    return fit(network, _tensors(rows), settings, loss=recipe.loss, optimizer=optimizer), optimizer


def _tensors(rows: Rows, copies: int = 1) -> tuple[Tensor, ...]:
    parts = (rows.x, rows.y) if rows.weight is None else (rows.x, rows.y, rows.weight)
    return tuple(t.repeat(copies, *(1,) * (t.ndim - 1)) for t in parts)
