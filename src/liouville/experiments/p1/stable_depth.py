"""Stable networks and a residual network as the depth grows, with a fixed final time or a fixed step.

With fixed T, more layers are finer steps of one ordinary differential equation, and depth changes little except the
error. With fixed h, T grows with N, and the flow must carry features and gradients further.
"""

from __future__ import annotations

__all__ = ["EXPERIMENT", "Config", "cases", "render", "run"]

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch

from liouville import data
from liouville.analysis import backward_sensitivity
from liouville.experiments.comparing import percents, spread
from liouville.experiments.experiment import Experiment, Picture, Rendering, Table
from liouville.experiments.paired import Paired, pairs
from liouville.experiments.records import Record, rounded
from liouville.flow import Flow
from liouville.kernels import Auto
from liouville.report.style import canvas, colours, heading
from liouville.train import DivergenceError, Penalty, Settings, fit
from liouville.zoo import classifier

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {
    "resnet": "ResNet",
    "antisymmetric": "antisymmetric",
    "verlet": "Verlet",
    "h2": "h2",
}
DEPTHS = (16, 64, 256, 1024)
T, STEP = 4.0, 1 / 16  # both rules agree at 64 layers
RULES = {"T": f"final time T = {T:g}", "h": f"step h = 1/{round(1 / STEP)}"}
RATES = (0.003, 0.03)


@dataclass(frozen=True)
class Config:
    """One network, trained at every rate of `RATES` with the same settings; validation chooses among them.

    Args:
        model: a name of `NAMES`.
        layers: N.
        T: final time.
        epochs: passes over the 3,600 training points.
        seed: seed of the data, the initial weights and the batches.
    """

    model: str
    layers: int
    T: float
    epochs: int
    seed: int


class Values(TypedDict):
    """The recorded values of a case."""

    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    smallest_norm: float
    first_norm: float
    largest_norm: float


def cases(seeds: int, quick: bool) -> list[Config]:
    """Every network at every depth, with a fixed time and with a fixed step, once for each seed."""
    if quick:
        return [Config(model, 16, 1.0, 1, 0) for model in NAMES]
    settings = sorted({(N, time) for N in DEPTHS for time in (T, STEP * N)})
    return [Config(model, N, time, 30, seed) for (N, time) in settings for model in NAMES for seed in range(seeds)]


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Train with every rate; raises DivergenceError only if all diverged."""
    split = data.load("swiss-roll", seed=config.seed)
    best: dict[str, Any] = {}
    diverged = []
    for lr in RATES:
        network = classifier(
            config.model,
            inputs=2,
            classes=2,
            features=4,
            layers=config.layers,
            T=config.T,
            generator=torch.Generator().manual_seed(config.seed),
            backprop=Auto(),
        )
        penalty = Penalty(smoothness=1e-5, decay=1e-4)
        try:
            found = fit(network, split, Settings(epochs=config.epochs, lr=lr, penalty=penalty, seed=config.seed))
        except DivergenceError as error:
            diverged.append(error)
            continue
        if not best or found.metrics["validation_loss"] < best["validation_loss"]:
            best = {k: v for k, v in found.metrics.items() if k not in ("seconds", "work")} | {"lr": lr}
            flow, y = network.body, network.lift(split.x_test[:100])
    if not best:
        raise diverged[-1]
    assert isinstance(flow, Flow)
    return {k: rounded(v) for k, v in {**best, **_sensitivity(flow, y)}.items()} | {"diverged_rates": len(diverged)}


def render(records: Sequence[Record], folder: Path) -> Rendering:
    """Accuracy and sensitivities by depth, with a fixed time and with a fixed step."""
    tables = [table for rule in RULES for table in (_accuracy(records, rule), _norms(records, rule)) if table.rows]
    pictures = {}
    if records:
        pictures["accuracy-by-depth"] = Picture(
            "Test accuracy by depth, at a fixed final time and at a fixed step: medians and ranges over the seeds.",
            lambda: _draw(records),
        )
    return Rendering(_text(records), tables, pictures)


def _sensitivity(flow: Flow, y: torch.Tensor) -> dict[str, float]:
    """||dState_N / dState_j|| over samples and layers: the smallest, the largest, and the median at j = 0."""
    norms = torch.linalg.matrix_norm(backward_sensitivity(flow, y), ord=2)
    return {
        "smallest_norm": float(norms.min()),
        "first_norm": float(norms[0].median()),
        "largest_norm": float(norms.max()),
    }


def _mine(records: Sequence[Record], rule: str, model: str, layers: int) -> list[Record]:
    time = T if rule == "T" else STEP * layers
    return [r for r in records if (r.case.model, r.case.layers, r.case.T) == (model, layers, time)]


def _depths(records: Sequence[Record], rule: str) -> list[int]:
    depths = sorted({r.case.layers for r in records})
    return [N for N in depths if any(_mine(records, rule, model, N) for model in NAMES)]


def _accuracy(records: Sequence[Record], rule: str) -> Table:
    depths, rows = _depths(records, rule), []
    for model, name in NAMES.items() if depths else ():
        found = [_mine(records, rule, model, N) for N in depths]
        lost = sum(r.diverged for mine in found for r in mine)
        rows.append((name, *(spread(percents(mine, "test_accuracy"), 1) for mine in found), str(lost)))
    head = ("network", *(f"{N} layers" for N in depths), "diverged")
    note = (
        "Swiss roll, noise 0.01, 4 features. ResNet and antisymmetric take steps of forward Euler, Verlet (pair field) "
        f"and h2 of symplectic Euler. Validation chooses among the rates {', '.join(map(str, RATES))}; a run counts as "
        "diverged, and as 0 %, where all of them diverge."
    )
    return Table(f"Test accuracy in percent, {RULES[rule]}", head, rows, note if rule == "T" else "")


def _norms(records: Sequence[Record], rule: str) -> Table:
    depths, rows = _depths(records, rule), []
    for model, name in NAMES.items() if depths else ():
        cells = []
        for N in depths:
            mine = [r.values for r in _mine(records, rule, model, N) if not r.diverged]
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
    head = ("network", *(f"{N} layers" for N in depths))
    return Table(f"Sensitivities, {RULES[rule]}", head, rows, note if rule == "T" else "")


def _text(records: Sequence[Record]) -> str:
    said = [_verdict(records, rule) for rule in RULES]
    sound = [r for r in records if not r.diverged]
    norms = {
        m: min(r.values["smallest_norm"] for r in sound if r.case.model == m) for m in {r.case.model for r in sound}
    }
    if len(norms) == len(NAMES):
        gap = max(100 * abs(r.values["train_accuracy"] - r.values["test_accuracy"]) for r in sound)
        shown = ", ".join(f"{NAMES[m]} {norms[m]:.2g}" for m in NAMES)
        said.append(
            f"The smallest sensitivity of all layers and points: {shown}; the equations of the last three keep it at 1 "
            f"or above. Training and test accuracy differ by at most {gap:.1f} points."
        )
    return "\n\n".join(filter(None, said))


def _verdict(records: Sequence[Record], rule: str) -> str:
    """Each network against the ResNet with all depths pooled, and the depths where its median is lower."""
    depths = _depths(records, rule)
    found = {(m, N): mine for m, N in itertools.product(NAMES, depths) if (mine := _mine(records, rule, m, N))}
    middle = {key: statistics.median(percents(mine, "test_accuracy")) for key, mine in found.items()}
    if not depths or ("resnet", depths[-1]) not in middle:
        return ""
    N = depths[-1]
    others = [m for m in NAMES if m != "resnet" and (m, N) in middle]
    contests = {m: [_contest(found, m, n) for n in depths] for m in others}
    told = "; ".join(f"{NAMES[m]} {Paired.of(itertools.chain(*contests[m]))}" for m in others)
    lower = [
        f"{NAMES[m]} at {n} layers ({score:.1f} against {middle['resnet', n]:.1f} %)"
        for (m, n), score in middle.items()
        if ("resnet", n) in middle and score < middle["resnet", n]
    ]
    shown = ", ".join(f"{NAMES[m]} {middle[m, N]:.1f} %" for m in ("resnet", *others))
    return (
        f"With the {RULES[rule]}, {N} layers: {shown} (medians). "
        + (f"Against the ResNet, all depths pooled: {told}. " if told else "")
        + (f"**Lower medians than the ResNet's: {'; '.join(lower)}.**" if lower else "")
    ).strip()


def _contest(found: Mapping[tuple[str, int], Sequence[Record]], model: str, layers: int) -> list[tuple[float, float]]:
    """Test accuracies of a network and of the ResNet at one depth, seed by seed."""
    ours, theirs = (found.get((name, layers), ()) for name in (model, "resnet"))
    return pairs(ours, theirs, lambda r: percents([r], "test_accuracy")[0])


def _draw(records: Sequence[Record]) -> Figure:
    shown = {rule: depths for rule in RULES if (depths := _depths(records, rule))}
    figure = canvas(5 * len(shown), 3.9)
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, (rule, depths) in zip(panels, shown.items(), strict=True):
        for colour, (model, name) in zip(colours(len(NAMES)), NAMES.items(), strict=True):
            points = [(N, percents(_mine(records, rule, model, N), "test_accuracy")) for N in depths]
            points = [(N, values) for N, values in points if values]
            x = [N for N, _ in points]
            axes.plot(x, [statistics.median(v) for _, v in points], "o-", ms=4, color=colour, label=name)
            axes.fill_between(
                x, [min(v) for _, v in points], [max(v) for _, v in points], color=colour, alpha=0.12, lw=0
            )
        axes.set_xscale("log", base=2)
        axes.set_xticks(depths, [str(N) for N in depths])
        axes.set(title=RULES[rule], xlabel="layers")
        axes.grid(axis="y")
    panels[0].set_ylabel("test accuracy, %")
    panels[-1].legend(loc="lower center")
    heading(
        figure,
        "Swiss roll: accuracy as the depth grows",
        f"medians and ranges, seeds: {len({r.case.seed for r in records})}",
    )
    return figure


EXPERIMENT = Experiment(
    name="stable-depth",
    title="Stable networks and a residual network as the depth grows",
    source="1705.03341, sections 4 and 6.2, beyond the paper",
    case=Config,
    cases=cases,
    run=run,
    render=render,
    values=Values,
    cost=lambda case: len(RATES) * (0.5 + case.epochs * (0.02 + 2e-5 * case.layers)),
)
