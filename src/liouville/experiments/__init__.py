"""The papers' tables and figures, and further experiments: one file for each, with its cases, a run and a rendering.

The sub-packages are the papers, numbered as in `liouville.verify`: ``p1``, ``p2``, ``p3``, and ``beyond`` for
experiments beyond the papers. Each holds its experiments and their helpers; common code is here. Modules are imported
on demand: `EXPERIMENTS` names them, `load` imports one.
"""

from __future__ import annotations

__all__ = ["EXPERIMENTS", "Experiment", "load"]

import importlib

from liouville.experiments.experiment import Experiment
from liouville.names import lookup

EXPERIMENTS: dict[str, str] = {
    "phase-planes": "p1.phase_planes",
    "ellipses": "p1.ellipses",
    "swiss-roll": "p1.swiss_roll",
    "peaks": "p1.peaks",
    "mnist-levels": "p1.mnist_levels",
    "head-smoothing": "p1.head_smoothing",
    "stable-depth": "beyond.stable_depth",
    "planar-table": "p3.planar_table",
    "mnist-table": "p3.mnist_table",
    "gradients": "p3.gradients",
    "counterexample": "p2.counterexample",
    "propagation": "p2.propagation",
    "ring-of-eight": "p2.ring_of_eight",
    "engines": "beyond.engines",
    "depth-1024": "beyond.depth_1024",
    "rate-transfer": "beyond.rate_transfer",
    "image-depth": "beyond.image_depth",
    "equal-budget": "beyond.equal_budget",
    "tables": "beyond.tables",
    "scarcity": "beyond.scarcity",
    "noise": "beyond.noise",
    "language": "beyond.language",
    "sequences": "beyond.sequences",
}


def load(name: str) -> Experiment:
    """The experiment of this name.

    Raises:
        ValueError: if there is none; the nearest name is suggested.

    Examples:
        >>> load("planar-table").source
        '2104.13166, Table 1'
    """
    module = lookup(EXPERIMENTS, name, "experiment")
    experiment: Experiment = importlib.import_module(f"liouville.experiments.{module}").EXPERIMENT
    return experiment
