"""Sequences: networks whose depth is time, beside torch's LSTM and GRU, coRNN and LinOSS with as many weights.

Adam with one rise and fall of the rate (OneCycle), gradients clipped at norm 1. Where there are two rates, a fifth of
the training part chooses one by its accuracy, and the network keeps the weights trained without it. The test part is
read once. Of a trained network of one layer that steps by a scheme, the singular values of d y_T / d y_t are measured.
"""

from __future__ import annotations

__all__ = ["EXPERIMENT", "Config", "accuracy", "cases", "render", "run", "train"]

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor, nn

from liouville.analysis import singular_spectra
from liouville.experiments.beyond.baselines import parameters
from liouville.experiments.beyond.sequence_data import ARCHIVE, TASKS, Sequences, Task, adding, has_archive, load
from liouville.experiments.beyond.sequence_figures import singular_values
from liouville.experiments.beyond.sequence_networks import LEFT_OUT, NETWORKS, Classifier, Ours, build
from liouville.experiments.comparing import spread
from liouville.experiments.experiment import Experiment, Picture, Rendering, Table
from liouville.experiments.records import Record, rounded
from liouville.recurrent import along

HELD = 5  # one in so many training samples chooses the rate
TIMES = 9  # at which all singular values are recorded


@dataclass(frozen=True)
class Config:
    """One network on one task.

    Args:
        task: a name of `TASKS`.
        network: a name of `NETWORKS`.
        epochs: of training.
        samples: most training samples; 0 for all.
        seed: of initial weights, batches, and the division where the task has none.
    """

    task: str
    network: str
    epochs: int
    samples: int
    seed: int


class Values(TypedDict):
    """The recorded values of a case; the score is a test accuracy or, of a number to predict, a squared error.

    ``least`` and ``most`` are the extreme norms of d y_T / d y_t over t, None where they were not measured;
    ``smallest`` is its least singular value, and ``singular`` has all of them for seed 0, at some t from first to last.
    """

    score: float
    weights: int
    rate: float
    seconds: float
    least: float | None
    most: float | None
    smallest: NotRequired[float]
    singular: NotRequired[list[list[float]]]


def cases(seeds: int, quick: bool) -> list[Config]:
    """Every network on every task that is there, without what `LEFT_OUT` names."""
    names = ("digits", "adding-1000") if quick else TASKS
    return [
        Config(name, network, 1 if quick else TASKS[name].epochs, 200 if quick else 0, seed)
        for name in names
        if name not in ARCHIVE or has_archive()
        for seed in range(1 if quick else min(seeds, TASKS[name].seeds))
        for network in NETWORKS
        if network not in LEFT_OUT.get(name, ())
    ]


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Train, choose and test one network."""
    task = TASKS[config.task]
    begun = time.process_time()
    found = _adding(config, task) if config.task.startswith("adding") else _classes(config, task)
    return {"least": None, "most": None} | found | {"seconds": round(time.process_time() - begun, 1)}


def _classes(config: Config, task: Task) -> dict[str, Any]:
    data, generator = load(config.task, config.seed), torch.Generator().manual_seed(config.seed)
    order = torch.randperm(len(data.x_train), generator=generator)[: config.samples or None]
    held = order[: len(order) // HELD] if len(task.rates) > 1 else order[:0]
    kept = order[len(held) :]
    tried: list[tuple[float, float, Classifier]] = []
    for rate in task.rates:
        network = build(config.network, task, config.seed)

        def batches() -> Any:
            for _ in range(config.epochs):
                for rows in kept[torch.randperm(len(kept), generator=generator)].split(task.batch):
                    yield data.x_train[rows], data.y_train[rows], _some(data.lengths_train, rows)

        train(network, batches(), config.epochs * -(-len(kept) // task.batch), rate, nn.functional.cross_entropy)
        score = accuracy(network, data.x_train[held], data.y_train[held], _some(data.lengths_train, held))
        tried.append((score, rate, network))
    _, rate, network = max(tried, key=lambda one: one[0])
    found = {
        "score": rounded(accuracy(network, data.x_test, data.y_test, data.lengths_test)),
        "weights": parameters(network),
        "rate": rate,
    }
    return found | _sensitivity(network, data, config.seed == 0)


def _some(lengths: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if lengths is None else lengths[rows]


def _adding(config: Config, task: Task) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(config.seed)
    network = build(config.network, task, config.seed)
    steps = 20 if config.samples else config.epochs

    def batches() -> Any:
        for _ in range(steps):
            yield *adding(task.steps, task.batch, generator), None

    train(network, batches(), steps, task.rates[0], nn.functional.mse_loss)
    x, y = adding(task.steps, 500, torch.Generator().manual_seed(10_000 + config.seed))
    with torch.no_grad():
        error = nn.functional.mse_loss(torch.cat([network(part) for part in x.split(100)]), y)
    return {"score": rounded(float(error)), "weights": parameters(network), "rate": task.rates[0]}


def train(network: nn.Module, batches: Any, steps: int, rate: float, loss: Any) -> None:
    """Train it by so many steps on ``batches`` of (inputs, targets, lengths), as the module's text says."""
    optimiser = torch.optim.Adam(network.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    for x, y, lengths in batches:
        value = loss(network(x, lengths), y)
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()


@torch.no_grad()
def accuracy(network: nn.Module, x: Tensor, y: Tensor, lengths: Tensor | None) -> float:
    """The share of the sequences whose class has the highest score; 0 of none."""
    if not len(x):
        return 0.0
    parts = torch.arange(len(x)).split(500)
    right = [network(x[rows], _some(lengths, rows)).argmax(-1) == y[rows] for rows in parts]
    return float(torch.cat(right).double().mean())


def _sensitivity(network: nn.Module, data: Sequences, whole: bool) -> dict[str, Any]:
    """Singular values of d y_T / d y_t on one test sequence: the extremes over all t, and all values at some t."""
    if not isinstance(network, Classifier) or not isinstance(network.body, Ours):
        return {}
    (cell,) = network.body.rnn.cells
    length = None if data.lengths_test is None else int(data.lengths_test[0])
    flow = along(cell, data.x_test[0, :length]).double()
    start = torch.zeros(1, flow.field.features, dtype=torch.float64)
    values = singular_spectra(flow, start)[:, 0]
    norms, steps = values[:, 0], len(values) - 1
    found: dict[str, Any] = {"least": norms.min(), "most": norms.max(), "smallest": values.min()}
    found = {name: rounded(float(value)) for name, value in found.items()}
    if whole:
        some = values[[steps * k // (TIMES - 1) for k in range(TIMES)]]
        found["singular"] = [[rounded(v) for v in row] for row in some.tolist()]
    return found


def render(records: Sequence[Record], folder: Path) -> Rendering:
    """Accuracies and errors by task and network, and the sensitivities over time."""
    tables, sentences = [], []
    for name in TASKS:
        found = {
            network: [r for r in records if (r.case.task, r.case.network) == (name, network)] for network in NETWORKS
        }
        found = {network: mine for network, mine in found.items() if mine}
        if found:
            tables.append(_table(name, found))
            sentences.append(_sentence(name, found))
    sensitive = [r for r in records if not r.diverged and r.values["least"] is not None]
    if sensitive:
        tables.append(_sensitivities(sensitive))
    if sentences:
        sentences.append(
            "Trainings are short, and all networks have the same number of passes and rates: longer ones may rank them "
            "in another way. Seconds are of the machine that ran a case, and not all cases ran on one. A task without "
            "a table has no record yet."
        )
    return Rendering(" ".join(sentences), tables, _pictures(records))


def _scores(name: str, records: Sequence[Record]) -> list[float]:
    scale = 1.0 if name.startswith("adding") else 100.0
    return [scale * r.values["score"] for r in records if not r.diverged]


def _table(name: str, found: Mapping[str, Sequence[Record]]) -> Table:
    task, errors = TASKS[name], name.startswith("adding")
    head = ("network", "weights", "squared error" if errors else "test accuracy in percent", "seconds of one core")
    rows = []
    for network, mine in found.items():
        done = [r for r in mine if not r.diverged]
        weights = f"{done[0].values['weights']:,}" if done else "—"
        times = spread([r.values["seconds"] for r in done], 0)
        rows.append((network, weights, spread(_scores(name, mine), 4 if errors else 1), times))
    left = LEFT_OUT.get(name, ())
    seeds = sorted({len(mine) for mine in found.values()})
    note = f"{task.steps} steps, {' or '.join(map(str, seeds))} seeds: median and range."
    if errors:
        note += " Always answering 1 gives 0.1667."
    return Table(name, head, rows, note + (f" Not run, for time: {', '.join(left)}." if left else ""))


def _sentence(name: str, found: Mapping[str, Sequence[Record]]) -> str:
    """Who is first, whoever it is."""
    middle = {n: statistics.median(s) for n, mine in found.items() if (s := _scores(name, mine))}
    if len(middle) < 2:
        return ""
    errors = name.startswith("adding")
    best = (min if errors else max)(middle, key=lambda n: middle[n])
    own = (min if errors else max)((n for n in middle if n in OURS), key=lambda n: middle[n])
    number = (lambda v: f"{v:.4f}") if errors else (lambda v: f"{v:.1f} %")
    first = f"{name}: {best} is first with {number(middle[best])}"
    return f"{first}." if best == own else f"{first}; the best of ours is {own} with {number(middle[own])}."


OURS = ("h2", "antisymmetric", "second order")


def _sensitivities(records: Sequence[Record]) -> Table:
    rows = []
    for name in TASKS:
        for network in OURS:
            mine = [r.values for r in records if (r.case.task, r.case.network) == (name, network)]
            if mine:
                small = [v["smallest"] for v in mine if "smallest" in v]
                ends = (min(v["least"] for v in mine), max(v["most"] for v in mine))
                least = f"{min(small):.3g}" if small else "—"
                rows.append((f"{name}, {network}", *(f"{v:.3g}" for v in ends), least))
    head = ("task and network", "least norm", "largest norm", "smallest singular value")
    note = "Singular values of d y_T / d y_t of trained networks on one test sequence, extremes over t and seeds."
    return Table("Sensitivities over time", head, rows, note)


def _pictures(records: Sequence[Record]) -> dict[str, Picture]:
    """All singular values over time on the digits, for each network of ours."""
    mine = [r for r in records if r.case.task == "digits" and "singular" in r.values]
    found = {r.case.network: r.values["singular"] for r in mine}
    shown = {name: found[name] for name in OURS if name in found}
    if not shown:
        return {}
    caption = "Every singular value of d y_T / d y_t of trained networks, along one test sequence."
    return {"singular-values": Picture(caption, lambda: singular_values(shown, TASKS["digits"].steps))}


EXPERIMENT = Experiment(
    name="sequences",
    title="Depth as time: recurrent networks",
    source="beyond the papers",
    case=Config,
    cases=cases,
    run=run,
    render=render,
    values=Values,
    cost=lambda case: 2.0 + 2e-5 * TASKS[case.task].steps * case.epochs * TASKS[case.task].batch,
)
