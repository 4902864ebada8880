r"""Dropout on a field: the velocity of a random part of the features is switched off for one layer."""

from __future__ import annotations

__all__ = ["DropoutField", "PartitionedDropoutField", "dropout"]

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from liouville.fields.base import Lipschitz, Theta, VectorField
from liouville.fields.partitioned import PartitionedField
from liouville.fields.stochastic import StochasticField
from liouville.fields.wrapped import Wrapped


def dropout(field: VectorField, probability: float) -> StochasticField:
    """The field with dropout; partitioned into (p, q) if ``field`` is.

    Args:
        field: any deterministic field.
        probability: the fraction of the velocity's entries that a layer sets to 0, in [0, 1); the others are divided by
            1 - probability.

    Raises:
        ValueError: if ``probability`` is outside [0, 1), or ``field`` draws noise already.

    Examples:
        >>> from liouville.fields import SeparableHamiltonianField
        >>> type(dropout(SeparableHamiltonianField(4, layers=8), 0.1)).__name__
        'PartitionedDropoutField'
    """
    if isinstance(field, PartitionedField):
        return PartitionedDropoutField(field, probability)
    return DropoutField(field, probability)


class DropoutField(Wrapped, StochasticField):
    """y' = m * f(y; theta_j), m the mask of the layer: 0 with probability ``probability``, else 1/(1 - probability)."""

    def __init__(self, field: VectorField, probability: float) -> None:
        if not 0 <= probability < 1:
            raise ValueError(f"the dropout probability must lie in [0, 1), got {probability}.")
        if isinstance(field, StochasticField):
            raise ValueError(f"dropout needs a deterministic field, got {type(field).__name__}.")
        super().__init__(field)
        self.probability = probability

    @property
    def is_plain(self) -> bool:
        """True in evaluation mode."""
        return not self.training

    spectrum = Wrapped.spectrum  # in evaluation mode
    degrees = Wrapped.degrees

    def rate(self, theta: Theta) -> Tensor:
        """The rate of the field, divided by 1 - probability."""
        return self.field.rate(theta) / (1 - self.probability)

    def lipschitz(self, theta: Theta) -> Lipschitz:
        """The bounds of the field in evaluation mode; in training a mask scales every part and breaks any symmetry."""
        own: Lipschitz = self.field.lipschitz(theta)
        if self.is_plain:
            return own
        parts = tuple(L / (1 - self.probability) for L in own.parts)
        return Lipschitz(parts, functools.reduce(torch.maximum, parts))

    def extra_repr(self) -> str:
        return f"probability={self.probability}"

    def _velocity(
        self,
        inner: Callable[..., Tensor],
        x: Tensor,
        theta_j: Theta,
        generator: torch.Generator | None = None,
        *args: Any,
        **context: Any,
    ) -> Tensor:
        return self._masked(inner(x, theta_j, *args, **context), generator)

    def _masked(self, velocity: Tensor, generator: torch.Generator | None) -> Tensor:
        if generator is None:
            return velocity
        keep = torch.rand(velocity.shape, generator=generator, device=velocity.device) >= self.probability
        return velocity * keep / (1 - self.probability)


class PartitionedDropoutField(DropoutField, PartitionedField):
    """p' = m_p * p_dot(q), q' = m_q * q_dot(p): still a shear in each half, so determinant 1 for every mask."""
