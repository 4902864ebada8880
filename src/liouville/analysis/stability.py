r"""Step sizes: how far each layer, frozen and linearised, is from the limit of its scheme."""

from __future__ import annotations

__all__ = ["first_nonfinite_layer", "margin"]

import torch
from torch import Tensor

from liouville.flow import Flow


@torch.no_grad()
def margin(flow: Flow) -> Tensor:
    r"""h times the rate bound of every layer, (N,): advice about the step size, not a proof.

    The rate is s_max ||K|| for residual, antisymmetric and pair fields, s_max ||X|| ||K_p|| ||K_q|| for the separable
    and s_max ||J|| ||K||^2 for the general Hamiltonian field, and the square root of the force's for second-order
    ones. A frozen, linearised oscillation is stable below 2 for symplectic Euler and Verlet, below 1 for Midpoint, up
    to 2 sqrt 2 for RK4, and never for forward Euler. Layers that change may grow although each is stable.

    Raises:
        NotImplementedError: if the field states no rate.

    Example:
        >>> import liouville as lv
        >>> lv.analysis.margin(lv.zoo.h2(4, layers=8, T=1.0)).shape
        torch.Size([8])
    """
    return flow.h * flow.field.rate(flow.field.theta()).expand(flow.layers)


@torch.no_grad()
def first_nonfinite_layer(flow: Flow, y: Tensor) -> int | None:
    """The first layer whose output is not finite for the input y, or None; -1 if y itself is not.

    Example:
        >>> import liouville as lv
        >>> first_nonfinite_layer(lv.zoo.h2(4, layers=8, T=1.0), torch.zeros(1, 4)) is None
        True
    """
    for j, state in enumerate(flow.states(y)):
        if not all(part.isfinite().all() for part in state):
            return j - 1
    return None
