r"""Multilevel training under Lightning: the layers of every flow are doubled when a monitored number says so."""

from __future__ import annotations

__all__ = ["DepthRefinement"]

import math
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging
from torch import nn
from torch.optim.swa_utils import AveragedModel

from liouville.flow import flows_of
from liouville.train import refine


class DepthRefinement(Callback):
    """Double the layers of a module's flows when the monitored metric reaches a target or stops improving.

    This is `liouville.train.multilevel` inside a Trainer: the optimisers' states are carried over as in
    `liouville.train.refine`, and the rates of SGD's schedulers are doubled. With a learning-rate scheduler, give the
    flows' weights a separate parameter group. The weight averages of Lightning's `EMAWeightAveraging`,
    `WeightAveraging` and `StochasticWeightAveraging` are refined too. One process only.

    Args:
        levels: number of depths, including the module's present one.
        monitor: a metric that the module logs once per epoch.
        mode: ``"min"`` or ``"max"``, the direction of improvement.
        target: leave a level as soon as the metric is at least as good as this; None waits for a stall.
        patience: epochs without improvement that end a level.
        how: as for `liouville.Flow.refined`.

    Raises:
        ValueError: for an argument out of range; when fitting begins, if the module has no flow, there are several
            processes, or a scheduler drives a group that mixes weights with and without a layer axis.
        KeyError: if the module does not log ``monitor``.

    Examples:
        >>> DepthRefinement(levels=3, monitor="val_loss", patience=5).level
        1
    """

    def __init__(
        self,
        levels: int,
        *,
        monitor: str = "val_loss",
        mode: str = "min",
        target: float | None = None,
        patience: int = 5,
        how: str = "constant",
    ) -> None:
        if levels < 1 or patience < 1:
            raise ValueError(f"levels and patience must be at least 1, got {levels} and {patience}.")
        if mode not in ("min", "max"):
            raise ValueError(f'mode must be "min" or "max", got {mode!r}.')
        self.levels, self.monitor, self.mode, self.target = levels, monitor, mode, target
        self.patience, self.how = patience, how
        self.level, self.best, self.waited = 1, math.inf, 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a module that could not be refined later."""
        layered = {w for flow in flows_of(pl_module) for w in flow.field.parameters()}
        if not layered:
            raise ValueError("the module has no flow to refine.")
        if trainer.world_size > 1:
            raise ValueError(f"DepthRefinement replaces weights and runs in one process, got {trainer.world_size}.")
        if any(isinstance(callback, StochasticWeightAveraging) for callback in _callbacks(trainer)):
            driven = list(trainer.optimizers)  # it adds its own scheduler
        else:
            driven = [config.scheduler.optimizer for config in trainer.lr_scheduler_configs]
        for optimizer in (o for o in trainer.optimizers if o in driven):
            for group in optimizer.param_groups:
                if 0 < sum(w in layered for w in group["params"]) < len(group["params"]):
                    raise ValueError(
                        "a scheduler drives a parameter group that mixes the weights of flows with others; give the "
                        "flows' weights a separate group."
                    )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Double or wait, after the validation of an epoch."""
        if self.level == self.levels:
            return
        if self.monitor not in trainer.callback_metrics:
            known = ", ".join(trainer.callback_metrics) or "nothing"
            raise KeyError(f"DepthRefinement monitors {self.monitor!r}, which is not logged; logged: {known}.")
        sign = 1.0 if self.mode == "min" else -1.0
        value = sign * float(trainer.callback_metrics[self.monitor])
        self.best, self.waited = (value, 0) if value < self.best else (self.best, self.waited + 1)
        reached = self.target is not None and value <= sign * self.target
        if not reached and self.waited < self.patience:
            return
        first, *more = trainer.optimizers
        if more:
            raise ValueError(f"DepthRefinement carries one optimiser, got {1 + len(more)}.")
        before = [group["lr"] for group in first.param_groups]
        for average in _averages(trainer):  # before the module: an average of refined weights is the refined average
            refine(average, None, self.how)
        refine(pl_module, first, self.how)
        for config in trainer.lr_scheduler_configs:
            if hasattr(config.scheduler, "base_lrs"):
                times = [group["lr"] / lr for group, lr in zip(first.param_groups, before, strict=True)]
                config.scheduler.base_lrs = [c * lr for c, lr in zip(times, config.scheduler.base_lrs, strict=True)]
        self.level, self.best, self.waited = self.level + 1, math.inf, 0

    def state_dict(self) -> dict[str, Any]:
        """The level, and the number of epochs waited."""
        return {"level": self.level, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a checkpoint's state; `refine` the module to the same depth before fitting continues."""
        self.level, self.best, self.waited = state_dict["level"], state_dict["best"], state_dict["waited"]


def _callbacks(trainer: Any) -> list[Callback]:
    return trainer.callbacks


def _averages(trainer: Trainer) -> list[nn.Module]:
    """The averaged weights of other callbacks, such as `WeightAveraging` and `StochasticWeightAveraging`."""
    kept = [value for callback in _callbacks(trainer) for value in vars(callback).items()]
    return [m for name, m in kept if isinstance(m, AveragedModel) or (name == "_average_model" and m is not None)]
