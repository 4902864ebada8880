"""Fields that draw random numbers, and how a run fixes them layer by layer."""

from __future__ import annotations

__all__ = ["StochasticField", "original", "scrambled"]

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from liouville.compilers import is_recorded
from liouville.devices import is_capturing
from liouville.fields.base import Theta, VectorField
from liouville.fields.bound import Bound, original


class StochasticField(VectorField):
    """A field that draws random numbers from a given generator, such as dropout.

    A run draws one seed from torch's global stream; layer j draws only from (seed, j). So noise is
    frozen over a layer: every evaluation of layer j in one run (initial, first, repeated or backward) has the same
    noise. The run fixes the field once, ``run = field.in_run()``, and evaluates ``run.at_layer(j)``. In
    ``eval()`` the generator is None and the field is deterministic. A partitioned field takes the generator in
    ``p_dot`` and ``q_dot`` too. Arguments of a run, if any, come after the generator.
    """

    _taken_first = 3  # the generator too

    @abstractmethod
    def forward(self, y: Tensor, theta_j: Theta, generator: torch.Generator | None = None) -> Tensor:
        """f(y; theta_j, noise), the noise drawn from ``generator``; no noise where it is None."""

    def in_run(self, seed: int | None = None) -> VectorField:
        if not self.training:
            return _Drawn(self, None)  # type: ignore[return-value]
        if seed is None and is_recorded():
            raise NotImplementedError(
                f"{type(self).__name__} draws new noise in every run, but a recording would always repeat the noise of "
                "its example; call network.eval() first."
            )
        if seed is None and is_capturing():
            raise NotImplementedError(
                f"{type(self).__name__} draws new noise in every run, and a CUDA graph would repeat that of its first "
                "one for ever; record network.eval(), or run without a graph."
            )
        return _Drawn(self, int(torch.randint(2**31, ())) if seed is None else seed)  # type: ignore[return-value]

    def at_layer(self, j: int) -> VectorField:
        if self.training:
            raise RuntimeError("a field that draws noise needs a run to draw for; use field.in_run(seed).at_layer(j).")
        return self


class _Drawn(Bound):
    """A stochastic field in one run, at one of its layers: the field with its generator given, or without noise."""

    def __init__(self, field: StochasticField, seed: int | None, j: int = 0) -> None:
        self.original = field
        self._run = seed
        self._seed = 0 if seed is None else (seed << 24) + 4 * j

    def at_layer(self, j: int) -> _Drawn:
        return _Drawn(self.original, self._run, j)

    def __call__(self, y: Tensor, theta_j: Theta, *args: Any, **context: Any) -> Tensor:
        return self.original(y, theta_j, self._generator(y, 0), *args, **context)

    def mean_velocity(self, y: Tensor, z: Tensor, theta_j: Theta, *args: Any, **context: Any) -> Tensor:
        return self.original.mean_velocity(y, z, theta_j, self._generator(y, 0), *args, **context)

    def p_dot(self, q: Tensor, theta_j: Theta, *args: Any, **context: Any) -> Tensor:
        return self.original.p_dot(q, theta_j, self._generator(q, 1), *args, **context)

    def q_dot(self, p: Tensor, theta_j: Theta, *args: Any, **context: Any) -> Tensor:
        return self.original.q_dot(p, theta_j, self._generator(p, 2), *args, **context)

    def _generator(self, like: Tensor, stream: int) -> torch.Generator | None:
        return None if self._run is None else torch.Generator(like.device).manual_seed(scrambled(self._seed + stream))


def scrambled(x: int) -> int:
    """SplitMix64: torch's CPU generator reads only the low 32 bits of a seed, so every bit must reach them."""
    x = (x + 0x9E3779B97F4A7C15) & _64_BITS
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _64_BITS
    return x ^ (x >> 31)


_64_BITS = (1 << 64) - 1
