r"""The assumptions of a proof, checked on the object: activations on a grid, matrices entry by entry."""

from __future__ import annotations

__all__ = ["Assumption", "activation_facts", "activation_of", "is_shipped", "measured_skew"]

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from liouville.activations import ACTIVATIONS, Activation
from liouville.fields import SecondOrderField, VectorField
from liouville.fields.wrapped import unwrapped

EDGE = 20.0
_POINTS = 2001  # regular points in [-EDGE, EDGE], and as many random ones
_APART = (1e-1, 1e-3, 1e-5, 1e-7)  # distances in difference quotients: a jump shows at one of these scales
_ROUNDING = 1e-12
_KINK = 1e-3  # tolerated error of a derivative against the adjacent quotients, relative to the steepest slope


class Assumption(NamedTuple):
    """An assumption of a proof, whether it holds, and the evidence.

    ``claimed``: the object's class or label states it, so that a violation is a defect, not another kind of network.
    """

    text: str
    holds: bool
    evidence: str
    claimed: bool = True


def activation_of(field: VectorField) -> Activation | None:
    """sigma of a field, or of the force inside a second-order field; None for a field without sigma."""
    inner = unwrapped(field)
    own: Any = inner.force if isinstance(inner, SecondOrderField) else inner
    sigma = getattr(own, "activation", None)
    return sigma if isinstance(sigma, Activation) else None


def is_shipped(sigma: Activation) -> bool:
    """Whether sigma is an activation of the library, whose slopes are known everywhere."""
    return sigma is ACTIVATIONS.get(sigma.name)


def activation_facts(sigma: Activation | None, monotone: bool) -> tuple[Assumption, ...]:
    """The statements of an `Activation`, compared with its function: |sigma'| <= s_max, then sigma' >= 0 if
    ``monotone``; for a user-defined one also that it acts elementwise and that its derivative matches its function.

    Slopes are measured by autograd and by difference quotients over several distances, so that a step function is not
    flat, at 4,002 points in [-20, 20]; nothing is known beyond or between.
    """
    if sigma is None:
        return ()
    x = _points()
    with torch.enable_grad():
        at = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(sigma(at).sum(), at, materialize_grads=True)
    slope, secants, off = slope.detach(), *_secants(sigma, x)
    low = float(torch.cat((slope, (secants + off).flatten())).min())
    high = float(torch.cat((slope.abs(), (secants.abs() - off).flatten())).max())
    where = f"{len(x)} points in [-{EDGE:g}, {EDGE:g}], as a derivative and as differences"
    stated = f"|sigma'| <= {sigma.lipschitz:g} ({sigma.name})"
    facts = [Assumption(stated, high <= sigma.lipschitz + _ROUNDING, f"{high:.6g} at {where}")]
    if monotone:
        stated = f"sigma' >= 0 ({sigma.name})"
        if sigma.monotone:
            facts.append(Assumption(stated, low >= -_ROUNDING, f"smallest {low:.3g} at {where}"))
        else:
            facts.append(Assumption(stated, False, f"it is not monotone, smallest {low:.3g}", claimed=False))
    if not is_shipped(sigma):
        facts += [_elementwise(sigma, x), _derivative(sigma, x, slope, secants, max(1.0, abs(low), high))]
    return tuple(facts)


@functools.cache
def _points() -> Tensor:
    drawn = torch.rand(_POINTS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.cat((torch.linspace(-EDGE, EDGE, _POINTS, dtype=torch.float64), EDGE * (2 * drawn - 1)))


@torch.no_grad()
def _secants(sigma: Activation, x: Tensor) -> tuple[Tensor, Tensor]:
    """Difference quotients to the right and to the left over all distances, (2 k, points), and their rounding."""
    steps = torch.tensor(_APART, dtype=x.dtype)
    there = x + torch.cat((steps, -steps))[:, None]
    s, s_there = sigma(x), sigma(there)
    apart = there - x
    return (s_there - s) / apart, 8 * torch.finfo(x.dtype).eps * (s.abs() + s_there.abs() + 1) / apart.abs()


@torch.no_grad()
def _elementwise(sigma: Activation, x: Tensor) -> Assumption:
    s = sigma(x)
    apart = torch.cat((sigma(x.flip(0)[:7]), sigma(x.flip(0)[7:])))
    worst = float((s.flip(0) - apart).abs().max())
    holds = worst <= 1e-9 * max(1.0, float(s.abs().max()))
    return Assumption(f"sigma acts elementwise ({sigma.name})", holds, f"off by {worst:.3g} next to other numbers")


@torch.no_grad()
def _derivative(sigma: Activation, x: Tensor, slope: Tensor, secants: Tensor, size: float) -> Assumption:
    """The stated derivative and autograd's both lie between the quotients on both sides, which differ at a kink."""
    beside = torch.stack((secants[len(_APART) - 1], secants[-1]))
    low, high = beside.amin(0) - _KINK * size, beside.amax(0) + _KINK * size
    stated = torch.as_tensor(sigma.derivative(x)).expand_as(x)
    off = torch.cat([torch.maximum(low - d, d - high) for d in (stated, slope)])
    worst = float(off.max())
    text = f"the derivative of {sigma.name} matches its function"
    return Assumption(text, worst <= 0, f"off the adjacent difference quotients by {max(0.0, worst):.3g}")


def measured_skew(name: str, defect: Tensor, of: Tensor) -> Assumption:
    """Whether ``defect``, the matrix plus its transpose, is rounding."""
    largest = float(defect.abs().max())
    allowed = 8 * torch.finfo(of.dtype).eps * float(of.abs().max())
    return Assumption(f"{name} is skew", largest <= allowed, f"largest entry of |{name} + {name}^T|: {largest:.3g}")
