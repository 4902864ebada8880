r"""The memory layout of a state for the kernel: vectors in rows, or images with channels innermost or outermost."""

from __future__ import annotations

__all__ = ["Images", "Layout", "Vectors", "array", "layout_of", "pointer", "rows"]

import itertools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from liouville.kernels.library import Array, Image


class Layout(ABC):
    """The memory layout of a state's parts, for the kernel."""

    @abstractmethod
    def arranged(self, x: Tensor) -> Tensor:
        """x, or a copy that the kernel can read."""

    @abstractmethod
    def empty(self, x: Tensor) -> Tensor:
        """Memory for a result of x's shape."""

    @abstractmethod
    def lay(self, to: Array, x: Tensor, out: Tensor | None = None) -> None:
        """Write into ``to`` that a part is read from x, arranged, and written to ``out``."""

    @abstractmethod
    def samples(self, shape: torch.Size) -> int:
        """The number of samples in a part of this shape."""

    @abstractmethod
    def image(self, shape: torch.Size) -> Image:
        """``lv_image``."""


class Vectors(Layout):
    """Parts (batch, width), one sample per row; the rows need not be contiguous."""

    def arranged(self, x: Tensor) -> Tensor:
        return rows(x)

    def empty(self, x: Tensor) -> Tensor:
        return torch.empty_like(x, memory_format=torch.contiguous_format)

    def lay(self, to: Array, x: Tensor, out: Tensor | None = None) -> None:
        to.source, to.stride, to.out = x.data_ptr(), x.stride(0), pointer(out)

    def samples(self, shape: torch.Size) -> int:
        return shape[0]

    def image(self, shape: torch.Size) -> Image:
        return Image(taps=1)


@dataclass(frozen=True)
class Images(Layout):
    """Parts (batch, channels, ...); a sample is a pixel. All parts get the same layout."""

    taps: int
    planes: bool  # (batch, channels, ...) in memory, else (batch, ..., channels)

    def arranged(self, x: Tensor) -> Tensor:
        if self._stride(x) is not None:
            return x
        return x.contiguous() if self.planes else self.empty(x).copy_(x)

    def empty(self, x: Tensor) -> Tensor:
        if self.planes:
            return x.new_empty(x.shape)
        return x.new_empty(x.shape[0], *x.shape[2:], x.shape[1]).movedim(-1, 1)

    def lay(self, to: Array, x: Tensor, out: Tensor | None = None) -> None:
        to.source, to.stride, to.out = x.data_ptr(), self._stride(x) or 0, pointer(out)

    def samples(self, shape: torch.Size) -> int:
        return shape[0] * math.prod(shape[2:])

    def image(self, shape: torch.Size) -> Image:
        height, width = max(1, math.prod(shape[2:-1])), max(1, shape[-1])
        return Image(height, width, self.planes, self.taps)

    def _stride(self, x: Tensor) -> int | None:
        return _image_stride(x) if self.planes else _pixel_stride(x)


_VECTORS = Vectors()


def layout_of(taps: int, x: Tensor) -> Layout:
    """The layout of a state whose first part is x; ``taps`` as in `ShearPlan`."""
    if not taps:
        return _VECTORS
    return Images(taps, planes=_image_stride(x) is not None or _pixel_stride(x) is None)


def array(x: Tensor, out: Tensor | None = None) -> Array:
    """``lv_array`` of vectors read from x and written to ``out``."""
    return Array(x.data_ptr(), x.stride(0), pointer(out))


def pointer(x: Tensor | None) -> int | None:
    """The address of x, null for None."""
    return None if x is None else x.data_ptr()


def rows(x: Tensor) -> Tensor:
    """x with dense rows, which need not be contiguous: a half of a state is used in place."""
    return x if x.stride(1) == 1 or x.shape[1] == 1 else x.contiguous()


def _image_stride(x: Tensor) -> int | None:
    """The stride from image to image, where each is dense with its channels outermost."""
    dense = 1
    for size, stride in zip(reversed(x.shape[1:]), reversed(x.stride()[1:]), strict=True):
        if size != 1 and stride != dense:
            return None
        dense *= size
    return x.stride(0) if x.shape[0] > 1 else dense


def _pixel_stride(x: Tensor) -> int | None:
    """The stride from pixel to pixel, where channels are contiguous and all pixels of all images evenly spaced."""
    if x.shape[1] != 1 and x.stride(1) != 1:
        return None
    axes = [(x.shape[k], x.stride(k)) for k in (*range(x.dim() - 1, 1, -1), 0) if x.shape[k] != 1]
    for (size, stride), (_, outer) in itertools.pairwise(axes):
        if outer != size * stride:
            return None
    return axes[0][1] if axes else x.shape[1]
