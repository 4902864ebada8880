r"""What a flow should keep: the symplectic form, A J A^T = J, and the energy of every frozen layer.

The energy of a network changes for two reasons, which add up to H(y_N; theta_{N-1}) - H(y_0; theta_0):

    defect_j = H(y_{j+1}; theta_j) - H(y_j; theta_j),        work_j = H(y_j; theta_j) - H(y_j; theta_{j-1})

The first is the error of the scheme and goes to 0 with h; the second is what the changing weights do to the state.
"""

from __future__ import annotations

__all__ = ["EnergyBalance", "energy_balance", "structure", "symplectic_defect"]

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from liouville.analysis.precise import precisely
from liouville.analysis.spectra import singular_spectra
from liouville.analysis.states import run_of
from liouville.backprop import slices
from liouville.fields import HamiltonianField, SecondOrderField, SeparableHamiltonianField
from liouville.flow import Flow, require_flow
from liouville.schemes import Momentum
from liouville.schemes.twostep import TwoStep

_PAIRS = (TwoStep, Momentum)  # whose state is y and another part as large


class EnergyBalance(NamedTuple):
    """``defect`` (N, *batch), the scheme's own error; ``work`` (N - 1, *batch), done by the change of weights."""

    defect: Tensor
    work: Tensor


@precisely
@torch.no_grad()
def energy_balance(flow: Flow, y: Tensor) -> EnergyBalance:
    """By how much each layer fails to keep its energy, and what the changes of weights between layers do to it.

    Raises:
        ValueError: if the field states no energy, or the scheme carries a pair of states.

    Examples:
        >>> import liouville as lv
        >>> balance = energy_balance(lv.zoo.h2(4, layers=8, T=1.0), torch.randn(10, 4))
        >>> balance.defect.shape, balance.work.shape
        (torch.Size([8, 10]), torch.Size([7, 10]))
    """
    energy = _energy(require_flow(flow))
    run = run_of(flow, y)
    thetas = list(slices(run.theta, flow.layers))
    states = list(zip(*run.parts, strict=True))
    here = torch.stack([energy(s, t) for s, t in zip(states[:-1], thetas, strict=True)])
    behind = torch.stack([energy(s, t) for s, t in zip(states[1:], thetas, strict=True)])
    defect, work = behind - here, here[1:] - behind[:-1]
    return EnergyBalance(defect.reshape(-1, *run.batch), work.reshape(-1, *run.batch))


@precisely
@torch.no_grad()
def symplectic_defect(matrices: Tensor, J: Tensor) -> Tensor:
    r"""||A J A^T - J|| / (||A||^2 ||J||) in the spectral norm, for matrices (..., n, n): (...).

    A few eps for every symplectic layer, and for products of any depth: what rounding alone leaves grows like
    ||A||^2. For one layer, whose norm is near 1, it is the defect against eps.

    Args:
        matrices: of layers or of whole flows, numerator layout.
        J: (n, n), skew; `structure` gives a flow's.

    Examples:
        >>> J = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
        >>> symplectic_defect(torch.tensor([[2.0, 0.0], [0.0, 0.5]]), J)
        tensor(0.)
    """
    J = J.to(matrices)
    size = singular_spectra(matrices)[..., 0].square() * singular_spectra(J)[..., 0]
    return singular_spectra(matrices @ J @ matrices.mT - J)[..., 0] / size


@precisely
@torch.no_grad()
def structure(flow: Flow) -> Tensor | None:
    """The one constant J of the flow's state on vectors, (n, n), or None where no such J belongs to it.

    Separable fields, the general Hamiltonian field with a constant J, and second-order fields with a potential have
    one; the pair field and the two-step scheme have none. That J exists does not make a scheme symplectic.

    Examples:
        >>> import liouville as lv
        >>> structure(lv.zoo.h2(2, layers=8, T=1.0)).tolist()
        [[0.0, -1.0], [1.0, 0.0]]
    """
    field = require_flow(flow).field
    if isinstance(flow.scheme, _PAIRS) or field.feature_axis != -1:
        return None
    if isinstance(field, SecondOrderField) and hasattr(field.force, "potential"):
        eye = torch.eye(field.features)
        return torch.kron(torch.tensor([[0.0, -1.0], [1.0, 0.0]]), eye).to(next(field.parameters()))
    if isinstance(field, SeparableHamiltonianField):
        return field.structure.detach()
    return field.J if isinstance(field, HamiltonianField) and field.constant_J else None


def _energy(flow: Flow) -> Callable[[Any, Any], Tensor]:
    field: Any = flow.field
    if not hasattr(field, "energy") or isinstance(flow.scheme, _PAIRS):
        raise ValueError(
            f"{type(field).__name__} under {type(flow.scheme).__name__} has no energy; use a Hamiltonian field, or a "
            "second-order field whose force is the gradient of a potential (SymmetricField), with a one-step scheme."
        )
    if isinstance(field, SecondOrderField):
        if not hasattr(field.force, "potential"):
            raise ValueError(f"the force {type(field.force).__name__} has no potential; use SymmetricField.")
        return lambda state, theta_j: flow.field.energy(*state, theta_j)  # type: ignore[operator]
    return lambda state, theta_j: field.energy(flow.scheme.final(field, state), theta_j)
