r"""Losses other than the task's own, and how a loss of the user's own becomes what is minimised and reported."""

from __future__ import annotations

__all__ = ["Huber", "Loss", "Quantile", "Reported"]

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from liouville.precision import in_working_precision
from liouville.task import Task

Loss = Callable[[Tensor, Tensor], Tensor]  # (scores, y) -> (samples, ...), or one number for the batch


@dataclass(frozen=True)
class Huber:
    r"""Squares of small errors, the sizes of large ones, for targets with outliers; summed over outputs.

        loss(r) = r^2 / 2 where |r| <= delta, else delta (|r| - delta / 2),    r = score - y

    Args:
        delta: the largest error that counts as small, > 0.

    Raises:
        ValueError: delta is no positive number.

    Reference: Huber 1964, Robust estimation of a location parameter, Ann. Math. Statist. 35.

    Examples:
        >>> Huber(1.0)(torch.tensor([[0.5], [3.0]]), torch.tensor([0.0, 0.0]))
        tensor([0.1250, 2.5000])
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        if not (isinstance(self.delta, int | float) and 0 < self.delta < math.inf):
            raise ValueError(f"delta must be a positive number, got {self.delta!r}.")

    def __call__(self, scores: Tensor, y: Tensor) -> Tensor:
        """(samples,)."""
        r = (scores - y.view_as(scores)).abs()
        return torch.where(r <= self.delta, 0.5 * r.square(), self.delta * (r - 0.5 * self.delta)).flatten(1).sum(1)


@dataclass(frozen=True)
class Quantile:
    r"""The pinball loss, smallest at the quantiles of y given x: one output for each level, of one real target.

        loss(s) = sum_k max(tau_k (y - s_k), (tau_k - 1) (y - s_k))

    Args:
        levels: tau_k, between 0 and 1.

    Raises:
        ValueError: no level, or one that is not between 0 and 1.

    Reference: Koenker & Bassett 1978, Regression quantiles, Econometrica 46.

    Examples:
        >>> Quantile((0.1, 0.9))(torch.tensor([[0.0, 0.0]]), torch.tensor([10.0]))
        tensor([10.])
    """

    levels: tuple[float, ...] = (0.5,)

    def __post_init__(self) -> None:
        levels = (self.levels,) if isinstance(self.levels, int | float) else tuple(self.levels)
        if not levels or not all(isinstance(tau, int | float) and 0 < tau < 1 for tau in levels):
            raise ValueError(f"levels must be numbers between 0 and 1, got {self.levels!r}.")
        object.__setattr__(self, "levels", levels)

    def __call__(self, scores: Tensor, y: Tensor) -> Tensor:
        """(samples,)."""
        if scores.shape != (len(y), len(self.levels)) or y.numel() != len(y):
            raise ValueError(
                f"Quantile with {len(self.levels)} level(s) takes as many outputs and one target of a sample, got "
                f"outputs {tuple(scores.shape)} and targets {tuple(y.shape)}."
            )
        tau, r = scores.new_tensor(self.levels), y.view(-1, 1) - scores
        return torch.maximum(tau * r, (tau - 1) * r).sum(1)


@dataclass(frozen=True)
class Reported:
    """A loss of the user's own in place of a `Task`'s, with the score that the targets have.

    Args:
        own: the loss.
        task: what accuracy or r2 is of; None where outputs and targets have no score in common: it is -loss then.

    Examples:
        >>> reported = Reported(torch.nn.L1Loss(), None)
        >>> reported.score(torch.ones(4, 2), torch.zeros(4, 2)), reported.score_name
        (-1.0, 'score')
    """

    own: Loss
    task: Task | None = None
    classes: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", self.task.classes if self.task else 0)

    @property
    def score_name(self) -> str:
        """``accuracy``, ``r2``, or ``score`` for -loss."""
        return self.task.score_name if self.task else "score"

    def loss(self, scores: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
        """The mean of weight x loss over the samples; targets (samples,) go to it as the outputs are, (samples, 1).

        Raises:
            ValueError: the loss is no tensor, or weights are given and it is not one number or more for each sample.
        """
        scores = in_working_precision(scores)
        if y.is_floating_point() and y.ndim == 1 and scores.numel() == len(y):
            y = y.view_as(scores)  # else torch's losses make a square of the two
        losses = self.own(scores, y)
        if not isinstance(losses, Tensor):
            raise ValueError(f"the loss must give a tensor, got {type(losses).__name__}; return losses as torch does.")
        if weight is None:
            return losses.mean()
        if losses.ndim == 0 or len(losses) != len(weight):
            raise ValueError(
                f"samples have weights, and the loss gives {tuple(losses.shape)} for {len(weight)} samples; let it "
                "give a number for each (reduction='none')."
            )
        return (weight * losses.flatten(1).mean(1) if losses.ndim > 1 else weight * losses).mean()

    def score(self, scores: Tensor, y: Tensor, weight: Tensor | None = None) -> float:
        """Accuracy or r2 where there is one, else -loss."""
        return float(self.scored(scores, y, weight))

    def scored(self, scores: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
        """The same, still on its device."""
        return self.task.scored(scores, y, weight) if self.task else -self.loss(scores, y, weight)
