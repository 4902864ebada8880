r"""P1's Fig. 1: ten residual layers with one K move three inputs apart, together, or around (its Example 1).

Besides distances, the experiment measures errors. The largest singular value of dy_10/dy_0 is the growth of an error in
the input. The inverse of the smallest is the growth of an error in the output when the input is recovered from it. P1
asks that neither be large.
"""

from __future__ import annotations

__all__ = ["EXPERIMENT", "Config", "cases", "render", "run"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch

from liouville.analysis import backward_sensitivity
from liouville.experiments.comparing import NOT_AVAILABLE
from liouville.experiments.experiment import Experiment, Picture, Rendering, Table
from liouville.experiments.records import Record
from liouville.report import phase_planes
from liouville.report.style import canvas, colours, heading, styled
from liouville.zoo.examples import EXAMPLE_1, EXAMPLE_1_INPUTS, example_1

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {"spread": "$K_+$", "collapse": "$K_-$", "rotation": "$K_0$"}
PLAIN = {"spread": "K+", "collapse": "K-", "rotation": "K0"}
PAIRS = ((0, 1), (0, 2), (1, 2))


@dataclass(frozen=True)
class Config:
    """One of the three matrices.

    Args:
        matrix: ``"spread"`` (K+), ``"collapse"`` (K-) or ``"rotation"`` (K0).
        seed: unused; nothing here is random.
    """

    matrix: str
    seed: int = 0


class Values(TypedDict):
    """The recorded values of a case."""

    eigenvalues: list[tuple[float, float]]
    distances: list[list[float]]
    norms: list[list[float]]
    forward: float
    backward: float


def cases(seeds: int, quick: bool) -> list[Config]:
    """The three matrices; nothing depends on a seed."""
    return [Config(name) for name in EXAMPLE_1]


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Send the three inputs through the ten layers."""
    flow, y = example_1(config.matrix).double(), torch.tensor(EXAMPLE_1_INPUTS).double()
    with torch.no_grad():
        path = flow.trajectory(y)
    K = torch.tensor(EXAMPLE_1[config.matrix]).double()
    errors = torch.linalg.svdvals(backward_sensitivity(flow, y)[0])
    return {
        "eigenvalues": [[value.real, value.imag] for value in torch.linalg.eigvals(K).tolist()],
        "distances": [[round(float((now[i] - now[k]).norm()), 4) for now in path] for i, k in PAIRS],
        "norms": [[round(float(row.norm()), 4) for row in now] for now in path.unbind(1)],
        "forward": round(float(errors[:, 0].max()), 4),
        "backward": round(float(1 / errors[:, -1].min()), 4),
    }


def render(records: Sequence[Record], folder: Path) -> Rendering:
    """Phase planes, and distances before and after."""
    of = {name: r.values for name in EXAMPLE_1 for r in records if r.case.matrix == name}
    if not of:
        return Rendering()
    distances = ("smallest to largest distance, before", "after ten layers", "ratios")
    errors = ("growth of an input error", "growth of an output error, traced back")
    head = ("K", "eigenvalues", "in the paper", *distances, *errors)
    rows = [(PLAIN[name], _eigenvalues(values), name, *_distances(values)) for name, values in of.items()]
    note = (
        f'"In the paper" is in words; its distances are {NOT_AVAILABLE}. The last two columns are the largest over the '
        "three inputs."
    )
    pictures = {
        "phase-planes": Picture("Three inputs through ten equal layers, by matrix.", lambda: _planes(of)),
        "distances": Picture("The three distances between the inputs, layer by layer.", lambda: _by_layer(of)),
    }
    return Rendering(_text(of), [Table("Three inputs, ten layers", head, rows, note)], pictures)


def _ratios(values: Mapping[str, Any]) -> list[float]:
    return [pair[-1] / pair[0] for pair in values["distances"]]


def _distances(values: Mapping[str, Any]) -> tuple[str, ...]:
    before, behind = ([pair[j] for pair in values["distances"]] for j in (0, -1))
    ranges = [f"{min(x):.2f} to {max(x):.2f}" for x in (before, behind, _ratios(values))]
    return (*ranges, f"{values['forward']:.2f}", f"{values['backward']:.2f}")


def _eigenvalues(values: Mapping[str, Any]) -> str:
    found = [f"{re:+g}" if not im else f"{im:+g}i" if not re else f"{re:g}{im:+g}i" for re, im in values["eigenvalues"]]
    return ", ".join(found)


def _text(of: Mapping[str, Mapping[str, Any]]) -> str:
    said = []
    for name, values in of.items():
        ratios = _ratios(values)
        said.append(f"{PLAIN[name]} multiplies the distances by {min(ratios):.2f} to {max(ratios):.2f}")
    text = f"After ten layers {'; '.join(said)}."
    if "collapse" in of:
        text += (
            f" Going back through K-, an error grows up to {of['collapse']['backward']:.1f} times: collapsed inputs "
            "are not recovered well."
        )
    if "rotation" in of:
        growth = [norms[-1] / norms[0] for norms in of["rotation"]["norms"]]
        text += (
            f" K0 turns the inputs and multiplies their norms by {min(growth):.3f} to {max(growth):.3f}; forward Euler "
            f"on the linear part only would give (1 + h^2)^5 = {1.01**5:.3f}."
        )
    return text


def _planes(of: Mapping[str, Any]) -> Figure:
    title = {
        "spread": r"$\lambda = 2$ (twice)",
        "collapse": r"$\lambda = -2$ (twice)",
        "rotation": r"$\lambda = \pm i$",
    }
    flows = {f"{NAMES[name]}, {title[name]}: {name}": example_1(name) for name in of}
    return phase_planes(flows, torch.tensor(EXAMPLE_1_INPUTS), "Ten residual layers: inputs spread, collapse, or turn")


def _by_layer(of: Mapping[str, Mapping[str, Any]]) -> Figure:
    with styled():
        figure = canvas(3.0 * len(of) + 0.3, 3.5)
        panels = figure.subplots(1, len(of), sharey=True, squeeze=False)[0]
        for axes, (name, values) in zip(panels, of.items(), strict=True):
            for (i, k), pair, colour in zip(PAIRS, values["distances"], colours(len(PAIRS)), strict=True):
                label = rf"$\|y^{i + 1} - y^{k + 1}\|$"
                axes.plot(range(len(pair)), pair, color=colour, marker="o", markersize=3, label=label)
            axes.set(xlabel="layer", title=f"{NAMES[name]}: {name}", yscale="log")
            axes.grid(axis="y")
        panels[0].set_ylabel("distance")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower right", ncols=3)
        heading(figure, "Distances grow, shrink, or stay, as the eigenvalues say")
    return figure


EXPERIMENT = Experiment(
    name="phase-planes",
    title="Example 1: spread, collapse, rotation",
    source="1705.03341, Example 1 and Fig. 1",
    case=Config,
    cases=cases,
    run=run,
    render=render,
    values=Values,
    cost=lambda case: 0.1,
)
