"""P1, Sec. 6.1: an ellipse inside an elliptic annulus, T = 20, multilevel training by Gauss-Newton.

The data come from the generator of the first paper's code: 1,000 training and 200 validation points per class.
Validation chooses the iteration, as in the paper; test points are drawn in the same way with another seed. Four
features. The classes touch, so a few points near the boundary decide between 99 and 100 percent.
"""

from __future__ import annotations

__all__ = ["EXPERIMENT", "SETTINGS", "cases", "render", "run"]

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from liouville import data
from liouville.data import Split
from liouville.experiments.experiment import Experiment, Rendering
from liouville.experiments.p1.firstpaper import Config, Values, build, rendered, through_levels
from liouville.experiments.records import Record
from liouville.train import GaussNewton, Penalty, Task

T = 20.0
PATIENCE = 10
_PENALTY = Penalty(smoothness=1e-3, head_decay=1e-3)
SETTINGS = {
    "Verlet": GaussNewton(target_score=1.0, patience=PATIENCE, safeguard="trust-region", penalty=_PENALTY),
    "antisymmetric": GaussNewton(target_score=1.0, patience=PATIENCE, penalty=_PENALTY),
    "ResNet": GaussNewton(target_score=1.0, patience=PATIENCE, penalty=_PENALTY),
}


def cases(seeds: int, quick: bool) -> list[Config]:
    """Every network, starting with 4 layers, once for each seed."""
    if quick:
        return [Config(network, 4, 3, 2, 100, 0) for network in SETTINGS]
    return [Config(network, 4, 5, 60, 1000, seed) for network in SETTINGS for seed in range(seeds)]


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Train level by level; the model of seed 0 is saved for the figures."""
    split, validation = load(config.seed, config.points)
    start = "code" if config.network == "ResNet" else "near"  # by symmetry W = 0 is a stationary point for the others
    network = build(config.network, start, 4, config.layers, T, split.classes, config.seed)
    return through_levels(config, network, split, validation, SETTINGS[config.network], folder)


def load(seed: int, points: int) -> tuple[Split, tuple[Tensor, Tensor]]:
    """Training and validation points as in the code, and test points drawn like validation points."""
    drawn = data.load("ellipses", train=points, seed=seed, dtype=torch.float64)
    other = data.load("ellipses", train=points, seed=2**16 + seed, dtype=torch.float64)
    split = replace(drawn, x_test=other.x_test, y_test=other.y_test)
    return split, (drawn.x_test, drawn.y_test)


def render(records: Sequence[Record], folder: Path) -> Rendering:
    """Accuracy by level, features by depth, and decision regions of each network."""
    note = (
        f"A level ends once all validation points are right, or after {PATIENCE} iterations without improvement; a "
        "level whose margin h x rate is above 2 is left out."
    )
    split, points = load(0, 1000)
    return rendered(records, folder, points, Task("logistic", 2), "on the ellipses", note, split.label_names)


EXPERIMENT = Experiment(
    name="ellipses",
    title="Concentric ellipses, multilevel by Gauss-Newton",
    source="1705.03341, Sec. 6.1",
    case=Config,
    cases=cases,
    run=run,
    render=render,
    values=Values,
    cost=lambda case: case.levels * case.iterations * case.points / 8000,
)
