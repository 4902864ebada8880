r"""The learning problem as a function of one flat vector: value, gradient, and a Gauss-Newton model of it.

    F(w) = 1/s sum_i loss(head(y_N(x_i; w)), c_i) + R(w)

With S(w) the scores of all samples and J = dS/dw, the gradient is J^T L'(S) + R'(w), and the Gauss-Newton product is
J^T L''(S) J v + R''(w) v. It leaves out the curvature of the flow, and is positive semidefinite because the loss is
convex in the scores: what is minimised beyond w is a convex model, even where F is not convex.
"""

from __future__ import annotations

__all__ = ["Expansion", "FullObjective", "Objective"]

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from liouville.flow import flows_of
from liouville.task import Task
from liouville.train.flat import Evaluation, Jacobian, Named, Weights
from liouville.train.regularisers import Regulariser


class Expansion(NamedTuple):
    """F around one point w: F(w + v) ~ value + gradient^T v + 1/2 v^T product(v)."""

    value: float
    gradient: Tensor
    product: Callable[[Tensor], Tensor]


class Objective(ABC):
    """A learning problem over one flat vector w.

    Args:
        network: gives the architecture and the first w; it changes only in `assign`.
        x, y: inputs and targets.
        task: the loss.
        penalty: R.
        names: the parameters that make up w, in this order.

    ``work`` counts layer evaluations, layers x samples: one for every sweep forwards, backwards or in forward mode.
    """

    def __init__(
        self, network: nn.Module, x: Tensor, y: Tensor, task: Task, penalty: Regulariser, names: Sequence[str]
    ) -> None:
        self.network, self.x, self.y, self.task, self.penalty = network, x, y, task, penalty
        self.weights = Weights(network, list(names))
        self.work = 0
        self._evaluation = Evaluation(network)
        self._layers = sum(flow.layers for flow in flows_of(network))

    def vector(self) -> Tensor:
        """The network's present w, a copy."""
        return self.weights.vector()

    @abstractmethod
    def assign(self, w: Tensor) -> None:
        """Write w, and whatever belongs to it, into the network."""

    @abstractmethod
    def value(self, w: Tensor) -> float:
        """F(w)."""

    @abstractmethod
    def expand(self, w: Tensor) -> Expansion:
        """Value, gradient and Gauss-Newton product at w."""

    def _count(self, passes: int, samples: int) -> None:
        self.work += passes * samples * self._layers

    def _penalty(self, named: Named, fixed: Named) -> tuple[Tensor, Tensor]:
        """R and its gradient with respect to ``named``, flat; the parameters in ``fixed`` have those values."""
        leaves = {name: t.detach().requires_grad_() for name, t in named.items()}
        with torch.enable_grad():
            value = self._evaluation({**leaves, **fixed}, self.penalty.value)
        if not value.requires_grad:
            return value, torch.cat([torch.zeros_like(t).flatten() for t in leaves.values()])
        gradients = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
        return value.detach(), torch.cat([g.flatten() for g in gradients])

    def _curvature(self, named: Named, direction: Named) -> Tensor:
        """R'' v, flat, in the order of ``direction``."""
        leaves = {name: t.detach().requires_grad_() for name, t in named.items()}
        product = self._evaluation(leaves, self.penalty.curvature, direction)
        return torch.cat([product[name].flatten() for name in direction])


class FullObjective(Objective):
    """F of all trained parameters, or of those in ``names``, with the others as the network has them.

    Args:
        network, x, y, task, penalty: as for `Objective`.
        names: parameters that make up w; all that require a gradient by default.
        curvature: rows of x that the product of `expand` is computed on, fewer than the gradient's; all by default.

    Examples:
        >>> import liouville as lv
        >>> network = lv.classifier("h2", inputs=2, classes=2, features=4, layers=8, T=1.0).double()
        >>> x, y = torch.randn(20, 2).double(), torch.arange(20) % 2
        >>> objective = FullObjective(network, x, y, Task("logistic", 2), lv.train.Penalty(decay=1e-3))
        >>> value, gradient, product = objective.expand(objective.vector())
        >>> bool(gradient @ product(gradient) > 0)
        True
    """

    def __init__(
        self,
        network: nn.Module,
        x: Tensor,
        y: Tensor,
        task: Task,
        penalty: Regulariser,
        names: Sequence[str] | None = None,
        curvature: Tensor | None = None,
    ) -> None:
        chosen = [n for n, p in network.named_parameters() if p.requires_grad] if names is None else names
        super().__init__(network, x, y, task, penalty, chosen)
        self.curvature = curvature

    def assign(self, w: Tensor) -> None:
        self.weights.assign(w)

    @torch.no_grad()
    def value(self, w: Tensor) -> float:
        named = self.weights.named(w)
        self._count(1, len(self.x))
        loss = self.task.loss(self._evaluation(named, _scores, self.x), self.y)
        return float(loss + self._evaluation(named, self.penalty.value))

    def expand(self, w: Tensor) -> Expansion:
        J = Jacobian(self._evaluation, self.weights, w, _scores, self.x)
        self._count(2, len(self.x))
        loss, dS = self.task.loss(J.outputs, self.y), self.task.gradient(J.outputs, self.y)
        R, dR = self._penalty(self.weights.named(w), {})
        gradient = J.transpose(dS) + dR
        if self.curvature is not None:
            J = Jacobian(self._evaluation, self.weights, w, _scores, self.x[self.curvature])
            self._count(1, len(self.curvature))

        def product(v: Tensor) -> Tensor:
            self._count(2, len(J.outputs))
            data = J.transpose(self.task.curvature(J.outputs, J.forward(v)))
            return data + self._curvature(self.weights.named(w), self.weights.named(v))

        return Expansion(float(loss + R), gradient, product)


def _scores(network: nn.Module, x: Tensor) -> Tensor:
    return network(x)
