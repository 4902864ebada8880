"""Schemes: which discretisation steps through the ordinary differential equation."""

from liouville.schemes.base import (
    ReversibleScheme,
    Scheme,
    Shear,
    ShearScheme,
    SplittingScheme,
    State,
    SymmetricScheme,
)
from liouville.schemes.coupled import Coupled
from liouville.schemes.discretegradient import DiscreteGradient
from liouville.schemes.euler import ForwardEuler
from liouville.schemes.implicit import ImplicitMidpoint, ImplicitSymplecticEuler
from liouville.schemes.limits import StabilityWarning
from liouville.schemes.momentum import Momentum
from liouville.schemes.rungekutta import RK4
from liouville.schemes.symplectic import SymplecticEuler, Verlet, Yoshida4
from liouville.schemes.twostep import LeapfrogMidpoint
from liouville.schemes.twostep import Midpoint as Midpoint

SCHEMES: dict[str, type[Scheme]] = {
    s.__name__: s
    for s in (
        ForwardEuler,
        SymplecticEuler,
        Verlet,
        Yoshida4,
        LeapfrogMidpoint,
        RK4,
        ImplicitMidpoint,
        ImplicitSymplecticEuler,
        DiscreteGradient,
        Momentum,
        Coupled,
    )
}
SPLITTINGS = tuple(kind for kind in SCHEMES.values() if issubclass(kind, SplittingScheme))
"""The schemes whose step is exactly their ``stages``: proofs and kernels read them, by exact type."""

IMPLICIT = (ImplicitMidpoint, ImplicitSymplecticEuler, DiscreteGradient)
"""The schemes that solve an equation in each layer."""


def named(kind: type) -> str:
    """The names of the library's schemes of this kind, for advice in error messages; without `Momentum`, whose inverse
    needs an engine of integers.

    Examples:
        >>> named(SplittingScheme)
        'SymplecticEuler, Verlet or Yoshida4'
    """
    *names, last = (name for name, scheme in SCHEMES.items() if issubclass(scheme, kind) and scheme is not Momentum)
    return f"{', '.join(names)} or {last}"


FORMER_NAMES = {"Midpoint": "LeapfrogMidpoint"}
"""Names of schemes in plans and files of earlier versions, and their present names."""

__all__ = [
    "IMPLICIT",
    "RK4",
    "SCHEMES",
    "SPLITTINGS",
    "Coupled",
    "DiscreteGradient",
    "ForwardEuler",
    "ImplicitMidpoint",
    "ImplicitSymplecticEuler",
    "LeapfrogMidpoint",
    "Momentum",
    "ReversibleScheme",
    "Scheme",
    "Shear",
    "ShearScheme",
    "SplittingScheme",
    "StabilityWarning",
    "State",
    "SymmetricScheme",
    "SymplecticEuler",
    "Verlet",
    "Yoshida4",
]
