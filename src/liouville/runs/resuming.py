"""Whether a run can go on: what it began with is what it is asked to go on with."""

from __future__ import annotations

__all__ = ["require_same", "require_same_plan"]

import json
from typing import Any

from liouville.data import Split
from liouville.network import Network
from liouville.provenance import versions
from liouville.runs.plan import Plan
from liouville.runs.run import Run


def require_same(run: Run, plan: Plan, network: Network, split: Split) -> None:
    """Raise where a run cannot go on as this plan, on these data, with this version.

    Raises:
        ValueError: every difference by its name.
    """
    known = network.facts or split.facts()
    pairs = {f"plan.{name}": pair for name, pair in _differing(run.config["plan"], plan.as_dict()).items()}
    pairs.pop("plan.table.path", None)  # a table may be moved
    if not pairs and plan.table is not None and run.facts.fingerprint != known.fingerprint:
        raise ValueError(
            f"{run.path} cannot go on: {plan.table.path} is not the table that its training began with, as its "
            "fingerprint differs; restore it, or train anew with --like."
        )
    pairs |= {f"data.{name}": pair for name, pair in _differing(run.config["data"], known.as_dict()).items()}
    for name in ("liouville", "torch"):
        before, now = dict(run.config.get("versions") or {}).get(name), versions()[name]
        if before != now:
            pairs[name] = before, now
    _require_none(run, pairs)


def require_same_plan(run: Run, plan: Plan) -> None:
    """Raise where a finished run is asked to go on as another plan.

    Raises:
        ValueError: every difference by its name.
    """
    differing = _differing(json.loads(json.dumps(run.plan.as_dict())), plan.as_dict())
    _require_none(run, {f"plan.{name}": pair for name, pair in differing.items()})


def _require_none(run: Run, pairs: dict[str, tuple[Any, Any]]) -> None:
    if pairs:
        changes = "; ".join(f"{name} was {_short(before)}, is {_short(now)}" for name, (before, now) in pairs.items())
        raise ValueError(f"{run.path} cannot go on: {changes}. Give what it began with, or train anew with --like.")


def _differing(before: Any, now: Any, name: str = "") -> dict[str, tuple[Any, Any]]:
    """What differs between two JSON values, part by part: name -> (before, now)."""
    now = json.loads(json.dumps(now)) if not name else now
    if isinstance(before, dict) and isinstance(now, dict):
        found: dict[str, tuple[Any, Any]] = {}
        for key in {**now, **before}:
            found |= _differing(before.get(key), now.get(key), f"{name}.{key}" if name else key)
        return found
    return {} if before == now else {name: (before, now)}


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:36]} ..."
