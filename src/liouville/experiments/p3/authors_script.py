"""Runs of the authors' script as published: not made by this library, so they are in a separate file.

``authors_script.json`` states how they were made: the commit and the call, the versions, and the one shim that the
script needs with current torch.
"""

from __future__ import annotations

__all__ = ["ScriptRun", "runs", "source"]

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ScriptRun:
    """A network of the script on the Swiss roll, with a test accuracy in percent for each seed from 0 on."""

    net: str
    column: str
    layers: int
    T: float
    accuracy: tuple[float, ...]


@functools.cache
def _file() -> Mapping[str, Any]:
    path = Path(__file__).with_name("authors_script.json")
    found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def runs() -> dict[tuple[str, int], ScriptRun]:
    """The runs by column of Table 1 and number of layers.

    Examples:
        >>> runs()["MS1", 16].accuracy
        (87.65, 90.375, 99.1, 100.0, 94.325)
    """
    found = [ScriptRun(**{**run, "accuracy": tuple(run["accuracy"])}) for run in _file()["runs"]]
    return {(run.column, run.layers): run for run in found}


def source() -> str:
    """Their origin, in a sentence."""
    script, made = _file()["script"], _file()["made"]
    return (
        f"the script of {script['repository']} at {script['commit']} ({script['dated']}), {script['called']}; torch "
        f"{made['torch']}, {made['threads']} thread, {made['date']}; {_file()['shim']}. Left out: "
        f"{_file()['left out']}."
    )
