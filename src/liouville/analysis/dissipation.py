r"""A lower bound of sensitivities of a field that loses energy, from the weights: how much volume a layer can lose.

With M = P^(1/2) (J - R) P^(1/2), P the Hessian of H, the Jacobian (J - R) P of a layer has the eigenvalues of M, whose
symmetric part is -P^(1/2) R P^(1/2) <= 0. With tau and rho upper bounds of tr(R P) and ||L^T P L|| over all states,

| a step | log \|det A_j\| at least |
|---|---|
| implicit midpoint, h rho < 2 | -2 artanh(h rho / 2) tau / rho |
| forward Euler, h rho < 1 | log(1 - h rho) tau / rho |
| discrete gradient, h rho < 2 | 2 log(1 - h rho / 2) tau / rho - h^2 phi / 2 |

and ||dState_N/dState_j|| >= |det|^(1/n) in every sub-multiplicative norm. The first and the third are derived in
docs/theory/dissipation.md; for h -> 0 all are -int tr(R P), the rate at which the flow loses volume.
"""

from __future__ import annotations

__all__ = ["log_layer_volumes", "log_lower_bound"]

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from liouville.analysis.proofs.untouched import require_stated
from liouville.fields import PortHamiltonianField
from liouville.fields.once import theta_of
from liouville.fields.wrapped import unwrapped
from liouville.flow import Flow, require_flow
from liouville.schemes import DiscreteGradient, ForwardEuler, ImplicitMidpoint


def log_lower_bound(flow: Flow) -> Tensor:
    r"""log c with ||dState_N/dState_j|| >= c for every j, input and sub-multiplicative norm; differentiable in theta.

    c = exp(1/n sum_j min(0, v_j)), v_j the bounds of `log_layer_volumes`; 1 for R = 0 by implicit midpoint.

    Raises:
        NotImplementedError: if no such bound is known: another field or scheme, an activation that is not monotone.

    Examples:
        >>> import liouville as lv
        >>> flow = lv.Flow(lv.PortHamiltonianField(4, layers=16), lv.ImplicitMidpoint(), T=1.0).double()
        >>> y = torch.randn(10, 4, dtype=torch.float64)
        >>> least = torch.linalg.matrix_norm(lv.analysis.backward_sensitivity(flow, y), ord=2).min()
        >>> bool(log_lower_bound(flow) <= least.log() <= lv.analysis.log_upper_bound(flow))
        True
    """
    return log_layer_volumes(flow).clamp(max=0.0).sum() / flow.field.features


def log_layer_volumes(flow: Flow) -> Tensor:
    """A lower bound of log |det A_j| of every layer over all states, (N,); -inf where h is too long for one.

    Raises:
        NotImplementedError: as for `log_lower_bound`.
    """
    flow = require_flow(flow)
    require_stated(flow)
    field, scheme = unwrapped(flow.field), flow.scheme
    if not isinstance(field, PortHamiltonianField) or field.feature_axis != -1:
        raise NotImplementedError(
            f"a lower bound by volume is known for dense port-Hamiltonian fields, not for {type(field).__name__}."
        )
    if not field.activation.monotone:
        raise NotImplementedError("a lower bound by volume needs sigma' >= 0, so that P >= 0.")
    bound = next((own for kind, own in _BOUNDS.items() if type(scheme) is kind), None)
    if bound is None:
        raise NotImplementedError(f"no lower bound by volume is known for {type(scheme).__name__}.")
    theta = theta_of(flow.field)
    return bound(field, theta, flow.h).expand(flow.layers)


def _midpoint(field: PortHamiltonianField, theta: Any, h: float) -> Tensor:
    tau, rho = _tau(field, theta), _rho(field, theta)
    return -h * tau * _over(lambda x: 2 * torch.atanh(x / 2), h * rho, 2.0)


def _euler(field: PortHamiltonianField, theta: Any, h: float) -> Tensor:
    tau, rho = _tau(field, theta), _rho(field, theta)
    return -h * tau * _over(lambda x: -torch.log1p(-x), h * rho, 1.0)


def _discrete_gradient(field: PortHamiltonianField, theta: Any, h: float) -> Tensor:
    """2 log(1 - h rho/2) tau / rho is Euler's bound for half of P; phi = tr(Q S Q S^T), Q half of the largest P."""
    tau, rho = _tau(field, theta), _rho(field, theta)
    Q, S = 0.5 * _hessian(field, theta), field.interconnection(theta)
    phi = (Q @ S @ Q * S).sum((-2, -1))
    return -h * tau * _over(lambda x: -torch.log1p(-x), 0.5 * h * rho, 1.0) - 0.5 * h**2 * phi


_BOUNDS = {ImplicitMidpoint: _midpoint, ForwardEuler: _euler, DiscreteGradient: _discrete_gradient}


def _over(function: Callable[[Tensor], Tensor], x: Tensor, limit: float) -> Tensor:
    """function(x) / x, 1 at x = 0, infinite from ``limit`` on."""
    below, zero = x < limit, x == 0
    inside = torch.where(below & ~zero, x, 0.5 * limit)
    value = torch.where(zero, 1.0, function(inside) / inside)
    return torch.where(below, value, torch.inf)


def _hessian(field: PortHamiltonianField, theta: Any) -> Tensor:
    """s_max K^T K + alpha I >= P at every state."""
    K = theta.K
    eye = torch.eye(field.features, dtype=K.dtype, device=K.device)
    return field.activation.lipschitz * K.mT @ K + field.quadratic * eye


def _tau(field: PortHamiltonianField, theta: Any) -> Tensor:
    """s_max ||K L||_F^2 + alpha ||L||_F^2 >= tr(R P)."""
    K, L = theta.K, theta.L
    return field.activation.lipschitz * (K @ L).square().sum((-2, -1)) + field.quadratic * L.square().sum((-2, -1))


def _rho(field: PortHamiltonianField, theta: Any) -> Tensor:
    """||L^T P L|| at the largest P."""
    L = theta.L
    gram = L.mT @ _hessian(field, theta) @ L
    return torch.linalg.eigvalsh(gram)[..., -1].clamp(min=0.0)
