r"""Which nodes a layer couples: the block patterns of K, J and X, and the boolean products that its passes need.

K in blkSparse(R) means that block (i, k) of K may differ from 0 only where R_ik = 1. A layer's update is a chain of
such matrices, and what node i needs of node k is the boolean product of their patterns. Every product here equals the
sparsity pattern of a Jacobian, which the tests take from autograd.
"""

from __future__ import annotations

__all__ = ["PROTOCOLS", "GeneralPattern", "Need", "Protocol", "SeparablePattern", "needs", "patterns_of"]

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from liouville.fields import HamiltonianField, SeparableHamiltonianField
from liouville.flow import Flow
from liouville.nodes import PROTOCOLS, Protocol
from liouville.operators import Graph
from liouville.schemes import ForwardEuler, SplittingScheme


class GeneralPattern(NamedTuple):
    """One forward Euler layer of y' = J K^T sigma(K y + b): R of K and T of J, (M, M) booleans."""

    R: Tensor
    T: Tensor


class SeparablePattern(NamedTuple):
    """One layer of a splitting scheme on the separable field: R_p of K_p, R_q of K_q, X, (M, M) booleans.

    ``stages`` is the order in which the halves move, "pq" for symplectic Euler.
    """

    R_p: Tensor
    R_q: Tensor
    X: Tensor
    stages: str = "pq"


class Need(NamedTuple):
    """Node i needs ``what`` of node k in a layer's ``phase`` wherever ``pattern[i, k]``.

    ``what`` is "state", "costate", "activation" (of a hidden unit) or "force" (K^T times activations).
    """

    phase: Literal["forward", "backward"]
    what: str
    pattern: Tensor


def needs(pattern: GeneralPattern | SeparablePattern, protocol: Protocol = "replicated") -> list[Need]:
    """Every boolean product that must lie within the communication graph, the forward ones first.

    One update moves by A K^T sigma(K s + b), with A = J, -X^T or X. In "replicated" every node also holds the rows of K
    that its neighbours own, and one exchange serves: the state s from A R^T R; backwards the costate from R^T R A^T and
    the activations from R^T R; and at the owner of a row of K, for its gradient, the costate from R A^T and the state
    from R. (These are exact where a costate reaches every hidden unit, as with unit diagonals, and sufficient else.)
    In "owner-computes" only the owner of a hidden unit holds its row: the state goes to it (R), and what it computes
    comes back (R^T); the costate likewise. Where A couples nodes, that takes one exchange more (A, A^T).

    Examples:
        >>> eye, R = torch.eye(2), torch.tensor([[1, 1], [0, 1]])
        >>> [need.what for need in needs(GeneralPattern(R, eye), "owner-computes")]
        ['state', 'force', 'force', 'costate', 'costate', 'costate']
    """
    updates = _updates(pattern)
    one = _replicated if protocol == "replicated" else _owner_computes
    found = [need for A, R in updates for need in one(A, R)]
    return sorted(found, key=lambda need: need.phase == "backward")


def patterns_of(flow: Flow) -> list[GeneralPattern] | list[SeparablePattern]:
    """The pattern of each layer of a flow whose operator is a `Graph`, from the masks of its weights.

    Raises:
        ValueError: if its field is not a Hamiltonian one on a `Graph`, or its scheme has no exchange pattern.
    """
    field, scheme = flow.field, flow.scheme
    operator = getattr(field, "operator", None)
    if not isinstance(field, (HamiltonianField, SeparableHamiltonianField)) or not isinstance(operator, Graph):
        raise ValueError(
            f"locality is defined for HamiltonianField and SeparableHamiltonianField with a Graph as operator, got "
            f"{type(field).__name__} with {operator}; for example "
            "lv.zoo.h2(features, layers, T, operator=lv.Graph(...))."
        )
    R = torch.tensor(operator.links)
    if isinstance(field, SeparableHamiltonianField) and isinstance(scheme, SplittingScheme):
        X = torch.eye(len(R), dtype=torch.bool) if field.X is None else operator.blocks(field.X)
        return [SeparablePattern(R, R, X, "".join(half for half, _ in scheme.stages))] * flow.layers
    if isinstance(field, HamiltonianField) and isinstance(scheme, ForwardEuler):
        if field.constant_J:
            return [GeneralPattern(R, operator.blocks(field.J))] * flow.layers
        J = field.J_raw - field.J_raw.mT
        J = J if len(J) == flow.layers else J.expand(flow.layers, -1, -1)
        masked = torch.tensor(operator.structure)
        return [GeneralPattern(R, masked if field.train_J else operator.blocks(J_j)) for J_j in J]
    raise ValueError(
        f"{type(scheme).__name__} on {type(field).__name__} has no exchange pattern; use ForwardEuler on "
        "HamiltonianField (zoo.h1), or a splitting scheme on SeparableHamiltonianField (zoo.h2)."
    )


def reach(pattern: GeneralPattern | SeparablePattern) -> Tensor:
    """What one layer's output depends on: (M, M), or (2M, 2M) for (p, q), booleans."""
    M = len(pattern[0])
    eye = torch.eye(M, dtype=torch.bool)
    if isinstance(pattern, GeneralPattern):
        return product(pattern.T, pattern.R.mT, pattern.R) | eye
    total = torch.eye(2 * M, dtype=torch.bool)
    for half, (A, R) in zip(pattern.stages, _updates(pattern), strict=True):
        stage = torch.eye(2 * M, dtype=torch.bool)
        rows, columns = (slice(0, M), slice(M, None)) if half == "p" else (slice(M, None), slice(0, M))
        stage[rows, columns] = product(A, R.mT, R)
        total = product(stage, total)
    return total


def product(*patterns: Tensor) -> Tensor:
    """The boolean product."""
    result = patterns[0].double()
    for pattern in patterns[1:]:
        result = ((result @ pattern.double()) > 0).double()
    return result > 0


def _updates(pattern: GeneralPattern | SeparablePattern) -> list[tuple[Tensor, Tensor]]:
    """(A, R) of each stage: what is moved, moves by A K^T sigma(K s + b)."""
    if isinstance(pattern, GeneralPattern):
        return [(_bool(pattern.T), _bool(pattern.R))]
    R_p, R_q, X = (_bool(matrix) for matrix in pattern[:3])
    return [(X.mT, R_q) if half == "p" else (X, R_p) for half in pattern.stages]


def _replicated(A: Tensor, R: Tensor) -> list[Need]:
    return [
        Need("forward", "state", product(A, R.mT, R)),
        Need("backward", "costate", product(R.mT, R, A.mT)),
        Need("backward", "state", product(R.mT, R)),
        Need("backward", "costate", product(R, A.mT)),
        Need("backward", "state", R),
    ]


def _owner_computes(A: Tensor, R: Tensor) -> list[Need]:
    return [
        Need("forward", "state", R),
        Need("forward", "force", R.mT),
        Need("forward", "force", A),
        Need("backward", "costate", A.mT),
        Need("backward", "costate", R),
        Need("backward", "costate", R.mT),
    ]


def _bool(matrix: Tensor) -> Tensor:
    return torch.as_tensor(matrix) != 0
