"""`check_degrees`: time is a unit of a field that states its degrees, bit for bit."""

from __future__ import annotations

__all__ = ["check_degrees"]

import copy

import torch
from torch import Tensor

from liouville.budget import BudgetedField
from liouville.fields.base import degrees_of
from liouville.fields.wrapped import unwrapped, wrapping
from liouville.flow import Flow
from liouville.schemes import IMPLICIT
from liouville.testing.measure import EPS, fail, near, rounding

_POWERS = (-1, 2)  # of 2, which no rounding notices


@torch.no_grad()
def check_degrees(flow: Flow, y: Tensor | None = None, *, seed: int = 0) -> None:
    r"""Check the `Degrees` r and a of a flow's field: (T, K, y_0) and (s^-r T, s K, s^-a y_0) are one network.

    For s = 1/2 and s = 4 all states y_0 ... y_N are compared, bit for bit but for the factor, and up to rounding after
    a scheme that solves equations; so are the rates of both times their T.

    Args:
        flow: N steps of any scheme through the field; a copy is examined, in float64 and evaluation mode.
        y: y_0; three random samples by default.
        seed: of them.

    Raises:
        AssertionError: naming what differs.
        ValueError: for a field that states no degrees.

    Examples:
        >>> import liouville as lv
        >>> check_degrees(lv.zoo.h2(4, layers=3, T=1.0))
    """
    flow = copy.deepcopy(flow).to("cpu", torch.float64).eval()
    field = unwrapped(flow.field)
    degrees = degrees_of(field)
    if degrees is None:
        raise ValueError(f"{type(field).__name__} states no degrees; there is nothing to check.")
    if y is None:
        y = torch.randn(3, *field.sample_shape(4), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    y = y.detach().to("cpu", torch.float64)
    expected = flow.trajectory(y)
    for s in (2.0**power for power in _POWERS):
        other = Flow(copy.deepcopy(flow.field), flow.scheme, flow.T * s**-degrees.rate, flow.backprop).eval()
        for part in wrapping(other.field):
            if isinstance(part, BudgetedField):
                part.T = other.T
        for K in other.field.matrices():
            K.mul_(s)
        found = other.trajectory(s**-degrees.argument * y) * s**degrees.argument
        law = f"degrees {degrees.rate} and {degrees.argument}: T, K and y_0 are one network in all units (s = {s:g})"
        hint = (
            "state the degree of the rate in the matrices and of sigma's argument, or None where a constant is a rate"
        )
        if isinstance(flow.scheme, IMPLICIT):
            near(law, found - expected, flow.layers * rounding(expected), hint)
        elif not torch.equal(found, expected):
            fail(law, f"the states differ by {float((found - expected).abs().max()):.3g}", hint)
        _check_rate(flow, other)


def _check_rate(flow: Flow, other: Flow) -> None:
    try:
        mine, theirs = (each.T * each.field.rate(each.field.theta()) for each in (flow, other))
    except NotImplementedError:
        return
    allowed = 1e3 * EPS * float(mine.abs().max())  # of two decompositions of small matrices
    near("T x rate is the same in all units", mine - theirs, allowed, "rate has the degree that is stated")
