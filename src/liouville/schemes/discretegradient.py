r"""The mean-value discrete gradient: a step that balances a layer's energy exactly, at the price of an equation."""

from __future__ import annotations

__all__ = ["DiscreteGradient"]

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from liouville.fields.base import Lipschitz, Theta, VectorField, is_closed
from liouville.fields.wrapped import wrapping
from liouville.schemes.base import State, SymmetricScheme
from liouville.schemes.solver import full_precision, require_dense, solved


@dataclass(frozen=True)
class DiscreteGradient(SymmetricScheme):
    r"""y_{j+1} = y_j + h int_0^1 f((1 - s) y_j + s y_{j+1}; theta_j) ds, the averaged vector field method.

    For f = S grad H + G u with a constant S, the integral is S g + G u with the mean gradient g, and
    <g, y_{j+1} - y_j> = H(y_{j+1}) - H(y_j). So with S = J - L L^T

        H(y_{j+1}) - H(y_j) = h (-|L^T g|^2 + u^T G^T g),

    to the solver's residual at any h: the energy of a frozen Hamiltonian layer is constant, and a dissipative layer is
    passive. For the energies of this library g = K^T w has a closed form, `Activation.mean`.

    Properties: order 2, symmetric, reversible where the equation of the inverse has one solution (always for small h),
    A-stable, not symplectic: no step keeps both the energy and the form of every Hamiltonian field (Ge & Marsden 1988).
    Where sigma' >= 0 a step of a dissipative or Hamiltonian field has one solution at every h. Only for dense fields
    that state `VectorField.mean_velocity`.

    Reference: McLachlan, Quispel & Robidoux 1999, mean-value discrete gradient; Quispel & McLaren 2008.

    Args:
        iterations: maximum number of fixed-point iterations, and of Newton iterations after them.

    Raises:
        ValueError: for a field that is not dense, or states no mean of its velocity.
        ArithmeticError: as for `ImplicitMidpoint`.

    Examples:
        >>> import liouville as lv
        >>> flow = lv.Flow(lv.HamiltonianField(4, layers=8), DiscreteGradient(), T=1.0).double()
        >>> balance = lv.analysis.energy_balance(flow, torch.randn(10, 4, dtype=torch.float64))
        >>> bool(balance.defect.abs().max() < 1e-12)
        True
    """

    order: ClassVar[int] = 2
    stability_limit: ClassVar[float] = math.inf  # on linear fields it is the implicit midpoint rule
    iterations: int = 50

    def check(self, field: VectorField) -> None:
        require_dense(self, field)
        if not all(is_closed(part, "mean_velocity", ("forward", "gradient")) for part in wrapping(field)):
            raise ValueError(
                f"DiscreteGradient needs the mean of the velocity between two states, which {type(field).__name__} "
                "does not state; use HamiltonianField or PortHamiltonianField, override mean_velocity(y, z, theta_j), "
                "or another scheme, such as ImplicitMidpoint."
            )
        super().check(field)

    def init(self, field: VectorField, y: Tensor, theta_0: Theta, h: float) -> State:
        field.batch_shape(y)  # the equation is solved per sample, so the axes of a sample must be known
        return (y,)

    @full_precision
    def step(self, field: VectorField, state: State, theta_j: Theta, h: float) -> State:
        (y,) = state
        return (solved(lambda z: field.mean_velocity(y, z, theta_j), y, h, None, self.iterations),)

    def log_growth(self, lipschitz: Lipschitz, h: float) -> Tensor:
        r"""log of (1 + h mu + (h L / 2)^2)^(1/2) / (1 - h mu / 2); infinite for h mu >= 2.

        A = (I - h F_1)^-1 (I + h F_0), F_1 and F_0 the integrals of s f' and (1 - s) f', each with half the constants.
        """
        half, L = 0.5 * h * lipschitz.one_sided, 0.5 * h * lipschitz.whole
        below = half < 1
        inside = torch.where(below, half, 0.0)
        growth = 0.5 * torch.log1p(2 * inside + L.square()) - torch.log1p(-inside)
        return torch.where(below, growth, torch.inf)

    def amplification(self, z: Tensor) -> Tensor:
        """|1 + z/2| / |1 - z/2|, as for the implicit midpoint rule."""
        return (1 + z / 2).abs() / (1 - z / 2).abs()
