"""Decision regions of a network with two inputs."""

from __future__ import annotations

__all__ = ["regions"]

import base64
from typing import Any

import torch
from torch import Tensor

from liouville.answering import evaluation_mode
from liouville.report.page.answers import png
from liouville.report.page.blocks import Chart, Section, Table, axis, chart_text, number
from liouville.report.page.marks import by_pointing, group, listing, marker
from liouville.report.page.record import Record
from liouville.report.plane import shading
from liouville.report.style import colours, percent, strengths
from liouville.task import Task

_SIDE, _SHOWN = 200, 1200


@torch.no_grad()
def regions(record: Record) -> Section | None:
    """The regions, with held-out points; None where inputs are no points of a plane."""
    network, split = record.network, record.split
    if network is None or split is None or not split.classes or split.x_test.shape[1:] != (2,):
        return None
    if isinstance(split.classes, tuple):  # several targets, of which no plane has one colour
        return None
    x, y = split.x_test.to(next(network.parameters())), split.y_test.cpu()
    with evaluation_mode(network):
        scores = torch.cat([network(part) for part in x.split(1000)])
        task = Task.of(split.classes, scores.shape[1])
        (low, high), (columns, rows), probabilities = shading(network, x, task, _SIDE)
    x, guess = x.double().cpu(), task.labels(scores).cpu()
    names = record.names
    data: list[dict[str, Any]] = _boundaries(columns, rows, probabilities)
    for k, name in enumerate(names):
        data.append(group(chart_text(name), x[y == k][:_SHOWN], marker(k, len(names), 6), **listing(len(names))))
    wrong = x[guess != y]
    if len(wrong):
        ring = {"color": "rgba(0,0,0,0)", "size": 12, "line": {"color": "@ink", "width": 1.5}}
        data.append(group("wrong side", wrong, ring, showlegend=True))
    (left, bottom), (right, top) = low.tolist(), high.tolist()
    image = {"source": png(_pixels(probabilities).flip(0)), "xref": "x", "yref": "y", "x": left, "y": top}
    size = {"sizex": right - left, "sizey": top - bottom, "sizing": "stretch", "layer": "below"}
    layout = {
        "images": [image | size],
        "height": 480,
        "xaxis": axis(_column(record, 0), range=[left, right], constrain="domain", showgrid=False, zeroline=False),
        "yaxis": axis(
            _column(record, 1), range=[bottom, top], constrain="domain", showgrid=False, zeroline=False, scaleanchor="x"
        ),
        "hovermode": "closest",
    }
    hits = int((guess == y).sum())
    lead = f"{hits:,} of {len(y):,} test points lie on the right side ({percent(hits / len(y))})."
    table = [(name, number(int((y == k).sum())), percent(_share(guess[y == k] == k))) for k, name in enumerate(names)]
    numbers = Table("Points on the right side", ("class", "test points", "right"), table, folded=True)
    alt = f"The plane, shaded by the class that the network answers, with test points on top. {lead}"
    return Section(
        "Decision regions", lead + by_pointing(len(names)), [Chart(alt, {"data": data, "layout": layout}, numbers)]
    )


def _share(hits: Tensor) -> float:
    return float(hits.double().mean()) if len(hits) else 1.0


def _column(record: Record, k: int) -> str:
    names = record.facts.column_names
    return chart_text(names[k]) if names else f"x{'₁₂'[k]}"


def _pixels(probabilities: Tensor) -> Tensor:
    """(rows, columns, 4): the classes' colours, more opaque where the network is certain, over any page."""
    classes = probabilities.shape[-1]
    rgb = torch.tensor([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colours(classes)]).double()
    certainty = (probabilities.amax(-1, keepdim=True) - 1 / classes) / (1 - 1 / classes)
    alpha = (probabilities @ strengths(classes))[..., None] * (0.2 + 0.8 * certainty) * 1.3
    return torch.cat((probabilities @ rgb, alpha), -1).clamp(0, 1)


def _boundaries(columns: Tensor, rows: Tensor, probabilities: Tensor) -> list[dict[str, Any]]:
    """The lines on which a class draws level with the best of the others; coarser than the shading, to stay small."""
    step = 2
    found: list[dict[str, Any]] = []
    across, up = ([float(f"{v:.4g}") for v in at[::step].tolist()] for at in (columns, rows))
    for k in range(probabilities.shape[-1] if probabilities.shape[-1] > 2 else 1):
        others = torch.cat((probabilities[..., :k], probabilities[..., k + 1 :]), -1).amax(-1)
        margin = (probabilities[..., k] - others)[::step, ::step]
        if margin.min() < 0 < margin.max():
            found.append(
                {
                    "type": "contour",
                    "x": across,
                    "y": up,
                    "z": _packed((100 * margin).round().to(torch.int8)),
                    "contours": {"type": "constraint", "operation": "=", "value": 0},
                    "line": {"color": "@ink", "width": 1},
                    "showlegend": False,
                    "hoverinfo": "skip",
                }
            )
    return found


def _packed(values: Tensor) -> dict[str, str]:
    """A matrix of bytes as plotly reads it: a tenth of its size in digits."""
    content = base64.b64encode(values.contiguous().numpy().tobytes()).decode("ascii")
    return {"dtype": "i1", "shape": ", ".join(map(str, values.shape)), "bdata": content}
