r"""Stochastic block coordinate descent, as the first paper trains: on one batch the head first, and then the rest.

In every iteration a batch is drawn, and with it the objective: the batch's mean loss and the penalty, each regulariser
once. First the head takes a few Newton steps on it, the other weights fixed, from the head of the iteration before;
then the other weights take one Gauss-Newton step, the head fixed. Each is taken only if that objective falls. The
products of the second may use fewer samples than its gradient.

Reference: Haber & Ruthotto 2017 (1705.03341), the learning method.
"""

from __future__ import annotations

__all__ = ["BlockCoordinate"]

import torch
from torch import Tensor, nn

from liouville.task import Task
from liouville.train.descent import LineSearch, Step, TrustRegion
from liouville.train.objective import Expansion, FullObjective
from liouville.train.precondition import DepthPreconditioner, stacks
from liouville.train.regularisers import Penalty
from liouville.train.varpro import ReducedObjective


class BlockCoordinate:
    """The two sub-steps of an iteration; the network carries the weights from one to the next.

    Args:
        network: changed in place; its head must be linear.
        x, y, task, penalty: the whole training part and the objective.
        safe: how the second sub-step is made safe.
        batch: samples of an iteration.
        curvature: share of the batch that the products use, in (0, 1].
        head_steps: Newton steps of the first sub-step.
        ridge: of the preconditioner.
        generator: draws the batches.
    """

    def __init__(
        self,
        network: nn.Module,
        x: Tensor,
        y: Tensor,
        task: Task,
        penalty: Penalty,
        safe: LineSearch | TrustRegion,
        *,
        batch: int,
        curvature: float = 1.0,
        head_steps: int = 4,
        ridge: float = 0.1,
        generator: torch.Generator,
    ) -> None:
        self.network, self.x, self.y, self.task, self.penalty, self.safe = network, x, y, task, penalty, safe
        self.batch, self.curvature, self.head_steps, self.ridge = batch, curvature, head_steps, ridge
        self.generator = generator
        self.work = 0

    def step(self) -> tuple[FullObjective, Expansion, Step]:
        """One iteration: the objective of the second sub-step, its expansion, and the step."""
        rows = torch.randperm(len(self.x), generator=self.generator)[: self.batch].to(self.x.device)
        x, y = self.x[rows], self.y[rows]
        head = ReducedObjective(self.network, x, y, self.task, self.penalty, steps=self.head_steps)
        head.assign(head.vector())
        few = torch.arange(max(1, round(self.curvature * len(x))), device=x.device)  # the batch is in random order
        objective = FullObjective(
            self.network,
            x,
            y,
            self.task,
            self.penalty,
            list(head.weights.parameters),
            None if self.curvature == 1 else few,
        )
        w = objective.vector()
        at = objective.expand(w)
        precondition = DepthPreconditioner(
            objective.weights, stacks(self.network, objective.weights, self.penalty, self.ridge), self.ridge
        )
        step = self.safe.step(objective, w, at, precondition)
        objective.assign(step.w)
        self.work += head.work + objective.work
        return objective, at, step
