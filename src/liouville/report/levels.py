"""Multilevel training: validation accuracy by iteration, each depth in its own colour."""

from __future__ import annotations

__all__ = ["convergence_by_level"]

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from liouville.report.style import canvas, colours, heading, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = tuple[int, Sequence[float]]


def convergence_by_level(runs: Mapping[str, Sequence[Curve]], title: str) -> Figure:
    """One panel for each network: score by iteration, counted through the levels.

    Args:
        runs: by network, for every level its layers and the scores at its start and after each iteration, in [0, 1].
        title: the title of the figure.

    Raises:
        ValueError: if there is no run.

    Examples:
        >>> figure = convergence_by_level({"Verlet": [(16, [0.5, 0.9, 1.0]), (32, [0.8, 1.0])]}, "Two levels")
    """
    if not runs:
        raise ValueError("there is no run to draw.")
    depths = sorted({layers for levels in runs.values() for layers, _ in levels})
    shades = dict(zip(depths, colours(max(7, len(depths))), strict=False))
    with styled():
        figure = canvas(3.5 * len(runs) + 0.4, 3.7)
        panels = figure.subplots(1, len(runs), sharey=True, squeeze=False)[0]
        for axes, (name, levels) in zip(panels, runs.items(), strict=True):
            _draw(axes, levels, shades)
            axes.set_title(name)
            axes.set_xlabel("iteration")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(axis="y")
        panels[0].set_ylabel("validation accuracy, %")
        handles = [panels[0].plot([], [], color=shades[N], label=f"{N} layers")[0] for N in depths]
        figure.legend(
            handles=handles, loc="outside lower right", ncols=3 * len(runs), columnspacing=1.2, handlelength=1.2
        )
        heading(figure, title)
    return figure


def _draw(axes: Axes, levels: Sequence[Curve], shades: Mapping[int, str]) -> None:
    """A dot at the start; a level starts at the iteration where the previous one ended."""
    begin = 0
    for layers, scores in levels:
        percents = [100 * score for score in scores]
        axes.plot(range(begin, begin + len(scores)), percents, color=shades[layers])
        axes.plot(begin, percents[0], "o", color=shades[layers], markersize=4)
        begin += len(scores) - 1
