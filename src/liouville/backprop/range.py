r"""The grid of an exact run: fine compared with the input, and as wide as the run needs.

The first grid is set by the largest input entry, and made 8 times as coarse, at most twice, where the run leaves its
range. An input that is small compared with the biases leaves all three grids without any growth: the biases carry it
away. Then the run is repeated once in floating-point numbers, which gives its largest number and the movement by the
biases only (from a state at rest, p = q = 0). Up to 512 times the larger of the input and that movement, the grid is
set by the largest number of the run. Beyond it the network grows, and the growth would amplify the digits that the
grid loses: such a run is refused.
"""

from __future__ import annotations

__all__ = ["Range", "Reach", "reach"]

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from liouville.backprop.base import layer
from liouville.fields.base import Theta, VectorField
from liouville.schemes.base import ShearScheme, State


class Reach(NamedTuple):
    """``furthest``: the largest number of a run, state or step; ``biases``: the sum of the steps of a state at rest."""

    furthest: float
    biases: float


@torch.no_grad()
def reach(scheme: ShearScheme, field: VectorField, state: State, theta: Theta, h: float) -> Reach:
    """The range of a run, in floating-point numbers."""
    parts, rest = [x.detach() for x in state], [torch.zeros_like(x) for x in state]
    furthest, biases = _largest(*parts), 0 * _largest(*parts)
    for j in range(field.layers):
        for shear in scheme.shears(field.at_layer(j), layer(theta, j), h):
            moved, velocity, step = shear[:3]
            other, still = parts[1 - moved], rest[1 - moved]
            increment = step * (other if velocity is None else velocity(other))
            parts[moved] = parts[moved] * (shear.sign * 2.0**-shear.halvings) + increment
            furthest = torch.maximum(furthest, _largest(parts[moved], increment))
            biases = biases + _largest(step * (still if velocity is None else velocity(still)))
        parts = parts[::-1] if scheme.swaps else parts
    return Reach(float(furthest), float(biases))


class Range:
    """Spacing and limit of a grid, x = integer * spacing with |integer| < limit; `widen` gives the next one.

    Args:
        state: the first state.
        dtype: the dtype of the run: for float32, 2^27 integers up to the largest input entry and 2^30 in all; for
            float64, 2^57 and 2^62. The spacing is never below 4 times the smallest normal number, so that its inverse
            is finite, too.
        bits: a number other than 27 or 57: 40, with 2^62 integers in all, is finer than float32 and reaches four
            million times the input.

    Raises:
        ArithmeticError: if an entry of the state is not finite.
    """

    def __init__(self, state: State, dtype: torch.dtype, bits: int | None = None) -> None:
        usual, self.limit = (57, 2.0**62) if dtype == torch.float64 else (27, 2.0**30)
        bits = usual if bits is None else bits
        self.largest = float(_largest(*(x.detach() for x in state)))
        if not math.isfinite(self.largest):
            raise ArithmeticError("the input of an exactly reversible run must be finite, but an entry of it is not.")
        self.finest, self.resolved = 4 * torch.finfo(dtype).tiny, bits - 7
        self.spacing = max(_power(self.largest) * 2.0**-bits if self.largest else 2.0**-bits, self.finest)
        self.coarsest, self.growth = 64 * self.spacing, 64 * self.limit * 2.0**-bits
        self.measured, self.settled = False, self.largest * 2.0**-self.resolved > self.finest

    def settle(self, found: Callable[[], Reach]) -> None:
        """The grid where the size of the input does not determine it: zeros, and numbers near the smallest possible.

        Raises:
            ArithmeticError: if no number of the run is large enough for a grid of this precision.
        """
        if self.settled:
            return
        self.settled, furthest = True, found().furthest
        if self.largest == 0.0 and 0 < furthest < 0.125:
            self.spacing = max(self.spacing * _power(furthest), self.finest)
            self.coarsest = 64 * self.spacing
        if 0 < furthest < (least := self.finest * 2.0**self.resolved):
            raise ArithmeticError(
                "the numbers of this run are too small for an exactly reversible one: the largest is "
                f"{furthest:.3g}, but the grid needs {least:.3g}. Scale the input, or use Reversible(compensated=True)."
            )

    def widen(self, found: Callable[[], Reach], finite: bool = True) -> None:
        """The next grid, for a run that left this one; ``finite``: whether all numbers of the run were finite.

        Raises:
            ArithmeticError: if there is no next grid, with the reason.
        """
        if finite and self.spacing < self.coarsest:
            self.spacing *= 8
            return
        furthest, biases = (math.nan, math.nan) if self.measured else found()
        if not self.measured and not math.isfinite(furthest):
            raise ArithmeticError(f"a state or a velocity of an exactly reversible run is not finite{_ADVICE}")
        allowed = self.growth * max(self.largest, biases)
        if not furthest < allowed:
            raise ArithmeticError(
                "a state or a velocity of an exactly reversible run is beyond the range of its coarsest grid, "
                f"+-{self.limit * self.spacing:.3g}{_ADVICE}"
            )
        self.measured = True
        self.spacing = max(8 * self.spacing if finite else self.spacing, 2 * _power(furthest) / self.limit)
        self.coarsest = 8 * self.spacing  # the rounded run may go a little further


_ADVICE = (
    ": the network grows without bound (take smaller steps or weights), or is meant to grow; then use "
    "Reversible(compensated=True)."
)


def _power(x: float) -> float:
    """The power of two above x, at most the largest representable one."""
    return math.ldexp(1.0, min(math.frexp(x)[1], 1023))


def _largest(*tensors: Tensor) -> Tensor:
    """The largest absolute entry, in float64, still on its device; NaN if there is one."""
    sizes = [x.abs().max().double() for x in tensors if x.numel()]
    return torch.stack(sizes).max() if sizes else tensors[0].new_zeros((), dtype=torch.float64)
