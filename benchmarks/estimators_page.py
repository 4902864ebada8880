"""What `estimators.py` prints: figures of each table, pairs of methods, and what is lost.

Of a pair and a table, a difference of scores is clear where its mean over the divisions is beyond two standard errors
of that mean. An error is 100 less the score, at least 0.3; an error ratio is the geometric mean over tables, and its
range holds 90 % of 2,000 bootstraps over the tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tables

METHODS = ("linear", "MLP", "boosting", "RealMLP", "ours")
_Figures = dict[tuple[str, str], dict[int, tuple[float, float, float]]]
"""By method and table, then by division: score, loss, seconds."""


def figures(records: Sequence[dict[str, Any]]) -> _Figures:
    """The numbers of every method on every table."""
    found: _Figures = {}
    for r in records:
        found.setdefault((r["method"], r["table"]), {})[r["seed"]] = (r["score"], r["loss"], r["seconds"])
    return found


def paired(found: _Figures, mine: str, other: str) -> dict[str, tuple[Any, Any]]:
    """Both methods' numbers by table, (divisions, 3), of the divisions that both have."""
    pairs = {}
    for method, table in found:
        a, b = found[method, table], found.get((other, table), {})
        common = sorted(a.keys() & b.keys())
        if method == mine and common:
            pairs[table] = tuple(np.array([numbers[seed] for seed in common]) for numbers in (a, b))
    return pairs


def clear(differences: Any) -> int:
    """1 where the mean is clearly above 0, -1 where below."""
    mean = differences.mean()
    error = differences.std(ddof=1) / math.sqrt(len(differences)) if len(differences) > 1 else math.inf
    return 0 if abs(mean) <= 2 * error or not mean else int(math.copysign(1, mean))


def ratio(pairs: dict[str, tuple[Any, Any]], column: int) -> tuple[float, float, float]:
    """Of mean errors (0) or losses (1), and its range."""

    def size(numbers: Any) -> float:
        return max(100 - numbers[:, 0].mean(), 0.3) if column == 0 else max(numbers[:, 1].mean(), 1e-3)

    logs = np.array([math.log(size(a) / size(b)) for a, b in pairs.values()])
    draws = np.random.default_rng(0).choice(logs, (2000, len(logs))).mean(1)
    return math.exp(logs.mean()), *np.exp(np.quantile(draws, (0.05, 0.95))).tolist()


def pair_row(found: _Figures, mine: str, other: str) -> list[str]:
    """What comes of a pair over all tables."""
    pairs = paired(found, mine, other)
    verdicts = [clear(a[:, 0] - b[:, 0]) for a, b in pairs.values()]
    counts = [
        sum(np.median(a[:, 0]) >= np.median(b[:, 0]) for a, b in pairs.values()),
        sum(a[:, 0].mean() >= b[:, 0].mean() - 1 for a, b in pairs.values()),
        sum(a[:, 1].mean() <= b[:, 1].mean() for a, b in pairs.values()),
        sum((a[:, 0] < b[:, 0]).all() for a, b in pairs.values()),
    ]
    error, low, high = ratio(pairs, 0)
    return [
        f"{mine} / {other}",
        "/".join(str(verdicts.count(k)) for k in (1, 0, -1)),
        *(f"{k} of {len(pairs)}" for k in counts[:3]),
        str(counts[3]),
        f"{error:.3f} [{low:.2f}, {high:.2f}]",
        f"{ratio(pairs, 1)[0]:.3f}",
    ]


PAIR_HEAD = ["pair", "won/level/lost", "median no worse", "within 1 point", "loss no worse", "worse in all", "errors"]
PAIR_HEAD += ["losses"]


def goals(found: _Figures, rows: dict[str, int]) -> list[list[str]]:
    """What was asked of the defaults before they were measured, and what came of it."""
    mlp, real = paired(found, "ours", "MLP"), paired(found, "ours", "RealMLP")
    three = paired(found, "ours, 3 networks", "RealMLP")
    n = len(mlp)
    lost = [t for t, (a, b) in mlp.items() if clear(a[:, 0] - b[:, 0]) < 0 or (a[:, 0] < b[:, 0]).all()]
    linear, boosting = paired(found, "ours", "linear"), paired(found, "boosting", "linear")
    above = [t for t, (a, b) in boosting.items() if a[:, 0].mean() > b[:, 0].mean()]
    short = [t for t in above if linear[t][0][:, 0].mean() <= linear[t][1][:, 0].mean()]
    seconds = {t: a[:, 2].mean() for t, (a, _) in mlp.items() if rows[t] < 1000}
    slower = {t: a[:, 2].mean() / b[:, 2].mean() for t, (a, b) in mlp.items() if rows[t] >= 1000}
    no_worse = sum(np.median(a[:, 0]) >= np.median(b[:, 0]) for a, b in mlp.values())
    near = sum(a[:, 0].mean() >= b[:, 0].mean() - 1 for a, b in real.values())
    losses = sum(a[:, 1].mean() <= b[:, 1].mean() for a, b in mlp.values())
    return [
        ["median no worse than the MLP's, 80 % of tables", f"{no_worse} of {n}"],
        ["none lost to the MLP clearly, or in every division", ", ".join(lost) or "none"],
        ["within 1 point of RealMLP, 70 %", f"{near} of {len(real)}"],
        ["3 networks: error at most 1.05 of RealMLP's", f"{ratio(three, 0)[0]:.2f}"],
        ["better than linear wherever boosting is", f"{len(above) - len(short)} of {len(above)}"],
        ["loss no worse than the MLP's, 70 %", f"{losses} of {n}"],
        ["0.5 s below 1,000 rows", f"{min(seconds.values()):.2f} to {max(seconds.values()):.2f} s"],
        ["above, at most twice the MLP's time", f"{min(slower.values()):.1f} to {max(slower.values()):.1f}"],
    ]


def summary(records: Sequence[dict[str, Any]], words: str, page: Path | None) -> None:
    """Print everything, and write it into a page."""
    found = figures(records)
    methods = sorted(dict.fromkeys(m for m, _ in found), key=lambda m: (METHODS.index(m.split(", ")[0]), m))
    names = list(dict.fromkeys(t for _, t in found))
    ours = [m for m in methods if m.startswith("ours")]
    others = [m for m in methods if m not in ours]
    rows = [[name, *(_cell(found.get((m, name))) for m in methods)] for name in names]
    rows.append(["mean", *(_mean(found, m, names) for m in methods)])
    seconds = [[name, *(_seconds(found.get((m, name))) for m in methods)] for name in names]
    pairs = [pair_row(found, mine, other) for mine in ours for other in others if paired(found, mine, other)]
    lost = [line for mine in ours for other in others for line in _lost(found, mine, other)]
    asked = goals(found, {r["table"]: r["rows"] for r in records}) if _complete(found) else []
    parts = [
        (["asked of the defaults", "found"], asked),
        (["table", *methods], rows),
        (["seconds", *methods], seconds),
        (PAIR_HEAD, pairs),
        (["pair", "table", "points worse", "clear", "divisions worse", "loss"], lost),
    ]
    words += f", {len(names)} tables; divisions of each: " + ", ".join(
        f"{m} {'-'.join(map(str, sorted({len(v) for (k, _), v in found.items() if k == m})))}" for m in methods
    )
    print(words, *(tables.plain(head, body) for head, body in parts if body), sep="\n\n")
    if page:
        made = [words, *(tables.markdown(head, body) for head, body in parts if body)]
        tables.write(page, "estimators", "\n\n".join(made))


def _complete(found: _Figures) -> bool:
    """Whether all methods are there, as they come."""
    return {m for m, _ in found} == {*METHODS, "ours, 3 networks"}


def _cell(numbers: Any) -> str:
    if numbers is None:
        return "-"
    score, loss, _ = np.mean(list(numbers.values()), axis=0)
    return f"{score:.1f} ({loss:.3f})"


def _seconds(numbers: Any) -> str:
    return "-" if numbers is None else f"{np.mean(list(numbers.values()), axis=0)[2]:.2f}"


def _mean(found: _Figures, method: str, names: Sequence[str]) -> str:
    own = [np.mean(list(found[method, t].values()), axis=0) for t in names if (method, t) in found]
    score, loss, _ = np.mean(own, axis=0)
    return f"{score:.1f} ({loss:.3f})"


def _lost(found: _Figures, mine: str, other: str) -> list[list[str]]:
    """Every table on which the mean score or loss of a pair is worse."""
    rows = []
    for name, (a, b) in paired(found, mine, other).items():
        points, loss = (a - b)[:, 0], a[:, 1].mean() - b[:, 1].mean()
        if points.mean() < 0:
            verdict = "yes" if clear(points) < 0 else ""
            behind = f"{(points < 0).sum()} of {len(points)}"
            rows.append([f"{mine} / {other}", name, f"{-points.mean():.1f}", verdict, behind, f"{loss:+.3f}"])
    return rows
