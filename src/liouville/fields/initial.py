r"""Initial weights: a function of time, so that N and 2N layers start from the same network.

Layer j carries the weight at the middle of its interval, theta_j = theta(t_j), t_j = (j + 1/2) h. If theta is a
smooth function of t, refining the layers converges to one ordinary differential equation. Independent draws per
layer have no such limit: their smoothness penalty grows like N^2.
"""

from __future__ import annotations

__all__ = ["Initial", "Normal", "Smooth"]

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from liouville.machine import require_memory
from liouville.sketch import sketching


@dataclass(frozen=True)
class Initial(ABC):
    """Draws the raw weights of all layers at once.

    It knows no final time; where one is known beside a lift and a head, in `liouville.classifier`, a regressor or a
    plan, ``action`` counts.

    Args:
        action: Omega, what T x rate is to be at the start: the matrices that were drawn are then scaled as
            `liouville.zoo.scaled_start` describes. None leaves them as drawn, as does a field built by itself.
    """

    action: float | None = field(default=None, kw_only=True)

    @abstractmethod
    def weight(
        self, layers: int, shape: tuple[int, ...], mean: Tensor | None, generator: torch.Generator | None
    ) -> Tensor:
        """K: (layers, outputs, inputs, ...); ``mean`` is the field's mean of initial weights, (outputs, inputs)."""

    @abstractmethod
    def bias(self, layers: int, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        """b: (layers, outputs)."""

    def require_memory(self, layers: int, shape: tuple[int, ...]) -> None:
        """Raise a `ValueError` if the weights of all layers, and the numbers drawn for them, do not fit in memory."""
        if sketching() or torch.get_default_device().type != "cpu":
            return
        size = torch.get_default_dtype().itemsize
        needed = size * (2 * layers * math.prod(shape) + self.drawn(layers, shape))
        require_memory(needed, f"the weights of {layers} layers, {shape} each,", "take fewer layers or features")

    def drawn(self, layers: int, shape: tuple[int, ...]) -> int:
        """How many numbers are drawn to make them."""
        return 0


@dataclass(frozen=True)
class Smooth(Initial):
    r"""Random functions of time around a rotation (the default).

        K(t) = mean M + scale / sqrt(inputs) r(t),        b(t) = bias_scale r(t),
        r(t) = c sum_{k < modes} a_k cos(k pi t / T),     a_k ~ N(0, 1)

    The a_k do not depend on the number of layers, so the same generator gives 2N layers the same function of time as
    N. The factor c makes the variance of r, averaged over [0, T], equal to 1. M is the matrix that the field names: I
    for Hamiltonian and symmetric fields and the pair field, a quarter turn for the antisymmetric and half a one for the
    residual field. So the untrained network turns every pair (p_i, q_i): it mixes the halves at once, and trains in far
    fewer steps than from zero mean.

    Args:
        scale: size of the random part of K relative to 1 / sqrt(fan-in).
        bias_scale: size of b.
        modes: how many cosines, k = 0 ... modes - 1; 1 makes all layers equal.
        mean: factor of M.
        action: as for `Initial`; 20 serves all fields (docs/any-time.md).

    Examples:
        >>> import torch
        >>> coarse = Smooth().weight(100, (4, 4), None, torch.Generator().manual_seed(0))
        >>> fine = Smooth().weight(200, (4, 4), None, torch.Generator().manual_seed(0))
        >>> bool((fine[0::2] / 2 + fine[1::2] / 2 - coarse).abs().max() < 1e-2)
        True
    """

    scale: float = 0.7
    bias_scale: float = 0.0
    modes: int = 4
    mean: float = 2.0
    action: float | None = field(default=20.0, kw_only=True)

    def __post_init__(self) -> None:
        if self.modes < 1:
            raise ValueError(f"modes must be at least 1, got {self.modes}.")
        if self.action is not None and not 0 < self.action < math.inf:
            raise ValueError(f"action must be positive and finite, or None, got {self.action}.")

    def weight(
        self, layers: int, shape: tuple[int, ...], mean: Tensor | None, generator: torch.Generator | None
    ) -> Tensor:
        K = self.scale / math.sqrt(math.prod(shape[1:])) * self._draw(layers, shape, generator)
        if mean is not None:
            taps = K.flatten(3) if K.dim() > 3 else K[..., None]  # views; a stencil holds the mean in its middle
            taps[..., taps.shape[-1] // 2] += self.mean * mean
        return K

    def bias(self, layers: int, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        return self.bias_scale * self._draw(layers, shape, generator)

    def drawn(self, layers: int, shape: tuple[int, ...]) -> int:
        return self.modes * (2 * layers + math.prod(shape))

    def _draw(self, layers: int, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        amplitudes = torch.randn(self.modes, *shape, generator=generator)
        k, t = torch.arange(self.modes), (torch.arange(layers) + 0.5) / layers
        basis = torch.cos(math.pi * k * t[:, None]) / math.sqrt((1 + self.modes) / 2)
        return torch.tensordot(basis.to(amplitudes.dtype), amplitudes, dims=1)


@dataclass(frozen=True)
class Normal(Initial):
    """Independent N(0, std^2) in every layer: the papers' preset (std = 1). It has no limit in depth.

    Args:
        std: standard deviation of weights and biases alike.
    """

    std: float = 1.0

    def weight(
        self, layers: int, shape: tuple[int, ...], mean: Tensor | None, generator: torch.Generator | None
    ) -> Tensor:
        return self.std * torch.randn(layers, *shape, generator=generator)

    def bias(self, layers: int, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        return self.std * torch.randn(layers, *shape, generator=generator)
