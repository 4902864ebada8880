"""The picture of `sequences`: every singular value of the sensitivity over time."""

from __future__ import annotations

__all__ = ["singular_values"]

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from liouville.report.style import DARK, canvas, colours, heading, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def singular_values(shown: Mapping[str, Sequence[Sequence[float]]], steps: int) -> Figure:
    """A panel for each network: its singular values, largest first, at evenly spaced times from the first step on."""
    with styled():
        figure = canvas(3.3 * len(shown) + 0.8, 3.9)
        panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for axes, colour, (name, values) in zip(panels, colours(len(shown)), shown.items(), strict=True):
            times = [steps * k / (len(values) - 1) for k in range(len(values))]
            for one in zip(*values, strict=True):
                axes.plot(times, one, color=colour, linewidth=0.7, alpha=0.6)
            axes.axhline(1.0, color=DARK, linewidth=0.9, linestyle=(0, (4, 3)))
            axes.set(yscale="log", xlabel="t", title=name)
        panels[0].set_ylabel("singular values of dy$_T$/dy$_t$")
        heading(figure, "Every singular value over time, after training", "digits, one test sequence; dashed: 1")
    return figure
