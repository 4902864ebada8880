r"""The base class of engines, and the slices of the weights that a layer gets."""

from __future__ import annotations

__all__ = ["Backprop", "Stored", "joined", "layer", "require_depth", "slices"]

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from liouville.fields.base import Theta, VectorField
from liouville.fields.blocks import Rows
from liouville.schemes.base import Scheme, State


@dataclass(frozen=True, repr=False)
class Backprop(ABC):
    """How the layers are run and differentiated. Engines are values: equal settings, equal engines."""

    def __repr__(self) -> str:
        """The settings that differ from the defaults."""
        changed = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in changed)})"

    def check(self, scheme: Scheme, field: VectorField) -> None:
        """Raise a `ValueError`, with an alternative, where this engine cannot run the pair."""

    @abstractmethod
    def run(self, scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float) -> State:
        """The state after N layers; ``theta`` is stacked on axis 0 (length N, or 1 when shared).

        ``field`` is fixed to the run (`VectorField.in_run`), and layer j evaluates ``field.at_layer(j)``: an engine
        draws no random numbers.
        """

    def trajectory(
        self, scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float
    ) -> tuple[State, Tensor]:
        """The state after N layers, and every state after a layer: (N, *batch, width), its parts joined along the
        feature axis. Gradients reach the run through both; an engine that keeps no states adds the costates of the
        second on its way back. Here it is the plain loop, which any engine equals."""
        found = []
        for j, theta_j in enumerate(slices(theta, field.layers)):
            state = scheme.step(field.at_layer(j), state, theta_j, h)
            found.append(joined(state, field.feature_axis))
        return state, torch.stack(found)

    def recorded(self) -> Backprop:
        """The engine that runs instead while a recorder (`liouville.compilers`) records operations: the plain loop,
        which is the same map and gradient, and does not need this library where the recording is run."""
        return Stored()


@dataclass(frozen=True, repr=False)
class Stored(Backprop):
    """Ordinary autograd: every layer's intermediates are kept. Memory grows like N; nothing is computed twice.

    Examples:
        >>> Stored() == Stored()
        True
    """

    def run(self, scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float) -> State:
        for j, theta_j in enumerate(slices(theta, field.layers)):
            state = scheme.step(field.at_layer(j), state, theta_j, h)
        return state


def joined(state: State, axis: int) -> Tensor:
    """The parts of a state side by side along the feature axis."""
    return state[0] if len(state) == 1 else torch.cat(state, axis)


def slices(theta: Theta, layers: int) -> Iterator[Theta]:
    """theta_0 ... theta_{N-1}. One ``unbind`` per tensor: indexing a layer at a time costs autograd O(N) each."""
    require_depth(theta, layers)
    if isinstance(theta, Rows):
        return map(theta.layer, range(layers))
    if not theta:
        return (theta for _ in range(layers))
    columns = [w.unbind(0) if len(w) == layers else w.unbind(0) * layers for w in theta]
    return (type(theta)(*row) for row in zip(*columns, strict=True))


def layer(theta: Theta, j: int) -> Theta:
    """theta_j, detached, for an engine that differentiates by itself."""
    if isinstance(theta, Rows):
        return theta.layer(j)
    return type(theta)(*(w.detach()[j if len(w) > 1 else 0] for w in theta))


def require_depth(theta: Theta, layers: int) -> None:
    """Raise unless axis 0 of every weight counts the layers, or has length 1."""
    if isinstance(theta, Rows):
        return
    for name, w in zip(theta._fields, theta, strict=True):
        if w.shape[0] not in (1, layers):
            raise ValueError(
                f"axis 0 of theta().{name} must count the {layers} layers, or have length 1 when they share one "
                f"weight; got the shape {tuple(w.shape)}."
            )
