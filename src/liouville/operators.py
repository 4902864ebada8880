r"""Linear maps K: the same field on a dense state or on images, with the weights passed in.

An operator owns no weights. It knows how a weight tensor acts on a state, K y; how its transpose acts, K^T z;
which weight has that transpose as its own action; which axis of the state holds the features; and how a bias
of one number per feature is broadcast. <K y, z> = <y, K^T z> holds exactly for every one of them.
"""

from __future__ import annotations

__all__ = ["Conv", "Dense", "Operator", "spectral_norm"]

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_CONV = {
    1: (F.conv1d, F.conv_transpose1d),
    2: (F.conv2d, F.conv_transpose2d),
    3: (F.conv3d, F.conv_transpose3d),
}


@dataclass(frozen=True)
class Operator(ABC):
    """A family of linear maps K, parametrised by a weight tensor that every call is given."""

    @property
    @abstractmethod
    def feature_axis(self) -> int:
        """The axis of the state that holds the features, counted from the end (negative)."""

    @abstractmethod
    def weight_shape(self, outputs: int, inputs: int) -> tuple[int, ...]:
        """The shape of the weight of a map from ``inputs`` to ``outputs`` features."""

    @abstractmethod
    def apply(self, weight: Tensor, y: Tensor, bias: Tensor | None = None) -> Tensor:
        """K y + b, with one number of b per output feature."""

    @abstractmethod
    def apply_transpose(self, weight: Tensor, z: Tensor) -> Tensor:
        """K^T z."""

    @abstractmethod
    def transpose(self, weight: Tensor) -> Tensor:
        """The weight whose action is K^T; works on one weight and on a stack of layers alike."""

    @abstractmethod
    def mix(self, matrix: Tensor, y: Tensor) -> Tensor:
        """A dense matrix over the features, applied at every position alike: J y, X y."""

    @abstractmethod
    def norm(self, weight: Tensor) -> Tensor:
        """An upper bound of ||K||_2, one number per leading (layer) index of a stack of weights."""

    def matrix(self, weight: Tensor) -> Tensor | None:
        """K as a matrix over the features, where it is no more than that; None for stencils."""
        return None

    def broadcast(self, bias: Tensor) -> Tensor:
        """A vector over features, shaped so that it adds to a state."""
        return bias.reshape(bias.shape[-1:] + (1,) * (-1 - self.feature_axis))


@dataclass(frozen=True)
class Dense(Operator):
    """K is a matrix, the features are the last axis: K y is ``y @ K.mT``.

    Examples:
        >>> import torch
        >>> K, y = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]])
        >>> Dense().apply(K, y)
        tensor([[11.]])
    """

    @property
    def feature_axis(self) -> int:
        return -1

    def weight_shape(self, outputs: int, inputs: int) -> tuple[int, ...]:
        return (outputs, inputs)

    def apply(self, weight: Tensor, y: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.linear(y, weight, bias)

    def apply_transpose(self, weight: Tensor, z: Tensor) -> Tensor:
        return z @ weight

    def transpose(self, weight: Tensor) -> Tensor:
        return weight.mT

    def mix(self, matrix: Tensor, y: Tensor) -> Tensor:
        return F.linear(y, matrix)

    def norm(self, weight: Tensor) -> Tensor:
        return spectral_norm(weight)

    def matrix(self, weight: Tensor) -> Tensor:
        return weight


@dataclass(frozen=True)
class Conv(Operator):
    """K is a convolution of stride 1 with zero padding that keeps the size; its transpose has the same weight.

    Args:
        kernel: odd width of the stencil; 1 acts on each pixel alone (the papers' "pixelwise" network).
        dims: 1 for signals (B, C, L), 2 for images (B, C, H, W), 3 for volumes.

    Raises:
        ValueError: if ``kernel`` is even or ``dims`` is not 1, 2 or 3.
    """

    kernel: int = 3
    dims: int = 2

    def __post_init__(self) -> None:
        if self.dims not in _CONV:
            raise ValueError(f"dims must be 1 (signals), 2 (images) or 3 (volumes), got {self.dims}.")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(
                f"kernel must be odd and positive, so that stride-1 zero padding keeps the size and the transpose "
                f"is the adjoint; got {self.kernel}, use {max(1, self.kernel + 1)}."
            )

    @property
    def feature_axis(self) -> int:
        return -1 - self.dims

    def weight_shape(self, outputs: int, inputs: int) -> tuple[int, ...]:
        return (outputs, inputs, *(self.kernel,) * self.dims)

    def apply(self, weight: Tensor, y: Tensor, bias: Tensor | None = None) -> Tensor:
        return _CONV[self.dims][0](y, weight, bias, padding=self.kernel // 2)

    def apply_transpose(self, weight: Tensor, z: Tensor) -> Tensor:
        return _CONV[self.dims][1](z, weight, padding=self.kernel // 2)

    def transpose(self, weight: Tensor) -> Tensor:
        return weight.transpose(-self.dims - 2, -self.dims - 1).flip(tuple(range(-self.dims, 0)))

    def mix(self, matrix: Tensor, y: Tensor) -> Tensor:
        return _CONV[self.dims][0](y, matrix.reshape(*matrix.shape, *(1,) * self.dims))

    def norm(self, weight: Tensor) -> Tensor:
        """The sum of the spectral norms of the stencil's matrices; exact for a 1x1 kernel."""
        taps = weight.flatten(-self.dims).movedim(-1, 0)
        return spectral_norm(taps).sum(0)


def spectral_norm(matrices: Tensor) -> Tensor:
    """||K||_2 of each matrix of a stack; infinite where an entry is not finite, for which LAPACK would raise."""
    finite = matrices.isfinite().flatten(-2).all(-1)
    norms = torch.linalg.matrix_norm(torch.where(matrices.isfinite(), matrices, 0.0), ord=2)
    return torch.where(finite, norms, torch.inf)
