"""What each class of field stands for, written a second time: pairs of what runs and what the formula gives."""

from __future__ import annotations

__all__ = ["FORMULAS"]

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from liouville.fields import (
    AntisymmetricField,
    HamiltonianField,
    PairField,
    SecondOrderField,
    SeparableHamiltonianField,
    SymmetricField,
    VectorField,
)

Pairs = list[tuple[Tensor, Tensor]]


def _hamiltonian(f: HamiltonianField, y: Tensor, t: Any) -> Pairs:
    gradient = f.operator.apply_transpose(t.K, f.activation(f.operator.apply(t.K, y, t.b)))
    return [(f(y, t), f.operator.mix(t.J if hasattr(t, "J") else f.J, gradient))]


def _separable(f: SeparableHamiltonianField, y: Tensor, t: Any) -> Pairs:
    n_p = f.p_features
    p, q = y.narrow(f.feature_axis, 0, n_p), y.narrow(f.feature_axis, n_p, f.features - n_p)
    J = f.structure
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


def _second_order(f: SecondOrderField, y: Tensor, t: Any) -> Pairs:
    pairs = [(f.q_dot(y, t), y), (f.p_dot(y, t), f.force(y, t))]
    if isinstance(f.force, SymmetricField):
        g = f.force
        gradient = g.operator.apply_transpose(t.K, g.activation(g.operator.apply(t.K, y, t.b)))
        pairs.append((f.p_dot(y, t), -gradient))
    return pairs


FORMULAS: dict[type[VectorField], Callable[..., Pairs]] = {
    HamiltonianField: _hamiltonian,
    SeparableHamiltonianField: _separable,
    PairField: _pair,
    AntisymmetricField: _antisymmetric,
    SecondOrderField: _second_order,
}
