r"""A penalty that pulls the certified upper bound of all sensitivities towards a budget."""

from __future__ import annotations

__all__ = ["SoftBudget"]

import math
from dataclasses import dataclass

from torch import nn

from liouville.analysis import log_upper_bound
from liouville.flow import flows_of
from liouville.train.regularisers.base import ConvexRegulariser, Term


@dataclass(frozen=True)
class SoftBudget(ConvexRegulariser):
    r"""max(0, log U(theta) - log C)^2 for every flow, U the upper bound of its sensitivities and C the budget.

    It pulls U, the bound by the norms of the weights, towards C without a guarantee; `liouville.budgeted` gives one.
    The residual is not linear in the weights, so the curvature is its Gauss-Newton part.

    Args:
        weight: alpha >= 0.
        budget: C > 1.

    Raises:
        ValueError: if an argument is out of range.
        NotImplementedError: when used, if no bound is known for the field or the scheme.

    Examples:
        >>> import liouville as lv
        >>> float(SoftBudget(budget=20.0)(lv.zoo.h2(4, layers=8, T=0.1)))
        0.0
    """

    budget: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_budget(self.budget)

    def terms(self, network: nn.Module) -> list[Term]:
        flows = flows_of(network)
        return [Term([(log_upper_bound(flow, steps=0) - math.log(self.budget)).clamp(min=0.0)], 1.0) for flow in flows]


def require_budget(budget: float) -> None:
    """Raise a `ValueError` unless 1 < C < inf."""
    if not 1 < budget < math.inf:
        raise ValueError(f"soft_budget must be above 1 and finite, got {budget}.")
