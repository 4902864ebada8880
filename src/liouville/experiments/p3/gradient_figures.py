"""The figures of `gradients`: sensitivities by iteration, as batch means and of single samples, and loss gradients."""

from __future__ import annotations

__all__ = ["by_iteration", "loss_gradients"]

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from liouville.experiments.records import Record
from liouville.report.style import DARK, canvas, colours, heading, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEAST = 1e-40  # smaller values lie below the figure
Named = Sequence[tuple[str, Record]]


def by_iteration(shown: Named) -> Figure:
    """One column per network: above the norm of the batch's mean matrix, below the norms of single samples."""
    with styled():
        figure = canvas(1.0 + 3.0 * len(shown), 6.4)
        rows = figure.subplots(2, len(shown), sharex=True, sharey="col", squeeze=False)
        for (name, record), above, below in zip(shown, *rows, strict=True):
            values = record.values
            for k, depth in enumerate(values["depths"]):
                colour = _shade(depth)
                above.plot(values["iterations"], _positive(values["mean"][k]), color=colour, label=f"$l$ = {depth}")
                below.plot(values["iterations"], _positive(values["median"][k]), color=colour)
                ends = (_positive(values[key][k]) for key in ("least", "most"))
                below.fill_between(values["iterations"], *ends, color=colour, alpha=0.13, linewidth=0)
            above.set_title(name)
            below.set_xlabel("iteration")
            for axes in (above, below):
                _axes(axes)
                axes.axhline(1.0, color=DARK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        rows[0][0].set_ylabel(r"of the batch's mean $\partial y_N / \partial y_l$")
        rows[1][0].set_ylabel(r"of single samples' $\partial y_N / \partial y_l$")
        rows[0][-1].legend(*rows[0][0].get_legend_handles_labels(), loc="center right", handlelength=1.2)
        note = "spectral norms; below: line: median, band: least to largest sample; dashed: H1's bound 1"
        least = ", ".join(f"{min(map(min, record.values['least'])):.3g}" for _, record in shown)
        heading(
            figure, f"Least norm of any sample while the double moons are learned, from left to right: {least}", note
        )
    return figure


def loss_gradients(shown: Named) -> Figure:
    """||dL/dtheta|| over the iterations, one line per network, with its final accuracy."""
    with styled():
        figure = canvas(7.4, 4.2)
        axes = figure.subplots()
        for (name, record), colour in zip(shown, colours(len(shown)), strict=True):
            norms, every = _positive(record.values["gradients"]), record.case.every
            label = f"{name}: test accuracy {100 * record.values['accuracy']:.1f} %"
            axes.plot([every * k + 1 for k in range(len(norms))], norms, color=colour, label=label, linewidth=1.2)
        axes.set(xlabel="iteration", title=r"$\|\partial L / \partial \theta\|$ of the layers")
        _axes(axes)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=2)
        heading(figure, "Loss gradients of the weights while the double moons are learned")
    return figure


def _axes(axes: Axes) -> None:
    axes.set_yscale("log")
    if axes.get_ylim()[0] < _LEAST:
        axes.set_ylim(_LEAST, 100.0)
    axes.grid(axis="y")


def _positive(values: Sequence[float]) -> list[float]:
    return [x or math.nan for x in values]  # a log scale has no 0


def _shade(depth: int) -> Any:
    """Colours from light to dark for l = 1 ... 61."""
    import matplotlib

    return matplotlib.colormaps["viridis"](0.9 - 0.85 * min(1.0, (depth - 1) / 60))
