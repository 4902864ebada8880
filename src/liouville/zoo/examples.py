r"""The papers' worked examples: flows whose weights are given, not learned. They are made in torch's default dtype."""

from __future__ import annotations

__all__ = ["EXAMPLE_1", "EXAMPLE_1_INPUTS", "appendix_iii", "example_1"]

import torch
from torch import Tensor

from liouville.fields import ResidualField, SeparableHamiltonianField, VectorField
from liouville.flow import Flow
from liouville.schemes import ForwardEuler, SymplecticEuler

EXAMPLE_1 = {
    "spread": ((2.0, -2.0), (0.0, 2.0)),
    "collapse": ((-2.0, 0.0), (2.0, -2.0)),
    "rotation": ((0.0, -1.0), (1.0, 0.0)),
}
"""K+, K- and K0 of P1, eq. (3.10), acting on rows."""

EXAMPLE_1_INPUTS = ((0.1, 0.1), (-0.1, -0.1), (0.0, 0.5))

_START = (0.33627683, -0.48627683)  # from the authors' script, which scales it to |y_0| = 1


def example_1(name: str) -> Flow:
    """The residual network of P1, Example 1: ten equal layers, tanh, h = 0.1, b = 0.

    Examples:
        >>> example_1("rotation").layers
        10
    """
    return Flow(_filled(ResidualField(2, 10, shared=True), K=torch.tensor(EXAMPLE_1[name]).T), ForwardEuler(), T=1.0)


def appendix_iii(eps: float = 1.0, T: float = 200.0, layers: int = 4000, size: float = 1.0) -> tuple[Flow, Tensor]:
    """P2, Appendix III: y' = eps J tanh(y), J = [0, -1; 1, 0], K = I, b = 0, by semi-implicit Euler, and y_0.

    Args:
        eps: factor of the velocity.
        T: the final time.
        layers: N.
        size: |y_0|.

    Examples:
        >>> appendix_iii()[0].h
        0.05
    """
    y = torch.tensor([_START])
    field = SeparableHamiltonianField(2, layers, X=eps, shared=True)
    return Flow(_filled(field, K_p=1.0, K_q=1.0), SymplecticEuler(), T), size * y / y.norm()


@torch.no_grad()
def _filled(field: VectorField, **weights: Tensor | float) -> VectorField:
    """The field with these weights and zero biases."""
    for name, raw in field.named_parameters():
        raw.copy_(torch.as_tensor(weights.get(name, 0.0)).expand_as(raw))
    return field
