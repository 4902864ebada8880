r"""Invariants of a flow: the symplectic form, A J A^T = J, and the energy of every frozen layer.

The energy of a network changes for two reasons, which add up to H(y_N; theta_{N-1}) - H(y_0; theta_0):

    defect_j = H(y_{j+1}; theta_j) - H(y_j; theta_j),        work_j = H(y_j; theta_j) - H(y_j; theta_{j-1})

The first is the error of the scheme and goes to 0 with h; the second is the work that the changing weights do.
"""

from __future__ import annotations

__all__ = ["EnergyBalance", "energy_balance", "structure", "symplectic_defect"]

from typing import NamedTuple

import torch
from torch import Tensor

from liouville.analysis.precise import precisely
from liouville.analysis.spectra import singular_spectra
from liouville.analysis.states import run_of
from liouville.backprop import slices
from liouville.fields.base import Theta
from liouville.flow import Flow, require_flow
from liouville.schemes import State


class EnergyBalance(NamedTuple):
    """``defect`` (N, *batch), the scheme's own error; ``work`` (N - 1, *batch), done by the change of weights."""

    defect: Tensor
    work: Tensor


@precisely
@torch.no_grad()
def energy_balance(flow: Flow, y: Tensor) -> EnergyBalance:
    """The error of each layer in conserving its energy, and the work done by changes of weights between layers.

    Raises:
        ValueError: if the field states no `VectorField.energy`, or the scheme carries more than y.

    Examples:
        >>> import liouville as lv
        >>> balance = energy_balance(lv.zoo.h2(4, layers=8, T=1.0), torch.randn(10, 4))
        >>> balance.defect.shape, balance.work.shape
        (torch.Size([8, 10]), torch.Size([7, 10]))
    """
    run = run_of(require_flow(flow), y)
    thetas = list(slices(run.theta, flow.layers))
    states = list(zip(*run.parts, strict=True))
    here = torch.stack([_energy(flow, s, t) for s, t in zip(states[:-1], thetas, strict=True)])
    behind = torch.stack([_energy(flow, s, t) for s, t in zip(states[1:], thetas, strict=True)])
    defect, work = behind - here, here[1:] - behind[:-1]
    return EnergyBalance(defect.reshape(-1, *run.batch), work.reshape(-1, *run.batch))


@precisely
@torch.no_grad()
def symplectic_defect(matrices: Tensor, J: Tensor) -> Tensor:
    r"""||A J A^T - J|| / (||A||^2 ||J||) in the spectral norm, for matrices (..., n, n): (...).

    It is a few eps for every symplectic layer, and for products of any depth: the effect of rounding grows like
    ||A||^2. For one layer, whose norm is near 1, it is the defect relative to eps.

    Args:
        matrices: Jacobians of layers or of whole flows, numerator layout.
        J: (n, n), skew; for a flow see `structure`.

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
    """The constant J of the flow's state on vectors, (n, n), or None where it has no such J.

    It is the field's `VectorField.structure` if all layers share one and the scheme carries only y: for separable
    fields, the general Hamiltonian field with a constant J, and second-order fields with a potential. The pair field
    and the two-step scheme have none. The existence of J does not make a scheme symplectic.

    Examples:
        >>> import liouville as lv
        >>> structure(lv.zoo.h2(2, layers=8, T=1.0)).tolist()
        [[0.0, -1.0], [1.0, 0.0]]
    """
    field = require_flow(flow).field
    if flow.scheme.carries or field.feature_axis != -1:
        return None
    J = field.structure(field.theta())
    return J.detach() if J is not None and J.dim() == 2 else None


def _energy(flow: Flow, state: State, theta_j: Theta) -> Tensor:
    if flow.scheme.carries:
        raise ValueError(
            f"{type(flow.scheme).__name__} carries {flow.scheme.carries}, which has no energy; use a one-step scheme."
        )
    try:
        return flow.field.energy(state if len(state) > 1 else state[0], theta_j)
    except NotImplementedError as error:
        raise ValueError(str(error)) from error
