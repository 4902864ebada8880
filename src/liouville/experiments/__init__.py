"""The papers' tables and figures, and those that go beyond: one file for each, with its cases, a run and a rendering.

Nothing is imported before it is asked for: `EXPERIMENTS` names the modules, `load` imports one.
"""

from __future__ import annotations

__all__ = ["EXPERIMENTS", "Experiment", "load"]

import importlib

from liouville.experiments.experiment import Experiment
from liouville.names import lookup

EXPERIMENTS: dict[str, str] = {
    "planar-table": "planar_table",
    "depth-1024": "depth_1024",
    "tables": "tables",
    "equal-budget": "equal_budget",
    "engines": "engines",
}


def load(name: str) -> Experiment:
    """The experiment of this name.

    Raises:
        ValueError: there is none; the nearest one is suggested.

    Examples:
        >>> load("planar-table").source
        '2104.13166, Table 1'
    """
    module = lookup(EXPERIMENTS, name, "experiment")
    experiment: Experiment = importlib.import_module(f"liouville.experiments.{module}").EXPERIMENT
    return experiment
