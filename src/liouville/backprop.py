r"""Engines: run the N steps of a scheme and make them differentiable. All compute the same map and gradient.

An engine decides what is kept between forward and backward, never what is computed. It gets the field once, for
its formulas, and all weights as stacked tensors; a layer is a slice of them.
"""

from __future__ import annotations

__all__ = ["ENGINES", "Backprop", "Checkpointed", "Stored", "slices"]

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from liouville.fields.base import Theta, VectorField
from liouville.schemes.base import Scheme, State


@dataclass(frozen=True)
class Backprop(ABC):
    """How the depth is run and differentiated. Engines are values: equal settings, equal engines."""

    @abstractmethod
    def run(self, scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float) -> State:
        """The state behind N layers; ``theta`` is stacked on axis 0 (length N, or 1 when shared).

        ``field`` is fixed to the run (`VectorField.in_run`), and ``field.at_layer(j)`` is what layer j evaluates: an
        engine draws nothing.
        """


@dataclass(frozen=True)
class Stored(Backprop):
    """Ordinary autograd: every layer's intermediates are kept. Memory grows like N; nothing is computed twice.

    Example:
        >>> Stored() == Stored()
        True
    """

    def run(self, scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float) -> State:
        for j, theta_j in enumerate(slices(theta, field.layers)):
            state = scheme.step(field.at_layer(j), state, theta_j, h)
        return state


@dataclass(frozen=True)
class Checkpointed(Backprop):
    """Keep every ``every``-th state and recompute the layers between: memory like sqrt(N), one more forward pass.

    Args:
        every: layers per segment; ceil(sqrt(N)) by default.

    Raises:
        ValueError: if ``every`` is less than 1.

    Example:
        >>> Checkpointed(every=8)
        Checkpointed(every=8)
    """

    every: int | None = None

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 1:
            raise ValueError(f"every must be at least 1 layer per segment, got {self.every}.")

    def run(self, scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float) -> State:
        from torch.utils.checkpoint import checkpoint  # a slow import in older releases of torch

        layers = list(enumerate(slices(theta, field.layers)))
        every = self.every or math.ceil(math.sqrt(field.layers))

        def segment(first: int, *state: torch.Tensor) -> State:
            for j, theta_j in layers[first : first + every]:
                state = scheme.step(field.at_layer(j), state, theta_j, h)
            return state

        for first in range(0, field.layers, every):
            state = checkpoint(segment, first, *state, use_reentrant=False)
        return state


ENGINES: dict[str, type[Backprop]] = {"stored": Stored, "checkpointed": Checkpointed}


def slices(theta: Theta, layers: int) -> Iterator[Theta]:
    """theta_0 ... theta_{N-1}. One ``unbind`` per tensor: indexing a layer at a time costs autograd O(N) each."""
    kind = type(theta)
    for name, w in zip(theta._fields, theta, strict=True):
        if len(w) not in (1, layers):
            raise ValueError(
                f"axis 0 of theta().{name} must count the {layers} layers, or have length 1 when they share one "
                f"weight; got the shape {tuple(w.shape)}."
            )
    if not theta:
        return (theta for _ in range(layers))
    columns = [w.unbind(0) if len(w) == layers else w.unbind(0) * layers for w in theta]
    return (kind(*row) for row in zip(*columns, strict=True))
