"""Measurements of `gradients` during training: sensitivities as batch means and by sample, loss gradients."""

from __future__ import annotations

__all__ = ["Watch"]

import copy
from typing import Any

import torch
from torch import Tensor, nn

from liouville.analysis import backward_sensitivity
from liouville.data import Split
from liouville.experiments.records import rounded
from liouville.train import Callback

_SAMPLES = 125


class Watch(Callback):
    """Sensitivities of ``body`` after ``first``, and the loss gradient by its weights, every few iterations.

    Args:
        first: the module before the body.
        body: a flow, or a chain of modules of one width.
        split: data; its first 125 training points are measured, in float64.
        every: number of iterations between two measurements.
    """

    def __init__(self, first: nn.Module, body: Any, split: Split, every: int) -> None:
        self.first, self.body, self.every = first, body, every
        self.x = split.x_train[:_SAMPLES]
        self.iterations: list[int] = []
        self.gradients: list[float] = []
        self.mean: list[Tensor] = []  # (depths), of the mean matrix
        self.single: list[Tensor] = []  # (depths, samples)
        self.least, self.step = float("inf"), 0

    def on_train_start(self, network: nn.Module) -> None:
        self._measure()

    def on_train_batch_end(self, loss: float) -> None:
        if self.step % self.every == 0:
            found = [p.grad.norm() for p in self.body.parameters() if p.grad is not None]
            self.gradients.append(float(torch.stack(found).norm()))
        self.step += 1
        if self.step % self.every == 0:
            self._measure()

    @torch.no_grad()
    def _measure(self) -> None:
        y = self.first(self.x).double()
        found = backward_sensitivity(copy.deepcopy(self.body).double(), y)
        matrices = found if isinstance(found, Tensor) else torch.stack(found)
        norms = torch.linalg.matrix_norm(matrices[:-1], ord=2)
        self.least = min(self.least, float(norms.min()))
        self.depths = list(range(1, len(matrices) - 1, 10))
        self.iterations.append(self.step)
        self.single.append(norms[self.depths])
        self.mean.append(torch.linalg.matrix_norm(matrices[self.depths].mean(1), ord=2))

    def values(self, curves: bool) -> dict[str, Any]:
        """Ranges over depths l = 1, 11, ... and iterations, and the curves, if requested."""
        mean, single = torch.stack(self.mean), torch.stack(self.single)
        values = {
            "mean_range": _rounded(mean.aminmax()),
            "single_range": _rounded(single.aminmax()),
            "least_of_all_depths": float(f"{self.least:.12g}"),
            "gradients": _rounded(self.gradients),
        }
        if curves:
            parts = {"mean": mean, "least": single.amin(2), "median": single.median(2).values, "most": single.amax(2)}
            values |= {"iterations": self.iterations, "depths": self.depths}
            values |= {name: [_rounded(row) for row in part.mT] for name, part in parts.items()}
        return values


def _rounded(values: Any) -> list[float]:
    return [rounded(x) for x in values]
