"""The formula of each class of field, written a second time: pairs of computed and expected velocities."""

from __future__ import annotations

__all__ = ["FORMULAS", "formula_of"]

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from liouville.fields import (
    AntisymmetricField,
    HamiltonianField,
    PairField,
    PortHamiltonianField,
    ResidualField,
    SecondOrderField,
    SemidefiniteField,
    SeparableHamiltonianField,
    SymmetricField,
    VectorField,
)

Pairs = list[tuple[Tensor, Tensor]]


def _hamiltonian(f: HamiltonianField, y: Tensor, t: Any) -> Pairs:
    gradient = f.operator.apply_transpose(t.K, f.activation(f.operator.apply(t.K, y, t.b)))
    return [(f(y, t), f.operator.mix(t.J if hasattr(t, "J") else f.J, gradient))]


def _port(f: PortHamiltonianField, y: Tensor, t: Any) -> Pairs:
    gradient = f.operator.apply_transpose(t.K, f.activation(f.operator.apply(t.K, y, t.b))) + f.quadratic * y
    lost = f.operator.mix(t.L, f.operator.mix(t.L.mT, gradient))
    return [(f(y, t), f.operator.mix(f.J, gradient) - lost)]


def _separable(f: SeparableHamiltonianField, y: Tensor, t: Any) -> Pairs:
    n_p = f.p_features
    p, q = y.narrow(f.feature_axis, 0, n_p), y.narrow(f.feature_axis, n_p, f.features - n_p)
    J = f.structure(t)
    force = f.operator.apply_transpose(t.K_q, f.activation(f.operator.apply(t.K_q, q, t.b_q)))
    drift = f.operator.apply_transpose(t.K_p, f.activation(f.operator.apply(t.K_p, p, t.b_p)))
    p_dot, q_dot = f.operator.mix(J[:n_p, n_p:], force), f.operator.mix(J[n_p:, :n_p], drift)
    return [(f.p_dot(q, t), p_dot), (f.q_dot(p, t), q_dot), (f(y, t), torch.cat((p_dot, q_dot), f.feature_axis))]


def _pair(f: PairField, y: Tensor, t: Any) -> Pairs:
    n_p = f.p_features
    p, q = y.narrow(f.feature_axis, 0, n_p), y.narrow(f.feature_axis, n_p, f.features - n_p)
    p_dot = -f.activation(f.operator.apply_transpose(t.K, q) + f.operator.broadcast(t.c))
    q_dot = f.activation(f.operator.apply(t.K, p, t.b))
    return [(f.p_dot(q, t), p_dot), (f.q_dot(p, t), q_dot), (f(y, t), torch.cat((p_dot, q_dot), f.feature_axis))]


def _antisymmetric(f: AntisymmetricField, y: Tensor, t: Any) -> Pairs:
    return [(f(y, t), f.activation(f.operator.apply(t.A, y, t.b) - f.factor * f.gamma * y))]


def _residual(f: ResidualField, y: Tensor, t: Any) -> Pairs:
    return [(f(y, t), f.activation(f.operator.apply(t.K, y, t.b)))]


def _symmetric(f: SymmetricField, y: Tensor, t: Any) -> Pairs:
    return [(f(y, t), -f.operator.apply_transpose(t.K, f.activation(f.operator.apply(t.K, y, t.b))))]


def _semidefinite(f: SemidefiniteField, y: Tensor, t: Any) -> Pairs:
    CtC = f.operator.apply_transpose(t.C, f.operator.apply(t.C, y))
    return [(f(y, t), f.activation(f.operator.broadcast(t.b) - CtC))]


def _second_order(f: SecondOrderField, y: Tensor, t: Any) -> Pairs:
    pairs = [(f.q_dot(y, t), y), (f.p_dot(y, t), f.force(y, t))]
    formula = formula_of(f.force)
    return pairs if formula is None else [*pairs, *formula(f.force, y, t)]


FORMULAS: dict[type[VectorField], Callable[..., Pairs]] = {
    HamiltonianField: _hamiltonian,
    PortHamiltonianField: _port,
    SeparableHamiltonianField: _separable,
    PairField: _pair,
    AntisymmetricField: _antisymmetric,
    SecondOrderField: _second_order,
    ResidualField: _residual,
    SymmetricField: _symmetric,
    SemidefiniteField: _semidefinite,
}


def formula_of(field: VectorField) -> Callable[..., Pairs] | None:
    """The formula of the field's class, or of the class it is derived from."""
    return next((formula for kind, formula in FORMULAS.items() if isinstance(field, kind)), None)
