"""The figures of `ring_of_eight`: the graph, accuracy by depth, and the features of each node."""

from __future__ import annotations

__all__ = ["accuracy_by_depth", "features_by_node"]

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from liouville.data import Split
from liouville.experiments.comparing import percents
from liouville.experiments.records import Record
from liouville.network import Network
from liouville.report.style import DARK, GREY, canvas, cloud, colours, heading, key, name_classes, percent, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_POINTS = 1200


def accuracy_by_depth(records: Sequence[Record], edges: Sequence[tuple[int, int]], names: Mapping[str, str]) -> Figure:
    """The graph, and for each data set the accuracy on the ring and with full matrices."""
    depths = sorted({r.case.layers for r in records})
    with styled():
        figure = canvas(11.0, 3.9)
        ring, *panels = figure.subplots(1, 1 + len(names), width_ratios=(1, *[1.25] * len(names)))
        _graph(ring, edges)
        for axes, (data, name) in zip(panels, names.items(), strict=True):
            for colour, graph, style in zip(colours(2), ("ring", "full"), ("-", "--"), strict=True):
                groups = [
                    percents(
                        [r for r in records if (r.case.data, r.case.graph, r.case.layers) == (data, graph, N)],
                        "accuracy",
                    )
                    for N in depths
                ]
                found = [(k, values) for k, values in enumerate(groups) if values]
                at = [k for k, _ in found]
                middle = [statistics.median(values) for _, values in found]
                axes.plot(at, middle, style, color=colour, marker="o", markersize=3.5, label=graph)
                ends = ([extreme(values) for _, values in found] for extreme in (min, max))
                axes.fill_between(at, *ends, color=colour, alpha=0.12, linewidth=0)
            axes.set_xticks(range(len(depths)), [str(N) for N in depths])
            axes.set(xlabel="layers", ylim=(45, 101), title=f"{name}: test accuracy (%)")
            axes.grid(axis="y")
            axes.legend(loc="lower right", handlelength=3.2)
        note = "each node has two features and its neighbours' messages; lines: median, bands: range over seeds"
        heading(figure, "Eight agents in a ring classify together", note)
    return figure


@torch.no_grad()
def features_by_node(network: Network, split: Split, name: str) -> Figure:
    """(p, q) of each node after the last layer, and the score, their weighted sum, of held-out points."""
    x, y = split.x_test[:_POINTS], split.y_test[:_POINTS]
    features, scores = network.features(x), network(x)[:, 0]
    (flow,) = network.flows()
    with styled():
        figure = canvas(7.4, 7.8)
        grid = figure.subplots(3, 3).flatten()
        for node, axes in enumerate(grid[:8]):
            p, q = features[:, node], features[:, 8 + node]
            cloud(axes, torch.stack((p, q), 1), y, 2, 5, rasterized=True)
            axes.set(xlabel="p", ylabel="q", title=f"node {node}")
            axes.spines[:].set(visible=True, color="#CCCCCC")
        _histogram(grid[8], scores, y)
        for axes in grid:
            axes.set_xticks([])
            axes.set_yticks([])
        name_classes(grid[0], split.label_names or ("class 0", "class 1"))
        heads = "the head sums over the nodes, its plane is at 0 (dashed)"
        key(figure, f"{len(x):,} test points; {heads}; each node has its own scale")
        right = percent(float(((scores > 0) == (y == 1)).double().mean()))
        heading(figure, f"{name}: the sum over eight nodes gets {right} right after {flow.layers} layers")
    return figure


def _graph(axes: Axes, edges: Sequence[tuple[int, int]]) -> None:
    angles = [math.pi / 2 - 2 * math.pi * i / 8 for i in range(8)]
    at = [(math.cos(a), math.sin(a)) for a in angles]
    for i, k in edges:
        axes.plot(*zip(at[i], at[k], strict=True), color=GREY, linewidth=1.4, zorder=1)
    for i, (x, y) in enumerate(at):
        axes.scatter([x], [y], s=330, color="white", edgecolors=DARK, zorder=2)
        axes.annotate(str(i), (x, y), ha="center", va="center", fontsize=10)
    for node, text in ((0, "x₁ → p"), (4, "x₂ → q")):
        x, y = at[node]
        axes.annotate(text, (1.42 * x, 1.42 * y), ha="center", va="center", fontsize=9)
    axes.set(xlim=(-1.7, 1.7), ylim=(-1.7, 1.7), aspect="equal", title="communication graph")
    axes.axis("off")


def _histogram(axes: Axes, scores: torch.Tensor, y: torch.Tensor) -> None:
    bins: Any = torch.linspace(float(scores.min()), float(scores.max()), 40).tolist()
    for k in (0, 1):
        axes.hist(scores[y == k].tolist(), bins=bins, color=colours(2)[k], alpha=0.75, hatch=("", "///")[k])
    axes.axvline(0, color=DARK, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set_title("the score")
