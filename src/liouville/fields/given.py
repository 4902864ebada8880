r"""Arguments of a run beside the state: masks, rotary tables, embeddings, conditioning; for all layers or per layer.

``flow(y, mask)`` binds them to the field for the run, as noise is bound: layer j evaluates f(y; theta_j, mask). A
tensor among them is, to an engine, a weight that all layers share (axis 0 of length 1), or has one row per layer. It
travels in theta, so it gets a gradient wherever weights do. Arguments that are not tensors stay with the field.
"""

from __future__ import annotations

__all__ = ["Call", "Given", "PerLayer", "bind", "kind_of_call", "like"]

from collections import namedtuple
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from liouville.fields.base import Theta, VectorField
from liouville.fields.bound import Bound, original


class PerLayer:
    """An argument of a run with a value of its own in every layer: ``flow(y, mask=lv.PerLayer(masks))``.

    Args:
        values: a tensor whose axis 0 counts the layers, or one value per layer: tensors of one shape, which are
            stacked, or anything else but containers of tensors.

    Examples:
        >>> PerLayer([True, False, True]).values
        [True, False, True]
        >>> PerLayer([torch.zeros(2), torch.ones(2)]).values.shape
        torch.Size([2, 2])
    """

    def __init__(self, values: Tensor | Sequence[Any]) -> None:
        self.values = values if isinstance(values, Tensor) else _stacked(list(values))


def _stacked(values: list[Any]) -> Any:
    tensors = sum(isinstance(v, Tensor) for v in values)
    if not tensors:
        if any(isinstance(x, Tensor) for x in tree_flatten(values)[0]):
            raise ValueError("PerLayer takes one tensor per layer, got containers of them; give a PerLayer for each.")
        return values
    if tensors < len(values) or len({(v.shape, v.dtype, v.device) for v in values}) > 1:
        raise ValueError(
            "the tensors of a PerLayer must have one shape, dtype and device, and none may be missing; pad them, or "
            "give a neutral value where a layer needs none."
        )
    return torch.stack(values)


class Call:
    """The arguments of one run, and how to build them from the tensors in theta_j and the other values."""

    def __init__(self, leaves: Sequence[Any], spec: Any, weights: int) -> None:
        self.leaves, self.spec, self.weights = leaves, spec, weights
        self.kind = (str(spec), *(x if isinstance(x, bool | str) else type(x) for x in leaves))

    def at(self, theta_j: Theta, j: int, kind: Any) -> tuple[Theta, Sequence[Any], Mapping[str, Any]]:
        """The field's own theta_j, and the arguments of layer j."""
        tensors = iter(theta_j[self.weights :])
        values = [next(tensors) if x is _TENSOR else x.values[j] if isinstance(x, PerLayer) else x for x in self.leaves]
        args, context = tree_unflatten(values, self.spec)
        return kind(*theta_j[: self.weights]), args, context


class Given(Bound):
    """A field in one run with the arguments of that run, at one of its layers; ``layers`` counts those of the run."""

    def __init__(self, run: Any, call: Call, kind: Any, layers: int, j: int = 0) -> None:
        self.run, self.call, self.kind, self.layers, self.j = run, call, kind, layers, j
        self.original = original(run)

    def at_layer(self, j: int) -> Given:
        """Layer j of the run, with its own value of each argument given per layer."""
        return Given(self.run.at_layer(j), self.call, self.kind, self.layers, j)

    def in_run(self, seed: int | None = None) -> Given:
        """This field: it is bound to its run already."""
        return self

    def __call__(self, y: Tensor, theta_j: Theta) -> Tensor:
        theta_j, args, context = self.call.at(theta_j, self.j, self.kind)
        return self.run(y, theta_j, *args, **context)

    def mean_velocity(self, y: Tensor, z: Tensor, theta_j: Theta) -> Tensor:
        """The field's mean_velocity(y, z; theta_j, arguments)."""
        theta_j, args, context = self.call.at(theta_j, self.j, self.kind)
        return self.run.mean_velocity(y, z, theta_j, *args, **context)

    def p_dot(self, q: Tensor, theta_j: Theta) -> Tensor:
        """The field's p_dot(q; theta_j, arguments)."""
        theta_j, args, context = self.call.at(theta_j, self.j, self.kind)
        return self.run.p_dot(q, theta_j, *args, **context)

    def q_dot(self, p: Tensor, theta_j: Theta) -> Tensor:
        """The field's q_dot(p; theta_j, arguments)."""
        theta_j, args, context = self.call.at(theta_j, self.j, self.kind)
        return self.run.q_dot(p, theta_j, *args, **context)


def bind(run: Any, theta: Theta, args: Sequence[Any], context: Mapping[str, Any], layers: int) -> tuple[Given, Theta]:
    """The field of a run with these arguments, and theta with those that are tensors.

    Raises:
        ValueError: if an argument per layer does not have one value for each layer.
    """
    leaves, spec = tree_flatten((tuple(args), dict(context)), is_leaf=lambda x: isinstance(x, PerLayer))
    tensors, places = [], []
    for x in leaves:
        if isinstance(x, PerLayer) and len(x.values) != layers:
            raise ValueError(f"an argument per layer has {len(x.values)} values, but there are {layers} layers.")
        held = x.values if isinstance(x, PerLayer) else x
        if isinstance(held, Tensor):
            tensors.append(held if isinstance(x, PerLayer) else held.unsqueeze(0))
        places.append(_TENSOR if isinstance(held, Tensor) else x)
    kind = _theta_type(theta._fields if theta else (), len(tensors))
    return Given(run, Call(places, spec, len(theta)), type(theta), layers), kind(*theta, *tensors)


def like(field: VectorField, bound: Any, seed: int = 0) -> Any:
    """``field`` fixed to a run, with the arguments of ``bound`` if it has any."""
    run = field.in_run(seed)
    return Given(run, bound.call, bound.kind, bound.layers) if isinstance(bound, Given) else run


def kind_of_call(field: Any) -> tuple[Any, ...]:
    """A key for this kind of arguments: their names and which of them are tensors; () without any."""
    return field.call.kind if isinstance(field, Given) else ()


class _Tensor:
    """Stands for a tensor that travels in theta."""


_TENSOR = _Tensor()


def _theta_type(names: tuple[str, ...], tensors: int) -> Any:
    key = (names, tensors)
    if key not in _THETA_TYPES:
        _THETA_TYPES[key] = namedtuple("GivenTheta", (*names, *(f"argument_{i}" for i in range(tensors))))
    return _THETA_TYPES[key]


_THETA_TYPES: dict[tuple[tuple[str, ...], int], Any] = {}
