r"""One network of an estimator: built, trained, or trained on.

    x -> head(Phi(W x + c)),    Phi: `layers` steps of the model's scheme over [0, T]

with the columns' features x, some of them dropped at random in training; `liouville.train.tabular` has the numbers.
Below `FEW` rows a share of them judges badly, and is missed: there a first training decides how many steps are best,
and the network is then trained anew for so many, on all rows.
"""

from __future__ import annotations

__all__ = ["Member", "Recipe", "Rows", "built", "trained", "trained_on"]

import copy
import dataclasses
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from liouville.answering import outputs_of
from liouville.data.split import held_out
from liouville.estimators.temperature import best_factor, scale_head
from liouville.kernels import Auto
from liouville.names import lookup
from liouville.network import Network
from liouville.randomness import seeded
from liouville.train import History, Settings, fit, optimizer_of, tabular
from liouville.train.losses import Loss
from liouville.train.progress import Progress, silent
from liouville.train.source import Batch
from liouville.train.trainable import task_between
from liouville.units import count_in
from liouville.zoo import MODELS
from liouville.zoo.start import scaled_start

FEW = 1000  # rows: below, the network is trained anew on all of them
TRIAL = 0.75  # of the usual steps, in each of the two trainings
LEAST = 0.25  # of the trial's steps, on all rows
LOOKS = 20  # at the held-out rows


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
        return dataclasses.replace(
            tabular.SETTINGS,
            batch_size=self.batch_size,
            lr=self.learning_rate,
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
    n, start = recipe.features, tabular.START
    with seeded(seed):
        lift = nn.Sequential(nn.Dropout(recipe.input_dropout), nn.Linear(inputs, n))
        flow = build(n, recipe.layers, recipe.T, activation=recipe.activation, init=start, backprop=Auto())
        if start.action is not None:
            scaled_start(flow, start.action)
        return count_in(Network(lift, flow, nn.Linear(n, outputs))).to(recipe.device)


def trained(
    recipe: Recipe, rows: Rows, outputs: int, seed: int, network: Network | None = None, progress: Progress = silent
) -> Member:
    """A trained network, and how it came about; ``network`` is one to start from.

    Some of the rows choose the best weights, and how sure the scores are. Of few rows they choose only the number of
    steps, and that; unless the caller said how long to train.
    """
    network = network or built(recipe, rows.x.shape[1], outputs, seed)
    held, left = None, rows
    possible = rows.strata is None or len(rows.strata.unique()) < len(rows.x)  # a class of one row keeps it
    if possible and 0 < round(recipe.validation_fraction * len(rows.x)) < len(rows.x):
        generator = torch.Generator().manual_seed(seed)
        kept, out = held_out(len(rows.x), recipe.validation_fraction, generator, rows.strata)
        held, left = rows.part(out), rows.part(kept)
    few = held is not None and recipe.max_iter is None and len(rows.x) < FEW
    steps = tabular.steps_for(len(left.x), recipe.batch_size)
    if not few:
        found = _run(recipe, left, held, seed, network, progress, steps)
        scale_head(network, _factor(recipe, network, held))
        return found
    trial, steps = copy.deepcopy(network), round(TRIAL * steps)
    history = _run(recipe, left, held, seed, trial, progress, steps).history
    share = history.best_epoch * _passes(steps, left, recipe) * _batches(left, recipe) / steps
    found = _run(recipe, rows, None, seed, network, progress, round(steps * min(max(share, LEAST), 1.0)))
    scale_head(network, _factor(recipe, trial, held))
    return found


def _run(
    recipe: Recipe, rows: Rows, held: Rows | None, seed: int, network: Network, progress: Progress, steps: int
) -> Member:
    """One training, of so many steps or as many passes as the caller said."""
    passes = 1 if recipe.max_iter is not None else _passes(steps, rows, recipe)
    settings = recipe.settings(
        **({"steps": steps} if recipe.max_iter is None else {"epochs": recipe.max_iter}),
        validation=0.0 if held is None else 0.5,  # the rows themselves are given
        patience=None if held is None else recipe.patience,
        seed=seed,
    )
    history = fit(
        network,
        _tensors(rows, passes),
        settings,
        validation=None if held is None else _tensors(held),
        loss=recipe.loss,
        progress=progress,
    )
    return Member(network, history, len(history.epochs) * passes)


def _batches(rows: Rows, recipe: Recipe) -> int:
    return math.ceil(len(rows.x) / recipe.batch_size)


def _passes(steps: int, rows: Rows, recipe: Recipe) -> int:
    """Over the rows, between two looks at those that are held out."""
    return max(1, round(steps / LOOKS / _batches(rows, recipe)))


def _factor(recipe: Recipe, network: Network, held: Rows | None) -> float:
    """How sure the scores of classes are to be; 1 for real targets, and where nothing is held out."""
    if held is None or recipe.loss is not None or held.y.is_floating_point():
        return 1.0
    scores = outputs_of(network, held.x)
    task = task_between(network, Batch(held.x, held.y), "the held-out rows")
    return best_factor(scores, held.y.to(scores.device), task, held.weight)


def trained_on(
    recipe: Recipe, rows: Rows, network: Network, optimizer: torch.optim.Optimizer | None, seed: int
) -> tuple[History, torch.optim.Optimizer]:
    """One more pass over the rows at a constant rate; the optimiser carries on."""
    settings = recipe.settings(
        epochs=1,
        schedule="constant",
        validation=0.0,
        ema_decay=0.0,
        seed=seed,
    )
    optimizer = optimizer or optimizer_of(network, settings)
    return fit(network, _tensors(rows), settings, loss=recipe.loss, optimizer=optimizer), optimizer


def _tensors(rows: Rows, copies: int = 1) -> tuple[Tensor, ...]:
    parts = (rows.x, rows.y) if rows.weight is None else (rows.x, rows.y, rows.weight)
    return tuple(t.repeat(copies, *(1,) * (t.ndim - 1)) for t in parts)
