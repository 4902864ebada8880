r"""What stands before, between and after the flows of a network, and gives the features their number and place."""

from __future__ import annotations

__all__ = ["ChannelsLast", "Connector", "Half", "Lift", "Place"]

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from liouville.flow import require_tensor

Place = Literal["front", "ends", "p", "q"]
_PLACES = ("front", "ends", "p", "q")
_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_LEARNED = {0: nn.Linear, 1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Lift(nn.Module):
    r"""Zero padding of the features: x -> y_0. It has no weights.

    Args:
        features: n, the width of y_0.
        inputs: width of x; with it, an input of any other width is refused.
        place: position of the data. ``"front"`` or ``"p"``: [x, 0], the order of 2104.13166; ``"ends"``: the first
            half of x at the front and the rest at the end, [x1, 0, 0, x2], the order of the authors' code, so that both
            halves of y = (p, q) hold data; ``"q"``: the second half, [0, x], as in the first paper's Verlet network; or
            the feature of each input, counted from 0, such as (0, 12).
        axis: the feature axis, -1 for vectors, -3 for images.
        scale: y_0 = scale * [x, 0]; positive and finite.

    Raises:
        ValueError: if x does not fit, or a scale that is not positive.

    Examples:
        >>> Lift(4, place="ends")(torch.tensor([1.0, 2.0]))
        tensor([1., 0., 0., 2.])
    """

    def __init__(
        self,
        features: int,
        inputs: int | None = None,
        *,
        place: Place | Sequence[int] = "front",
        axis: int = -1,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 < scale < math.inf:
            raise ValueError(f"scale must be positive and finite, got {scale}.")
        if not isinstance(place, str):
            inputs, place = _require_places(place, features, inputs), tuple(place)
        elif place not in _PLACES:
            raise ValueError(f"place must be one of {', '.join(map(repr, _PLACES))}, got {place!r}.")
        room = features - features // 2 if place == "q" else features
        if inputs is not None and not 0 < inputs <= room:
            raise ValueError(
                f"{inputs} inputs do not fit into {room} features (features={features}, place={place!r}); "
                "take more features or a learned lift."
            )
        self.features, self.inputs, self.place, self.axis = features, inputs, place, axis
        self.scale = float(scale)

    def forward(self, x: Tensor) -> Tensor:
        """x -> y_0."""
        require_tensor(x)
        width = x.shape[self.axis]
        if self.inputs is not None and width != self.inputs:
            raise ValueError(
                f"expected {self.inputs} inputs on axis {self.axis}, got {width} (shape {tuple(x.shape)})."
            )
        if self.scale != 1.0:
            x = self.scale * x
        if isinstance(self.place, tuple):
            shape = list(x.shape)
            shape[self.axis] = self.features
            places = torch.tensor(self.place, device=x.device)
            return x.new_zeros(shape).index_copy(self.axis, places, x)
        first = self.features // 2 if self.place == "q" else 0
        rest = self.features - first - width
        if rest < 0:
            raise ValueError(f"an input of width {width} does not fit into {self.features - first} features.")
        behind = (0, 0) * ((-1 - self.axis) % x.dim())
        if self.place == "ends":
            front = (width + 1) // 2
            x, end = x.split((front, width - front), self.axis)
            return torch.cat((F.pad(x, (*behind, 0, rest)), end), self.axis)
        return F.pad(x, (*behind, first, rest))

    def extra_repr(self) -> str:
        return f"features={self.features}, inputs={self.inputs}, place={self.place!r}, axis={self.axis}" + (
            f", scale={self.scale:g}" if self.scale != 1.0 else ""
        )


def _require_places(place: Sequence[int], features: int, inputs: int | None) -> int:
    """The number of inputs, after a check that each has its own feature."""
    if len(set(place)) != len(place) or not all(0 <= int(k) < features for k in place):
        raise ValueError(f"place must name different features from 0 to {features - 1}, one per input; got {place}.")
    if inputs not in (None, len(place)):
        raise ValueError(f"place names {len(place)} features for {inputs} inputs; name one for each.")
    return len(place)


class Connector(nn.Module):
    r"""Between two flows: pooling, then more (or fewer) features.

    Args:
        inputs: features before.
        outputs: features after.
        pool: pooling window and stride; 1 keeps the resolution.
        learned: a learned linear map; else zero features are appended to each half of y = (p, q), as in
            1709.03698, and ``outputs`` must not be less than ``inputs``.
        kernel: odd width of the learned stencil on images.
        average: average pooling; else the largest value of each window.
        dims: 0 for vectors, 2 for images.

    Raises:
        ValueError: if zero padding would have to remove features, or ``kernel`` is even.

    Examples:
        >>> Connector(8, 16, pool=2, dims=2)(torch.randn(5, 8, 14, 14)).shape
        torch.Size([5, 16, 7, 7])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        pool: int = 1,
        learned: bool = True,
        kernel: int = 1,
        average: bool = True,
        dims: int = 0,
    ) -> None:
        super().__init__()
        if pool > 1 and dims == 0:
            raise ValueError(f"vectors have no resolution to pool (pool={pool}); give dims=2 for images.")
        if not learned and (outputs < inputs or (outputs - inputs) % 2):
            raise ValueError(
                f"zero padding of both halves needs outputs - inputs even and >= 0, got {inputs} -> {outputs}; "
                "use learned=True."
            )
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, so that the padding keeps the size, got {kernel}.")
        self.inputs, self.outputs, self.pool, self.learned, self.dims = inputs, outputs, pool, learned, dims
        self.kernel, self.average = kernel, average
        self.map: nn.Module = nn.Identity()
        if learned:
            stencil = {"kernel_size": kernel, "padding": kernel // 2} if dims else {}
            self.map = _LEARNED[dims](inputs, outputs, **stencil)

    def forward(self, y: Tensor) -> Tensor:
        """Pool, then map or pad."""
        if self.pool > 1:
            y = (_AVERAGE if self.average else _MAX)[self.dims](y, self.pool)
        if self.learned:
            return self.map(y)
        extra = (self.outputs - self.inputs) // 2
        pad = (0, 0) * self.dims + (0, extra)
        return torch.cat([F.pad(half, pad) for half in y.chunk(2, -1 - self.dims)], -1 - self.dims)

    def extra_repr(self) -> str:
        return f"{self.inputs} -> {self.outputs}, pool={self.pool}, learned={self.learned}"


class ChannelsLast(nn.Module):
    """Images (B, C, H, W) with the channels innermost in memory: the same numbers, and few channels run up to twice
    as fast on a CPU, pooling five times. Later layers keep this layout.

    Examples:
        >>> ChannelsLast()(torch.zeros(1, 2, 3, 3)).stride()
        (18, 1, 6, 2)
        >>> ChannelsLast()(torch.zeros(5, 1, 3, 3)).stride()
        (9, 1, 3, 1)
    """

    def forward(self, x: Tensor) -> Tensor:
        """x in another memory layout."""
        if x.shape[1] == 1:  # one channel lies so already; torch tells the layouts apart by its stride
            last = x.contiguous().squeeze(1).unsqueeze(3)
        else:
            last = x.permute(0, 2, 3, 1).contiguous()  # which vmap knows, as it does not know torch.channels_last
        return last.permute(0, 3, 1, 2)


class Half(nn.Module):
    """One half of y = (p, q): the head of the first paper's Verlet network reads only q.

    Args:
        part: ``"p"`` or ``"q"``.
        axis: the feature axis.

    Examples:
        >>> Half("q")(torch.tensor([1.0, 2.0]))
        tensor([2.])
    """

    def __init__(self, part: Literal["p", "q"], *, axis: int = -1) -> None:
        super().__init__()
        if part not in ("p", "q"):
            raise ValueError(f'part must be "p" or "q", got {part!r}.')
        self.part, self.axis = part, axis

    def forward(self, y: Tensor) -> Tensor:
        """p or q."""
        return y.chunk(2, self.axis)["pq".index(self.part)]
