"""The figures of `gradients`: sensitivities by iteration, as batch means and of single samples, and loss gradients."""

from __future__ import annotations

__all__ = ["by_iteration", "loss_gradients"]

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from liouville.experiments.records import Record
from liouville.report.style import DARK, canvas, heading, key, look_of, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEAST = 1e-40  # smaller values lie below the figure
Named = Sequence[tuple[str, Record]]


def by_iteration(shown: Named) -> Figure:
    """One column per network: above the norm of the batch's mean matrix, below the norms of single samples."""
    with styled():
        figure = canvas(0.8 + 1.95 * len(shown), 6.0)
        rows = figure.subplots(2, len(shown), sharex=True, sharey="col", squeeze=False)
        for (name, record), above, below in zip(shown, *rows, strict=True):
            values = record.values
            for k, depth in enumerate(values["depths"]):
                colour = _shade(depth)
                above.plot(values["iterations"], _positive(values["mean"][k]), color=colour, label=f"$l$ = {depth}")
                below.plot(values["iterations"], _positive(values["median"][k]), color=colour)
                ends = (_positive(values[key][k]) for key in ("least", "most"))
                below.fill_between(values["iterations"], *ends, color=colour, alpha=0.13, linewidth=0)
            above.set_title("\n".join(textwrap.wrap(name, 21)), fontsize=9)
            below.set_xlabel("iteration")
            for axes in (above, below):
                _axes(axes)
                axes.axhline(1.0, color=DARK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        rows[0][0].set_ylabel(r"of the batch's mean $\partial y_N / \partial y_l$")
        rows[1][0].set_ylabel(r"of single samples' $\partial y_N / \partial y_l$")
        key(figure, "spectral norms; below: line: median, band: least to largest sample; dashed: H1's bound 1")
        least = ", ".join(f"{min(map(min, record.values['least'])):.2g}" for _, record in shown)
        heading(figure, f"Least norm of any sample in training, from left to right: {least}")
    return figure


def loss_gradients(shown: Named) -> Figure:
    """||dL/dtheta|| over the iterations, one line per network, with its final accuracy."""
    with styled():
        figure = canvas(7.4, 4.2)
        axes = figure.subplots()
        for name, record in shown:
            look = look_of(name)
            norms, every = _positive(record.values["gradients"]), record.case.every
            label = f"{name}: test accuracy {100 * record.values['accuracy']:.1f} %"
            axes.plot(
                [every * k + 1 for k in range(len(norms))],
                norms,
                color=look.colour,
                linestyle=look.dashes,
                label=label,
                linewidth=1.3,
            )
        axes.set(xlabel="iteration", title=r"$\|\partial L / \partial \theta\|$ of the layers")
        _axes(axes)
        key(figure, longest=60, handlelength=3.0)
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

    return matplotlib.colormaps["viridis"](0.58 - 0.58 * min(1.0, (depth - 1) / 60))
