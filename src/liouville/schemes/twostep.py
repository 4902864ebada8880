r"""Two-step schemes and the leapfrog: reversible for any field, stable on an interval of the imaginary axis."""

from __future__ import annotations

__all__ = ["LeapfrogMidpoint", "Midpoint", "TwoStep"]

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from liouville.compilers import advanced
from liouville.fields.base import Lipschitz, Theta, VectorField, spectrum_of
from liouville.schemes.base import Shear, ShearScheme, State, larger_root
from liouville.schemes.growth import of_shears
from liouville.schemes.limits import warn


@dataclass(frozen=True)
class TwoStep(ShearScheme):
    """(a, b) -> (b, a + gain h f(b; theta_j)): a layer moves the older of two states by a function of the newer one.

    Subclasses define the start of the two, which of them is the output, and in ``carries`` their description.
    """

    order: ClassVar[int] = 2
    swaps: ClassVar[bool] = True
    gain: ClassVar[float] = 2.0
    carries: ClassVar[str] = "two states"

    @property
    def order_in_depth(self) -> int:
        return 1

    def check(self, field: VectorField) -> None:
        super().check(field)
        _warn_of_damping(type(self).__name__, field)

    def shears(self, field: VectorField, theta_j: Theta, h: float) -> tuple[Shear, ...]:
        return (Shear(0, lambda y: field(y, theta_j), self.gain * h),)

    def log_growth(self, lipschitz: Lipschitz, h: float) -> Tensor:
        """asinh(gain h L / 2), for one shear by gain h f."""
        return of_shears([(0, self.gain)], (lipschitz.whole,), h)

    def amplification(self, z: Tensor) -> Tensor:
        """The roots of r^2 = 1 + gain z r."""
        half = 0.5 * self.gain * z
        return larger_root(half, (half.square() + 1).sqrt())


@dataclass(frozen=True)
class LeapfrogMidpoint(TwoStep):
    r"""y_{j+1} = y_{j-1} + 2 h f(y_j; theta_j), started by one forward Euler step (the leapfrog in time).

    Diffrax uses this name, too. The explicit midpoint method of Runge and Kutta, which other libraries call midpoint,
    is another scheme. ``Midpoint``, the name in earlier versions, still works.

    The state is the pair (y_{j-1}, y_j), 2n numbers per sample: dy_{j+1}/dy_j is not the Jacobian of a step. With
    y_{-1} = y_0 - h f(y_0; theta_0) the first step is y_1 = y_0 + h f(y_0; theta_0).

    Properties: explicit, reversible for every field; order 2 where the weight is one smooth function of time or the
    same in all layers, order 1 where it jumps between layers, as in a network refined by ``"constant"``: y_{j-1} then
    belongs to another equation than y_j. Stable for a frozen imaginary rate i omega while h omega < 1, and for no other
    rate: every mode exp(lambda t) has a parasitic one that grows like (-1)^j exp(-lambda t), so modes that the
    equation damps, Re lambda < 0, grow at every step size. It suits the antisymmetric field with gamma = 0, which
    forward Euler does not; on a field that is not known to have imaginary rates it warns.

    Reference: Chang et al. 2018 (1709.03698).

    Warns:
        StabilityWarning: for a field whose rates have, or may have, negative real parts.

    Examples:
        >>> scheme = LeapfrogMidpoint()
        >>> scheme.order, scheme.order_in_depth, scheme.stability_limit
        (2, 1, 1.0)
    """

    carries: ClassVar[str] = "(y_{N-1}, y_N)"

    def init(self, field: VectorField, y: Tensor, theta_0: Theta, h: float) -> State:
        return advanced(y, field(y, theta_0), -h), y

    def final(self, field: VectorField, state: State) -> Tensor:
        return state[1]

    def entry(self, field: VectorField, lipschitz: Lipschitz, h: float) -> Tensor:
        """(1 + (1 + h L)^2)^(1/2), for (y - h f(y), y)."""
        return (1 + (1 + h * lipschitz.whole).square()).sqrt()


Midpoint = LeapfrogMidpoint


def _warn_of_damping(scheme: str, field: VectorField) -> None:
    """Give a `StabilityWarning` unless the field is known to have imaginary rates."""
    spectrum = spectrum_of(field)
    if spectrum == "imaginary":
        return
    name = type(field).__name__
    damps = f"{name} damps"
    if spectrum == "any":
        damps = f'{name} is not known to damp nothing (a field of your own can state spectrum = "imaginary")'
    warn(
        f"the two-step {scheme} scheme amplifies the modes that a field damps, at any step size, and {damps}; use "
        "ForwardEuler, RK4 or ImplicitMidpoint, or AntisymmetricField with gamma = 0."
    )
