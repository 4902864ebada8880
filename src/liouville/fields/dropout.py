r"""Dropout on a field: the velocity of a random part of the features is switched off for one layer."""

from __future__ import annotations

__all__ = ["DropoutField", "PartitionedDropoutField", "dropout"]

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from liouville.fields.base import Lipschitz, Spectrum, Theta, VectorField, spectrum_of
from liouville.fields.partitioned import PartitionedField
from liouville.fields.stochastic import StochasticField


def dropout(field: VectorField, probability: float) -> StochasticField:
    """The field with dropout, split into (p, q) where ``field`` is.

    Args:
        field: any deterministic field.
        probability: the share of the velocity's entries that a layer sets to 0, in [0, 1); the others are divided by
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


class DropoutField(StochasticField):
    """y' = m * f(y; theta_j), m the mask of the layer: 0 with probability ``probability``, else 1/(1 - probability)."""

    def __init__(self, field: VectorField, probability: float) -> None:
        if not 0 <= probability < 1:
            raise ValueError(f"the dropout probability must lie in [0, 1), got {probability}.")
        if isinstance(field, StochasticField):
            raise ValueError(f"dropout needs a deterministic field, got {type(field).__name__}.")
        VectorField.__init__(self, field.features, field.layers)
        self.field = field
        self.probability = probability

    @property
    def feature_axis(self) -> int:  # type: ignore[override]
        return self.field.feature_axis

    @property
    def spectrum(self) -> Spectrum:
        """The field's own, in evaluation mode."""
        return spectrum_of(self.field)

    @property
    def constants(self) -> Collection[str]:  # type: ignore[override]
        return self.field.constants

    def check_arguments(self, args: Sequence[Any], context: Mapping[str, Any]) -> None:
        self.field.check_arguments(args, context)

    def check_writes(self, buffers: Sequence[str]) -> None:
        self.field.check_writes([name.removeprefix("field.") for name in buffers])

    def plain_state(self) -> dict[str, Any]:
        return self.field.plain_state()

    @property
    def sample_ndim(self) -> int | None:  # type: ignore[override]
        """The field's own."""
        return self.field.sample_ndim

    def theta(self) -> Theta:
        """The field's own weights."""
        return self.field.theta()

    def forward(
        self, y: Tensor, theta_j: Theta, generator: torch.Generator | None = None, *args: Any, **context: Any
    ) -> Tensor:
        """m * f(y; theta_j)."""
        return self._masked(self.field(y, theta_j, *args, **context), generator)

    def rate(self, theta: Theta) -> Tensor:
        """The field's own, over 1 - probability."""
        return self.field.rate(theta) / (1 - self.probability)

    def lipschitz(self, theta: Theta) -> Lipschitz:
        """The field's own, in evaluation mode; a mask in training scales every part, and keeps no symmetry."""
        own = self.field.lipschitz(theta)
        if not self.training:
            return own
        parts = tuple(L / (1 - self.probability) for L in own.parts)
        return Lipschitz(parts, functools.reduce(torch.maximum, parts))

    def check_scheme(self, scheme: Any) -> None:
        self.field.check_scheme(scheme)

    def extra_repr(self) -> str:
        return f"probability={self.probability}"

    def _masked(self, velocity: Tensor, generator: torch.Generator | None) -> Tensor:
        if generator is None:
            return velocity
        keep = torch.rand(velocity.shape, generator=generator, device=velocity.device) >= self.probability
        return velocity * keep / (1 - self.probability)


class PartitionedDropoutField(DropoutField, PartitionedField):
    """p' = m_p * p_dot(q), q' = m_q * q_dot(p): still a shear in each half, so determinant 1 for every mask."""

    field: PartitionedField
    spectrum = DropoutField.spectrum

    def __init__(self, field: PartitionedField, probability: float) -> None:
        DropoutField.__init__(self, field, probability)
        self.p_features = field.p_features

    def p_dot(
        self, q: Tensor, theta_j: Theta, generator: torch.Generator | None = None, *args: Any, **context: Any
    ) -> Tensor:
        """m_p * p_dot(q)."""
        return self._masked(self.field.p_dot(q, theta_j, *args, **context), generator)

    def q_dot(
        self, p: Tensor, theta_j: Theta, generator: torch.Generator | None = None, *args: Any, **context: Any
    ) -> Tensor:
        """m_q * q_dot(p)."""
        return self._masked(self.field.q_dot(p, theta_j, *args, **context), generator)

    def split(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.field.split(y)

    def join(self, p: Tensor, q: Tensor) -> Tensor:
        return self.field.join(p, q)

    def enter(self, y: Tensor, p_dot: Callable[[Tensor], Tensor], h: float) -> tuple[Tensor, Tensor]:
        return self.field.enter(y, p_dot, h)

    def entry(self, lipschitz: Lipschitz, h: float) -> Tensor:
        return self.field.entry(lipschitz, h)

    def leave(self, p: Tensor, q: Tensor) -> Tensor:
        return self.field.leave(p, q)
