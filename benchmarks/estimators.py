"""How do the estimators' defaults do on scikit-learn's own tables, beside its MLP and its boosting? Nothing is tuned.

Three splits of 75 and 25 %, numbers standardised for the MLP; accuracy or R2, log loss or squared error (of targets in
standard deviations), and CPU seconds of a fit. A table is won or lost where all three splits say so.

    python benchmarks/estimators.py            # prints; --write puts the tables into benchmarks/README.md
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sklearn
import torch
from sklearn import datasets
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tables
from liouville.estimators import HamiltonianClassifier, HamiltonianRegressor

TABLES: dict[str, Callable[..., Any]] = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "breast-cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
    "diabetes": datasets.load_diabetes,
}
OURS = ("ours", "ours, 3 networks")
OTHERS = ("linear", "MLP", "boosting")


class Figures(NamedTuple):
    """Of one fit: accuracy or R2 in %, log loss or squared error, CPU seconds."""

    score: float
    loss: float
    seconds: float


def contestants(classes: bool, seed: int) -> dict[str, Any]:
    """By name, as they come."""
    kind = HamiltonianClassifier if classes else HamiltonianRegressor
    return {
        "ours": kind(random_state=seed),
        "ours, 3 networks": kind(random_state=seed, ensemble=3),
        "linear": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000) if classes else Ridge()),
        "MLP": make_pipeline(StandardScaler(), (MLPClassifier if classes else MLPRegressor)(random_state=seed)),
        "boosting": (HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor)(random_state=seed),
    }


def measured(name: str, seed: int) -> dict[str, Figures]:
    """Every contestant on one split of a table."""
    X, y = TABLES[name](return_X_y=True)
    classes = name != "diabetes"
    A, B, a, b = train_test_split(X, y, random_state=seed, stratify=y if classes else None)
    if not classes:  # for all of them: the MLP's targets have to be scaled by hand
        offset, scale = a.mean(), a.std()
        a, b = (a - offset) / scale, (b - offset) / scale
    found = {}
    for who, model in contestants(classes, seed).items():
        start = time.process_time()
        model.fit(A, a)
        seconds = time.process_time() - start
        loss = log_loss(b, model.predict_proba(B)) if classes else float(np.mean((model.predict(B) - b) ** 2))
        found[who] = Figures(100 * model.score(B, b), loss, seconds)
    return found


def verdict(mine: list[Figures], other: list[Figures]) -> str:
    """Won or lost where every split agrees, else level; the mean difference in points."""
    differences = [m.score - o.score for m, o in zip(mine, other, strict=True)]
    word = "won" if min(differences) > 0 else "lost" if max(differences) < 0 else "level"
    return f"{word} {sum(differences) / len(differences):+.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="splits of each table")
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--write", action="store_true", help="write the tables into the page")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the MLP as it comes
        found = {name: [measured(name, seed) for seed in range(args.seeds)] for name in args.tables}
    figures, pairs = [], []
    for name, splits in found.items():
        row = [name]
        for who in (*OURS, *OTHERS):
            score, loss, seconds = np.mean([split[who] for split in splits], axis=0)
            row.append(f"{score:.1f} ({loss:.3f}) {seconds:.2f} s")
        figures.append(row)
        of = {who: [split[who] for split in splits] for who in (*OURS, *OTHERS)}
        pairs.append([name, *(verdict(of[mine], of[other]) for mine in OURS for other in OTHERS)])
    head = ["table", *OURS, *OTHERS]
    versus = ["table", *(f"{mine} / {other}" for mine in OURS for other in OTHERS)]
    print(tables.plain(head, figures), tables.plain(versus, pairs), sep="\n\n")
    if args.write:
        words = f"torch {torch.__version__}, scikit-learn {sklearn.__version__}, {args.seeds} splits, one thread"
        text = "\n\n".join((words, tables.markdown(head, figures), tables.markdown(versus, pairs)))
        tables.write(Path(__file__).with_name("README.md"), "estimators", text)


if __name__ == "__main__":
    main()
