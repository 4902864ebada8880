r"""Proof routes: why no backward sensitivity matrix of a flow can have a norm below 1, checked on the actual object.

| route | needs | gives for every layer |
|---|---|---|
| symplectic | a symplectic scheme, one constant skew J != 0 | A J A^T = J |
| det = 1 | shears, or implicit midpoint on J grad H or on a skew A | \|det A\| = 1 |
| det >= 1 | forward Euler on J grad H or sigma(A y + b), A skew, with sigma' >= 0 and gamma = 0 | det A >= 1 |

A determinant of modulus >= 1 gives the product a spectral radius >= 1, and so a norm >= 1 in every sub-multiplicative
norm; A J A^T = J gives ||J|| <= ||A||^2 ||J||. A class is not taken at its word: its tensors are measured, and its
velocities are compared with the formula that the proof is about, at probe states in every layer.
"""

from __future__ import annotations

__all__ = [
    "Assumption",
    "Route",
    "activation_facts",
    "activation_of",
    "find_route",
    "imaginary_facts",
    "plain_field",
    "weights_finite",
]

from typing import Any, NamedTuple

import torch
from torch import Tensor

from liouville.activations import Activation
from liouville.analysis.formulas import FORMULAS
from liouville.backprop import slices
from liouville.budget import BudgetedField
from liouville.fields import (
    AntisymmetricField,
    DropoutField,
    HamiltonianField,
    PairField,
    SecondOrderField,
    SeparableHamiltonianField,
    SymmetricField,
    VectorField,
)
from liouville.fields.base import spectrum_of
from liouville.flow import Flow
from liouville.schemes import (
    ForwardEuler,
    ImplicitMidpoint,
    ImplicitSymplecticEuler,
    Midpoint,
    Scheme,
    ShearScheme,
    SplittingScheme,
)

_PROBES = 8  # states per layer
_GRID = 2001  # points in [-20, 20] at which an activation is looked at


class Assumption(NamedTuple):
    """What a proof needs, whether the object has it, and what was looked at.

    ``claimed``: the object's class or label says so, so that a violation is a defect and not another kind of network.
    """

    text: str
    holds: bool
    evidence: str
    claimed: bool = True


class Route(NamedTuple):
    """``name``: "symplectic", "det = 1", "det >= 1" or "none"; ``why`` there is none; J of the symplectic route."""

    name: str
    why: str
    assumptions: tuple[Assumption, ...]
    J: Tensor | None = None

    @property
    def broken(self) -> bool:
        """Whether the object violates what its class claims."""
        return any(not a.holds and a.claimed for a in self.assumptions)

    @property
    def proved(self) -> bool:
        """Whether there is a route and all that it needs holds."""
        return self.name != "none" and all(a.holds for a in self.assumptions)


def plain_field(field: VectorField) -> VectorField:
    """The field inside a budget or, in evaluation mode, inside dropout: what computes the velocities."""
    while isinstance(field, DropoutField | BudgetedField):
        field = field.field
    return field


@torch.no_grad()
def find_route(flow: Flow) -> Route:
    """The strongest route that the flow's scheme and field are made for, with its assumptions measured.

    Examples:
        >>> import liouville as lv
        >>> [find_route(lv.zoo.MODELS[m](4, layers=3, T=1.0)).name for m in ("h2", "ms1", "h1", "resnet")]
        ['symplectic', 'det = 1', 'det >= 1', 'none']
    """
    field, scheme = plain_field(flow.field), flow.scheme
    overridden = _overridden_step(scheme)
    if overridden:
        return Route("none", f"{type(scheme).__name__} overrides {overridden}, which no proof here knows", ())
    formula = _formula(flow, field)
    if isinstance(scheme, Midpoint):
        return Route("det = 1", "", ())  # (y_{j-1}, y_j) -> (y_j, y_{j-1} + 2 h f(y_j)), whatever f is
    if isinstance(scheme, SplittingScheme):
        return _splitting_route(flow, field, formula)
    if isinstance(scheme, ImplicitMidpoint | ImplicitSymplecticEuler):
        return _implicit_route(flow, field, formula)
    if isinstance(scheme, ForwardEuler):
        return _euler_route(flow, field, formula)
    return Route("none", f"{type(scheme).__name__} is neither symplectic nor of determinant >= 1", formula)


def imaginary_facts(flow: Flow) -> tuple[Assumption, ...]:
    """What makes the rates of every frozen layer imaginary at every state; nothing where no formula here says so.

    Examples:
        >>> import liouville as lv
        >>> [len(imaginary_facts(lv.zoo.MODELS[m](4, layers=3, T=1.0))) for m in ("h2", "leapfrog", "resnet")]
        [3, 2, 0]
    """
    field = plain_field(flow.field)
    if spectrum_of(field) != "imaginary":
        return ()
    formula = _formula(flow, field)
    if isinstance(field, SecondOrderField):
        return (*formula, *activation_facts(activation_of(field), monotone=True)[1:])
    return _euler_route(flow, field, formula).assumptions if formula else ()


def weights_finite(flow: Flow) -> Assumption:
    """Every number of theta() and every buffer is finite."""
    tensors = {**dict(flow.named_parameters()), **dict(flow.named_buffers())}
    bad = [name for name, w in tensors.items() if not w.isfinite().all()]
    theta = flow.field.theta()
    bad += [name for name, w in zip(theta._fields, theta, strict=True) if not bad and not w.isfinite().all()]
    numbers = sum(w.numel() for w in tensors.values())
    return Assumption(
        "the weights are finite", not bad, f"not finite: {', '.join(bad)}" if bad else f"{numbers} numbers"
    )


def activation_facts(sigma: Activation, monotone: bool) -> tuple[Assumption, ...]:
    """What an `Activation` states of itself, compared with its function on a grid."""
    x = torch.linspace(-20, 20, _GRID, dtype=torch.float64)
    with torch.enable_grad():
        at = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(sigma(at).sum(), at)
    low, high = float(slope.min()), float(slope.abs().max())
    where = f"{_GRID} points in [-20, 20]"
    rounding = 1e-12
    facts = [
        Assumption(
            f"|sigma'| <= {sigma.lipschitz:g} ({sigma.name})",
            high <= sigma.lipschitz + rounding,
            f"{high:.6g} at {where}",
        )
    ]
    if monotone:
        stated = f"sigma' >= 0 ({sigma.name})"
        if sigma.monotone:
            facts.append(Assumption(stated, low >= -rounding, f"smallest {low:.3g} at {where}"))
        else:
            facts.append(Assumption(stated, False, f"it is not monotone, smallest {low:.3g}", claimed=False))
    return tuple(facts)


def _overridden_step(scheme: Scheme) -> str | None:
    """The method of a user's scheme that replaces the one that the proof is about."""
    for base, names in _PROVED:
        if isinstance(scheme, base):
            owner: Any = base
            return next((n for n in names if getattr(type(scheme), n) is not getattr(owner, n)), None)
    return None


_PROVED: tuple[tuple[type[Scheme], tuple[str, ...]], ...] = (
    (SplittingScheme, ("step", "shears")),
    (Midpoint, ("step", "shears")),
    (ShearScheme, ("step",)),
    (ForwardEuler, ("step",)),
    (ImplicitMidpoint, ("step",)),
    (ImplicitSymplecticEuler, ("step",)),
)


def _splitting_route(flow: Flow, field: VectorField, formula: tuple[Assumption, ...]) -> Route:
    if isinstance(field, SeparableHamiltonianField):
        J = field.structure
        if bool(J.any()):
            return Route("symplectic", "", (*formula, _skew(J), _nonzero(J)), J)
    if isinstance(field, SecondOrderField) and isinstance(field.force, SymmetricField):
        return Route("symplectic", "", formula, _canonical(field.features, flow))
    return Route("det = 1", "", formula or (_SHEARS,))


_SHEARS = Assumption("p' depends on q alone, q' on p alone", True, "p_dot is given q and q_dot p, nothing else")


def _implicit_route(flow: Flow, field: VectorField, formula: tuple[Assumption, ...]) -> Route:
    if isinstance(field, HamiltonianField):
        stack = field.structure(flow.field.theta())
        J = stack if stack.dim() == 2 else stack[0]
        if bool(J.any()) and bool((stack == J).all()):
            return Route("symplectic", "", (*formula, _skew(J), _nonzero(J)), J)
        return Route("det = 1", "", (*formula, _skew(stack)))
    if isinstance(field, AntisymmetricField):
        return Route("det = 1", "", (*formula, *_skew_A(flow, field)))
    return Route("none", f"{type(field).__name__} has no skew structure", formula)


def _euler_route(flow: Flow, field: VectorField, formula: tuple[Assumption, ...]) -> Route:
    structure: tuple[Assumption, ...]
    if isinstance(field, HamiltonianField):
        structure = (_skew(field.structure(flow.field.theta())),)
    elif isinstance(field, SeparableHamiltonianField):
        structure = (_skew(field.structure),)
    elif isinstance(field, AntisymmetricField):
        structure = _skew_A(flow, field)
    elif isinstance(field, PairField):
        structure = ()
    else:
        return Route("none", f"{type(field).__name__} has no skew structure", formula)
    return Route("det >= 1", "", (*formula, *structure, *activation_facts(activation_of(field), monotone=True)[1:]))


def activation_of(field: VectorField) -> Activation:
    """sigma of a field, or of the force inside a second-order one."""
    own: Any = field.force if isinstance(field, SecondOrderField) else field
    return own.activation


def _skew_A(flow: Flow, field: AntisymmetricField) -> tuple[Assumption, ...]:
    A = flow.field.theta().A
    skew = _measured_skew("A", A + field.operator.transpose(A), A)
    gamma = Assumption("gamma = 0", field.gamma == 0, f"gamma = {field.gamma:g}", claimed=False)
    return skew, gamma


def _skew(J: Tensor) -> Assumption:
    return _measured_skew("J", J + J.mT, J)


def _measured_skew(name: str, defect: Tensor, of: Tensor) -> Assumption:
    largest = float(defect.abs().max())
    allowed = 8 * torch.finfo(of.dtype).eps * float(of.abs().max())
    return Assumption(f"{name} is skew", largest <= allowed, f"largest entry of |{name} + {name}^T|: {largest:.3g}")


def _nonzero(J: Tensor) -> Assumption:
    return Assumption("J is constant and not 0", True, f"||J|| = {float(torch.linalg.matrix_norm(J, ord=2)):.3g}")


def _canonical(features: int, flow: Flow) -> Tensor:
    eye = torch.eye(features).to(next(flow.parameters()))
    zero = torch.zeros_like(eye)
    return torch.cat((torch.cat((zero, -eye), 1), torch.cat((eye, zero), 1)))


def _formula(flow: Flow, field: VectorField) -> tuple[Assumption, ...]:
    """Whether the velocities that run are those that the class stands for, at random states in every layer."""
    kind = next((k for k in FORMULAS if isinstance(field, k)), None)
    if kind is None:
        return ()
    generator = torch.Generator().manual_seed(0)
    worst, allowed = 0.0, 0.0
    theta = flow.field.theta()
    for theta_j in slices(theta, flow.layers):
        y = _states(field, generator).to(next(flow.parameters()))
        for computed, stated in FORMULAS[kind](field, y, theta_j):
            worst = max(worst, float((computed - stated).abs().max()))
            allowed = max(allowed, float(stated.abs().max()))
    terms = 100 * y[0].numel()  # two orders of the same sums
    holds = worst <= terms * torch.finfo(y.dtype).eps * max(1.0, allowed)
    text = f"it computes what a {kind.__name__} stands for"
    return (Assumption(text, holds, f"off by {worst:.3g} at {_PROBES * flow.layers} probe states"),)


def _states(field: VectorField, generator: torch.Generator) -> Tensor:
    return torch.randn(_PROBES, *field.sample_shape(), generator=generator)
