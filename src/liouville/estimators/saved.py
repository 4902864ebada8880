"""Estimators as files: the networks as a model file keeps them, and the rest as JSON beside their description."""

from __future__ import annotations

__all__ = ["FittedEstimator", "load", "save"]

import json
import os
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from liouville import checkpoint
from liouville.columns import Columns
from liouville.documents import conform, parse
from liouville.provenance import versions

E = TypeVar("E")


class _Estimator(Protocol):
    networks_: list[Any]
    columns_: Columns

    def get_params(self, deep: bool = True) -> dict[str, Any]: ...


class FittedEstimator(nn.Module):
    """The networks of an estimator, and in JSON what else it knows; x -> the mean of their outputs.

    Args:
        networks: the members.
        said: the JSON text.
    """

    def __init__(self, networks: list[nn.Module], said: str) -> None:
        super().__init__()
        self.networks, self.said = nn.ModuleList(networks), said

    def forward(self, x: Tensor) -> Tensor:
        """For encoded rows, as the columns' ``transform`` gives them."""
        return torch.stack([network(x) for network in self.networks]).mean(0)


checkpoint.register(FittedEstimator, lambda fitted: {"networks": list(fitted.networks), "said": fitted.said})


def save(estimator: Any, path: str | os.PathLike[str]) -> Path:
    """Write a fitted estimator."""
    own: dict[str, Any] = {"estimator": type(estimator).__name__, "liouville": versions()["liouville"]}
    own["parameters"] = [[name, _plain(name, value)] for name, value in estimator.get_params(deep=False).items()]
    own["columns"] = estimator.columns_.as_dict()
    for name in ("n_iter_", "n_features_in_"):
        own[name] = int(getattr(estimator, name))
    for name in ("feature_names_in_", "classes_", "_target_offset", "_target_scale"):
        if hasattr(estimator, name):
            own[name] = _array(getattr(estimator, name))
    for name in ("_kind", "_flat"):
        if hasattr(estimator, name):
            own[name] = getattr(estimator, name)
    return checkpoint.save(FittedEstimator(list(estimator.networks_), json.dumps(own)), path)


def load(kind: type[E], path: str | os.PathLike[str]) -> E:
    """Read one back."""
    found = checkpoint.load(path)
    if not isinstance(found, FittedEstimator):
        raise ValueError(f"{path} holds a {type(found).__name__}, not an estimator; liouville.load reads it.")
    own = dict(parse(found.said, f"{path}: what it says of the estimator"))
    if own.get("estimator") != kind.__name__:
        raise ValueError(f"{path} holds a {own.get('estimator')}; call that class's load.")
    conform(own.get("parameters"), list[list[Any]], f"{path}: parameters")
    parameters = {name: _lively(value) for name, value in own["parameters"]}
    known = set(kind().get_params(deep=False))  # type: ignore[attr-defined]
    unknown = sorted(set(parameters) - known)
    if unknown:
        raise ValueError(
            f"{path} has the parameter {unknown[0]!r}, which this version does not know; it was written by liouville "
            f"{own.get('liouville')}."
        )
    estimator: Any = kind(**parameters)
    estimator.columns_ = Columns.from_dict(own["columns"])
    for name in ("n_iter_", "n_features_in_", "_kind", "_flat"):
        if name in own:
            setattr(estimator, name, own[name])
    for name in ("feature_names_in_", "classes_", "_target_offset", "_target_scale"):
        if name in own:
            values = np.array(own[name]["values"], dtype=own[name]["dtype"])
            setattr(estimator, name, values)
    estimator.networks_, estimator.histories_ = list(found.networks), []
    estimator._optimizers = [None] * len(estimator.networks_)
    return estimator


def _array(values: Any) -> dict[str, Any]:
    values = np.asarray(values)
    return {"dtype": "O" if values.dtype.kind == "O" else values.dtype.str, "values": values.tolist()}


def _plain(name: str, value: Any) -> Any:
    """A parameter that JSON holds; dictionaries as pairs, since their keys may be numbers."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        return {"pairs": [[_plain(name, k), _plain(name, v)] for k, v in value.items()]}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(name, part) for part in value]
    if name == "random_state" and not isinstance(value, int | None):
        return None  # a generator that has been drawn from
    if not isinstance(value, str | int | float | bool | None):
        raise ValueError(f"{name}={value!r} cannot be saved: a file holds numbers and words; pickle keeps objects.")
    return value


def _lively(value: Any) -> Any:
    if isinstance(value, dict):
        return {_lively(k): _lively(v) for k, v in value["pairs"]}
    return [_lively(part) for part in value] if isinstance(value, list) else value
