r"""A start that does not depend on the final time: weights scaled until T x rate is Omega, and what goes with it.

A field's `Degrees` r and a make time a unit: T, K and y_0 give, step by step, the network that T_0 = s^r T, K/s and
s^a y_0 give. So K drawn for T_0 and scaled by s, y_0 scaled by s^-a and what reads y_N by s^a are, at every T, the
network of T_0. What is left of T is one number, Omega = T x rate at the start; `docs/any-time.md` has the proof.
"""

from __future__ import annotations

__all__ = ["scaled_start"]

import math

import torch

from liouville.fields import VectorField
from liouville.fields.base import degrees_of
from liouville.fields.wrapped import unwrapped
from liouville.flow import Flow, require_flow


@torch.no_grad()
def scaled_start(flow: Flow, action: float = 20.0) -> float:
    """Scale the matrices of a flow's field, in place, so that T x rate is Omega, and note the factor as their unit.

    `liouville.classifier` and `liouville.regressor` do this by themselves, with the lift and the head that it takes.
    A flow of your own needs a lift that multiplies y_0 by ``flow.field.state_unit`` (``Lift(..., scale=...)``), and a
    head whose first weights are divided by it.

    Args:
        flow: its matrices as they were drawn.
        action: Omega; less where the scheme carries no more in N steps (`Scheme.carried`).

    Returns:
        s, the factor of the matrices, which is the field's ``weight_unit`` afterwards. 1 for a field that states no
        `degrees` or no rate, and for matrices of zeros: they stay as they are.

    Examples:
        >>> import liouville as lv
        >>> flow = lv.zoo.h2(4, layers=1024, T=64.0)
        >>> factor = scaled_start(flow)
        >>> round(float(flow.T * flow.field.rate(flow.field.theta()).mean()), 3)
        20.0
    """
    flow = require_flow(flow)
    field: VectorField = unwrapped(flow.field)
    degrees = degrees_of(field)
    if degrees is None:
        return 1.0
    try:
        rate = float(field.rate(field.theta()).mean())
    except NotImplementedError:
        return 1.0
    if not 0 < rate < math.inf:
        return 1.0
    action = min(action, flow.scheme.carried(flow.layers))
    s = (action / (flow.T * rate)) ** (1 / degrees.rate)
    torch._foreach_mul_(field.matrices(), s)
    own = getattr(field, "force", field)
    own.weight_unit = own.weight_unit * s
    return s
