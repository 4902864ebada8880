"""Fields of two halves that move each other: what splitting schemes step through."""

from __future__ import annotations

__all__ = ["PartitionedField"]

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from liouville.fields.base import Lipschitz, Theta, VectorField


class PartitionedField(VectorField):
    """y = (p, q) with p' = p_dot(q) and q' = q_dot(p): each velocity reads only the other half; each step is a shear.

    Shears have determinant 1 and invert exactly, whatever the weights: the splitting schemes need no more than this.

    Args:
        features: n = n_p + n_q.
        layers: N.
        p_features: n_p; half of the features by default.
    """

    def __init__(self, features: int, layers: int, p_features: int | None = None) -> None:
        super().__init__(features, layers)
        self._set_partition(p_features)

    def _set_partition(self, p_features: int | None) -> None:
        if p_features is None and self.features % 2:
            raise ValueError(
                f"features must be even to split y into (p, q), got {self.features}; add a zero feature with "
                f"Lift({self.features + 1}), give p_features, or use AntisymmetricField."
            )
        self.p_features = self.features // 2 if p_features is None else p_features
        if not 0 < self.p_features < self.features:
            raise ValueError(f"p_features must lie in 1 ... {self.features - 1}, got {self.p_features}.")

    @abstractmethod
    def p_dot(self, q: Tensor, theta_j: Theta) -> Tensor:
        """p', a function of only q."""

    @abstractmethod
    def q_dot(self, p: Tensor, theta_j: Theta) -> Tensor:
        """q', a function of only p."""

    def p_jacobian(self, q: Tensor, theta: Theta) -> Tensor | None:
        """d p_dot / dq in closed form, like `VectorField.jacobian`."""
        return None

    def q_jacobian(self, p: Tensor, theta: Theta) -> Tensor | None:
        """d q_dot / dp in closed form, like `VectorField.jacobian`."""
        return None

    def jacobian(self, y: Tensor, theta: Theta) -> Tensor | None:
        """[[0, d p_dot / dq], [d q_dot / dp, 0]], from the halves."""
        p, q = self.split(y)
        upper, lower = self.p_jacobian(q, theta), self.q_jacobian(p, theta)
        if upper is None or lower is None:
            return None
        return torch.cat((F.pad(upper, (p.shape[-1], 0)), F.pad(lower, (0, q.shape[-1]))), -2)

    def split(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """y -> (p, q)."""
        sizes = [self.p_features, self.features - self.p_features]
        p, q = torch.split(y, sizes, dim=self.feature_axis)
        if y.dim() == 4 and self.feature_axis == -3:
            layout = torch.channels_last if _is_channels_last(y) else torch.contiguous_format
            p, q = p.contiguous(memory_format=layout), q.contiguous(memory_format=layout)
        return p, q

    def halves(self, state: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """(p, q) from y, (y,) or (p, q): the arguments of an `energy`."""
        if isinstance(state, Tensor):
            return self.split(state)
        return state if len(state) > 1 else self.split(state[0])

    def join(self, p: Tensor, q: Tensor) -> Tensor:
        """(p, q) -> y."""
        return torch.cat((p, q), dim=self.feature_axis)

    def enter(self, y: Tensor, p_dot: Callable[[Tensor], Tensor], h: float) -> tuple[Tensor, Tensor]:
        """The initial (p, q) of an input y; ``p_dot`` is the velocity of layer 0 with its noise, a function of q."""
        return self.split(y)

    def entry(self, lipschitz: Lipschitz, h: float) -> Tensor:
        """An upper bound of the factor by which `enter` and `leave` together amplify a difference: `Scheme.entry`."""
        return torch.ones_like(lipschitz.one_sided)

    def leave(self, p: Tensor, q: Tensor) -> Tensor:
        """The output of the network, from the final (p, q)."""
        return self.join(p, q)

    def forward(self, y: Tensor, theta_j: Theta, *args: Any, **context: Any) -> Tensor:
        """(p_dot(q), q_dot(p))."""
        p, q = self.split(y)
        return self.join(self.p_dot(q, theta_j, *args, **context), self.q_dot(p, theta_j, *args, **context))

    def _velocities(self) -> tuple[Callable[..., Tensor], ...]:
        return self.p_dot, self.q_dot


def _is_channels_last(y: Tensor) -> bool:
    return y.is_contiguous(memory_format=torch.channels_last) and not y.is_contiguous()
