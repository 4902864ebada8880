r"""Splitting schemes: explicit, exactly invertible, determinant 1; symplectic on separable Hamiltonian fields."""

from __future__ import annotations

__all__ = ["SymplecticEuler", "Verlet", "Yoshida4"]

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from liouville.fields.base import Lipschitz
from liouville.schemes.base import SplittingScheme
from liouville.schemes.growth import of_symplectic_euler


@dataclass(frozen=True)
class SymplecticEuler(SplittingScheme):
    r"""p_{j+1} = p_j + h p_dot(q_j), then q_{j+1} = q_j + h q_dot(p_{j+1}).

    Properties: order 1, reversible, one evaluation of each half. The papers call it semi-implicit Euler; the
    staggered update that the first paper calls Verlet is algebraically this one. Stable for a frozen oscillator of
    frequency omega while h omega < 2.

    Reference: Galimberti et al. 2023 (2105.13205), H2-DNN; Hairer, Lubich & Wanner, sec. I.1.

    Examples:
        >>> SymplecticEuler().stages
        (('p', 1.0), ('q', 1.0))
    """

    order: ClassVar[int] = 1
    stages: ClassVar = (("p", 1.0), ("q", 1.0))

    def log_growth(self, lipschitz: Lipschitz, h: float) -> Tensor:
        """The smaller of the product of the two shears and the bound by the rate at which two states can separate."""
        shears = super().log_growth(lipschitz, h)
        if self.stages != SymplecticEuler.stages:  # a subclass with other stages
            return shears
        z = h * torch.maximum(*lipschitz.parts)
        return torch.minimum(shears, of_symplectic_euler(z, lipschitz.one_sided, h))


@dataclass(frozen=True)
class Verlet(SplittingScheme):
    r"""Stoermer-Verlet: half a step of p, a step of q, half a step of p.

    Properties: order 2, symmetric, reversible; two evaluations of p_dot and one of q_dot, with the weight of a layer
    frozen over its step. Stable for a frozen oscillator of frequency omega while h omega < 2.

    Reference: Hairer, Lubich & Wanner, sec. I.1.4.

    Examples:
        >>> Verlet().order
        2
    """

    order: ClassVar[int] = 2
    stages: ClassVar = (("p", 0.5), ("q", 1.0), ("p", 0.5))


_W1 = 1.0 / (2.0 - 2.0 ** (1.0 / 3.0))
_W0 = 1.0 - 2.0 * _W1


@dataclass(frozen=True)
class Yoshida4(SplittingScheme):
    r"""Three Verlet steps of lengths w h, (1 - 2 w) h, w h with w = 1/(2 - 2^(1/3)).

    Properties: order 4, symmetric, reversible; the middle step goes backwards in time. Its four evaluations of
    p_dot and three of q_dot pay where few layers must follow an ordinary differential equation closely.

    Reference: Yoshida, Phys. Lett. A 150 (1990) 262.

    Examples:
        >>> round(sum(c for half, c in Yoshida4().stages if half == "q"), 12)
        1.0
    """

    order: ClassVar[int] = 4
    stages: ClassVar = (
        ("p", 0.5 * _W1),
        ("q", _W1),
        ("p", 0.5 * (_W1 + _W0)),
        ("q", _W0),
        ("p", 0.5 * (_W0 + _W1)),
        ("q", _W1),
        ("p", 0.5 * _W1),
    )
