"""The papers' tables and figures, and those that go beyond: one file for each, with its cases, a run and a rendering.

Nothing is imported before it is asked for: `EXPERIMENTS` names the modules, `load` imports one.
"""

from __future__ import annotations

__all__ = ["EXPERIMENTS", "Experiment", "load"]

import importlib

from liouville.experiments.experiment import Experiment
from liouville.names import lookup

EXPERIMENTS: dict[str, str] = {
    "phase-planes": "phase_planes",
    "ellipses": "ellipses",
    "swiss-roll": "swiss_roll",
    "peaks": "peaks",
    "mnist-levels": "mnist_levels",
    "head-smoothing": "head_smoothing",
    "stable-depth": "stable_depth",
    "planar-table": "planar_table",
    "mnist-table": "mnist_table",
    "gradients": "gradients",
    "counterexample": "counterexample",
    "propagation": "propagation",
    "ring-of-eight": "ring_of_eight",
    "engines": "engines",
    "depth-1024": "depth_1024",
    "equal-budget": "equal_budget",
    "tables": "tables",
    "scarcity": "scarcity",
    "noise": "noise",
    "language": "language",
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
