"""The penalty of a training run: a weighted sum of regularisers, as a record that can be written down."""

from __future__ import annotations

__all__ = ["Penalty"]

import functools
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor, nn

from liouville.names import lookup
from liouville.renamed import fields_renamed
from liouville.train.regularisers.base import ConvexRegulariser, Regulariser, require_weight
from liouville.train.regularisers.bound import SoftBudget, require_budget
from liouville.train.regularisers.depth import L1, Decay, Scaling, Smoothness, Variation
from liouville.train.regularisers.head import HeadDecay, HeadSmoothness


@fields_renamed(head="head_decay")
@dataclass(frozen=True)
class Penalty(Regulariser):
    """The sum of the regularisers with these weights, each counted once; 0 switches one off.

    Args:
        smoothness: of `Smoothness`.
        decay: of `Decay`.
        head_decay: of `HeadDecay`.
        scaling: of the first two in depth.
        variation: of `Variation`.
        l1: of `L1`.
        head_smoothness: of `HeadSmoothness`, for heads that read square feature images.
        soft_budget: C > 1 of `SoftBudget`, with weight 1; None adds nothing.

    Raises:
        ValueError: if a weight is negative, the scaling unknown, or the budget not above 1.

    Examples:
        >>> Penalty(smoothness=1e-5, head_decay=1e-3).parts()
        [Smoothness(weight=1e-05, scaling='depth'), HeadDecay(weight=0.001)]
    """

    smoothness: float = 0.0
    decay: float = 0.0
    head_decay: float = 0.0
    scaling: Scaling = "depth"
    variation: float = 0.0
    l1: float = 0.0
    head_smoothness: float = 0.0
    soft_budget: float | None = None

    def __post_init__(self) -> None:
        lookup({"depth": 0, "hdnn": 0, "sum": 0}, self.scaling, "scaling")
        for name in ("smoothness", "decay", "head_decay", "variation", "l1", "head_smoothness"):
            require_weight(name, getattr(self, name))
        if self.soft_budget is not None:
            require_budget(self.soft_budget)

    _units: ClassVar[bool] = False

    def in_units(self, units: bool = True) -> Penalty:
        """The same penalty of the weights in their units (`liouville.units`), which ``rates="scaled"`` minimises; of
        the weights as they are if not ``units``.
        """
        kind = _InUnits if units else Penalty
        return kind(**{f.name: getattr(self, f.name) for f in fields(self)})

    def parts(self) -> list[ConvexRegulariser]:
        """The regularisers that count."""
        return list(self._parts)

    @functools.cached_property
    def _parts(self) -> list[ConvexRegulariser]:
        """Made once: every step asks for them."""
        in_depth = (
            Smoothness(self.smoothness, self.scaling, units=self._units),
            Decay(self.decay, self.scaling, units=self._units),
            Variation(self.variation, units=self._units),
            L1(self.l1, units=self._units),
        )
        bound = [] if self.soft_budget is None else [SoftBudget(budget=self.soft_budget)]
        return [part for part in in_depth if part.weight] + bound + self.head_parts()

    def head_parts(self) -> list[ConvexRegulariser]:
        """Those that depend on the head alone."""
        parts = (
            HeadDecay(self.head_decay, units=self._units),
            HeadSmoothness(self.head_smoothness, units=self._units),
        )
        return [part for part in parts if part.weight]

    def value(self, network: nn.Module) -> Tensor:
        """The sum of the values."""
        values = [part.value(network) for part in self.parts()]
        return functools.reduce(torch.add, values) if values else torch.zeros(())

    def curvature(self, network: nn.Module, direction: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The sum of the products."""
        total = {name: torch.zeros_like(v) for name, v in direction.items()}
        for part in self.parts():
            for name, product in part.curvature(network, direction).items():
                total[name] += product
        return total


class _InUnits(Penalty):
    """A penalty of the weights in their units."""

    _units = True
