r"""P3's Fig. 2: sensitivities dy_N/dy_l and loss gradients while 64 layers or an MLP learn the double moons.

The paper plots ||dy_N/dy_l||_2 of the mean matrix over a batch, at l = 1, 11, ..., 61 over 960 iterations. That can be
compared, but no bound holds for a mean; by the theorem the matrix of every single sample has a norm of at least 1. Both
are measured here, on 125 training points, in float64. dL/dtheta is taken for the network's layers without its first and
last map, as in the optimiser's step.
"""

from __future__ import annotations

__all__ = ["EXPERIMENT", "NETWORKS", "PUBLISHED", "Config", "cases", "render", "run"]

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from torch import nn

from liouville.experiments.comparing import NOT_AVAILABLE, percents, spread
from liouville.experiments.experiment import Experiment, Picture, Rendering, Table
from liouville.experiments.p3.gradient_figures import by_iteration, loss_gradients
from liouville.experiments.p3.gradient_watch import Watch
from liouville.experiments.records import Record
from liouville.randomness import seeded
from liouville.runs import Plan
from liouville.train import Penalty, Settings, fit
from liouville.train.optimizers import Adam

NETWORKS = {
    "h1": "H1, 64 layers",
    "h1-script": "H1, the script's settings",
    "h1-shared": "H1, time-invariant, 64 layers",
    "h1-shared-script": "H1, time-invariant, the script's settings",
    "mlp-32": "fully connected, 32 layers of 4",
    "mlp-8": "fully connected, 8 layers of 6",
}
"""H1 as in P3, and trained as in the authors' script, whose rate falls in effect; the first fully connected net is from
the paper, the second from the script."""

PUBLISHED = {
    "h1": (1.0, 17.0),
    "h1-script": (1.0, 17.0),
    "h1-shared": (1.0, 37.0),
    "h1-shared-script": (1.0, 37.0),
}
"""P3, Fig. 2: the ranges of ||dy_N/dy_l||_2 over depths and iterations."""

PUBLISHED_ACCURACY = {"mlp-32": 50.0}
EPOCHS = 30  # epochs of 32 iterations
TIMES = (0.4, 0.8, 2.0)
BOUND = 1 - 1e-9  # the bound 1 with the rounding of 64 layers in float64


@dataclass(frozen=True)
class Config:
    """One training run.

    Args:
        network: a name of `NETWORKS`.
        T: final time of the flow; 0.8 in the title of P3's Fig. 1, unknown for Fig. 2. 0 for the MLPs.
        epochs: passes over the 4,000 training points, of 32 iterations each.
        every: number of iterations between two measurements.
        seed: seed of the initial weights, of training and of the data's noise.
    """

    network: str
    T: float
    epochs: int
    every: int
    seed: int


class Values(TypedDict):
    """The recorded values of a case."""

    accuracy: float
    mean_range: tuple[float, float]
    single_range: tuple[float, float]
    least_of_all_depths: float
    gradients: list[float]
    iterations: NotRequired[list[int]]
    depths: NotRequired[list[int]]
    mean: NotRequired[list[list[float]]]
    least: NotRequired[list[list[float]]]
    median: NotRequired[list[list[float]]]
    most: NotRequired[list[list[float]]]


def cases(seeds: int, quick: bool) -> list[Config]:
    """H1 at three final times and once as in the script, with and without shared weights; two fully connected nets."""
    kinds = [(name, T) for name in PUBLISHED for T in ((0.8,) if quick or name.endswith("script") else TIMES)]
    kinds += [(name, 0.0) for name in NETWORKS if name not in PUBLISHED]
    epochs, every = (2, 16) if quick else (EPOCHS, 10)
    return [Config(name, T, epochs, every, seed) for name, T in kinds for seed in range(1 if quick else seeds)]


def plan_of(config: Config) -> Plan:
    """The training run of H1; for an MLP, its data and settings."""
    plan = Plan.of("double-moons", "hdnn-script" if config.network.endswith("script") else "hdnn").changed(
        epochs=config.epochs, seed=config.seed, data_options={"seed": config.seed}
    )
    shared = config.network.startswith("h1-shared")
    return plan.changed(T=config.T, lift="front", shared=shared) if config.network in PUBLISHED else plan


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Train, and measure during training."""
    plan = plan_of(config)
    split, settings = plan.load(), plan.fit_settings()
    assert isinstance(settings, Settings)
    if config.network in PUBLISHED:
        network = plan.network(split.facts())
        watch = Watch(network.lift, network.body, split, config.every)
        history = fit(network, split, settings, callbacks=[watch])
    else:
        layers, features = map(int, {"mlp-32": (32, 4), "mlp-8": (8, 6)}[config.network])
        chain = mlp(layers, features, config.seed)
        watch = Watch(chain[0], chain[1:-1], split, config.every)
        # Trained as one, by Adam, with a decay of 1e-4 on all layers except the last, as in the authors' script.
        own = replace(settings, alternate=0, penalty=Penalty())
        decayed = {"params": chain[:-1].parameters(), "weight_decay": 1e-4}
        optimizer = Adam([{"lr": own.lr, **decayed}, {"lr": own.lr, "params": chain[-1].parameters()}])
        history = fit(chain, split, own, callbacks=[watch], optimizer=optimizer)
    return {"accuracy": history.metrics["test_accuracy"]} | watch.values(curves=_is_shown(config))


def _is_shown(config: Config) -> bool:
    """Whether its curves are drawn and therefore recorded."""
    return config.seed == 0 and config.T in (0.0, 0.8) and not config.network.endswith("script")


def mlp(layers: int, features: int, seed: int) -> nn.Sequential:
    """``layers`` linear maps with tanh after each, from two inputs, and one to the score; torch's initial weights."""
    widths = [2, *[features] * layers]
    with seeded(seed, torch.device("cpu")):
        hidden = [nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in itertools.pairwise(widths)]
        return nn.Sequential(*hidden, nn.Linear(features, 1))


def render(records: Sequence[Record], folder: Path) -> Rendering:
    """Ranges compared with the paper's, and one seed's curves."""
    groups = _groups(records)
    if not groups:
        return Rendering()
    of = ("mean of the batch: least", "largest", "the paper's range", "single samples: least", "largest")
    head = ("network", "T", "runs", *of)
    sensitivities = [(NETWORKS[n], _time(T), str(len(g)), *_ranges(n, g)) for (n, T), g in groups.items()]
    losses = [(NETWORKS[n], _time(T), str(len(g)), *_learning(n, g)) for (n, T), g in groups.items()]
    note = "Medians over seeds, with the range; over l = 1, 11, ... and all measured iterations."
    columns = (
        "network",
        "T",
        "runs",
        "test accuracy, ours / paper",
        "||dL/dtheta||, first",
        "median of the last tenth",
    )
    tables = [
        Table("Norms of dy_N/dy_l while training", head, sensitivities, note),
        Table("Loss gradients", columns, losses, _LOSSES),
    ]
    shown = [(NETWORKS[r.case.network], r) for g in groups.values() for r in _sound(g) if _is_shown(r.case)]
    pictures = {}
    if shown:
        seed = "seed 0; T = 0.8 for H1"
        pictures = {
            "sensitivity": Picture(f"Norms of dy_N/dy_l by iteration, {seed}.", lambda: by_iteration(shown)),
            "loss-gradient": Picture(f"Norm of dL/dtheta by iteration, {seed}.", lambda: loss_gradients(shown)),
        }
    return Rendering(_text(groups), tables, pictures)


_LOSSES = (
    "Accuracy in percent, after the last iteration. The gradient is of the optimiser's objective: with the penalties "
    "for H1, only of the loss for the fully connected nets."
)
Groups = dict[tuple[str, float], list[Record]]


def _groups(records: Sequence[Record]) -> Groups:
    """Records by network and T, in the order of the tables; diverged runs appear only in the accuracies."""
    keys = sorted({(r.case.network, r.case.T) for r in records}, key=lambda k: (list(NETWORKS).index(k[0]), k[1]))
    return {key: [r for r in records if (r.case.network, r.case.T) == key] for key in keys}


def _sound(group: Sequence[Record]) -> list[Record]:
    return [r for r in group if not r.diverged]


def _ranges(name: str, group: Sequence[Record]) -> tuple[str, ...]:
    sound = _sound(group)
    least, most, lowest, highest = (
        _numbers([r.values[key][k] for r in sound]) for key in ("mean_range", "single_range") for k in (0, 1)
    )
    paper = "[{:g}, {:g}]".format(*PUBLISHED[name]) if name in PUBLISHED else NOT_AVAILABLE
    return least, most, paper, lowest, highest


def _learning(name: str, group: Sequence[Record]) -> tuple[str, ...]:
    found = [r.values["gradients"] for r in _sound(group)]
    last = [sorted(g[-max(1, len(g) // 10) :]) for g in found]
    accuracy = f"{spread(percents(group, 'accuracy'), 1)} / {PUBLISHED_ACCURACY.get(name, NOT_AVAILABLE)}"
    return accuracy, _numbers([g[0] for g in found]), _numbers([g[len(g) // 2] for g in last])


def _numbers(values: Sequence[float]) -> str:
    """Median and range with three digits, over any powers of ten."""
    if not values:
        return "—"
    low, middle, high = (f"{x:.3g}" for x in (min(values), statistics.median(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({low}–{high})"


def _time(T: float) -> str:
    return f"{T:g}" if T else "—"


def _text(groups: Groups) -> str:
    said = []
    hamiltonian = [r for (name, _), g in groups.items() if name in PUBLISHED for r in _sound(g)]
    if hamiltonian:
        least = min(r.values["least_of_all_depths"] for r in hamiltonian)
        kept = sum(r.values["least_of_all_depths"] >= BOUND for r in hamiltonian)
        said.append(
            f"In {kept} of {len(hamiltonian)} runs of H1 no sample's norm was below 1 at any depth and measured "
            f"iteration (least: {least:.10g})."
        )
    for name, (_, top) in PUBLISHED.items():
        group = _sound(groups.get((name, 0.8), []))
        if group:
            inside = sum(r.values["mean_range"][1] <= top for r in group)
            most = max(r.values["single_range"][1] for r in group)
            said.append(
                f"{NETWORKS[name]}, T = 0.8: the batch mean stays within the paper's upper end {top:g} in {inside} of "
                f"{len(group)} runs, while single samples reach {most:.3g}."
            )
    said.append("T, h and seed of the paper's figure are not known, and the largest norm depends on T and the seed.")
    lost = [r for (name, _), g in groups.items() if name == "mlp-32" for r in _sound(g)]
    if lost:
        least = min(r.values["single_range"][0] for r in lost)
        fall = f"fall to {least:.0e}" if least else "underflow"
        near = sum(value <= 55 for value in percents(lost, "accuracy"))
        said.append(
            f"In the 32-layer fully connected net norms {fall} (where no loss "
            f"gradient arrives, the decay drives the weights to 0), and {near} of {len(lost)} runs end at 55 % test "
            "accuracy or less."
        )
    return " ".join(said)


EXPERIMENT = Experiment(
    name="gradients",
    title="Gradients while 64 layers learn the double moons",
    source="2104.13166, Fig. 2",
    case=Config,
    cases=cases,
    run=run,
    render=render,
    values=Values,
    cost=lambda case: {"mlp-32": 3.5, "mlp-8": 1.5}.get(case.network, 7.0) * case.epochs / EPOCHS,
)
