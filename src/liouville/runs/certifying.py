"""The certificate of a run: of its network, of the file that it is in, and of the label that its plan puts on it."""

from __future__ import annotations

__all__ = ["SAMPLES", "damaged", "drawn", "label", "measured", "samples_of", "sound"]

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from liouville.analysis import Certificate, Claim, certify
from liouville.checkpoint import describe
from liouville.data import SOURCES, Split
from liouville.facts import Facts
from liouville.flow import Flow
from liouville.network import ChannelsLast, Lift, Network
from liouville.runs.nearness import locality
from liouville.runs.plan import Plan
from liouville.runs.spread import Spread
from liouville.sketch import Sketch, TooLargeError

SAMPLES = 256
_SPARE, _FACTOR = 1 << 25, 6  # bytes, and per byte of the weights: see liouville.checkpoint
_POINTS = 1 << 18
_FILE = "the weights and the description are those that were written: their SHA-256 hash matches"


def damaged(file: Path, damage: str) -> Certificate:
    """Of a model file that was changed after it was written, or that describes another network than it holds."""
    return Certificate(str(file), (Claim("file", _FILE, "broken", "measured", note=damage.rstrip(".")),))


def sound() -> Claim:
    """That a model file was loaded, which checks its hash."""
    note = "the hash finds accidents, not forgers: who can write the file can write its hash"
    return Claim("file", _FILE, "pass", "measured", note=note)


def measured(network: Any, split: Split | None, *claims: Claim, samples: int = SAMPLES) -> Certificate:
    """Of a network, measured over training samples, or at probes without a split; ``claims`` go in front.

    Raises:
        ValueError: the network does not accept the inputs.
    """
    x = None if split is None else samples_of(network, split, samples)
    found = certify(network, x)
    over = "probes" if split is None or x is None else f"at most {len(x)} training samples of {split.name}"
    of_nodes = () if getattr(network, "placement", None) is None else (locality(network, x),)
    return replace(found, subject=f"{found.subject}; measured over {over}", claims=(*claims, *of_nodes, *found.claims))


def samples_of(network: Any, split: Split, samples: int = SAMPLES) -> Tensor:
    """Training inputs, as many as are measured at most, that the network accepts.

    Raises:
        ValueError: it does not, or is a flow without a network around it.
    """
    if isinstance(network, Flow):
        raise ValueError("a file of a flow is measured at probes; leave --data out.")
    x = split.x_train[:samples].to(next(network.parameters()))
    try:
        with torch.no_grad():
            network(x[:1])
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"the network does not accept the inputs of {split.name}: {error}") from error
    return x


def drawn(asked: Plan | Spread) -> Split | None:
    """The plan's data where they are made here; None where config.json would have files read or fetched, or much made.

    Raises:
        ValueError: the data set has no such options.
    """
    plan = asked.plan if isinstance(asked, Spread) else asked
    source = SOURCES.get(plan.data or "")
    numbers = (v for v in plan.data_options.values() if isinstance(v, int) and not isinstance(v, bool))
    if source is None or not source.self_contained or any(number > _POINTS for number in numbers):
        return None
    return asked.load()


def label(plan: Plan | Spread, written: Mapping[str, Any], network: Any, split: Split | None) -> Claim:
    """Whether a network is the one that a plan describes, and its data those that the plan and the model file name.

    Args:
        plan: what was asked.
        written: what config.json says of the data.
        network: from the model file, whose hash its facts are under; files of earlier versions have none.
        split: the plan's data, where they can be loaded.
    """
    text = "the network is the one that config.json describes, and the data are those of its plan"
    difference = next(_differing(plan, written, network, split), "")
    return Claim("label", text, "broken" if difference else "pass", "measured", note=difference)


def _differing(plan: Plan | Spread, written: Mapping[str, Any], network: Any, split: Split | None) -> Iterator[str]:
    known: Facts | None = network.facts if isinstance(network, Network) else None
    true = known or (Facts.from_dict(written) if split is None else split.facts())
    found, unlike = _plain(describe(network, {})), []
    allowance = _SPARE + _FACTOR * sum(w.nbytes for w in network.state_dict().values())
    for one in _depths(plan):
        planned = _planned(one, true, allowance)
        unlike.append(next(_differences(planned, found, "network"), ""))
    if "" not in unlike:
        yield unlike[0]
    for name, value in known.as_dict().items() if known is not None else ():
        if written.get(name) != value:
            yield f"data.{name} is {_short(written.get(name))} in config.json, {_short(value)} in the model file"
    if split is None:
        return
    for name, value in split.facts().as_dict().items():
        kept = written if known is None else known.as_dict()
        if name != "fingerprint" and name in kept and not _same(kept[name], value):  # another machine may round
            yield f"data.{name} in config.json is not that of the plan's data set"


def _depths(plan: Plan | Spread) -> list[Plan | Spread]:
    """A training that ended early may have left any of its depths."""
    if isinstance(plan, Spread):
        return [plan]
    return [plan.changed(levels=levels, device="cpu") for levels in range(1, plan.levels + 1)]


def _planned(plan: Plan | Spread, facts: Facts, allowance: int) -> Any:
    """The description of the network that is planned: as config.json may ask for any size, nothing is allocated."""
    try:
        with Sketch(allowance):
            return _plain(describe(plan.network(facts), {}))
    except TooLargeError:  # the network that is found is looked at with the same allowance
        return {"type": "a much larger network"}
    except (ArithmeticError, RuntimeError) as error:  # sizes beyond 2^63, for which torch has no other word
        raise ValueError(f"config.json describes a network that cannot be built ({error}).") from error


def _differences(planned: Any, found: Any, where: str) -> Iterator[str]:
    """What differs between two descriptions, part by part; how the depth is run is nobody's claim.

    Nor are the units of the weights and of y_0: they were drawn with the weights, at the depth of the start. Nor is the
    place where images change their layout in memory, which changes no number.
    """
    if isinstance(planned, dict) and isinstance(found, dict) and planned.get("type") == found.get("type"):
        units = {"weight_unit"} | ({"scale"} if planned.get("type") == Lift.__name__ else set())
        for key in sorted({*planned, *found} - {"backprop"} - units):
            yield from _differences(planned.get(key), found.get(key), f"{where}.{key}")
    elif isinstance(planned, list) and isinstance(found, list) and len(planned) == len(found):
        for i, (a, b) in enumerate(zip(_layout_last(planned), _layout_last(found), strict=True)):
            yield from _differences(a, b, f"{where}[{i}]")
    elif planned != found:
        yield f"{where} is {_short(found)} in the model file, {_short(planned)} in config.json"


def _layout_last(parts: list[Any]) -> list[Any]:
    """The parts that change numbers, in their order, and then those that do not."""
    return sorted(parts, key=lambda part: isinstance(part, dict) and part.get("type") == ChannelsLast.__name__)


def _same(a: Any, b: Any) -> bool:
    """Equal; numbers that another machine computed may differ by rounding."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-6)
    return bool(a == b)


def _plain(description: Any) -> Any:
    return json.loads(json.dumps(description))


def _short(value: Any) -> str:
    text = str(value["type"]) if isinstance(value, dict) and "type" in value else repr(value)
    return text if len(text) <= 60 else f"{text[:56]} ..."
