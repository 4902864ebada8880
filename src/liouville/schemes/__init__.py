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
        Momentum,
        Coupled,
    )
}

FORMER_NAMES = {"Midpoint": "LeapfrogMidpoint"}
"""Names that plans and files of earlier versions have, and the names of the same schemes now."""

__all__ = [
    "RK4",
    "SCHEMES",
    "Coupled",
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
