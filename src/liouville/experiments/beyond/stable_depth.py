"""The stable networks beside others as the depth grows at a fixed step, every one of them with one setting.

T grows with N, from 1 to 64, and nothing else is changed: start, rate and penalties are in the units of the network
(`liouville.units`), in which T does not count. Networks that are no flows get the better of two rates by validation.
"""

from __future__ import annotations

__all__ = ["EXPERIMENT", "Config", "cases", "render", "run"]

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import torch
from torch import nn

from liouville import data
from liouville.analysis import backward_sensitivity
from liouville.experiments.beyond.baselines import deep_mlp, deep_resnet
from liouville.experiments.comparing import percents, spread
from liouville.experiments.experiment import Experiment, Picture, Rendering, Table
from liouville.experiments.paired import Paired, pairs
from liouville.experiments.records import Record, rounded
from liouville.kernels import Auto
from liouville.network import Network
from liouville.report.style import canvas, heading, key, look_of
from liouville.train import DivergenceError, Penalty, Settings, fit
from liouville.zoo import MODELS, classifier

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLOWS = {
    "h1": "h1",
    "h2": "h2",
    "ms1": "ms1",
    "ms3": "ms3",
    "verlet": "Verlet",
    "antisymmetric": "antisymmetric",
    "midpoint": "midpoint",
    "leapfrog": "leapfrog",
    "resnet": "ResNet as a flow",
}
OTHERS = {"scaled": "ResNet with scaled start", "layer-norm": "ResNet with LayerNorm", "mlp": "tanh MLP"}
NAMES = FLOWS | OTHERS
BESIDE = "resnet"  # whom the others are compared with
DEPTHS = (16, 64, 256, 1024)
SLOW = (*OTHERS, "midpoint", "leapfrog")  # which run layer by layer, and take fifty times as long
FEW_SEEDS = {16: 3, 64: 1}  # of those that are no flows and try two rates, by depth
STEP = 1 / 16
RATE, RATES = 0.03, (0.003, 0.03)  # of flows; of the others
PENALTY = Penalty(smoothness=1e-5, decay=1e-4)  # of flows
FRESH = 20  # the first seed; none from here on was used for any choice


@dataclass(frozen=True)
class Config:
    """One network at one depth.

    Args:
        network: of `NAMES`.
        layers: N; T = N / 16.
        epochs: passes over the 3,600 training points.
        seed: of the data, the initial weights and the batches, counted from `FRESH`.
    """

    network: str
    layers: int
    epochs: int
    seed: int


class Values(TypedDict):
    """What a case records; the norms of flows only."""

    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    lr: float
    smallest_norm: NotRequired[float]
    first_norm: NotRequired[float]
    largest_norm: NotRequired[float]


def cases(seeds: int, quick: bool) -> list[Config]:
    """Every network at every depth, once for each seed; what runs layer by layer at few depths, with few seeds."""
    if quick:
        return [Config(name, 16, 1, 0) for name in NAMES]
    return [Config(name, N, 30, seed) for name in NAMES for N in DEPTHS for seed in range(most(name, N, seeds))]


def most(network: str, layers: int, seeds: int) -> int:
    """How many seeds a network has at a depth."""
    return min(seeds, FEW_SEEDS.get(layers, 0)) if network in OTHERS else seeds


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Raises DivergenceError only where every rate diverged."""
    seed = FRESH + config.seed
    split = data.load("swiss-roll", seed=seed)
    best: dict[str, Any] = {}
    diverged: list[DivergenceError] = []
    for lr in (RATE,) if config.network in FLOWS else RATES:
        network = _network(config, seed)
        try:
            found = fit(network, split, Settings(epochs=config.epochs, lr=lr, penalty=PENALTY, seed=seed))
        except DivergenceError as error:
            diverged.append(error)
            continue
        if not best or found.metrics["validation_loss"] < best["validation_loss"]:
            best = {**found.metrics, "lr": lr}
    if not best:
        raise diverged[-1]
    kept = {name: value for name, value in best.items() if name in _KEPT}
    if isinstance(network, Network):
        kept |= _sensitivity(network, split.x_test[:100])
    return {k: rounded(v) for k, v in kept.items()}


_KEPT = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "lr")


def _network(config: Config, seed: int) -> nn.Module:
    name, N = config.network, config.layers
    if name == "mlp":
        return deep_mlp(2, 1, 4, N, seed)
    if name in OTHERS:
        return deep_resnet(2, 1, 4, N, name, seed)
    generator = torch.Generator().manual_seed(seed)
    return classifier(MODELS[name], 2, 2, 4, N, STEP * N, generator=generator, backprop=Auto())


def _sensitivity(network: Network, x: torch.Tensor) -> dict[str, float]:
    """||dState_N / dState_j|| over samples and layers: the smallest, the largest, and the middle one of j = 0."""
    (flow,) = network.flows()
    norms = torch.linalg.matrix_norm(backward_sensitivity(flow, network.lift(x)), ord=2)
    return {
        "smallest_norm": float(norms.min()),
        "first_norm": float(norms[0].median()),
        "largest_norm": float(norms.max()),
    }


def render(records: Sequence[Record], folder: Path) -> Rendering:
    """Accuracy and sensitivities by depth."""
    tables = [table for table in (_accuracy(records), _norms(records)) if table.rows]
    pictures = {}
    if records:
        pictures["accuracy-by-depth"] = Picture(
            "Test accuracy by depth at a fixed step, one setting for all: medians and ranges over the seeds.",
            lambda: _draw(records),
        )
    return Rendering(_text(records), tables, pictures)


def _mine(records: Sequence[Record], network: str, layers: int) -> list[Record]:
    return [r for r in records if (r.case.network, r.case.layers) == (network, layers)]


def _depths(records: Sequence[Record]) -> list[int]:
    return sorted({r.case.layers for r in records})


def _present(records: Sequence[Record]) -> dict[str, str]:
    found = {r.case.network for r in records}
    return {name: shown for name, shown in NAMES.items() if name in found}


def _accuracy(records: Sequence[Record]) -> Table:
    depths, rows = _depths(records), []
    for network, name in _present(records).items():
        found = [_mine(records, network, N) for N in depths]
        lost = sum(r.diverged for mine in found for r in mine)
        rows.append((name, *(spread(percents(mine, "test_accuracy"), 1) for mine in found), str(lost)))
    head = ("network", *(f"{N} layers, T = {STEP * N:g}" for N in depths), "diverged")
    note = (
        f"Swiss roll, noise 0.01, 4 features, 30 epochs. Flows: Omega = 20 at the start, Adam at {RATE:g} in units. "
        "h1, antisymmetric and ResNet take steps of forward Euler, which carries less than 20 in 16 layers. For the "
        f"others validation chooses among the rates {', '.join(map(str, RATES))}. A run that diverged counts as 0 %; a "
        "dash stands for what was not run."
    )
    return Table("Test accuracy in percent, step h = 1/16", head, rows, note)


def _norms(records: Sequence[Record]) -> Table:
    depths, rows = _depths(records), []
    for network, name in _present(records).items():
        if network not in FLOWS:
            continue
        cells = []
        for N in depths:
            mine = [r.values for r in _mine(records, network, N) if not r.diverged]
            of = {k: [v[f"{k}_norm"] for v in mine] for k in ("smallest", "first", "largest")}
            cells.append(
                f"{min(of['smallest']):.2g} / {statistics.median(of['first']):.2g} / {max(of['largest']):.2g}"
                if mine
                else "—"
            )
        rows.append((name, *cells))
    note = (
        "Spectral norms of dy_N/dy_j after training, over 100 test points: the smallest of all points, seeds and j = 0 "
        "... N (it is 1 at j = N), the median at j = 0, the largest of all."
    )
    return Table("Sensitivities", ("network", *(f"{N} layers" for N in depths)), rows, note)


def _text(records: Sequence[Record]) -> str:
    """Each network against the ResNet with all depths pooled, and wherever its median is lower."""
    depths = _depths(records)
    found = {(m, N): mine for m, N in itertools.product(NAMES, depths) if (mine := _mine(records, m, N))}
    middle = {key: statistics.median(percents(mine, "test_accuracy")) for key, mine in found.items()}
    if not depths or (BESIDE, depths[-1]) not in middle:
        return ""
    N = depths[-1]
    others = [m for m in NAMES if m != BESIDE and (m, N) in middle]
    contests = {m: [_contest(found, m, n) for n in depths] for m in others}
    told = "; ".join(f"{NAMES[m]} {Paired.of(itertools.chain(*contests[m]))}" for m in others)
    lower = [
        f"{NAMES[m]} at {n} layers ({score:.1f} against {middle[BESIDE, n]:.1f} %)"
        for (m, n), score in middle.items()
        if (BESIDE, n) in middle and score < middle[BESIDE, n]
    ]
    shown = ", ".join(f"{NAMES[m]} {middle[m, N]:.1f} %" for m in (BESIDE, *others))
    said = [f"{N} layers, T = {STEP * N:g}: {shown} (medians)."]
    said += (
        [f"Against the ResNet, whose steps start around the same rotation, all depths pooled: {told}."] if told else []
    )
    said += [f"**Lower medians than the ResNet's: {'; '.join(lower)}.**"] if lower else []
    return " ".join(said)


def _contest(found: Mapping[tuple[str, int], Sequence[Record]], network: str, layers: int) -> list[tuple[float, float]]:
    """Test accuracies of a network and of the ResNet at one depth, seed by seed."""
    ours, theirs = (found.get((name, layers), ()) for name in (network, BESIDE))
    return pairs(ours, theirs, lambda r: percents([r], "test_accuracy")[0])


def _draw(records: Sequence[Record]) -> Figure:
    figure = canvas(7, 3.9)
    axes = figure.subplots()
    present, depths = _present(records), _depths(records)
    for network, name in present.items():
        look = look_of(name)
        points = [(N, percents(_mine(records, network, N), "test_accuracy")) for N in depths]
        points = [(N, values) for N, values in points if values]
        x = [N for N, _ in points]
        shape = {"marker": "o" if network in FLOWS else "s", "linestyle": look.dashes, "color": look.colour}
        axes.plot(x, [statistics.median(v) for _, v in points], ms=4, label=name, **shape)
        low, high = ([end(v) for _, v in points] for end in (min, max))
        axes.fill_between(x, low, high, color=look.colour, alpha=0.1, lw=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(depths, [f"{N}\nT = {STEP * N:g}" for N in depths])
    axes.set(xlabel="layers", ylabel="test accuracy, %")
    axes.grid(axis="y")
    seeds = len({r.case.seed for r in records})
    key(figure, f"medians and ranges over at most {seeds} seeds", handlelength=3.0)
    last = [percents(_mine(records, network, depths[-1]), "test_accuracy") for network in present if network in FLOWS]
    ends = sorted(statistics.median(values) for values in last if values)
    reach = f"{ends[0]:.1f} to {ends[-1]:.1f} %" if ends else "not run"
    heading(figure, f"Swiss roll at one step: at {depths[-1]} layers the medians of {len(ends)} flows are {reach}")
    return figure


def _cost(case: Config) -> float:
    """Seconds; what has no native kernel takes fifty times as long."""
    slow = case.network in SLOW
    rates = len(RATES) if case.network in OTHERS else 1
    return rates * (0.5 + case.epochs * (0.02 + (2e-3 if slow else 2e-5) * case.layers))


EXPERIMENT = Experiment(
    name="stable-depth",
    title="Stable networks and others as the depth grows at a fixed step, with one setting",
    source="1705.03341, sections 4 and 6.2, beyond the paper",
    case=Config,
    cases=cases,
    run=run,
    render=render,
    values=Values,
    cost=_cost,
)
