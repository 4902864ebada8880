"""A plan as `config.json` holds it: every value of the type that its class declares.

A field that was added after a file was written is not in it, and takes its default: the default of a new field has to
be what earlier versions did, or what they did is said here. What this version does not know is refused by name.
"""

from __future__ import annotations

__all__ = ["conforming"]

import typing
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from liouville.data import SOURCES
from liouville.documents import Name, conform
from liouville.renamed import current_names
from liouville.runs.choices import INITS
from liouville.train import GaussNewton, Penalty, Settings
from liouville.zoo import MODELS


class _Init(TypedDict):
    name: Name


class _Settings(TypedDict):
    optimizer: Name
    penalty: NotRequired[dict[str, Any]]


_ALWAYS = ("data", "model", "layers", "settings")  # without them it is no plan of any version


def conforming(plan: type, value: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What `Plan.as_dict` wrote, its initial weights and its settings; every value of the type its class declares.

    Fields that an earlier version did not have are left out.

    Raises:
        ValueError: something is unknown or of another type, or what every plan says is missing.
    """
    declared = typing.get_type_hints(plan) | {"init": _Init, "settings": _Settings}
    conform(value, dict[str, Any], "plan")
    for name in (*_ALWAYS, *value):
        if name not in declared or name not in value:
            raise ValueError(f"plan.{name} is {'missing' if name in declared else 'unknown'}.")
        conform(value[name], declared[name], f"plan.{name}")
    init = {"action": None, **value.get("init", {"name": "smooth"})}
    settings = dict(value["settings"])
    second = settings["optimizer"] == GaussNewton.optimizer
    if not second:
        settings.setdefault("rates", "plain")  # of versions whose weights had no units, as they had no action
    settings = current_names(GaussNewton if second else Settings, settings)
    if "penalty" in settings:
        settings["penalty"] = current_names(Penalty, settings["penalty"])
    mine = {k: v for k, v in settings.items() if k != "optimizer"} if second else settings
    conform(mine, GaussNewton if second else Settings, "plan.settings")
    conform({k: v for k, v in init.items() if k != "name"}, INITS.get(init["name"], Any), "plan.init")
    source = SOURCES.get(value["data"] or "")
    makers = {"data_options": source.loader if source else None, "options": MODELS.get(value["model"])}
    for name, maker in makers.items():
        hints = typing.get_type_hints(maker) if maker else {}
        for key, option in value.get(name, {}).items():
            conform(option, hints.get(key, str | bool | int | float | None), f"plan.{name}.{key}")
    return dict(value), init, settings
