"""How deep must a network on a ring of eight agents be, beside a full one, to separate the Swiss roll and the circles?

The second paper's example: 8 nodes in a ring, 16 features, node i owns p[i] and q[i]; the inputs are p[1] and q[5],
counted from 1; K is sparse (self and two neighbours: 24 of 64 entries) or full. Trained as the masked central network,
which the tests show to be the same as the distributed run: python benchmarks/ring_of_eight.py --figure FILE
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import nn

import liouville as lv
from liouville.report.style import DARK, GREY, canvas, colours, heading, save, styled

RING = [(i, (i + 1) % 8) for i in range(8)]
DATA = ("swiss-roll", "double-circles")
PLACES = (0, 12)  # p[1] and q[5]


def network(layers: int, sparse: bool, seed: int) -> lv.Network:
    torch.manual_seed(seed)
    operator = lv.Graph(RING) if sparse else lv.Dense()
    flow = lv.zoo.h2(16, layers, 0.5 * layers, operator=operator, backprop=lv.Stored())
    return lv.Network(lv.Lift(16, 2, place=PLACES), flow, nn.Linear(16, 1))


def train(data: str, layers: int, sparse: bool, seed: int, epochs: int) -> tuple[lv.Network, float]:
    """The test accuracy, in percent, read once at the end."""
    made = network(layers, sparse, seed)
    settings = lv.train.Settings(epochs=epochs, seed=seed)
    metrics = lv.train.fit(made, lv.data.load(data), settings).metrics
    return made, 100 * metrics["test_accuracy"]


def draw(records: list[dict[str, Any]], example: lv.Network, depth: int, path: Path) -> None:
    with styled():
        figure = canvas(11.0, 7.0)
        grid = figure.add_gridspec(2, 2, width_ratios=(1, 1.8))
        _ring(figure.add_subplot(grid[0, 0]))
        _accuracy(figure.add_subplot(grid[1, 0]), records)
        _features(figure, grid[:, 1], example)
        heading(
            figure,
            "Eight agents in a ring classify together: each has two features, and its neighbours' messages",
            f"right: (p, q) of each node behind {depth} layers, test points of the Swiss roll; "
            "left: median and range over seeds",
        )
        save(figure, path)


def _ring(axes: Any) -> None:
    angle = [math.pi / 2 - 2 * math.pi * i / 8 for i in range(8)]
    at = [(math.cos(a), math.sin(a)) for a in angle]
    for i, k in RING:
        axes.plot(*zip(at[i], at[k], strict=True), color=GREY, linewidth=1.4, zorder=1)
    for i, (x, y) in enumerate(at):
        axes.scatter([x], [y], s=330, color="white", edgecolors=DARK, zorder=2)
        axes.annotate(str(i), (x, y), ha="center", va="center", fontsize=10)
    for node, text in ((0, "x₁ → p"), (4, "x₂ → q")):
        x, y = at[node]
        axes.annotate(text, (1.42 * x, 1.42 * y), ha="center", va="center", fontsize=9)
    axes.set(xlim=(-1.7, 1.7), ylim=(-1.7, 1.7), aspect="equal", title="who talks to whom")
    axes.axis("off")


def _accuracy(axes: Any, records: list[dict[str, Any]]) -> None:
    depths = sorted({r["layers"] for r in records})
    for colour, data in zip(colours(2), DATA, strict=True):
        for sparse, style in ((True, "-"), (False, "--")):
            chosen = [
                [r["accuracy"] for r in records if (r["data"], r["sparse"], r["layers"]) == (data, sparse, d)]
                for d in depths
            ]
            middle = [statistics.median(values) for values in chosen]
            label = f"{data}, {'ring' if sparse else 'full'}"
            axes.plot(range(len(depths)), middle, style, color=colour, marker="o", markersize=3.5, label=label)
            axes.fill_between(
                range(len(depths)), [min(v) for v in chosen], [max(v) for v in chosen], color=colour, alpha=0.1
            )
    axes.set_xticks(range(len(depths)), [str(d) for d in depths])
    axes.set(xlabel="layers", ylim=(45, 101), title="test accuracy (%)")
    axes.grid(axis="y")
    axes.legend(loc="lower right", fontsize=7.5, handlelength=3.2)


@torch.no_grad()
def _features(figure: Any, place: Any, example: lv.Network) -> None:
    split = lv.data.load("swiss-roll")
    x, y = split.x_test[:1200], split.y_test[:1200]
    features = example.features(x)
    shades = [colours(2)[int(k)] for k in y]
    inner = place.subgridspec(3, 3)
    for node in range(8):
        axes = figure.add_subplot(inner[node])
        axes.scatter(features[:, node], features[:, 8 + node], s=3, c=shades, linewidths=0, alpha=0.8)
        axes.set_title(f"node {node}", fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set(xlabel="p", ylabel="q")
        axes.spines[:].set(visible=True, color="#CCCCCC")
    axes = figure.add_subplot(inner[8])
    score = example(x)[:, 0]
    bins = torch.linspace(float(score.min()), float(score.max()), 40).tolist()
    for k in (0, 1):
        axes.hist(score[y == k].tolist(), bins=bins, color=colours(2)[k], alpha=0.75)
    axes.axvline(0, color=DARK, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set_title("the score: their sum", fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--depths", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--shown", type=int, default=4, help="depth of the network whose features are drawn")
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    records, example = [], None
    for data in DATA:
        for layers in given.depths:
            for sparse in (True, False):
                for seed in range(given.seeds):
                    made, accuracy = train(data, layers, sparse, seed, given.epochs)
                    records.append(
                        {"data": data, "layers": layers, "sparse": sparse, "seed": seed, "accuracy": accuracy}
                    )
                    if (data, layers, sparse, seed) == ("swiss-roll", given.shown, True, 0):
                        example = made
                row = [r["accuracy"] for r in records[-given.seeds :]]
                kind = "ring" if sparse else "full"
                print(f"{data:15} {layers:3} layers {kind}: " + "  ".join(f"{a:6.2f}" for a in row), flush=True)
    print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads()}))
    if given.figure and example is not None:
        draw(records, example, given.shown, given.figure)


if __name__ == "__main__":
    main()
