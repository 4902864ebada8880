"""The penalty of a training run: a weighted sum of regularisers, as a record that can be saved.

A new regulariser has its own file, and here its weight in `Penalty`, its line in `_PARTS`, and its name in `__all__`.
"""

from __future__ import annotations

__all__ = [
    "L1",
    "ConvexRegulariser",
    "Decay",
    "HeadDecay",
    "HeadSmoothness",
    "Penalty",
    "Regulariser",
    "Smoothness",
    "SoftBudget",
    "Variation",
]

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from liouville.names import lookup
from liouville.renamed import fields_renamed
from liouville.train.regularisers.base import ConvexRegulariser, Regulariser, require_weight
from liouville.train.regularisers.bound import SoftBudget, require_budget
from liouville.train.regularisers.depth import L1, Decay, Smoothness, Variation
from liouville.train.regularisers.head import HeadDecay, HeadSmoothness


@fields_renamed(head="head_decay")
@dataclass(frozen=True)
class Penalty(Regulariser):
    """The sum of the regularisers with these weights, each counted once; 0 switches one off.

    Args:
        smoothness: penalise changes of the weights in depth, this strongly; the weight of `Smoothness`.
        decay: penalise large weights of the flows, this strongly; the weight of `Decay`.
        head_decay: penalise a large head, this strongly; the weight of `HeadDecay`.
        scaling: choose how smoothness and decay scale with the depth.
        variation: penalise the total variation of the weights in depth, this strongly; the weight of `Variation`.
        l1: penalise the l1 norm of the weights in depth, this strongly; the weight of `L1`.
        head_smoothness: penalise a head that is rough in space, this strongly; the weight of `HeadSmoothness`, whose
            head must read square feature images.
        soft_budget: penalise sensitivity bounds above this; C > 1 of `SoftBudget`, with weight 1, None adds nothing.

    Raises:
        ValueError: if a weight is negative, the scaling unknown, or the budget not above 1.

    Examples:
        >>> Penalty(smoothness=1e-5, head_decay=1e-3).parts()
        [Smoothness(weight=1e-05, scaling='depth'), HeadDecay(weight=0.001)]
    """

    smoothness: float = 0.0
    decay: float = 0.0
    head_decay: float = 0.0
    scaling: Literal["depth", "hdnn", "sum"] = "depth"
    variation: float = 0.0
    l1: float = 0.0
    head_smoothness: float = 0.0
    soft_budget: float | None = None

    def __post_init__(self) -> None:
        lookup({"depth": 0, "hdnn": 0, "sum": 0}, self.scaling, "scaling")
        for name in _PARTS:
            if name == "soft_budget":
                if self.soft_budget is not None:
                    require_budget(self.soft_budget)
            else:
                require_weight(name, getattr(self, name))

    _units: ClassVar[bool] = False

    def in_units(self, units: bool = True) -> Penalty:
        """The same penalty of the weights in their units (`liouville.units`), which ``rates="scaled"`` minimises; of
        the weights as they are if not ``units``.
        """
        kind = _InUnits if units else Penalty
        return kind(**{f.name: getattr(self, f.name) for f in fields(self)})

    def parts(self) -> list[ConvexRegulariser]:
        """The regularisers with a weight other than 0."""
        return list(self._parts)

    @functools.cached_property
    def _parts(self) -> list[ConvexRegulariser]:
        """The regularisers, made once, since every step needs them."""
        found: list[Any] = [made(self) for name, made in _PARTS.items() if getattr(self, name)]
        return [replace(part, units=True) if self._units and hasattr(part, "units") else part for part in found]

    def head_parts(self) -> list[ConvexRegulariser]:
        """The regularisers that depend only on the head."""
        return [part for part in self.parts() if part.of_head]

    def value(self, network: nn.Module) -> Tensor:
        """The sum of the values."""
        values = [part.value(network) for part in self.parts()]
        return functools.reduce(torch.add, values) if values else torch.zeros(())

    def curvature(self, network: nn.Module, direction: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The sum of the curvature products."""
        total = {name: torch.zeros_like(v) for name, v in direction.items()}
        for part in self.parts():
            for name, product in part.curvature(network, direction).items():
                total[name] += product
        return total


class _InUnits(Penalty):
    """A penalty of the weights in their units."""

    _units = True


_PARTS: dict[str, Callable[[Penalty], ConvexRegulariser]] = {
    "smoothness": lambda p: Smoothness(p.smoothness, p.scaling),
    "decay": lambda p: Decay(p.decay, p.scaling),
    "variation": lambda p: Variation(p.variation),
    "l1": lambda p: L1(p.l1),
    "soft_budget": lambda p: SoftBudget(budget=p.soft_budget or math.inf),
    "head_decay": lambda p: HeadDecay(p.head_decay),
    "head_smoothness": lambda p: HeadSmoothness(p.head_smoothness),
}
