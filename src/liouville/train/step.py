r"""One step of training, in operations of the device: what the host reads of it, and when, is the loop's to say."""

from __future__ import annotations

__all__ = ["Step"]

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from liouville.fields.once import one_step
from liouville.processes.sharing import Processes
from liouville.sequences import Inputs
from liouville.task import Task
from liouville.train.alternate import Features, fresh_head, require_network
from liouville.train.parts import Goal
from liouville.train.rates import Gradients
from liouville.train.settings import Settings


class Outcome(NamedTuple):
    """What a forward pass gives: scores, the mean loss, and what penalties add to it."""

    scores: Tensor
    loss: Tensor
    penalty: Tensor


class Step:
    """Forward, backward, clipping and the optimiser's step, for one network and optimiser."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        task: Goal,
        settings: Settings,
        processes: Processes,
    ) -> None:
        self.network, self.optimizer, self.task, self.settings = network, optimizer, task, settings
        self.processes = processes
        self.gradients = Gradients(optimizer.param_groups)
        self.weights = self.gradients.weights
        self.penalty = settings.penalty.in_units(settings.rates != "plain")
        self.shared: Any = processes.wrapped(Features(require_network(network)) if settings.alternate else network)

    def whole(self, x: Inputs, y: Tensor, weight: Tensor | None = None, *, keep: bool = False) -> Tensor:
        """The step: loss, penalty, score and gradient norm, (4,) in float64 on the device; nothing is read.

        ``keep`` sets gradients to zero where they are, in place of making new ones.
        """
        self.clear(keep)
        outcome = self.forward(x, y, weight)
        norm = self.backward(outcome)
        self.optimizer.step()
        score = self.task.scored(outcome.scores.detach(), y, weight)
        return torch.stack([v.detach().double() for v in (outcome.loss, outcome.penalty, score, norm)])

    def clear(self, keep: bool = False) -> None:
        """Without gradients, or with zeros where there were some."""
        for p in self.weights:
            if not keep:
                p.grad = None
            elif p.grad is not None:
                p.grad.zero_()

    def forward(self, x: Inputs, y: Tensor, weight: Tensor | None = None) -> Outcome:
        """Scores, loss and penalty; the weights multiply the losses of their samples."""
        with one_step():
            scores = self._scores(x, y)
            penalty = self.penalty(self.network)
        return Outcome(scores, self.task.loss(scores, y, weight), penalty)

    def backward(self, outcome: Outcome) -> Tensor:
        """The norm of the whole gradient, which is then shortened to the largest one allowed."""
        self.processes.backward(outcome.loss, outcome.penalty)
        norm = self.gradients.norm()
        if self.settings.max_grad_norm:
            torch._foreach_mul_(self.gradients.now(), (self.settings.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def _scores(self, x: Inputs, y: Tensor) -> Tensor:
        """The network's scores; with alternation, those of a head made afresh for this batch's features."""
        autocast = torch.autocast(x.device.type, torch.bfloat16, enabled=self.settings.bfloat16)
        if not self.settings.alternate:
            with autocast:
                return self.processes.map(self.shared, x).to(x.dtype)
        with autocast:
            features = self.processes.map(self.shared, x)
        network = require_network(self.network)
        assert isinstance(self.task, Task)
        fresh_head(network, features.detach().to(x.dtype), y, self.task, self.settings)
        with autocast:
            return network.head(features).to(x.dtype)
