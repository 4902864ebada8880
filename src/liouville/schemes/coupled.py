r"""Two coupled streams: the layers alternate, each moving one stream by a function of the other."""

from __future__ import annotations

__all__ = ["Coupled"]

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from liouville.fields.base import Theta, VectorField
from liouville.schemes.base import State
from liouville.schemes.twostep import TwoStep


@dataclass(frozen=True)
class Coupled(TwoStep):
    r"""(a, b) -> (b, a + gain h f(b; theta_j)), both streams started at y_0; y_N is their mean.

    With gain = 2 it solves y' = f, and is the two-step midpoint rule with another start. With gain = 1 it is a RevNet
    whose F and G are the even and the odd layers, so each stream is moved by every second layer.

    Properties: explicit, reversible for every field, determinant +-1; with gain = 2 of order 2 where the weight is the
    same in all layers, of order 1 where it jumps between them. Like the midpoint rule it is stable only for imaginary
    rates, h omega < 2 / gain.

    Reference: Gomez et al. 2017 (1707.04585), RevNets; Gal et al. 2025 (2512.02056) for language models.

    Args:
        gain: 2 for the differential equation, 1 for a network of given residual blocks.

    Warns:
        StabilityWarning: from a `Flow`, for a field whose rates have, or may have, negative real parts.

    Examples:
        >>> Coupled().order, Coupled().stability_limit
        (2, 1.0)
    """

    gain: float = 2.0  # type: ignore[misc]
    carries: ClassVar[str] = "two streams with the mean y_N"

    def init(self, field: VectorField, y: Tensor, theta_0: Theta, h: float) -> State:
        return y, y.clone()

    def final(self, field: VectorField, state: State) -> Tensor:
        return 0.5 * (state[0] + state[1])
