"""The course of a training: loss, score and gradient norm, epoch by epoch."""

from __future__ import annotations

__all__ = ["training"]

from typing import Any

from liouville.report.page.blocks import Chart, Section, Table, axis, number
from liouville.report.page.record import Record
from liouville.report.style import HELD, NORM, TRAIN, percent

_ROWS = 12  # of the table of the curves


def training(record: Record) -> Section:
    """Its three curves, and the epochs of some of them as a table."""
    score = record.score_name
    unit = "accuracy, %" if score == "accuracy" else "r²"
    if not record.history:
        return Section("Training", "Not applicable: no epoch was completed.")
    epochs = [r["epoch"] for r in record.history]
    best = int(record.metrics.get("best_epoch") or 0)
    factor = 100 if score == "accuracy" else 1
    panels: list[tuple[str, str, float, bool]] = [("loss", "loss", 1, True), (score, unit, factor, False)]
    data: list[dict[str, Any]] = []
    layout: dict[str, Any] = {"grid": {"rows": 1, "columns": 3, "pattern": "independent"}, "height": 320}
    for k, (key, title, times, log) in enumerate((*panels, ("gradient_norm", "gradient norm", 1, True)), 1):
        at = "" if k == 1 else str(k)
        for part, name, colour, dash in (("", "training", TRAIN, "solid"), ("validation_", "validation", HELD, "dot")):
            values = [r.get(f"{part}{key}") for r in record.history]
            if all(value is None for value in values):
                continue
            only = key == "gradient_norm"
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines" if len(epochs) > 1 else "markers",
                    "x": epochs,
                    "y": [None if v is None else times * v for v in values],
                    "name": "gradient norm" if only else name,
                    "showlegend": k == 1,
                    "line": {"color": NORM if only else colour, "dash": dash, "width": 2},
                    "xaxis": f"x{at}",
                    "yaxis": f"y{at}",
                }
            )
        layout[f"xaxis{at}"] = axis("epoch")
        layout[f"yaxis{at}"] = axis(title, **({"type": "log", "exponentformat": "power"} if log else {}))
        if best:
            line = {"color": "@soft", "dash": "dash", "width": 1}
            ends = {"type": "line", "xref": f"x{at}", "yref": f"y{at} domain", "x0": best, "x1": best, "y0": 0, "y1": 1}
            layout.setdefault("shapes", []).append({**ends, "line": line})
    first, last = record.history[0], record.history[-1]
    lead = f"The training loss went from {number(first['loss'])} to {number(last['loss'])} in {len(epochs)} epochs."
    if best and record.history[best - 1].get("validation_loss") is not None:
        held = record.history[best - 1]
        value = held[f"validation_{score}"]
        shown = percent(value) if score == "accuracy" else f"r² = {number(value)}"
        lead += f" The weights are those of epoch {best} (dashed line), the best on held-out samples: {shown} there."
    return Section(
        "Training",
        lead,
        [Chart(f"Curves over the epochs. {lead}", {"data": data, "layout": layout}, _numbers(record, unit, factor))],
    )


def _numbers(record: Record, unit: str, factor: float) -> Table:
    score, stride = record.score_name, max(1, (len(record.history) - 1) // (_ROWS - 1))
    chosen = [*record.history[:-1:stride], record.history[-1]]
    keys = ("loss", f"validation_{'loss'}", score, f"validation_{score}", "gradient_norm")
    rows = [
        [
            number(r["epoch"]),
            *(number(None if r.get(k) is None else (factor if score in k else 1) * r[k]) for k in keys),
        ]
        for r in chosen
    ]
    head = ("epoch", "loss", "validation loss", unit, f"validation {unit}", "gradient norm")
    return Table("Some of the epochs", head, rows, folded=True)
