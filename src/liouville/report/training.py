"""Training curves: loss, score and gradient norm over the epochs; for regression, predictions against targets."""

from __future__ import annotations

__all__ = ["predictions", "training_curves"]

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from liouville.report.style import GREY, HELD, NORM, TRAIN, canvas, heading, key, percent, styled
from liouville.train import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DASHED: Any = (0, (4, 1.5))


def training_curves(
    history: History | Sequence[Mapping[str, Any]], score_name: str = "accuracy", best_epoch: int = 0
) -> Figure:
    """Loss on a logarithmic axis, score, and gradient norm, epoch by epoch.

    Args:
        history: what `liouville.train.fit` returns, or its records.
        score_name: ``accuracy`` or ``r2``; a history knows its own.
        best_epoch: epoch to mark; 0 marks none; a history knows its own. A line marks each change of ``layers``.

    Raises:
        ValueError: if there is no record.
    """
    records: Sequence[Mapping[str, Any]]
    if isinstance(history, History):
        records, score_name, best_epoch = history.records(), history.score_name, history.best_epoch
    else:
        records = history
    if not records:
        raise ValueError("there is no epoch to draw.")
    epochs = [r["epoch"] for r in records]
    with styled():
        figure = canvas(9.6, 3.7)
        loss, score, norm = figure.subplots(1, 3)
        _pair(loss, epochs, records, "loss", "loss")
        loss.set_yscale("log")
        _plain_log(loss)
        percentage = 100 if score_name == "accuracy" else 1
        unit = "accuracy, %" if score_name == "accuracy" else "r²"
        _pair(score, epochs, records, score_name, unit, percentage)
        low, high = score.get_ylim()
        score.set_ylim(low, min(high, 1.015 * percentage))
        _line(norm, epochs, [r["gradient_norm"] for r in records], NORM, "gradient norm")
        norm.set_yscale("log")
        _plain_log(norm)
        norm.set_title("gradient norm, mean of the epoch")
        _name_levels(loss, records)
        for axes in (loss, score, norm):
            axes.set_xlabel("epoch")
            axes.set_xlim(min(epochs) - 0.4, max(epochs) + 0.4)
            axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
            axes.grid(axis="y")
            for epoch in _doublings(records):
                axes.axvline(epoch - 0.5, color=GREY, linewidth=0.8, zorder=1)
            if best_epoch:
                axes.axvline(best_epoch, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        key(figure, _note(records, best_epoch), handlelength=1.8)
        heading(figure, _title(records, score_name, best_epoch))
    return figure


def predictions(predicted: Tensor, targets: Tensor, r2: float, target: str = "target") -> Figure:
    """Predictions against targets, one dot per test sample; the diagonal is where they agree.

    Args:
        predicted, targets: (samples,) or (samples, outputs), in the unit that the axes show.
        r2: the fraction of the variance explained, for the title.
        target: what is predicted, with its unit.
    """
    x, y = targets.detach().cpu().flatten().tolist(), predicted.detach().cpu().flatten().tolist()
    with styled():
        figure = canvas(5.2, 5.2)
        axes = figure.subplots()
        low, high = min(*x, *y), max(*x, *y)
        pad = 0.04 * (high - low)
        axes.plot([low, high], [low, high], color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        axes.scatter(x, y, s=16, color=TRAIN, alpha=0.65, linewidths=0)
        axes.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + pad), aspect="equal")
        axes.set_xlabel(target)
        axes.set_ylabel("prediction, in the same unit")
        axes.grid()
        better = f"The network explains {percent(r2)} of the test variance"
        heading(figure, better if r2 > 0 else f"The network predicts no better than the mean (r² = {r2:.2f})")
    return figure


def _pair(
    axes: Axes, epochs: list[int], records: Sequence[Mapping[str, Any]], key: str, title: str, factor: float = 1
) -> None:
    _line(axes, epochs, [factor * r[key] for r in records], TRAIN, "training")
    held = [r.get(f"validation_{key}") for r in records]
    if all(value is not None for value in held):
        _line(axes, epochs, [factor * value for value in held if value is not None], HELD, "validation", _DASHED)
    axes.set_title(title)


def _doublings(records: Sequence[Mapping[str, Any]]) -> list[int]:
    """The first epoch at every depth except the first."""
    return [b["epoch"] for a, b in itertools.pairwise(records) if a.get("layers") != b.get("layers")]


def _name_levels(axes: Axes, records: Sequence[Mapping[str, Any]]) -> None:
    """The number of layers at the bottom of each level, if there are several."""
    starts = _doublings(records)
    for epoch in [records[0]["epoch"], *starts] if starts else ():
        layers = next(r["layers"] for r in records if r["epoch"] == epoch)
        axes.annotate(
            f"{layers} layers" if epoch == records[0]["epoch"] else f"{layers}",
            (epoch - 0.5, 0),
            xycoords=("data", "axes fraction"),
            xytext=(2, 3),
            textcoords="offset points",
            fontsize=7,
            color=GREY,
        )


def _line(axes: Axes, epochs: list[int], values: list[float], colour: str, label: str, dashes: Any = "-") -> None:
    marker = "o" if len(epochs) < 20 else None
    axes.plot(epochs, values, color=colour, label=label, marker=marker, markersize=3.5, zorder=2, linestyle=dashes)


def _plain_log(axes: Axes) -> None:
    """Powers of ten if there are several; otherwise plain numbers on the ticks between."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    low, high = axes.get_ylim()
    if low > 0 and math.log10(high / low) < 1.5:
        narrow = math.log10(high / low) < 0.7
        axes.yaxis.set_major_locator(MaxNLocator(5) if narrow else LogLocator(10, subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(low, high)
    axes.yaxis.set_minor_formatter(NullFormatter())


def _title(records: Sequence[Mapping[str, Any]], score_name: str, best_epoch: int) -> str:
    best = records[best_epoch - 1] if best_epoch else None
    if best is None or best.get("validation_loss") is None:
        return f"Training loss {records[0]['loss']:.3g} → {records[-1]['loss']:.3g}{_length(records)}"
    score = best[f"validation_{score_name}"]
    text = f"accuracy {percent(score)}" if score_name == "accuracy" else f"r² {score:.3f}"
    return f"Validation {text} at the best epoch, {best_epoch} of {len(records)}"


def _note(records: Sequence[Mapping[str, Any]], best_epoch: int) -> str:
    if not best_epoch or records[best_epoch - 1].get("validation_loss") is None:
        return ""
    losses = f"training loss {records[0]['loss']:.3g} → {records[-1]['loss']:.3g}{_length(records)}"
    return f"dashed: the best epoch, of validation loss {records[best_epoch - 1]['validation_loss']:.3g}; {losses}"


def _length(records: Sequence[Mapping[str, Any]]) -> str:
    return f" in {len(records)} epoch{'s' * (len(records) > 1)}"
