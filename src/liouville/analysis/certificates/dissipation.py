r"""The claims about a field that loses energy: how far its sensitivities can shrink, and that no layer makes energy."""

from __future__ import annotations

__all__ = ["dissipation"]

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from liouville.analysis.certificates.claim import Claim, Status
from liouville.analysis.certificates.measured import Measured
from liouville.analysis.dissipation import log_lower_bound
from liouville.analysis.proofs.assumptions import activation_facts, activation_of
from liouville.analysis.proofs.routes import Route
from liouville.analysis.proofs.untouched import unknown_run, unknown_velocities
from liouville.backprop import slices
from liouville.fields import PortHamiltonianField
from liouville.fields.wrapped import unwrapped
from liouville.flow import Flow
from liouville.schemes import DiscreteGradient

_ROUNDING = 200.0  # of a product of two matrices and of a sum of squares, in units of n eps
_RESIDUAL = 1e3  # of the layer's equation, 10 eps of its size, times the terms of <g, y' - y>


def dissipation(flow: Flow, y: Tensor, route: Route, found: Measured, number: int | None) -> Iterator[Claim]:
    """The claims "damping" and "passivity", for a flow in float64 through a port-Hamiltonian field; else none."""
    if isinstance(unwrapped(flow.field), PortHamiltonianField):
        yield _damping(flow, route, found, number)
        yield _passivity(flow, y.double(), number)


def _damping(flow: Flow, route: Route, found: Measured, number: int | None) -> Claim:
    text = (
        "||dState_N/dState_j|| >= c for every j, every input and every sub-multiplicative norm, c from the volume that "
        "the layers can lose, only from the weights; evaluated in float64 and rounded down"
    )
    measured = {"least 2-norm": found.smallest["2"]}
    facts = tuple(a for a in route.assumptions if a.text.startswith(("it computes", "the Jacobian")))
    facts += activation_facts(activation_of(flow.field), monotone=True)
    why = unknown_run(flow) or unknown_velocities(flow.field)
    try:
        log_c = float(log_lower_bound(flow)) - _rounding(flow)
    except NotImplementedError as error:
        why, log_c = why or str(error), -math.inf
    wrong = [a for a in facts if not a.holds]
    if wrong:
        status: Status = "broken" if any(a.claimed for a in wrong) else "not applicable"
        note = "; ".join(f"not true that {a.text}: {a.evidence}" for a in wrong)
        return Claim("damping", text, status, "volume", facts, measured=measured, note=note, flow=number)
    if why or log_c == -math.inf:
        note = why or "h is too long: a step may lose all volume"
        return Claim("damping", text, "not applicable", "volume", facts, measured=measured, note=note, flow=number)
    c = math.exp(log_c)
    below = min(found.smallest.values()) < c * (1 - 1e-6) - found.rounding
    note = "a measured norm is below the bound" if below else "a norm >= c does not mean that no direction shrinks more"
    status = "broken" if below else "pass"
    return Claim("damping", text, status, "volume", facts, {"norm >=": c}, measured, note, number)


def _rounding(flow: Flow) -> float:
    """An error of log c: each layer's tau is a sum of squares of products, and its factor grows with tau."""
    theta: Any = flow.field.theta()
    n, eps = flow.field.features, torch.finfo(theta.K.dtype).eps
    size = (theta.K.square().sum((-2, -1)) + 1) * theta.L.square().sum((-2, -1))
    return _ROUNDING * n * eps * flow.T * float(size.max()) + 1e-12 * abs(float(log_lower_bound(flow)))


def _passivity(flow: Flow, y: Tensor, number: int | None) -> Claim:
    text = (
        "H(y_(j+1)) - H(y_j) = h (-|L^T g|^2 + u^T G^T g) in every layer, g the mean gradient of its H: a layer stores "
        "at most what flows in through its ports, for every input"
    )
    worst, allowed, gained = _balance(flow, y)
    measured = {"largest defect": worst, "largest gain of H": gained}
    why = unknown_run(flow) or unknown_velocities(flow.field)
    if why or not isinstance(flow.scheme, DiscreteGradient):
        note = why or f"{type(flow.scheme).__name__} keeps the balance only up to its order; DiscreteGradient keeps it"
        return Claim("passivity", text, "not applicable", measured=measured, note=note, flow=number)
    if not worst <= allowed:
        note = f"off by more than the residual of a layer's equation ({allowed:.2g})"
        return Claim("passivity", text, "broken", "discrete gradient", measured=measured, note=note, flow=number)
    note = "to the residual of a layer's equation; measured without an input"
    return Claim("passivity", text, "pass", "discrete gradient", (), {"defect": allowed}, measured, note, number)


@torch.no_grad()
def _balance(flow: Flow, y: Tensor) -> tuple[float, float, float]:
    """The largest defect of the balance over layers and samples, what rounding allows, and the largest gain of H."""
    field: Any = unwrapped(flow.field)
    worst = allowed = 0.0
    gained = -math.inf
    states = [state[0] for state in flow.states(y)]
    for before, after, theta_j in zip(states, states[1:], slices(flow.field.theta(), flow.layers), strict=False):
        H, H_after = field.storage(before, theta_j), field.storage(after, theta_j)
        g = field.mean_gradient(before, after, theta_j)
        lost = field.operator.mix(theta_j.L.mT, g).square().flatten(H.dim()).sum(-1)
        worst = max(worst, float((H_after - H + flow.h * lost).abs().max()))
        gained = max(gained, float((H_after - H).max()))
        largest = (before.abs() + after.abs()).flatten(H.dim()).amax(-1).clamp(min=1.0)
        size = largest * (1 + g.abs().flatten(H.dim()).sum(-1))
        allowed = max(allowed, _RESIDUAL * torch.finfo(y.dtype).eps * float((size + H.abs()).max()))
    return worst, allowed, gained
