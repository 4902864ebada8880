"""The answers of a network to the test part: a confusion matrix, residuals, and the surest mistakes on images."""

from __future__ import annotations

__all__ = ["answers"]

import base64
import io
from typing import Any

import torch
from torch import Tensor

from liouville.answering import outputs_of
from liouville.data import Split
from liouville.report.page.blocks import Block, Chart, Gallery, Grid, Section, Table, axis, chart_text, number
from liouville.report.page.record import Record
from liouville.report.style import TRAIN, percent
from liouville.task import Task

_GRID = 20  # classes shown as a matrix; of more, the pairs that are confused most
_PAIRS, _PICTURES, _DOTS = 15, 20, 1500


@torch.no_grad()
def answers(record: Record) -> Section:
    """What the test part says, as far as network and data are at hand."""
    network, split = record.network, record.split
    if network is None or split is None:
        return Section("Answers to the test part", f"Not applicable: {record.lacks}")
    x, y = split.x_test, split.y_test
    scores = outputs_of(network, x).cpu()
    if not split.classes:
        return _residuals(record, split, scores)
    task = Task.of(split.classes, scores.shape[1])
    if isinstance(split.classes, tuple):
        return _by_target(record, y.cpu(), task.labels(scores))
    guess, sure = task.labels(scores), task.probabilities(scores).amax(1)
    return _confusion(record, split, y.cpu(), guess, sure)


def _by_target(record: Record, y: Tensor, guess: Tensor) -> Section:
    """Several targets of classes: how often each is answered correctly."""
    right = (guess == y).double()
    facts = record.facts
    called = facts.targets or tuple(f"target {k}" for k in range(y.shape[1]))
    rows = [
        (called[k], ", ".join(map(str, names[:_PAIRS])), percent(float(right[:, k].mean())))
        for k, names in enumerate(facts.names())
    ]
    lead = f"{len(y):,} test samples, {len(called)} answers each; {percent(float(right.mean()))} of all are correct."
    return Section("Answers to the test part", lead, [Table("By target", ("target", "classes", "correct"), rows)])


def _confusion(record: Record, split: Split, y: Tensor, guess: Tensor, sure: Tensor) -> Section:
    K, names = split.classes, record.names
    counts = torch.bincount(K * y + guess, minlength=K * K).reshape(K, K)
    right = int(counts.diagonal().sum())
    lead = f"{right:,} of {len(y):,} test samples are answered correctly ({percent(right / len(y))})."
    blocks: list[Block] = []
    if K <= _GRID:
        caption = (
            "Confusion matrix: rows are the true classes, columns the answers; darker is a larger share of the row"
        )
        blocks.append(Grid(caption, names, counts.tolist()))
    off = counts - torch.diag(counts.diagonal())
    top = [(int(n), divmod(int(k), K)) for n, k in zip(*off.flatten().sort(descending=True, stable=True), strict=True)]
    pairs = [(names[a], names[b], number(n)) for n, (a, b) in top[:_PAIRS] if n]
    if pairs:
        caption = "Confused most" if K > _GRID else "Confused most, as a list"
        blocks.append(Table(caption, ("true class", "answer", "test samples"), pairs, folded=K <= _GRID))
    if split.x_test.ndim == 4 and split.x_test.shape[1] in (1, 3):
        wrong = (guess != y).nonzero().flatten()
        chosen = wrong[sure[wrong].argsort(descending=True, stable=True)] if len(wrong) else sure.argsort(stable=True)
        chosen = chosen[:_PICTURES]
        pictures = []
        for i in chosen.tolist():
            answer = f"{names[int(guess[i])]} ({min(99.9, 100 * float(sure[i])):.1f} %)"
            pictures.append((_png(split.x_test[i], split), f"answer {answer}, is {names[int(y[i])]}"))
        lead += " Below: the surest mistakes." if len(wrong) else " Below: the least certain answers, all correct."
        blocks.append(Gallery(pictures))
    return Section("Answers to the test part", lead, blocks)


def _png(image: Tensor, split: Split) -> str:
    """A data URI of one image; dark ink on light paper for one channel."""
    from matplotlib.image import imsave

    low, high = float(split.x_test.min()), float(split.x_test.max())
    shown = ((image.cpu().double() - low) / max(high - low, 1e-12)).clamp(0, 1)
    pixels = (1 - shown[:1]).expand(3, -1, -1) if len(image) == 1 else shown
    return png(pixels.permute(1, 2, 0), imsave)


def png(pixels: Tensor, imsave: Any = None) -> str:
    """A data URI of (height, width, 3 or 4) values in [0, 1], the first row at the top."""
    if imsave is None:
        from matplotlib.image import imsave
    target = io.BytesIO()
    imsave(target, (255 * pixels).round().byte().numpy(), format="png", metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(target.getvalue()).decode("ascii")


def _residuals(record: Record, split: Split, scores: Tensor) -> Section:
    """Predictions and residuals, in the targets' own unit where the facts know it."""
    facts, targets = record.facts, split.y_test.reshape(len(split.y_test), -1).double().cpu()
    try:
        predicted, wanted = facts.answers(scores), facts.answers(targets)
    except ValueError:  # a scale that does not fit
        predicted, wanted = scores, targets
    assert isinstance(predicted, Tensor) and isinstance(wanted, Tensor)
    unit = "" if facts.target_scale is not None or record.facts.target else ", as the network was given it"
    score = Task("least-squares", 0).score(scores, targets)
    off = predicted - wanted
    share = (
        f"The network explains {percent(score)} of the test variance."
        if score > 0
        else (f"The network predicts no better than the mean (r² = {number(score)}).")
    )
    lead = f"{share} Half of the predictions are off by at most {number(float(off.abs().median()))}."
    called = chart_text(facts.target) if facts.target else "target"
    some = torch.linspace(0, len(off) - 1, min(len(off), _DOTS)).long()
    blocks: list[Block] = []
    for k in range(min(off.shape[1], 3)):
        which = "" if off.shape[1] == 1 else f" {k}"
        true, guess = wanted[some, k].tolist(), predicted[some, k].tolist()
        low, high = min(*true, *guess), max(*true, *guess)
        dots = {"type": "scatter", "mode": "markers", "marker": {"color": TRAIN, "size": 6, "opacity": 0.6}}
        line = {
            "type": "scatter",
            "mode": "lines",
            "x": [low, high],
            "hoverinfo": "skip",
            "line": {"color": "@ink", "dash": "dash", "width": 1},
        }
        data = [
            {**line, "y": [low, high]},
            {**dots, "x": true, "y": guess},
            {**line, "y": [0, 0], "xaxis": "x2", "yaxis": "y2"},
            {**dots, "x": guess, "y": [g - t for g, t in zip(guess, true, strict=True)], "xaxis": "x2", "yaxis": "y2"},
        ]
        layout = {
            "grid": {"rows": 1, "columns": 2, "pattern": "independent"},
            "showlegend": False,
            "height": 380,
            "xaxis": axis(f"{called}{which}{unit}"),
            "yaxis": axis("prediction"),
            "xaxis2": axis("prediction"),
            "yaxis2": axis("residual, prediction − target"),
        }
        tenths = torch.tensor([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0], dtype=off.dtype)
        found = off[:, k].quantile(tenths).tolist()
        rows = [[f"{100 * float(q):g} %", number(v)] for q, v in zip(tenths, found, strict=True)]
        table = Table(f"Residuals{which}: this share is at most", ("share", "residual"), rows, folded=True)
        alt = f"Left: predictions over targets, around the diagonal. Right: residuals over predictions. {lead}"
        blocks.append(Chart(alt, {"data": data, "layout": layout}, table))
    return Section("Answers to the test part", lead, blocks)
