r"""Linear maps K: the same field on a dense state or on images, with given weights.

An operator owns no weights. It defines the action of a weight tensor on a state, K y, and of its transpose, K^T z;
the weight whose action is that transpose; the feature axis of the state; and how a bias of one number per feature is
broadcast. <K y, z> = <y, K^T z> holds exactly for every operator.
"""

from __future__ import annotations

__all__ = ["Conv", "Dense", "Graph", "Operator"]

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from liouville.graphs import Pattern, adjacency, as_pattern
from liouville.norms import spectral_norm

_CONV = {
    1: (F.conv1d, F.conv_transpose1d),
    2: (F.conv2d, F.conv_transpose2d),
    3: (F.conv3d, F.conv_transpose3d),
}


@dataclass(frozen=True)
class Operator(ABC):
    """A family of linear maps K, parametrised by a weight tensor that is an argument of every call."""

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
        """A dense matrix over the features, applied at every position: J y, X y."""

    @abstractmethod
    def norm(self, weight: Tensor) -> Tensor:
        """An upper bound of ||K||_2, one number per leading (layer) index of a stack of weights."""

    def matrix(self, weight: Tensor) -> Tensor | None:
        """K as a matrix over the features, if it is one; None for stencils."""
        return None

    def constrain(self, weight: Tensor) -> Tensor:
        """The admissible weights of this family, from raw ones; ``theta()`` of a field returns them."""
        return weight

    def constrain_structure(self, J: Tensor) -> Tensor:
        """The admissible matrices over features, J and X, of this family."""
        return J

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
        return weight.transpose(-2, -1)  # equals .mT, which the older ONNX exporter does not support

    def mix(self, matrix: Tensor, y: Tensor) -> Tensor:
        return F.linear(y, matrix)

    def broadcast(self, bias: Tensor) -> Tensor:
        return bias  # one of each sample, (*batch, features), adds to a state too

    def norm(self, weight: Tensor) -> Tensor:
        return spectral_norm(weight)

    def matrix(self, weight: Tensor) -> Tensor:
        return weight


@dataclass(frozen=True, repr=False)
class Graph(Dense):
    r"""A block-sparse matrix: block (i, k) of K is zero unless node i of a graph is linked to node k.

    Every axis of features is one or more copies of the same row of blocks, [node 0, node 1, ...]: for y = (p, q) there
    are two, so that node i owns its blocks of p and of q, and J = [[0, -I], [I, 0]] couples no two nodes. K acts as a
    masked `Dense`; `constrain` applies the mask, so entries outside it have no gradient and stay exactly zero.

    Reference: Galimberti et al. 2023 (2105.13205), the distributed networks, K in blkSparse(R), J in blkSparse(T).

    Args:
        links: R, anything that `liouville.graphs.adjacency` reads: a networkx graph, a matrix, a list of links, a file.
        sizes: features of each node in one copy, one number for all or one per node.
        structure: T, the graph of nodes that J (or X) may couple; by default no node with any other.

    Raises:
        ValueError: if the graphs have different numbers of nodes, the sizes do not fit them, or a width is not a
            multiple of their sum.

    Examples:
        >>> ring = Graph([(0, 1), (1, 2), (2, 3), (3, 0)])
        >>> ring.constrain(torch.ones(4, 4))
        tensor([[1., 1., 0., 1.],
                [1., 1., 1., 0.],
                [0., 1., 1., 1.],
                [1., 0., 1., 1.]])
    """

    links: Any
    sizes: int | Sequence[int] = 1
    structure: Any = None

    def __post_init__(self) -> None:
        links = adjacency(self.links)
        M = len(links)
        sizes = (self.sizes,) * M if isinstance(self.sizes, int) else tuple(self.sizes)
        if len(sizes) != M or any(not isinstance(s, int) or s < 1 for s in sizes):
            raise ValueError(f"sizes must be a positive whole number, or one for each of the {M} nodes; got {sizes}.")
        T = adjacency(torch.eye(M) if self.structure is None else self.structure).in_order_of(links)
        if len(T) != M:
            raise ValueError(f"structure must be a graph of the same {M} nodes as links, got {len(T)}.")
        T = as_pattern(torch.tensor(T) | torch.tensor(T).mT)  # J is skew
        for name, value in (("links", links), ("sizes", sizes), ("structure", T)):
            object.__setattr__(self, name, value)

    @property
    def nodes(self) -> int:
        """M."""
        return len(self.links)

    @property
    def total(self) -> int:
        """Features of all nodes in one copy."""
        return self.nodes * self.sizes if isinstance(self.sizes, int) else sum(self.sizes)

    def weight_shape(self, outputs: int, inputs: int) -> tuple[int, ...]:
        self.owners(outputs), self.owners(inputs)  # these raise where a width does not fit
        return (outputs, inputs)

    def owners(self, width: int) -> Tensor:
        """The node that owns each of ``width`` features."""
        total = self.total
        if width % total:
            raise ValueError(
                f"the {self.nodes} nodes own {total} features together, so every width is a multiple of {total}, two "
                f"of them for y = (p, q); got {width}."
            )
        return torch.arange(self.nodes).repeat_interleave(torch.tensor(self.sizes)).repeat(width // total)

    def blocks(self, matrix: Tensor) -> Tensor:
        """Which nodes a matrix over features couples, (M, M) booleans: its block pattern; for a stack, the union."""
        rows, columns = (
            torch.nn.functional.one_hot(self.owners(width), self.nodes).double() for width in matrix.shape[-2:]
        )
        used = (matrix.detach().cpu() != 0).reshape(-1, *matrix.shape[-2:]).any(0)
        return rows.mT @ used.double() @ columns > 0

    def constrain(self, weight: Tensor) -> Tensor:
        """K with zeros outside the mask; one weight or a stack of layers."""
        return self._masked(weight, self.links)

    def constrain_structure(self, J: Tensor) -> Tensor:
        """J or X with zeros between nodes that ``structure`` does not couple."""
        return self._masked(J, self.structure)

    def _masked(self, matrix: Tensor, pattern: Pattern) -> Tensor:
        rows, columns = (self.owners(width) for width in matrix.shape[-2:])
        mask = torch.tensor(pattern)[rows][:, columns].to(matrix.device)
        return torch.where(mask, matrix, 0.0)

    def __repr__(self) -> str:
        links = sum(map(sum, self.links)) - self.nodes
        own = [self.sizes] if isinstance(self.sizes, int) else list(self.sizes)
        sizes = own[0] if len(set(own)) == 1 else tuple(own)
        return f"Graph({self.nodes} nodes, {links} links, sizes={sizes})"


@dataclass(frozen=True)
class Conv(Operator):
    """K is a convolution of stride 1 with zero padding that keeps the size; its transpose has the same weight.

    Args:
        kernel: odd width of the stencil; 1 acts on each pixel separately (the papers' "pixelwise" network).
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
