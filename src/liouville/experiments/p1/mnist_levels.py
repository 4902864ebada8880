"""MNIST with convolutions on three levels of 4, 8 and 16 layers, as in P1's section 6.4, with our sizes.

The paper's three architectures: six channels at full resolution, 3 x 3 stencils, tanh, T = 6, a linear head on all
pixels with weights smooth in space. Multilevel training is compared with a cold start at 16 layers that begins with
the same function of time.
"""

from __future__ import annotations

__all__ = ["EXPERIMENT", "Config", "cases", "render", "run"]

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from liouville import data
from liouville.documents import AT_LEAST_ONE
from liouville.experiments.comparing import NOT_AVAILABLE, percents, spread
from liouville.experiments.experiment import Experiment, Picture, Rendering, Table
from liouville.experiments.p1.mnist_network import network_of
from liouville.experiments.paired import Paired, pairs
from liouville.experiments.records import Record
from liouville.report.style import GREY, canvas, colours, heading, key
from liouville.train import History, MultilevelHistory, Penalty, Settings, fit, multilevel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = (4, 8, 16)
TARGET = 0.95
VALIDATION = 0.2
NAMES = {
    "resnet": "ResNet",
    "antisymmetric": "antisymmetric",
    "verlet": "Verlet",
}
RATE = 0.01  # rate of every multilevel run
COLD_RATES = {"resnet": (RATE,), "antisymmetric": (RATE,), "verlet": (0.005, RATE, 0.02)}
STARTS = ("all levels", "until the target", "cold")


@dataclass(frozen=True)
class Config:
    """One training run.

    Args:
        model: a name of `NAMES`.
        start: ``"all levels"``: every level takes all its epochs; ``"until the target"``: multilevel, where a level
            ends once the target is met; ``"cold"``: all epochs at the last depth.
        lr: learning rate.
        images: number of MNIST's 60,000 training images, a fifth of them for validation.
        test: number of its 10,000 test images.
        epochs: maximum number of epochs of every level.
        seed: seed of the initial weights, of the validation part and of the batches.
    """

    model: str
    start: str
    lr: float
    images: int
    test: int
    epochs: int
    seed: int


class Values(TypedDict):
    """The recorded values of a case."""

    levels: list[tuple[int, float, float]]
    curve: Annotated[list[tuple[int, int, float]], AT_LEAST_ONE]
    work: int
    train_accuracy: float
    validation_accuracy: float
    test_accuracy: float


def cases(seeds: int, quick: bool) -> list[Config]:
    """Every network on all levels, until the target on them, and cold at the deepest, once for each seed."""
    if quick:
        return [Config(model, start, RATE, 200, 100, 1, 0) for model in NAMES for start in STARTS]
    made = []
    for seed, model in itertools.product(range(seeds), NAMES):
        made += [Config(model, "all levels", RATE, 4000, 10_000, 4, seed)]
        made += [Config(model, "until the target", RATE, 4000, 10_000, 7, seed)]
        made += [Config(model, "cold", lr, 4000, 10_000, 7, seed) for lr in COLD_RATES[model]]
    return made


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Train on one level or all of them, and record the score of every epoch by work."""
    split = data.load("mnist", train=config.images, test=config.test)
    network = network_of(config.model, LEVELS[-1] if config.start == "cold" else LEVELS[0], config.seed)
    settings = Settings(
        epochs=config.epochs,
        batch_size=64,
        lr=config.lr,
        schedule="constant",
        validation=VALIDATION,
        ema_decay=0.95,
        target_score=TARGET if config.start == "until the target" else None,
        penalty=Penalty(smoothness=1e-4, decay=1e-4, head_smoothness=0.1),
        seed=config.seed,
    )
    if config.start == "cold":
        history: History = fit(network, split, settings)
    else:
        history = multilevel(network, split, settings, levels=len(LEVELS))
    levels = history.levels if isinstance(history, MultilevelHistory) else []
    return {
        "levels": [[level.layers[0], level.start["accuracy"], level.end["accuracy"]] for level in levels],
        "curve": _curve(history),
        "work": history.work,
        **{name: history.metrics[name] for name in ("train_accuracy", "validation_accuracy", "test_accuracy")},
    }


def render(records: Sequence[Record], folder: Path) -> Rendering:
    """Error by level, and the work until the target compared with a cold start."""
    records = sorted(records, key=lambda r: r.case.seed)
    tables = [table for table in (_by_level(records), _work(records)) if table.rows]
    pictures = {}
    if any(not r.diverged for r in records):
        pictures["accuracy-by-work"] = Picture(
            "Validation accuracy by layer evaluations: every level of multilevel training, and the cold start at its "
            "rate; one line for each seed.",
            lambda: _draw(records),
        )
    return Rendering(_text(records), tables, pictures)


def _curve(history: History) -> list[list[float]]:
    """Layers, all work so far, validation accuracy: one entry for each epoch."""
    total = itertools.accumulate(epoch.work for epoch in history.epochs)
    return [[e.layers, done, e.validation_score or 0.0] for e, done in zip(history.epochs, total, strict=True)]


def _chosen(records: Sequence[Record], model: str, start: str, lr: float = RATE) -> list[Record]:
    return [r for r in records if (r.case.model, r.case.start, r.case.lr) == (model, start, lr)]


def _spent(record: Record) -> tuple[float, bool]:
    """Work until the target, and whether it was reached: a run that fails counts with its maximum work."""
    case, held = record.case, round(VALIDATION * record.case.images)
    depths = LEVELS[-1] if case.start == "cold" else sum(LEVELS)
    cap = case.epochs * depths * (2 * case.images - held)
    if record.diverged:
        return cap, False
    if case.start == "cold":
        found = [done for _, done, score in record.values["curve"] if score >= TARGET]
        return (found[0], True) if found else (cap, False)
    return record.values["work"], record.values["validation_accuracy"] >= TARGET


def _share(record: Record, records: Sequence[Record]) -> float | None:
    """Its work over the work of the best cold start of the same network and seed."""
    case = record.case
    cold = [r for r in records if (r.case.model, r.case.start, r.case.seed) == (case.model, "cold", case.seed)]
    return _spent(record)[0] / min(_spent(r)[0] for r in cold) if cold else None


def _equal(record: Record, records: Sequence[Record]) -> float | None:
    """The validation accuracy of the best cold start of the same seed after the same work."""
    case, scores = record.case, []
    for r in records:
        if (r.case.model, r.case.start, r.case.seed) == (case.model, "cold", case.seed) and not r.diverged:
            behind = [score for _, done, score in r.values["curve"] if done >= _spent(record)[0]]
            scores.append(behind[0] if behind else max(score for *_, score in r.values["curve"]))
    return 100 * max(scores) if scores else None


def _by_level(records: Sequence[Record]) -> Table:
    rows = []
    for model, layers in itertools.product(NAMES, LEVELS):
        mine = _chosen(records, model, "all levels")
        found = [level for r in mine for level in r.values.get("levels", ()) if level[0] == layers]
        before, after = ([100 - 100 * level[side] for level in found] for side in (1, 2))
        test = [100 - 100 * r.values["test_accuracy"] for r in mine if not r.diverged] if layers == LEVELS[-1] else []
        if found:
            ours = "" if layers == LEVELS[0] else spread(before, 1)
            rows.append(
                (NAMES[model], str(layers), ours, spread(after, 1), spread(test) if test else "", NOT_AVAILABLE)
            )
    head = ("network", "layers", "after the doubling", "end of the level", "test error", "paper")
    return Table(
        "Validation error by level, in percent", head, rows, f"{_made(records)} Each level takes all its epochs."
    )


def _work(records: Sequence[Record]) -> Table:
    rows = []
    for model in NAMES:
        for start, lr in (("until the target", RATE), *(("cold", lr) for lr in COLD_RATES[model])):
            mine = _chosen(records, model, start, lr)
            if not mine:
                continue
            spent = [_spent(r) for r in mine]
            work = spread([w / 1e6 for w, _ in spent], 2)
            kind = start if start == "cold" else "multilevel"
            row = [NAMES[model], kind, f"{lr:g}", work, f"{sum(ok for _, ok in spent)} of {len(mine)}"]
            shares = [s for s in (_share(r, records) for r in mine) if s is not None] if start != "cold" else []
            equal = [s for s in (_equal(r, records) for r in mine) if s is not None] if start != "cold" else []
            rows.append([*row, spread(shares) if shares else "", spread(equal, 1) if equal else ""])
    head = (
        "network",
        "start",
        "rate",
        "million layer evaluations",
        "reached",
        "work / best cold",
        "cold at equal work, %",
    )
    note = (
        "Multilevel leaves each level at the target. A run that does not reach it counts with its maximum work. The "
        "ratio is taken seed by seed, over the best cold start of that seed."
    )
    return Table(f"Work until {TARGET:.0%} validation accuracy at {LEVELS[-1]} layers", head, rows, note)


def _made(records: Sequence[Record]) -> str:
    images = sorted({r.case.images for r in records})
    return f"{', '.join(f'{n:,}' for n in images)} of the 60,000 training images, a fifth held out."


def _text(records: Sequence[Record]) -> str:
    said: list[str] = []
    for model, name in NAMES.items():
        mine = _chosen(records, model, "until the target")
        shares = [s for s in (_share(r, records) for r in mine) if s is not None]
        equal = [s for s in (_equal(r, records) for r in mine) if s is not None]
        if not shares:
            continue
        share = statistics.median(shares)
        rates = "the best of three cold starts" if len(COLD_RATES[model]) > 1 else "the cold start at the same rate"
        then = f"; at equal work the cold start is at {statistics.median(equal):.1f} %" if equal else ""
        said.append(
            f"{name}: multilevel needs {share:.2f} of the work of {rates} (median), "
            f"{'at most half' if share <= 0.5 else '**not** at most half'}{then}."
        )
    spent = [pair for model in NAMES for pair in _work_pairs(records, model)]
    if spent:
        said.append(f"All networks pooled, by work until the target multilevel training is {Paired.of(spent)}.")
    errors = {model: _last_errors(records, model) for model in NAMES}
    if all(errors.values()):
        shown = ", ".join(f"{NAMES[model]} {statistics.median(e):.1f} %" for model, e in errors.items())
        stable = [m for m in NAMES if m != "resnet"]
        contests = [_accuracy_pairs(records, model) for model in stable]
        lower = [NAMES[m] for m in stable if statistics.median(errors[m]) < statistics.median(errors["resnet"])]
        said.append(
            f"Test error after all epochs of all levels: {shown} (medians); "
            + (f"lower than the ResNet's: {', '.join(lower)}" if lower else "**none is lower than the ResNet's**")
            + f". Pooled, the stable networks against the ResNet: {Paired.of(itertools.chain(*contests))}."
        )
    return "\n\n".join(said)


def _work_pairs(records: Sequence[Record], model: str) -> list[tuple[float, float]]:
    """Negative work of multilevel training and of the best cold start, seed by seed, so that larger is better."""
    shares = (_share(r, records) for r in _chosen(records, model, "until the target"))
    return [(-share, -1.0) for share in shares if share is not None]


def _accuracy_pairs(records: Sequence[Record], model: str) -> list[tuple[float, float]]:
    """Test accuracies of a network and of the ResNet after all levels, seed by seed."""
    ours, theirs = (_chosen(records, name, "all levels") for name in (model, "resnet"))
    return pairs(ours, theirs, lambda r: percents([r], "test_accuracy")[0])


def _last_errors(records: Sequence[Record], model: str) -> list[float]:
    return [100 - 100 * r.values["test_accuracy"] for r in _chosen(records, model, "all levels") if not r.diverged]


def _draw(records: Sequence[Record]) -> Figure:
    figure = canvas(10.5, 3.6)
    deep, *_ = shades = colours(4)
    panels = figure.subplots(1, len(NAMES), sharey=True)
    for axes, (model, name) in zip(panels, NAMES.items(), strict=True):
        for r in _chosen(records, model, "cold"):
            _line(axes, r.values.get("curve", []), deep, f"cold, {LEVELS[-1]} layers")
        for r in _chosen(records, model, "all levels"):
            curve = r.values.get("curve", [])
            for colour, layers in zip(shades[1:], LEVELS, strict=True):
                _line(axes, [p for p in curve if p[0] == layers], colour, f"multilevel, {layers} layers")
        axes.axhline(100 * TARGET, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        axes.set(title=name, xlabel="million layer evaluations")
        axes.grid(axis="y")
    panels[0].set_ylabel("validation accuracy, %")
    key(figure, _made(records))
    heading(figure, "MNIST on three levels and from a cold start")
    return figure


def _line(axes: Any, points: Sequence[Sequence[float]], colour: str, label: str) -> None:
    axes.plot([p[1] / 1e6 for p in points], [100 * p[2] for p in points], "o-", ms=3, color=colour, label=label)


EXPERIMENT = Experiment(
    name="mnist-levels",
    title="MNIST on three levels of 4, 8 and 16 layers",
    source="as in 1705.03341, section 6.4, with our sizes",
    case=Config,
    cases=cases,
    run=run,
    render=render,
    values=Values,
    cost=lambda case: 2.0 + case.images * case.epochs * (28 if case.start == "all levels" else 16) * 5e-5,
)
