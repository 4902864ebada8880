"""The skew matrix J of a field: by name or given, checked, and copied into a buffer."""

from __future__ import annotations

__all__ = ["canonical", "copied", "full", "require_structure", "skew_matrix"]

import torch
from torch import Tensor

from liouville.names import lookup
from liouville.operators import Operator


def canonical(features: int) -> Tensor:
    """J = [[0, -I], [I, 0]]: p' = -dH/dq, q' = dH/dp."""
    if features % 2:
        raise ValueError(
            f"features must be even for the canonical J, got {features}; add a zero feature with "
            f'Lift({features + 1}), or use J="full", which takes any size.'
        )
    eye = torch.eye(features // 2)
    zero = torch.zeros_like(eye)
    return torch.cat((torch.cat((zero, -eye), 1), torch.cat((eye, zero), 1)))


def full(features: int) -> Tensor:
    """J with +1 above and -1 below the diagonal."""
    ones = torch.ones(features, features)
    return ones.triu(1) - ones.tril(-1)


_SKEW = {"canonical": canonical, "full": full}


def skew_matrix(J: str | Tensor, features: int, layers: int) -> Tensor:
    """J, (n, n) or one for each layer, from its name ("canonical", "full") or a matrix, which is checked."""
    return lookup(_SKEW, J, "J")(features) if isinstance(J, str) else _checked(J, features, layers)


def copied(constant: Tensor, weight: Tensor) -> Tensor:
    """The caller's constant as a buffer: a copy in the weights' dtype, without a gradient."""
    return constant.detach().to(weight.dtype, copy=True)


def require_structure(operator: Operator, matrix: Tensor, name: str) -> None:
    """Raise unless J or X couples only the nodes that a `Graph` lets it couple."""
    beyond = matrix - operator.constrain_structure(matrix)
    if beyond.any():
        i, k = (operator.links.label(node) for node in operator.blocks(beyond).nonzero()[0].tolist())  # type: ignore[attr-defined]
        raise ValueError(
            f"{name} couples {i} with {k}, which the structure of {operator} does not; leave the entry out, or give "
            "Graph(links, sizes, structure=...) the nodes that may be coupled."
        )


def _checked(J: Tensor, features: int, layers: int) -> Tensor:
    """J in floating point, after a check that it is skew and of the right shape."""
    if J.shape not in ((features, features), (layers, features, features)):
        raise ValueError(
            f"J must have shape ({features}, {features}), or ({layers}, {features}, {features}) for one per layer; "
            f"got {tuple(J.shape)}."
        )
    J = J if J.is_floating_point() else J.to(torch.get_default_dtype())
    defect = (J + J.mT).abs().max()
    if not defect <= 8 * torch.finfo(J.dtype).eps * J.abs().max():
        raise ValueError(f"J must be skew, J + J^T = 0; got a largest entry of |J + J^T| of {float(defect):.3g}.")
    return J
