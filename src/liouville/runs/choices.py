"""The words that a plan may say, and what they stand for."""

from __future__ import annotations

__all__ = ["DEVICES", "DTYPES", "INITS", "LIFTS", "engine", "model_options", "require_option"]

import inspect
from typing import Any

import torch

from liouville.backprop import Backprop
from liouville.fields import Initial, Normal, Smooth
from liouville.kernels import ENGINES
from liouville.names import lookup
from liouville.zoo import MODELS

INITS: dict[str, type[Initial]] = {"smooth": Smooth, "normal": Normal}
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.float32}
DEVICES = ("auto", "cpu", "cuda")
LIFTS = ("front", "ends", "p", "q", "linear")
_COMMON = ("features", "layers", "T", "operator", "init", "generator", "backprop")


def engine(name: str) -> Backprop:
    """The engine called ``name``, with its default settings.

    Raises:
        ValueError: for an engine that this version does not have; the message names those that it has.
    """
    return lookup(ENGINES, name, "engine")()


def model_options(model: str) -> dict[str, Any]:
    """The options of one model, beyond what all of them take, with their defaults."""
    parameters = inspect.signature(lookup(MODELS, model, "model")).parameters
    return {name: p.default for name, p in parameters.items() if name not in _COMMON}


def require_option(model: str, name: str) -> None:
    """Raise a `ValueError` that says whose option it is, unless the model has it."""
    if name in model_options(model):
        return
    having = [other for other in MODELS if name in model_options(other)]
    where = f"it belongs to {', '.join(having)}" if having else "no model has it"
    raise ValueError(f"the model {model!r} has no option {name!r}; {where}.")
