r"""The claim that layers can be undone: by a known inverse, and with which rounding error."""

from __future__ import annotations

__all__ = ["inverse"]

import math

import torch
from torch import Tensor

from liouville.analysis.certificates.claim import Claim, Status
from liouville.analysis.proofs.untouched import unknown_run
from liouville.backprop import slices
from liouville.flow import Flow
from liouville.precision import name_of, working
from liouville.schemes import ReversibleScheme, ShearScheme

_LINEAR = 1e-4  # beyond this drift linearised layers predict nothing
_SLACK = 1e3  # roundings inside a velocity, and the residual of an implicit layer (10 eps), are not counted in drift


@torch.no_grad()
def inverse(flow: Flow, y: Tensor, expected: float, number: int | None) -> Claim:
    """Whether the layers' inverses undo them at the states of y.

    Args:
        flow: a flow in evaluation mode.
        y: states.
        expected: drift of state 0 in multiples of eps; infinite if unknown, as for images.
        number: index of the flow.
    """
    scheme = flow.scheme
    if not isinstance(scheme, ReversibleScheme):
        why = f"{type(scheme).__name__} has no inverse"
        return Claim("inverse", _EVERYWHERE, "not applicable", note=why, flow=number)
    closed = isinstance(scheme, ShearScheme) and not unknown_run(flow)
    text, route = (_EVERYWHERE, "closed form") if closed else (_HERE, "measured")
    dtypes = dict.fromkeys((y.dtype, torch.float32, torch.float64))
    bound = {_name(d): torch.finfo(d).eps * expected for d in dtypes} if math.isfinite(expected) else {}
    likely = torch.finfo(y.dtype).eps * expected
    try:
        drift = _drift(flow, y)
        if likely < _LINEAR:
            off = "the expected drift" if not drift <= _SLACK * likely else ""
        else:
            off = "the rounding error of a layer" if not _undone(flow, y) <= 1 else ""
    except ArithmeticError as error:  # an implicit layer without a solution
        return Claim("inverse", text, "not applicable", note=str(error).split(";")[0], flow=number)
    note = "relative, to state 0; guaranteed stands for expected" if bound else "relative, to state 0"
    if off:
        note = f"undoing the layers leads elsewhere, by more than {_SLACK:g} times {off}"
    status: Status = "broken" if off else "pass"
    return Claim("inverse", text, status, route, (), bound, {_name(y.dtype): drift}, note, number)


_EVERYWHERE = "every layer is a bijection with a known inverse, so that states can be rebuilt instead of stored"
_HERE = "at the given states the inverse of every layer undoes it, so that they can be rebuilt instead of stored"


def _name(dtype: torch.dtype) -> str:
    return f"drift {name_of(dtype)}"


def _drift(flow: Flow, y: Tensor) -> float:
    """The error of state 0, relative to its largest entry, after all layers are done and undone."""
    first, *_, last = flow.states(y)
    back = flow.inverse_state(last)
    off = max(float((a - b).abs().max()) for a, b in zip(back, first, strict=True))
    return off / max(float(part.abs().max()) for part in first)


def _undone(flow: Flow, y: Tensor) -> float:
    """The largest error of undoing one layer, against ``_SLACK`` roundings times the growth of the inverse there.

    That growth is measured: a state perturbed by the square root of eps is undone too.
    """
    scheme, g, worst = flow.scheme, torch.Generator().manual_seed(0), 0.0
    assert isinstance(scheme, ReversibleScheme)
    eps = torch.finfo(y.dtype).eps
    states = list(flow.states(y))
    for j, theta_j in enumerate(slices(flow.field.theta(), flow.layers)):
        field = flow.field.at_layer(j)
        before, after = states[j], states[j + 1]
        size = max(float(part.abs().max()) for part in (*before, *after))
        far = eps**0.5 * size
        moved = tuple(p + far * torch.randn(p.shape, generator=g).to(p) for p in after)
        back, there = (scheme.inverse(field, state, theta_j, flow.h) for state in (after, moved))
        growth = max(float((a - b).abs().max()) for a, b in zip(there, back, strict=True)) / max(far, 1e-300)
        error = max(float((a - b).abs().max()) for a, b in zip(back, before, strict=True))
        allowed = _SLACK * torch.finfo(working(y.dtype)).eps * max(1.0, growth) * size if size else 0.0
        allowed = max(allowed, _SLACK * eps * max(1.0, growth) * size)
        worst = max(worst, error / allowed if allowed else float(error > 0))
    return worst
