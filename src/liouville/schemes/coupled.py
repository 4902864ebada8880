r"""Two coupled streams: every layer moves one by a function of the other, and they take turns."""

from __future__ import annotations

__all__ = ["Coupled"]

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from liouville.fields.base import Lipschitz, Theta, VectorField
from liouville.schemes.base import Shear, ShearScheme, State, larger_root
from liouville.schemes.growth import of_shears
from liouville.schemes.twostep import warn_of_damping


@dataclass(frozen=True)
class Coupled(ShearScheme):
    r"""(a, b) -> (b, a + gain h f(b; theta_j)), both streams started at y_0; y_N is their mean.

    With gain = 2 it solves y' = f, and is the two-step midpoint rule with another start. With gain = 1 it is a RevNet
    whose F and G are the even and the odd layers, each stream moved by every other one.

    Properties: explicit, reversible for every field, determinant +-1; with gain = 2 of order 2 where the weight is the
    same in all layers, of order 1 where it jumps between them. Like the midpoint rule it is stable for imaginary rates
    only, h omega < 2 / gain.

    Reference: Gomez et al. 2017 (1707.04585), RevNets; Gal et al. 2025 (2512.02056) for language models.

    Args:
        gain: 2 for the differential equation, 1 for a network of residual blocks as they are.

    Warns:
        StabilityWarning: by a `Flow`, for a field whose rates have, or may have, negative real parts.

    Examples:
        >>> Coupled().order, Coupled().stability_limit
        (2, 1.0)
    """

    order: ClassVar[int] = 2
    swaps: ClassVar[bool] = True
    gain: float = 2.0

    @property
    def order_in_depth(self) -> int:
        return 1

    def check(self, field: VectorField) -> None:
        super().check(field)
        warn_of_damping("the Coupled scheme", field)

    def init(self, field: VectorField, y: Tensor, theta_0: Theta, h: float) -> State:
        return y, y.clone()

    def shears(self, field: VectorField, theta_j: Theta, h: float) -> tuple[Shear, ...]:
        return (Shear(0, lambda y: field(y, theta_j), self.gain * h),)

    def final(self, field: VectorField, state: State) -> Tensor:
        return 0.5 * (state[0] + state[1])

    def terminal(self, field: VectorField, y: Tensor) -> State:
        raise ValueError(
            "Coupled carries two streams, and their mean y_N does not determine y_0; use flow.final_state and "
            "flow.inverse_state."
        )

    def log_growth(self, lipschitz: Lipschitz, h: float) -> Tensor:
        """asinh(gain h L / 2), of one shear by gain h f."""
        return of_shears([(0, self.gain)], (lipschitz.whole,), h)

    def amplification(self, z: Tensor) -> Tensor:
        """The roots of r^2 = 1 + gain z r."""
        half = 0.5 * self.gain * z
        return larger_root(half, (half.square() + 1).sqrt())
