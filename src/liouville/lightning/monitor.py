"""`GradientMonitor` as a callback of Lightning."""

from __future__ import annotations

__all__ = ["LightningGradientMonitor"]

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from liouville.train.monitor import GradientMonitor


class LightningGradientMonitor(Callback):
    """Watch a `LightningModule` by a `GradientMonitor` and log ``gradient_ratio``, the first norm over the last.

    Args:
        layers: the modules to watch, or a function from the LightningModule to them; its flows by default.
        **settings: ``threshold``, ``samples`` and ``cost`` of `GradientMonitor`.

    ``monitor`` is the `GradientMonitor`, with its records and flags.

    Examples:
        >>> LightningGradientMonitor(threshold=1e-4).monitor.threshold
        0.0001
    """

    def __init__(self, layers: Sequence[nn.Module] | None = None, **settings: float) -> None:
        super().__init__()
        self.monitor = GradientMonitor(layers=layers, **settings)  # type: ignore[arg-type]
        self._logged = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.monitor.on_train_start(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if len(self.monitor.records) > self._logged:
            self._logged = len(self.monitor.records)
            pl_module.log("gradient_ratio", self.monitor.records[-1].ratio)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.monitor.on_train_end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.monitor.on_train_end()
