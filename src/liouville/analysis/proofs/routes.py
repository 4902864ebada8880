r"""Proof routes: why no backward sensitivity matrix of a flow can have a norm below 1, checked on the object.

| route | needs | gives for every layer |
|---|---|---|
| symplectic | a symplectic scheme, one constant skew J != 0 | A J A^T = J |
| det = 1 | shears, or implicit midpoint on J grad H or on a skew A | \|det A\| = 1 |
| det >= 1 | forward Euler on J grad H or sigma(A y + b), A skew, with sigma' >= 0 and gamma = 0 | det A >= 1 |

A determinant of modulus >= 1 gives the product a spectral radius >= 1, and so a norm >= 1 in every sub-multiplicative
norm; A J A^T = J gives ||J|| <= ||A||^2 ||J||. A proof is about formulas: the object must be exactly of a known type,
and in addition its tensors are measured, and its velocities compared with the formula in every layer.
"""

from __future__ import annotations

__all__ = [
    "Route",
    "find_route",
    "imaginary_facts",
    "weights_finite",
]

from typing import NamedTuple

import torch
from torch import Tensor

from liouville.analysis.proofs.assumptions import Assumption, activation_facts, activation_of, measured_skew
from liouville.analysis.proofs.obligations import formula_facts, functions
from liouville.analysis.proofs.untouched import unknown_run, unknown_velocities
from liouville.fields import (
    AntisymmetricField,
    PairField,
    PortHamiltonianField,
    SecondOrderField,
    VectorField,
)
from liouville.fields.base import spectrum_of
from liouville.fields.wrapped import unwrapped
from liouville.flow import Flow
from liouville.schemes import (
    ForwardEuler,
    ImplicitMidpoint,
    ImplicitSymplecticEuler,
    ShearScheme,
    SplittingScheme,
)
from liouville.schemes.twostep import TwoStep


class Route(NamedTuple):
    """``name``: "symplectic", "det = 1", "det >= 1" or "none"; ``why`` there is no route; J of the symplectic route."""

    name: str
    why: str
    assumptions: tuple[Assumption, ...]
    J: Tensor | None = None

    @property
    def broken(self) -> bool:
        """Whether the object violates a statement of its class."""
        return any(not a.holds and a.claimed for a in self.assumptions)

    @property
    def proved(self) -> bool:
        """Whether there is a route and all its assumptions hold."""
        return self.name != "none" and all(a.holds for a in self.assumptions)


@torch.no_grad()
def find_route(flow: Flow, points: Tensor | None = None) -> Route:
    """The strongest route for the flow's scheme and field, with its assumptions measured.

    Where the velocities are not known, by exact type, to be a formula of this library, only their structure remains:
    shears by any function.

    Args:
        flow: a flow in evaluation mode.
        points: y before every layer, (N or more, B, ...), where velocities are compared, in addition to probes.

    Examples:
        >>> import liouville as lv
        >>> [find_route(lv.zoo.MODELS[m](4, layers=3, T=1.0)).name for m in ("h2", "ms1", "h1", "resnet")]
        ['symplectic', 'det = 1', 'det >= 1', 'none']
    """
    field, scheme = unwrapped(flow.field), flow.scheme
    formula = formula_facts(flow, points)
    if why := unknown_run(flow):
        return Route("none", why, formula)
    unknown = unknown_velocities(flow.field)
    keeps = isinstance(scheme, ShearScheme) and not scheme.kept_bits  # a shear that halves the moved part contracts it
    if keeps and (unknown or isinstance(scheme, TwoStep) or not formula):
        return Route("det = 1", "", (*formula, functions(flow, points)))
    route = _route(flow, field, formula)
    return Route("none", unknown, route.assumptions) if unknown else route


def _route(flow: Flow, field: VectorField, formula: tuple[Assumption, ...]) -> Route:
    scheme = flow.scheme
    if isinstance(scheme, SplittingScheme):
        return _splitting_route(flow, field, formula)
    if isinstance(scheme, ImplicitMidpoint | ImplicitSymplecticEuler):
        return _implicit_route(flow, field, formula)
    if isinstance(scheme, ForwardEuler):
        return _euler_route(flow, field, formula)
    return Route("none", f"{type(scheme).__name__} is neither symplectic nor of determinant >= 1", formula)


def imaginary_facts(flow: Flow, formula: tuple[Assumption, ...] | None = None) -> tuple[Assumption, ...]:
    """The facts that make the rates of every frozen layer imaginary at every state; empty where no formula shows it.

    Examples:
        >>> import liouville as lv
        >>> [len(imaginary_facts(lv.zoo.MODELS[m](4, layers=3, T=1.0))) for m in ("h2", "leapfrog", "resnet")]
        [3, 2, 0]
    """
    field = unwrapped(flow.field)
    if spectrum_of(field) != "imaginary" or unknown_velocities(flow.field):
        return ()
    formula = formula_facts(flow) if formula is None else formula
    if isinstance(field, SecondOrderField):
        return (*formula, *activation_facts(activation_of(field), monotone=True)[1:2])
    return _euler_route(flow, field, formula).assumptions if formula else ()


def weights_finite(flow: Flow) -> Assumption:
    """The assumption that every number of theta() and every buffer is finite."""
    tensors = {**dict(flow.named_parameters()), **dict(flow.named_buffers())}
    bad = [name for name, w in tensors.items() if not w.isfinite().all()]
    theta = flow.field.theta()
    bad += [name for name, w in zip(theta._fields, theta, strict=True) if not bad and not w.isfinite().all()]
    numbers = sum(w.numel() for w in tensors.values())
    return Assumption(
        "the weights are finite", not bad, f"not finite: {', '.join(bad)}" if bad else f"{numbers} numbers"
    )


def _splitting_route(flow: Flow, field: VectorField, formula: tuple[Assumption, ...]) -> Route:
    return _symplectic(flow, field, formula) or Route("det = 1", "", formula)


def _implicit_route(flow: Flow, field: VectorField, formula: tuple[Assumption, ...]) -> Route:
    stack = field.structure(flow.field.theta())
    if stack is not None:
        return _symplectic(flow, field, formula) or Route("det = 1", "", (*formula, _skew(stack)))
    if isinstance(field, AntisymmetricField):
        return Route("det = 1", "", (*formula, *_skew_A(flow, field)))
    return Route("none", _no_structure(field), formula)


def _euler_route(flow: Flow, field: VectorField, formula: tuple[Assumption, ...]) -> Route:
    structure: tuple[Assumption, ...]
    J = field.structure(flow.field.theta())
    if J is not None:
        structure = (_skew(J),)
    elif isinstance(field, AntisymmetricField):
        structure = _skew_A(flow, field)
    elif isinstance(field, PairField):
        structure = ()
    else:
        return Route("none", _no_structure(field), formula)
    return Route("det >= 1", "", (*formula, *structure, *activation_facts(activation_of(field), monotone=True)[1:2]))


def _no_structure(field: VectorField) -> str:
    if isinstance(field, PortHamiltonianField):
        return "the field loses volume, its R is not 0; the claim damping bounds the norm from below"
    return f"{type(field).__name__} has no skew structure"


def _symplectic(flow: Flow, field: VectorField, formula: tuple[Assumption, ...]) -> Route | None:
    """The route of a symplectic scheme where one J, not 0, serves all layers."""
    stack = field.structure(flow.field.theta())
    if stack is None:
        return None
    J = stack if stack.dim() == 2 else stack[0]
    if not bool(J.any()) or not bool((stack == J).all()):
        return None
    return Route("symplectic", "", (*formula, _skew(J), _nonzero(J)), J)


def _skew_A(flow: Flow, field: AntisymmetricField) -> tuple[Assumption, ...]:
    A = flow.field.theta().A
    skew = measured_skew("A", A + field.operator.transpose(A), A)
    gamma = Assumption("gamma = 0", field.gamma == 0, f"gamma = {field.gamma:g}", claimed=False)
    return skew, gamma


def _skew(J: Tensor) -> Assumption:
    return measured_skew("J", J + J.mT, J)


def _nonzero(J: Tensor) -> Assumption:
    return Assumption("J is constant and not 0", True, f"||J|| = {float(torch.linalg.matrix_norm(J, ord=2)):.3g}")
