r"""Regularisers of the head: decay, and smoothness in space for classifiers that read images."""

from __future__ import annotations

__all__ = ["HeadDecay", "HeadSmoothness", "head_decay"]

import math
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from liouville.network import Half, Network
from liouville.train.regularisers.base import ConvexRegulariser, Term
from liouville.units import units_of


@dataclass(frozen=True)
class _OfHead(ConvexRegulariser):
    units: bool = field(default=False, repr=False, kw_only=True)

    def _counted(self, network: Network, weights: list[Tensor]) -> list[Tensor]:
        """The weights in their units, if so asked."""
        units = units_of(network) if self.units else {}
        return [w / units[w] if w in units else w for w in weights]


@dataclass(frozen=True)
class HeadDecay(_OfHead):
    """1/2 (||W||^2 + |mu|^2) over the weights and biases of the head.

    Args:
        weight: alpha.
        units: of the weights in their units (`liouville.units`); False: as they are.

    Examples:
        >>> import liouville as lv
        >>> float(HeadDecay()(lv.classifier("h2", inputs=2, classes=2, features=4, layers=8, T=1.0))) > 0
        True
    """

    of_head: ClassVar[bool] = True

    def terms(self, network: nn.Module) -> list[Term]:
        weights: list[Tensor] = list(network.head.parameters()) if isinstance(network, Network) else []
        return [Term(self._counted(network, weights), 0.5)] if weights else []  # type: ignore[arg-type]


@dataclass(frozen=True)
class HeadSmoothness(_OfHead):
    r"""1/2 sum_k ||L w_k||^2: neighbouring pixels of the features get similar classifier weights.

    L is the five-point Laplacian on the feature image that the head's linear map reads, per channel and in units of its
    pixels, with Neumann boundaries: equal weights over an image have no penalty, and the bias is free.

    Reference: Haber & Ruthotto 2017 (1705.03341), the derivative-based regularisation of the classifier.

    Args:
        weight: alpha.
        units: as for `HeadDecay`.
        shape: (channels, height, width) of that image; None takes a square with the channels of the last flow, or the
            half of them that a `liouville.network.Half` in the head selects.

    Raises:
        ValueError: if the head's last linear map does not read an image of that shape.

    Examples:
        >>> import liouville as lv
        >>> network = lv.classifier("h2", (1, 8, 8), 10, features=4, layers=2, T=1.0, conv=lv.zoo.Images())
        >>> float(HeadSmoothness()(network)) > 0
        True
    """

    of_head: ClassVar[bool] = True

    shape: tuple[int, int, int] | None = None

    def terms(self, network: nn.Module) -> list[Term]:
        if not isinstance(network, Network) or not (linear := _linear(network)):
            raise ValueError("smoothing a classifier in space needs a Network whose head has a linear map (nn.Linear).")
        (weight,) = self._counted(network, [linear[-1].weight])
        shape = self.shape or _square(network, weight.shape[1])
        if math.prod(shape) != weight.shape[1]:
            raise ValueError(f"the head reads {weight.shape[1]} values, not a feature image of shape {shape}.")
        return [Term([laplacian(weight.unflatten(1, shape))], 0.5)]


def head_decay(network: Network) -> Tensor:
    """The value of `HeadDecay`."""
    return HeadDecay().value(network)


def laplacian(image: Tensor) -> Tensor:
    """The sum over each pixel's neighbours, up to four, of their difference to the pixel: (..., height, width)."""
    return _second_difference(image, -1) + _second_difference(image, -2)


def _second_difference(image: Tensor, axis: int) -> Tensor:
    """Neumann boundaries: no slope across either end."""
    return image.diff(dim=axis, prepend=image.narrow(axis, 0, 1), append=image.narrow(axis, -1, 1)).diff(dim=axis)


def _linear(network: Network) -> list[nn.Linear]:
    return [module for module in network.head.modules() if isinstance(module, nn.Linear)]


def _square(network: Network, inputs: int) -> tuple[int, int, int]:
    """The shape of a square image with as many channels as the last flow has features, or half as many."""
    flows = list(network.flows())
    channels = flows[-1].field.features if flows else 0
    if any(isinstance(module, Half) for module in network.head.modules()):
        channels //= 2
    side = math.isqrt(inputs // channels) if channels else 0
    if not side or channels * side**2 != inputs or flows[-1].field.feature_axis == -1:
        raise ValueError(
            f"the head reads {inputs} values, which are not a square image with the {channels} channels of the last "
            "flow; give HeadSmoothness(shape=(channels, height, width))."
        )
    return channels, side, side
