r"""How sure a classifier is: one factor for all of its scores, chosen by held-out rows.

A network that was trained on smoothed labels is too unsure of what it knows, and one that was trained for long too sure
of what it does not. Both are cured by the factor that fits best (temperature scaling; Guo et al., 1706.04599):

    beta = argmin_b  mean_i L(b f(x_i), y_i) + (log b)^2 / (2 sigma^2 n),    sigma = 0.2,

over n rows that were held out. The second term is a prior: few rows leave the factor near 1. The factor is put into the
head, so that the network stays a network, and which class has the highest score does not change.
"""

from __future__ import annotations

__all__ = ["best_factor", "scale_head"]

import math

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from liouville.network import Network
from liouville.task import Task

_SIGMA = 0.2
_MOST = 1.5  # of |log b|


def best_factor(scores: Tensor, y: Tensor, task: Task, weight: Tensor | None = None) -> float:
    """beta, from the scores (rows, outputs) of held-out rows, their classes and, if they count differently, weights.

    Examples:
        >>> scores, y = torch.randn(1000, 1, dtype=torch.float64), torch.zeros(1000).long()
        >>> y = (torch.rand(1000) < (4 * scores[:, 0]).sigmoid()).long()
        >>> 2 < best_factor(scores, y, Task("logistic", 2)) < 4.5
        True
    """
    scores = scores.double()
    weight = None if weight is None else weight.double() / weight.double().mean()

    def objective(log: float) -> float:
        prior = log**2 / (2 * _SIGMA**2 * len(scores))
        return float(task.loss(math.exp(log) * scores, y, weight)) + prior

    return math.exp(minimize_scalar(objective, bounds=(-_MOST, _MOST), method="bounded").x)


@torch.no_grad()
def scale_head(network: Network, factor: float) -> None:
    """Multiply the scores of a network with a linear head."""
    for parameter in network.head.parameters():
        parameter.mul_(factor)
