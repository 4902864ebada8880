"""The graph that a network is spread over, with the names of its nodes, and what each has to do with the outside."""

from __future__ import annotations

__all__ = ["communication_graph"]

import math
from typing import TYPE_CHECKING, Any

import torch

from liouville.graphs import Pattern
from liouville.report.style import DARK, GREY, canvas, colours, heading, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMED = 60  # nodes whose names can be read


def communication_graph(
    graph: Pattern, title: str = "Communication graph", inputs: Any = None, outputs: Any = None
) -> Figure:
    """Nodes with their names, and who may receive from whom; arrows where a link goes one way.

    Nodes stand where networkx puts them (Kamada-Kawai, or its spring layout), or on a circle without it.

    Args:
        graph: who may receive from whom.
        title: the first line.
        inputs, outputs: how many each node has, a number for each; nodes with outputs are drawn in another colour.
    """
    at = _places(graph)
    M = len(graph)
    inputs, outputs = [list(counts) if counts is not None else [0] * M for counts in (inputs, outputs)]
    plain, acting = "#FFFFFF", colours(2)[0]
    with styled():
        figure = canvas(6.6, 6.2)
        axes = figure.subplots()
        for i in range(M):
            for k in range(i):
                if graph[i][k] or graph[k][i]:
                    _link(axes, at[i], at[k], bool(graph[i][k]), bool(graph[k][i]))
        size = 420 if M <= 24 else 160 if M <= _NAMED else 24
        for i, (x, y) in enumerate(at):
            shade = acting if outputs[i] else plain
            axes.scatter([x], [y], s=size, color=shade, edgecolors=DARK, linewidths=1.0, zorder=3)
        if M <= _NAMED:
            _names(axes, graph, at, inputs, outputs)
        axes.set(aspect="equal", xlim=(-1.35, 1.35), ylim=(-1.3, 1.3))
        axes.axis("off")
        links, one_way = sum(map(sum, graph)) - M, len(graph.one_way())
        note = f"{M} nodes, {(links - one_way) // 2} links both ways" + (f", {one_way} one way" if one_way else "")
        if any(outputs):
            note += "; filled: nodes with outputs of their own"
        heading(figure, title, note)
    return figure


def _names(axes: Axes, graph: Pattern, at: list[tuple[float, float]], inputs: list[int], outputs: list[int]) -> None:
    """The name below a node, or its number inside; how many inputs and outputs it has."""
    for i, (x, y) in enumerate(at):
        ends = [f"{n} {what}" for n, what in ((inputs[i], "in"), (outputs[i], "out")) if n]
        inside = "" if graph.names else str(i)
        if inside:
            axes.annotate(
                inside, (x, y), ha="center", va="center", fontsize=8.5, color="white" if outputs[i] else DARK, zorder=4
            )
        below = "\n".join([*([_short(graph.names[i])] if graph.names else []), *([", ".join(ends)] if ends else [])])
        if below:
            box = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
            axes.annotate(
                below,
                (x, y),
                xytext=(0, -13),
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize=8,
                color=DARK,
                zorder=4,
                bbox=box,
            )


def _link(axes: Axes, a: tuple[float, float], b: tuple[float, float], to_a: bool, to_b: bool) -> None:
    if to_a and to_b:
        axes.plot(*zip(a, b, strict=True), color=GREY, linewidth=1.3, zorder=1)
        return
    start, end = (b, a) if to_a else (a, b)
    arrow = {"arrowstyle": "-|>", "color": GREY, "linewidth": 1.3, "shrinkA": 10, "shrinkB": 11}
    axes.annotate("", xy=end, xytext=start, arrowprops=arrow, zorder=1)


def _short(name: str) -> str:
    return name if len(name) <= 16 else f"{name[:15]}…"


def _places(graph: Pattern) -> list[tuple[float, float]]:
    """In the unit circle."""
    M = len(graph)
    circle = [(math.sin(2 * math.pi * i / M), math.cos(2 * math.pi * i / M)) for i in range(M)]
    if M < 3 or M > 500:
        return circle
    try:
        import networkx
    except ImportError:
        return circle
    drawn = networkx.Graph()
    drawn.add_nodes_from(range(M))
    drawn.add_edges_from((i, k) for i in range(M) for k in range(i) if graph[i][k] or graph[k][i])
    start = dict(enumerate(circle))
    try:
        if not networkx.is_connected(drawn):
            raise ImportError
        found = networkx.kamada_kawai_layout(drawn, pos=start)
    except ImportError:  # it needs scipy, and the graph in one piece
        found = networkx.spring_layout(drawn, pos=start, seed=0)
    points = torch.tensor([[float(v) for v in found[i]] for i in range(M)], dtype=torch.float64)
    points = points - (points.amax(0) + points.amin(0)) / 2
    points = points / points.norm(dim=1).max().clamp_min(1e-9)
    return [(x, y) for x, y in points.tolist()]
