"""The history of a training run: one record per epoch, and the metrics at the end."""

from __future__ import annotations

__all__ = ["Epoch", "History"]

from dataclasses import asdict, dataclass, field
from typing import Any

from liouville.display import table


@dataclass(frozen=True)
class Epoch:
    """One pass over the training part.

    ``loss`` and ``score`` are means over the batches while the weights changed; ``penalty`` is part of what is
    minimised, not of ``loss``; ``lr`` is the rate at the start of the epoch; ``gradient_norm`` is the mean Euclidean
    norm of the whole gradient before clipping. ``validation_*`` are None where nothing is held out. ``layers`` counts
    those of all flows, and ``work`` the layer evaluations of the epoch: two for every training sample and layer
    (forwards and backwards), one for every validation sample and layer.
    """

    epoch: int
    loss: float
    penalty: float
    score: float
    gradient_norm: float
    lr: float
    validation_loss: float | None
    validation_score: float | None
    seconds: float
    layers: int = 0
    work: int = 0


@dataclass
class History:
    """The epochs, which of them was returned and why training ended; test figures are read once, at the end.

    Args:
        score_name: ``accuracy`` or ``r2``.
        epochs: one record per epoch.
        best_epoch: whose weights the network carries now.
        stopped: why training ended.
        start: ``validation_loss`` and ``validation_accuracy`` of the weights that training began with, where it may
            end with them: with a target, or an optimiser that was carried on.
        work: layer evaluations, those of all epochs and of ``start``.
        metrics: ``train_loss``, ``train_accuracy``, ``validation_...``, ``test_...`` of the returned weights,
            ``seconds`` of training, and its ``work``.
    """

    score_name: str
    epochs: list[Epoch] = field(default_factory=list, repr=False)
    best_epoch: int = 0
    stopped: str = ""
    start: dict[str, float] = field(default_factory=dict)
    work: int = 0
    metrics: dict[str, float] = field(default_factory=dict)

    def records(self) -> list[dict[str, Any]]:
        """The epochs as plain dictionaries, with the score under its own name."""
        return [self.record(epoch) for epoch in self.epochs]

    def _repr_html_(self) -> str:
        """A small table for notebooks."""
        name = self.score_name
        last = self.epochs[-1:] and self.record(self.epochs[-1])
        found = {"last epoch": dict(last or {})} | {
            part: {key.removeprefix(f"{part}_"): value for key, value in self.metrics.items() if key.startswith(part)}
            for part in ("train", "validation", "test")
        }
        rows = [
            (part, *("–" if values.get(key) is None else f"{values[key]:.4g}" for key in ("loss", name)))
            for part, values in found.items()
            if values
        ]
        epochs = f"{len(self.epochs)} epoch{'s' * (len(self.epochs) != 1)}"
        best = f", the weights are those of epoch {self.best_epoch}" if self.best_epoch else ""
        note = "liouville.report.training_curves(history) draws the epochs"
        return table(f"{epochs}{best}; {self.stopped or 'not ended'}", ("part", "loss", name), rows, note)

    def record(self, epoch: Epoch) -> dict[str, Any]:
        """One epoch as a plain dictionary."""
        return {key.replace("score", self.score_name): value for key, value in asdict(epoch).items()}
