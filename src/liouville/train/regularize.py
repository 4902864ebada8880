r"""Penalties, as quadratures over [0, T]: their values do not depend on how many layers resolve the same weights."""

from __future__ import annotations

__all__ = ["Penalty", "decay", "excess", "head_decay", "smoothness"]

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from liouville.analysis import log_upper_bound
from liouville.flow import Flow
from liouville.names import lookup
from liouville.network import Network

Scaling = Literal["depth", "hdnn", "sum"]


def smoothness(flow: Flow, scaling: Scaling = "depth") -> Tensor:
    r"""Smoothness in depth: c sum_{j=1}^{N-1} ||theta_j - theta_{j-1}||^2 over all weights of the flow.

    Args:
        flow: whose constrained weights theta() are penalised.
        scaling: ``"depth"``: c = 1/(2h), the quadrature of 1/2 int |theta'|^2 dt (Haber & Ruthotto, 1705.03341);
            ``"hdnn"``: c = h/2 (2104.13166, eq. (13); 2105.13205); ``"sum"``: c = 1/2.

    Example:
        >>> import liouville as lv
        >>> float(smoothness(lv.zoo.h2(4, layers=8, T=1.0, init=lv.Smooth(modes=1)))) < 1e-9
        True
    """
    return _smoothness(flow, _weights(flow), scaling)


def decay(flow: Flow, scaling: Scaling = "depth") -> Tensor:
    r"""Weight decay: c sum_j ||theta_j||^2; c = h/2 for ``"depth"`` and ``"hdnn"``, 1/2 for ``"sum"``.

    Example:
        >>> import liouville as lv
        >>> float(decay(lv.zoo.h2(4, layers=8, T=1.0))) > 0
        True
    """
    return _decay(flow, _weights(flow), scaling)


def head_decay(network: Network) -> Tensor:
    """1/2 (||W||^2 + |mu|^2) over the weights and biases of the head."""
    squares = [p.square().sum() for p in network.head.parameters()]
    return 0.5 * torch.stack(squares).sum() if squares else torch.zeros(())


def excess(flow: Flow, budget: float) -> Tensor:
    r"""max(0, log U(theta) - log C)^2, U the upper bound of all sensitivities and C the budget.

    It draws U towards C and guarantees nothing; `liouville.budgeted` does.

    Example:
        >>> import liouville as lv
        >>> float(excess(lv.zoo.h2(4, layers=8, T=0.1), 20.0))
        0.0
    """
    return (log_upper_bound(flow) - math.log(budget)).clamp(min=0.0).square()


@dataclass(frozen=True)
class Penalty:
    """alpha_s smoothness + alpha_d decay + alpha_c head decay, each counted once; 0 switches a term off.

    Args:
        smoothness: alpha_s.
        decay: alpha_d.
        head: alpha_c.
        scaling: of the first two in depth.
        soft_budget: C > 1; adds max(0, log U - log C)^2 for every flow, see `excess`. None adds nothing.

    Raises:
        ValueError: if a weight is negative, the scaling unknown, or the budget not above 1.
    """

    smoothness: float = 0.0
    decay: float = 0.0
    head: float = 0.0
    scaling: Scaling = "depth"
    soft_budget: float | None = None

    def __post_init__(self) -> None:
        lookup({"depth": 0, "hdnn": 0, "sum": 0}, self.scaling, "scaling")
        for name in ("smoothness", "decay", "head"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"the {name} weight must be >= 0 and finite, got {getattr(self, name)}.")
        if self.soft_budget is not None and not 1 < self.soft_budget < math.inf:
            raise ValueError(f"soft_budget must be above 1 and finite, got {self.soft_budget}.")

    def __call__(self, network: nn.Module) -> Tensor:
        """The weighted sum over all flows of the network."""
        terms = []
        for flow in (m for m in network.modules() if isinstance(m, Flow)):
            weights = _weights(flow) if self.smoothness or self.decay else []  # once: a budget makes them dear
            if self.smoothness:
                terms.append(self.smoothness * _smoothness(flow, weights, self.scaling))
            if self.decay:
                terms.append(self.decay * _decay(flow, weights, self.scaling))
            if self.soft_budget is not None:
                terms.append(excess(flow, self.soft_budget))
        if self.head and isinstance(network, Network):
            terms.append(self.head * head_decay(network))
        return torch.stack(terms).sum() if terms else torch.zeros(())


def _smoothness(flow: Flow, weights: list[Tensor], scaling: Scaling) -> Tensor:
    c = lookup({"depth": 0.5 / flow.h, "hdnn": 0.5 * flow.h, "sum": 0.5}, scaling, "scaling")
    return c * _total([w.diff(dim=0) for w in weights])


def _decay(flow: Flow, weights: list[Tensor], scaling: Scaling) -> Tensor:
    c = lookup({"depth": 0.5 * flow.h, "hdnn": 0.5 * flow.h, "sum": 0.5}, scaling, "scaling")
    return c * _total([w.expand(flow.layers, *w.shape[1:]) for w in weights])


def _weights(flow: Flow) -> list[Tensor]:
    """theta without a J that is not trained; a scalar bias counts once, though theta() spreads it over the features."""
    fixed = () if getattr(flow.field, "train_J", True) else ("J",)
    theta = flow.field.theta()
    weights = [w for name, w in zip(theta._fields, theta, strict=True) if name not in fixed]
    return [w[..., :1] if w.dim() > 1 and w.stride(-1) == 0 else w for w in weights]


def _total(tensors: list[Tensor]) -> Tensor:
    return torch.stack([t.square().sum() for t in tensors]).sum() if tensors else torch.zeros(())
