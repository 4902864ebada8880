"""P1, Sec. 6.3: five level sets of a function on the plane, width 8, T = 5, alpha = 5e-6, by Gauss-Newton.

5,000 training points. A learned dense layer with tanh maps the plane to 8 features, four pairs for Verlet. 1,000 points
choose the iteration, 1,000 others are the test: both are drawn uniformly in each class, off the training grid.
"""

from __future__ import annotations

__all__ = ["EXPERIMENT", "cases", "render", "run"]

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from liouville import data
from liouville.data import Split
from liouville.experiments.experiment import Experiment, Rendering
from liouville.experiments.p1.firstpaper import NETWORKS, Config, Values, build, rendered, through_levels
from liouville.experiments.records import Record
from liouville.train import GaussNewton, Penalty, Task

T = 5.0
PATIENCE = 5


def cases(seeds: int, quick: bool) -> list[Config]:
    """Every network, starting with 16 layers, once for each seed."""
    if quick:
        return [Config(network, 4, 2, 2, 200, 0) for network in NETWORKS]
    return [Config(network, 16, 4, 30, 5000, seed) for network in NETWORKS for seed in range(seeds)]


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Train level by level; the model of seed 0 is saved for the figures."""
    split, validation = load(config.seed, config.points)
    network = build(config.network, "random", 8, config.layers, T, split.classes, config.seed, opening=True)
    settings = GaussNewton(patience=PATIENCE, target_score=0.99, penalty=Penalty(smoothness=5e-6, head_decay=1e-6))
    return through_levels(config, network, split, validation, settings, folder)


def load(seed: int, points: int) -> tuple[Split, tuple[Tensor, Tensor]]:
    """Training and test points, and validation points."""
    split = data.load("peaks", train=points, seed=seed, dtype=torch.float64)
    other = data.load("peaks", seed=2**16 + seed, dtype=torch.float64)
    return split, (other.x_test, other.y_test)


def render(records: Sequence[Record], folder: Path) -> Rendering:
    """Accuracy by level, features by depth, and decision regions of each network."""
    note = f"A level ends at 99 % of the validation points, or after {PATIENCE} iterations without improvement."
    return rendered(records, folder, load(0, 5)[1], Task("softmax", 5), "on peaks", note)


EXPERIMENT = Experiment(
    name="peaks",
    title="Peaks, five classes, multilevel by Gauss-Newton",
    source="1705.03341, Sec. 6.3",
    case=Config,
    cases=cases,
    run=run,
    render=render,
    values=Values,
    cost=lambda case: case.levels * case.iterations * case.points / 15_000,
)
