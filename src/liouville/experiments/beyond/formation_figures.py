"""The pictures of `closed_loop`: paths of the robots in the plane, distances over time, the robots in motion."""

from __future__ import annotations

__all__ = ["Shown", "in_motion", "paths_and_distances"]

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from liouville.experiments.beyond.formation import LINKS, NEAR, ROBOTS, STATES, gaps, targets
from liouville.report.style import DARK, GREY, canvas, colours, heading, styled

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_REACH = 2.9  # of the plane that is drawn
_HELD = 15  # frames of the end
_TAIL = 12  # steps of its path that a robot trails


class Shown(NamedTuple):
    """One roll-out, (steps + 1, 48), and the name of its controller."""

    title: str
    states: Tensor

    @property
    def places(self) -> Tensor:
        """Where the robots are, (steps + 1, 12, 2)."""
        return targets() + self.states.unflatten(-1, (ROBOTS, STATES))[..., :2]


def paths_and_distances(shown: Sequence[Shown], step: float) -> Figure:
    """A panel of paths for each controller, and one with the closest neighbours over time."""
    with styled():
        figure = canvas(4.0 * len(shown) + 3.6, 4.3)
        *panels, last = figure.subplots(1, len(shown) + 1, width_ratios=(*[1.0] * len(shown), 0.9))
        for axes, one in zip(panels, shown, strict=True):
            _plane(axes, one.title)
            for i in range(ROBOTS):
                axes.plot(*one.places[:, i].unbind(1), color=_shade(i), linewidth=1.3, zorder=2)
            axes.scatter(*one.places[0].unbind(1), s=26, facecolors="white", edgecolors=_shades(), zorder=3)
            axes.scatter(*one.places[-1].unbind(1), s=26, c=_shades(), linewidths=0, zorder=4)
        time = step * torch.arange(len(shown[0].states))
        for colour, one in zip(colours(len(shown)), shown, strict=True):
            last.plot(time, gaps(one.states).amin(1), color=colour, label=one.title)
        last.axhline(NEAR, color=DARK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        last.set(xlabel="time (s)", ylim=(0, 1.1), title="closest neighbours")
        last.grid(axis="y")
        last.legend(loc="lower right")
        note = "open: start, filled: after 3 s, crosses: where each should stand; closer than the dashed line costs"
        heading(figure, "Neighbours that change places", note)
    return figure


def in_motion(shown: Sequence[Shown], step: float) -> FuncAnimation:
    """The robots and their links, side by side for each controller; the end stays for a second."""
    from matplotlib.animation import FuncAnimation

    steps = len(shown[0].states) - 1
    with styled():
        figure = canvas(3.6 * len(shown), 4.2)
        parts = []
        for axes, one in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            _plane(axes, one.title)
            links = [axes.plot([], [], color=GREY, linewidth=0.9, zorder=1)[0] for _ in LINKS]
            tails = [axes.plot([], [], color=_shade(i), linewidth=1.0, alpha=0.6, zorder=2)[0] for i in range(ROBOTS)]
            dots = axes.scatter(*one.places[0].unbind(1), s=42, c=_shades(), linewidths=0, zorder=3)
            parts.append((one, links, tails, dots))
        title = heading(figure, "Neighbours that change places, 0.00 s")
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # keep the layout in every frame

    def draw(k: int) -> list[object]:
        for one, links, tails, dots in parts:
            here = one.places[k]
            for line, (i, j) in zip(links, LINKS, strict=True):
                line.set_data(*here[[i, j]].mT)
            for i, line in enumerate(tails):
                line.set_data(*one.places[max(0, k - _TAIL) : k + 1, i].mT)
            dots.set_offsets(here.numpy())
        title.set_text(f"Neighbours that change places, {k * step:.2f} s")
        return [part for _, links, tails, dots in parts for part in (*links, *tails, dots)]

    frames = [*range(steps + 1), *[steps] * _HELD]
    return FuncAnimation(figure, draw, frames=frames, blit=False)  # type: ignore[arg-type]


def _plane(axes: Axes, title: str) -> None:
    axes.scatter(targets()[:, 0], targets()[:, 1], s=30, marker="x", color=GREY, linewidths=0.8, zorder=1)
    axes.set(xlim=(-_REACH, _REACH), ylim=(-_REACH, _REACH), aspect="equal", xticks=[], yticks=[], title=title)
    axes.spines[:].set(visible=True, color="#CCCCCC")


def _shade(i: int) -> str:
    """Neighbours have different colours."""
    return colours(4)[i % 4]


def _shades() -> list[str]:
    return [_shade(i) for i in range(ROBOTS)]
