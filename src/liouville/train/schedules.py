"""How the learning rate changes from step to step."""

from __future__ import annotations

__all__ = ["epoch_count", "one_cycle", "scheduler_of"]

import math
from collections.abc import Callable

import torch

from liouville.train.settings import Settings


def scheduler_of(
    optimizer: torch.optim.Optimizer, settings: Settings, steps: int, total: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The schedule that the settings name, of ``steps`` steps an epoch and ``total`` in all."""
    if settings.schedule == "one-cycle":
        return torch.optim.lr_scheduler.LambdaLR(optimizer, one_cycle(total, settings.warmup))
    if settings.schedule == "epoch-count":
        return torch.optim.lr_scheduler.LambdaLR(optimizer, epoch_count(steps, (0.9, settings.beta2)))
    if settings.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    if settings.schedule == "step":
        return torch.optim.lr_scheduler.StepLR(optimizer, steps, gamma=0.8)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=0)


def one_cycle(total: int, warmup: float) -> Callable[[int], float]:
    """Step -> factor of the rate: a cosine from 1/25 up to 1 in the first ``warmup`` of the steps, then one to 0."""
    up = warmup * total

    def factor(step: int) -> float:
        if step < up:
            return 1 - (1 - 1 / 25) * (1 + math.cos(math.pi * step / up)) / 2
        return (1 + math.cos(math.pi * min(1.0, (step - up) / max(1.0, total - up)))) / 2

    return factor


def epoch_count(steps: int, betas: tuple[float, float]) -> Callable[[int], float]:
    r"""Step -> factor of the rate that makes Adam's bias corrections count epochs instead of steps.

    Adam divides by 1 - beta_1^k and sqrt(1 - beta_2^k) in its k-th step; with the factor, by the same of e, the number
    of the epoch from 1. With ``steps`` = 32 a steady gradient is followed at 1.7 times the rate at the end of the first
    epoch, at 0.25 times in the fiftieth.
    """

    def factor(step: int) -> float:
        k, e = step + 1, step // steps + 1
        first, second = ((1 - beta**k) / (1 - beta**e) for beta in betas)
        return first / math.sqrt(second)

    return factor
