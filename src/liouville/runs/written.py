"""A plan as one flat mapping for a file that people write: every setting under the name of its option.

`Plan.as_dict` is what a run folder keeps, nested as the classes are. Here one may be missing, and is then as it was.
"""

from __future__ import annotations

__all__ = ["flat", "overlaid"]

import json
import typing
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from liouville.data import TableFile
from liouville.documents import conform
from liouville.names import lookup, suggestion
from liouville.runs.choices import INITS, model_options
from liouville.runs.plan import Plan
from liouville.train import GaussNewton, Penalty, Settings
from liouville.zoo import MODELS, Images

_DECIDED = ("seed", "bfloat16")  # of the settings: the plan says them (`Plan.fit_settings`)
_EXACT = ("data_options", "options")  # replaced as a whole, not merged


def flat(plan: Plan) -> dict[str, Any]:
    """The plan as JSON values, from which `overlaid` makes it again, whatever it starts from.

    Examples:
        >>> found = flat(Plan.of("double-moons"))
        >>> found["data"], found["optimizer"], overlaid(Plan.of("wine"), found) == Plan.of("double-moons")
        ('double-moons', 'adam', True)
    """
    value = json.loads(json.dumps(plan.as_dict()))
    settings = value.pop("settings")
    penalty = settings.pop("penalty")
    return value | {name: v for name, v in settings.items() if name not in _DECIDED} | penalty


def overlaid(plan: Plan, values: Mapping[str, Any], file: object = "the settings") -> Plan:
    """The plan with the values of a mapping that `flat` made, or that somebody wrote: some of its names, and a model's
    own options.

    Args:
        plan: what is so where ``values`` say nothing.
        values: by their names; None is a value.
        file: what an error calls them.

    Raises:
        ValueError: an unknown name, with the nearest right one, or a value that does not fit.
    """
    kinds = _kinds(plan, values)
    for name, value in values.items():
        if name not in kinds:
            near = suggestion(name, kinds) or "`liouville train --print-config` shows all."
            raise ValueError(f"{file}: there is no setting {name!r}; {near.strip()}")
        conform(value, kinds[name], f"{file}: {name}")
    given = {name: _made(name, value) for name, value in values.items()}
    changes = {name: value for name, value in given.items() if value is not None and name != "data_options"}
    if changes.get("data", plan.data) != plan.data or "table" in changes:
        plan = replace(plan, data_options={})
    try:
        return _exactly(plan.changed(**changes), given)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _exactly(plan: Plan, given: Mapping[str, Any]) -> Plan:
    """The plan with what `Plan.changed` takes for "as it was": None, and options that are fewer than before."""

    def exact(record: Any) -> dict[str, Any]:
        names = {f.name for f in fields(record)} & given.keys()
        return {name: given[name] for name in names if given[name] is None or name in _EXACT}

    penalty = replace(plan.settings.penalty, **exact(plan.settings.penalty))
    settings = replace(plan.settings, **exact(plan.settings), penalty=penalty)
    options = {name: value for name, value in plan.options.items() if name not in given.get("options", plan.options)}
    more = {"options": given["options"] | options} if "options" in given else {}
    return replace(plan, **exact(plan) | more, settings=settings)


def _kinds(plan: Plan, values: Mapping[str, Any]) -> dict[str, Any]:
    """What each name may be."""
    optimizer, model = values.get("optimizer", plan.settings.optimizer), values.get("model", plan.model)
    second = optimizer == GaussNewton.optimizer
    kind = GaussNewton if second else Settings
    own = dict.fromkeys(model_options(model), Any) if isinstance(model, str) and model in MODELS else {}
    hints = own | typing.get_type_hints(Penalty) | typing.get_type_hints(kind) | typing.get_type_hints(Plan)
    names = {f.name for record in (Plan, kind, Penalty) for f in fields(record)} - {"settings", "penalty", "bfloat16"}
    known = {name: hint for name, hint in hints.items() if name in names or name in own}
    more = {"optimizer": str, "init": str | dict[str, Any], "table": TableFile | None, "conv": Images | None}
    return known | more | ({"epochs": int} if second else {})


def _made(name: str, value: Any) -> Any:
    """From JSON to what a plan holds."""
    if name == "init" and isinstance(value, dict):
        rest = {key: v for key, v in value.items() if key != "name"}
        kind = lookup(INITS, value.get("name"), "initialisation")
        conform(rest, kind, "init")
        return kind(**rest)
    if name == "conv" and value is not None:
        return Images(**value)
    if name == "table" and value is not None:
        return TableFile.from_dict(value)
    if name in ("features", "layers") and isinstance(value, list):
        return tuple(value)
    return value
