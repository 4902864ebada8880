r"""Objects as JSON values, names of a registry and numbers, and back.

A value builds only what is registered: no code is in it, and none is run. `liouville.registered` has the library's own
classes.
"""

from __future__ import annotations

__all__ = ["ARGUMENT", "Reader", "UnregisteredError", "also_called", "attributes", "build", "describe", "register"]

import importlib
import inspect
import math
from collections.abc import Callable
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from typing import Any, NamedTuple

from torch import Tensor

from liouville.activations import ACTIVATIONS, Activation
from liouville.fields import VectorField
from liouville.names import suggestion

ARGUMENT = "argument."  # how the names of tensors begin that are no weights
_UNIT = "weight_unit"  # of a field whose start was scaled; no argument of any class

Reader = Callable[[Any], dict[str, Any]]


class UnregisteredError(ValueError):
    """The file is sound, but this process lacks a class or an activation that it names."""


class _Entry(NamedTuple):
    kind: type
    build: Callable[..., Any]
    arguments: Reader


_REGISTRY: dict[str, _Entry] = {}
_ABOVE = {"SpreadFlow": "liouville.agents", "SpreadNetwork": "liouville.agents"}  # rooms that register when imported
_NOT_DESCRIBED = {"generator", "input_scale", "init"}  # they made the initial weights, and the weights are saved


def register(kind: Any, arguments: Reader | None = None, build: Callable[..., Any] | None = None) -> Any:
    """Let files name ``kind``; works as a decorator on your own fields, schemes and modules.

    Args:
        kind: a class; files call it by its name.
        arguments: object -> the keyword arguments that rebuild it. By default every argument of ``__init__`` is read
            from the attribute of the same name.
        build: called with these arguments; the class itself by default.

    Examples:
        >>> from torch import nn
        >>> @register
        ... class Scale(nn.Module):
        ...     def __init__(self, factor: float) -> None:
        ...         super().__init__()
        ...         self.factor = factor
        >>> describe(Scale(2.0))
        {'type': 'Scale', 'factor': 2.0}
    """
    _REGISTRY[kind.__name__] = _Entry(kind, build or kind, arguments or attributes(kind))
    return kind


def also_called(name: str, kind: type) -> None:
    """Let files name a registered class as an earlier version did."""
    _REGISTRY[name] = _REGISTRY[kind.__name__]


def describe(thing: Any, tensors: dict[str, Tensor] | None = None) -> Any:
    """A JSON value that `load` can rebuild ``thing`` from; tensors among its arguments go into ``tensors``.

    Raises:
        ValueError: if a part is of a class that is not registered; the message says which.
    """
    if thing is None or isinstance(thing, (bool, int, float, str)):
        return thing
    if isinstance(thing, (list, tuple)):
        return [describe(part, tensors) for part in thing]
    if isinstance(thing, Tensor):
        if tensors is None:
            raise ValueError("a tensor argument can be described only when saving.")
        key = f"{ARGUMENT}{len(tensors)}"
        tensors[key] = thing.detach().cpu().contiguous()
        return {"type": "Tensor", "key": key}
    if isinstance(thing, Activation):
        if ACTIVATIONS.get(thing.name) is not thing:
            raise ValueError(
                f"cannot save the activation {thing.name!r}: a file holds names, not functions. Put it under its name "
                "into liouville.activations.ACTIVATIONS before saving and before loading."
            )
        return {"type": "Activation", "name": thing.name}
    name = type(thing).__name__
    if name not in _REGISTRY or _REGISTRY[name].kind is not type(thing):
        raise ValueError(
            f"cannot save a {type(thing).__module__}.{name}: a file holds names, not code. Register the class with "
            "liouville.checkpoint.register before saving and before loading."
        )
    described = {k: describe(v, tensors) for k, v in _REGISTRY[name].arguments(thing).items()}
    unit = vars(thing).get("weight_unit") if isinstance(thing, VectorField) else None
    return {"type": name} | described | ({} if unit is None else {_UNIT: unit})


def build(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The object of a value of `describe`; ``tensors`` are what it left there.

    Raises:
        UnregisteredError: a class or an activation is not known here.
    """
    if isinstance(value, list):
        return [build(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    name = value["type"]
    if name == "Tensor":
        return tensors[value["key"]]
    if name == "Activation":
        name = value["name"]
        if name not in ACTIVATIONS:
            raise UnregisteredError(
                f"the file names the activation {name!r}; put it into liouville.activations.ACTIVATIONS first."
            )
        return ACTIVATIONS[name]
    if name == "FittedEstimator" and name not in _REGISTRY:
        raise UnregisteredError(
            "the file holds a scikit-learn estimator; read it with liouville.estimators.HamiltonianClassifier.load or "
            "HamiltonianRegressor.load, whose to_network() can be saved for the command."
        )
    if name in _ABOVE:
        importlib.import_module(_ABOVE[name])
    if name not in _REGISTRY:
        raise UnregisteredError(
            f"the file names the class {name!r}, which is not registered; {suggestion(name, _REGISTRY)}register "
            "it with liouville.checkpoint.register before loading."
        )
    arguments = {k: build(v, tensors) for k, v in value.items() if k not in ("type", _UNIT)}
    built = _REGISTRY[name].build(**arguments)
    if _UNIT in value:
        built.weight_unit = _unit(value[_UNIT])
    return built


def _unit(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"the unit of a field's matrices must be a positive number, got {value!r}.")
    return float(value)


def attributes(kind: Callable[..., Any]) -> Reader:
    """Read every argument of the class from the attribute of its name."""
    if is_dataclass(kind):
        names = [field.name for field in dataclass_fields(kind)]
    else:
        names = [
            name
            for name, parameter in inspect.signature(kind).parameters.items()
            if name not in _NOT_DESCRIBED and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
    return lambda thing: {name: getattr(thing, name) for name in names}
