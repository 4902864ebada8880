"""Several runs beside each other: a table, their validation curves, and their gradient norms."""

from __future__ import annotations

__all__ = ["compared"]

from collections.abc import Sequence
from typing import Any

from liouville.report.page.blocks import Block, Chart, Section, Table, axis, chart_text, number
from liouville.report.page.gradients import Norms, curve
from liouville.report.page.record import Record
from liouville.report.style import percent

_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def compared(records: Sequence[Record], norms: Sequence[Norms | str]) -> Section:
    """What differs between the runs.

    Args:
        records: two or more.
        norms: of each, from `gradients.norms_of`.
    """
    blocks: list[Block] = [_table(records)]
    curves = [_curves(records)]
    found = [(k, record, n) for k, (record, n) in enumerate(zip(records, norms, strict=True)) if isinstance(n, Norms)]
    if len(found) > 1:
        data = [t for k, record, n in found for t in curve(n, chart_text(record.name), *_line(k, len(records)))]
        layout = {
            "height": 380,
            "xaxis": axis("layers between"),
            "yaxis": axis("norm", type="log", exponentformat="power"),
        }
        rows = [
            (record.name, number(float(n.median[-1])), number(float(n.least.min())), number(float(n.largest.max())))
            for _, record, n in found
        ]
        head = ("run", "median through all layers", "least", "largest")
        alt = "Gradient norms over the number of layers between, a line for each run, a band for its samples."
        curves.append(Chart(alt, {"data": data, "layout": layout}, Table("Gradient norms", head, rows, folded=True)))
    blocks += [chart for chart in curves if chart is not None]
    return Section("The runs beside each other", _lead(records), blocks)


def _scores(record: Record) -> str:
    value = record.metrics.get(f"test_{record.score_name}")
    if value is None:
        return "–"
    return percent(value) if record.score_name == "accuracy" else f"r² {number(value)}"


def _lead(records: Sequence[Record]) -> str:
    names = {(r.facts.name, r.score_name) for r in records}
    known = [(r.metrics[f"test_{r.score_name}"], r) for r in records if f"test_{r.score_name}" in r.metrics]
    if len(names) > 1 or len(known) < 2:
        return (
            f"{len(records)} runs; their scores are of different data, and are not compared."
            if len(names) > 1
            else (f"{len(records)} runs.")
        )
    best = max(value for value, _ in known)
    first = [record for value, record in known if value == best]
    if len(first) == len(known):
        return f"All {len(records)} runs reach {_scores(first[0])} on the test part of {first[0].facts.name}."
    where = f"on the test part of {first[0].facts.name}"
    return f"The best of {len(records)} runs {where}: {first[0].name}, {_scores(first[0])}."


def _table(records: Sequence[Record]) -> Table:
    head = ("run", "data", "network", "parameters", "epochs", "seconds", "test score", "test loss", "certificate")
    rows = []
    for r in records:
        holds = "–" if r.certificate is None else "holds" if r.certificate.holds else "broken"
        seconds = r.metrics.get("seconds")
        rows.append(
            (
                r.name,
                r.facts.name,
                r.what.get("Network", "–"),
                number(r.metrics.get("parameters")),
                number(len(r.history)),
                "–" if seconds is None else f"{seconds:.1f}",
                _scores(r),
                number(r.metrics.get("test_loss")),
                holds,
            )
        )
    return Table("The runs", head, rows)


def _line(k: int, runs: int) -> tuple[str, str]:
    return f"@c{k}/{runs}", _DASHES[k % len(_DASHES)]


def _curves(records: Sequence[Record]) -> Chart | None:
    data: list[dict[str, Any]] = []
    for k, record in enumerate(records):
        key = "validation_loss" if any(r.get("validation_loss") is not None for r in record.history) else "loss"
        if not record.history:
            continue
        colour, dash = _line(k, len(records))
        name = chart_text(record.name) + ("" if key == "validation_loss" else " (training)")
        y = [r.get(key) for r in record.history]
        line = {"color": colour, "dash": dash, "width": 2}
        x = [r["epoch"] for r in record.history]
        data.append({"type": "scatter", "mode": "lines", "x": x, "y": y, "name": name, "line": line})
    if not data:
        return None
    layout = {
        "height": 380,
        "xaxis": axis("epoch"),
        "yaxis": axis("validation loss", type="log", exponentformat="power"),
    }
    return Chart(
        "Validation loss over the epochs, one line for each run.",
        {"data": data, "layout": layout},
    )
