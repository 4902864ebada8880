"""Real tables shipped with scikit-learn: our networks, its multilayer perceptron and its gradient boosting.

Inputs (and real targets) have mean 0 and standard deviation 1 in the training part, digits lie in [0, 1]; each seed
splits the samples anew. Every method runs with its defaults, and with the best of six settings: each is fitted to four
fifths of the training part and compared on the rest, by accuracy or R2, then by the loss. scikit-learn's best setting
is fitted again to the whole training part; ours, also with defaults, keeps the weights trained without the held-out
part. The test part is read once.
"""

from __future__ import annotations

__all__ = ["EXPERIMENT", "Config", "cases", "render", "run"]

import itertools
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import nn

from liouville.data import Split
from liouville.experiments.comparing import spread
from liouville.experiments.experiment import Experiment, Rendering, Table
from liouville.experiments.paired import Paired, pairs
from liouville.experiments.records import Record
from liouville.runs import Plan
from liouville.train import Settings, evaluate, fit
from liouville.train.trainable import task_of

DATA = ("digits", "breast-cancer", "wine", "iris", "diabetes")
METHODS = {"ours": "ours", "perceptron": "scikit-learn's MLP", "boosting": "scikit-learn's HistGradientBoosting"}
SETTINGS = ("default", "chosen")
HELD = 0.2  # fraction of the training part for the choice
GRIDS: dict[str, tuple[dict[str, Any], ...]] = {
    "ours": tuple({"lr": lr, "decay": decay} for lr in (0.003, 0.01, 0.03) for decay in (1e-3, 1e-1)),
    "perceptron": tuple(
        {"hidden_layer_sizes": hidden, "alpha": alpha, "max_iter": 500}
        for hidden in ((100,), (100, 100))
        for alpha in (1e-4, 1e-2, 1.0)
    ),
    "boosting": tuple({"learning_rate": lr, "max_leaf_nodes": leaves} for lr in (0.03, 0.1, 0.3) for leaves in (7, 31)),
}


@dataclass(frozen=True)
class Config:
    """One method on one division of one table.

    Args:
        data: a name of `DATA`.
        method: a name of `METHODS`.
        settings: ``"default"``, or ``"chosen"`` among six.
        seed: seed of the splits, of initial weights and of training.
    """

    data: str
    method: str
    settings: str
    seed: int


class Values(TypedDict):
    """The recorded values of a case."""

    score: float
    seconds: float
    chosen: str


def cases(seeds: int, quick: bool) -> list[Config]:
    """Every method on every table, with both kinds of settings."""
    tables = ("wine", "diabetes") if quick else DATA
    kinds = itertools.product(tables, METHODS, SETTINGS, range(1 if quick else seeds))
    return [Config(*kind) for kind in kinds]


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Fit, choose and test one method on one division."""
    split = Plan.of(config.data).changed(data_options={"seed": config.seed}).load()
    grid = ({},) if config.settings == "default" else GRIDS[config.method]
    start = time.perf_counter()
    score, chosen = (_ours if config.method == "ours" else _theirs)(config, split, grid)
    return {"score": score, "seconds": round(time.perf_counter() - start, 3), "chosen": chosen}


def _ours(config: Config, split: Split, grid: Sequence[Mapping[str, Any]]) -> tuple[float, str]:
    """The recipe of the data set with the changes of the grid; a default run validates as the recipe does."""
    found: list[tuple[float, float, nn.Module, str]] = []
    for options in grid:
        plan = Plan.of(config.data).changed(seed=config.seed, **options, **({"validation": HELD} if options else {}))
        network, settings = plan.network(split.facts()), plan.fit_settings()
        assert isinstance(settings, Settings)
        metrics = fit(network, split, settings, test=False).metrics
        name = task_of(network, split).score_name
        found.append((metrics[f"validation_{name}"], -metrics["validation_loss"], network, _words(options)))
    _, _, best, words = max(found, key=lambda one: one[:2])
    return evaluate(best, split.x_test, split.y_test, task_of(best, split))[name], words


def _theirs(config: Config, split: Split, grid: Sequence[Mapping[str, Any]]) -> tuple[float, str]:
    from sklearn.metrics import log_loss, mean_squared_error
    from threadpoolctl import threadpool_limits

    build = _estimator(config.method, bool(split.classes), config.seed)
    x, y = split.x_train.numpy(), split.y_train.flatten().numpy()
    options: Mapping[str, Any] = {}
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not yet converged: its defaults stop after 200 passes
        if len(grid) > 1:
            held = split.holdout(HELD, torch.Generator().manual_seed(config.seed))
            inner, target = held.x_train.numpy(), held.y_train.flatten().numpy()
            x_held, y_held = held.x_validation.numpy(), held.y_validation.flatten().numpy()
            scores = []
            for options in grid:
                model = build(**options).fit(inner, target)
                if split.classes:
                    loss = log_loss(y_held, model.predict_proba(x_held), labels=model.classes_)
                else:
                    loss = mean_squared_error(y_held, model.predict(x_held))
                scores.append((model.score(x_held, y_held), -loss))
            options = grid[scores.index(max(scores))]
        model = build(**options).fit(x, y)
    return float(model.score(split.x_test.numpy(), split.y_test.flatten().numpy())), _words(options)


def _estimator(method: str, classes: bool, seed: int) -> Callable[..., Any]:
    from sklearn import ensemble, neural_network

    kind = "Classifier" if classes else "Regressor"
    module, name = {"perceptron": (neural_network, "MLP"), "boosting": (ensemble, "HistGradientBoosting")}[method]
    return lambda **options: getattr(module, name + kind)(random_state=seed, **options)


def _words(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in options.items())


def render(records: Sequence[Record], folder: Path) -> Rendering:
    """Scores, seconds, and the tables where ours is ahead or behind."""
    kinds = list(itertools.product(SETTINGS, METHODS))
    found = {
        (data, *kind): [r for r in records if (r.case.data, r.case.settings, r.case.method) == (data, *kind)]
        for data in DATA
        for kind in kinds
    }
    tables = [data for data in DATA if any(found[data, *kind] for kind in kinds)]
    head = ("data", *(f"{METHODS[method]}, {settings}" for settings, method in kinds))
    scores = [(_data(data), *(spread(_scores(found[data, *kind]), _digits(data)) for kind in kinds)) for data in tables]
    seconds = [(data, *(spread(_seconds(found[data, *kind])) for kind in kinds)) for data in tables]
    note = 'On one thread, next to other runs; "chosen" includes the six fits of the choice.'
    said = [*(_verdict(settings, found, tables) for settings in SETTINGS), _slower(found, tables)]
    text = "\n\n".join(filter(None, said))
    shown = [
        Table("Test accuracy in percent, or R2", head, scores, _NOTE),
        Table("Seconds of training", head, seconds, note),
    ]
    return Rendering(text, shown if tables else [])


_NOTE = "Defaults: ours are the data set's recipe, scikit-learn's are the same for all."


def _verdict(settings: str, found: Mapping[tuple[str, str, str], Sequence[Record]], tables: Sequence[str]) -> str:
    """Where the median of ours is higher or lower, and the verdict from pairs of all tables."""
    better: list[str] = []
    equal: list[str] = []
    worse: list[str] = []
    contests: dict[str, list[tuple[float, float]]] = {"perceptron": [], "boosting": []}
    for data in tables:
        middle = {m: statistics.median(v) for m in METHODS if (v := _scores(found[data, settings, m]))}
        if len(middle) < len(METHODS):
            continue
        for m, both in contests.items():
            both += pairs(found[data, settings, "ours"], found[data, settings, m], lambda r: _scores([r])[0])
        rival = max(contests, key=lambda m: middle[m])
        difference, digits = middle["ours"] - middle[rival], _digits(data)
        if round(abs(difference), digits) == 0:
            equal.append(data)
        else:
            where = better if difference > 0 else worse
            where.append(
                f"{data} (by {abs(difference):.{digits}f} {'points' if digits == 1 else ''}".rstrip()
                + f", {METHODS[rival]})"
            )
    if not better + equal + worse:
        return ""
    parts = ((better, "higher on"), (equal, "equal on"), (worse, "lower on"))
    said = "; ".join(f"{verb} {', '.join(names)}" for names, verb in parts if names)
    told = "; ".join(f"{METHODS[m]}: {Paired.of(both)}" for m, both in contests.items())
    return (
        f"With {settings} settings, our median against the better of scikit-learn's two is {said}. All tables pooled, "
        f"ours against {told}."
    )


def _slower(found: Mapping[tuple[str, str, str], Sequence[Record]], tables: Sequence[str]) -> str:
    """The time of ours over the faster of scikit-learn's two, both with defaults."""
    times = []
    for data in tables:
        middle = {m: statistics.median(v) for m in METHODS if (v := _seconds(found[data, "default", m]))}
        if len(middle) == len(METHODS):
            times.append(middle["ours"] / min(middle["perceptron"], middle["boosting"]))
    if not times:
        return ""
    span = f"{min(times):.1f} to {max(times):.1f}"
    return f"With default settings ours takes {span} times as long as the faster of scikit-learn's two."


def _seconds(records: Sequence[Record]) -> list[float]:
    return [r.values["seconds"] for r in records if not r.diverged]


def _scores(records: Sequence[Record]) -> list[float]:
    """Accuracy in percent, or R2; a training that diverged counts as zero."""
    return [0.0 if r.diverged else r.values["score"] * (1 if r.case.data == "diabetes" else 100) for r in records]


def _digits(data: str) -> int:
    return 3 if data == "diabetes" else 1


def _data(data: str) -> str:
    return f"{data} (R2)" if data == "diabetes" else data


EXPERIMENT = Experiment(
    name="tables",
    title="Real tables, compared with scikit-learn",
    source="beyond the papers",
    case=Config,
    cases=cases,
    run=run,
    render=render,
    values=Values,
    cost=lambda case: (2.5 if case.data == "digits" else 0.5) * (7 if case.settings == "chosen" else 1),
)
