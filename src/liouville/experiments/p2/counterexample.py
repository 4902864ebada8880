r"""P2's Appendix III: y' = eps J tanh(y) moves slowly and keeps its energy, yet dy(T)/dy(T - t) grows without bound.

The orbits are closed curves of H = log cosh y_1 + log cosh y_2, with longer periods farther out: two neighbouring
starts separate steadily along their orbits. So the entries grow linearly in t, at determinant 1, and eps only rescales
time. Close to the origin the field is linear, all periods are nearly equal, and growth is slow.
"""

from __future__ import annotations

__all__ = ["EXPERIMENT", "Config", "cases", "render", "run"]

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import torch
from torch import Tensor

from liouville.analysis import backward_sensitivity, layer_jacobians
from liouville.experiments.comparing import NOT_AVAILABLE
from liouville.experiments.experiment import Experiment, Picture, Rendering, Table
from liouville.experiments.records import Record, rounded
from liouville.flow import Flow
from liouville.report.style import GREY, canvas, colours, heading, styled
from liouville.zoo.examples import appendix_iii

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

H = 0.05
DISTANCE = 0.05  # step of the authors' finite differences
_KEPT = 200  # times recorded
_COLUMNS = {"slope": ".3g", "off_the_line": ".0%", "log_determinant": ".1g"}
_DOTS: Any = (0, (1, 2))


@dataclass(frozen=True)
class Config:
    """One trajectory with steps of 0.05.

    Args:
        eps: factor of the velocity.
        T: the final time; 20 in the authors' script.
        size: |y_0|; 1 in the authors' script.
        seed: unused; nothing here is random.
    """

    eps: float
    T: float
    size: float
    seed: int = 0


Four = tuple[list[float], list[float], list[float], list[float]]  # the entries of a 2 x 2 matrix over time


class Values(TypedDict):
    """The recorded values of a case."""

    times: list[float]
    entries: Four
    norms: list[float]
    slope: float
    off_the_line: float
    log_determinant: float
    end: list[float]
    differences: NotRequired[Four]


def cases(seeds: int, quick: bool) -> list[Config]:
    """The script's start, a longer time, slower motion, and a start near the origin."""
    script = Config(1.0, 20.0, 1.0)
    return [script] if quick else [script, Config(1.0, 200.0, 1.0), Config(0.1, 200.0, 1.0), Config(1.0, 200.0, 0.1)]


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Sensitivities of the last state over all earlier times."""
    layers = round(config.T / H)
    flow, y = appendix_iii(config.eps, config.T, layers, config.size)
    flow, y = flow.double(), y.double()
    exact = backward_sensitivity(flow, y)[:, 0].flip(0)  # over t = 0, h, ..., T
    times = flow.h * torch.arange(layers + 1, dtype=torch.float64)
    norms = torch.linalg.matrix_norm(exact, ord=2)
    slope, off = _line(times, norms)
    kept = torch.linspace(0, layers, min(_KEPT, layers) + 1).round().long()
    values = {
        "times": _rounded(times[kept]),
        "entries": [_rounded(exact[kept, i, k]) for i in (0, 1) for k in (0, 1)],
        "norms": _rounded(norms[kept]),
        "slope": rounded(slope),
        "off_the_line": rounded(off),
        "log_determinant": float(torch.linalg.det(layer_jacobians(flow, y)).log().sum().abs()),
        "end": _rounded(flow(y)[0].detach()),
    }
    if layers <= 400:  # the authors' measure: differences of two runs, with states DISTANCE apart at T - t
        differences = _differences(flow, y)[kept]
        values["differences"] = [_rounded(differences[:, i, k]) for i in (0, 1) for k in (0, 1)]
    return values


@torch.no_grad()
def _differences(flow: Flow, y: Tensor) -> Tensor:
    """(y(T; moved at T - t) - y(T)) / DISTANCE, (N + 1, 2, 2) over t; column k is moved along y_k."""
    states = flow.trajectory(y)[:, 0]
    moved = (states[:, None] + DISTANCE * torch.eye(2, dtype=y.dtype)).flatten(0, 1)
    runs = flow.trajectory(moved).unflatten(1, (-1, 2))  # equal layers: n steps are a run from layer N - n
    N = flow.layers
    ends = torch.stack([runs[n, N - n] for n in range(N + 1)])
    return ((ends - states[-1]) / DISTANCE).mT


def _line(times: Tensor, norms: Tensor) -> tuple[float, float]:
    """Slope of the straight line through the later half, and the largest relative distance from it there."""
    t, s = times[len(times) // 2 :], norms[len(times) // 2 :]
    slope = ((t - t.mean()) * (s - s.mean())).sum() / (t - t.mean()).square().sum()
    line = s.mean() + slope * (t - t.mean())
    return float(slope), float(((s - line) / line).abs().max())


def _rounded(values: Tensor) -> list[float]:
    return [rounded(x) for x in values.tolist()]


def render(records: Sequence[Record], folder: Path) -> Rendering:
    """Entries and norms over time."""
    if not records:
        return Rendering()
    records = sorted(records, key=lambda r: (r.case.T, -r.case.eps, -r.case.size))
    measured = ("growth per unit of t", "largest distance from a straight line", "absolute log-determinant")
    head = ("eps", "|y(0)|", "T", "norm at t = T, ours / paper", *measured)
    rows = [_row(r) for r in records]
    note = "Straight line: least squares through the later half of t; the norm also oscillates with every turn."
    pictures = {"growth": Picture("Entries and norms of dy(T)/dy(T - t) over t.", lambda: _draw(records))}
    return Rendering(_text(records), [Table("Growth of dy(T)/dy(T - t)", head, rows, note)], pictures)


def _row(r: Record) -> tuple[str, ...]:
    start = tuple(f"{x:g}" for x in (r.case.eps, r.case.size, r.case.T))
    end = f"{r.values['norms'][-1]:.4g} / {NOT_AVAILABLE}"
    return *start, end, *(f"{r.values[key]:{form}}" for key, form in _COLUMNS.items())


def _text(records: Sequence[Record]) -> str:
    fast = max(records, key=lambda r: r.case.eps * r.case.T * r.case.size)
    text = (
        f"With |y(0)| = {fast.case.size:g} the norm reaches {fast.values['norms'][-1]:.1f} at t = {fast.case.T:g}, by "
        f"{fast.values['slope']:.3g} per unit of time, while the layers' log-determinants add up to "
        f"{fast.values['log_determinant']:.1g}: gradients explode linearly, not exponentially."
    )
    of = {(r.case.eps, r.case.size, r.case.T): r.values for r in records}
    if (fast.case.eps, fast.case.size, fast.case.T) == (1.0, 1.0, 200.0):
        if slow := of.get((0.1, 1.0, 200.0)):
            text += f" Ten times slower motion grows by {slow['slope']:.3g}: the growth is postponed, not prevented."
        if near := of.get((1.0, 0.1, 200.0)):
            text += f" From |y(0)| = 0.1 it is {near['slope']:.2g}, because all periods there are nearly equal."
    return text


def _draw(records: Sequence[Record]) -> Figure:
    with styled():
        figure = canvas(10.0, 4.2)
        left, right = figure.subplots(1, 2)
        _entries(left, records[0])
        for r, colour in zip(records, colours(len(records)), strict=True):
            label = rf"$\epsilon$ = {r.case.eps:g}, $|y_0|$ = {r.case.size:g}, T = {r.case.T:g}"
            times, norms = r.values["times"][1:], r.values["norms"][1:]
            right.plot(times, norms, color=colour, label=label, linewidth=3.0 if r.case.T < 200 else 1.4)
        last = max(records, key=lambda r: r.values["norms"][-1]).values
        scale = last["norms"][-1] / last["times"][-1]
        ends = (2 / scale, last["times"][-1])
        right.plot(ends, [scale * t for t in ends], color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), label="slope 1")
        right.set(xscale="log", yscale="log", xlabel="t", title=r"$\|\partial y(T) / \partial y(T-t)\|_2$")
        right.set_ylim(bottom=0.8)
        right.grid()
        right.legend(loc="upper left")
        heading(figure, "The motion is slow and bounded, its sensitivity grows linearly", "solid: exact derivatives")
    return figure


def _entries(axes: Axes, record: Record) -> None:
    values = record.values
    for k, colour in enumerate(colours(4)):
        axes.plot(values["times"], values["entries"][k], color=colour, label=f"({k // 2 + 1}, {k % 2 + 1})")
        if "differences" in values:
            axes.plot(values["times"], values["differences"][k], color=colour, linestyle=_DOTS, linewidth=1.3)
    if "differences" in values:
        axes.plot([], [], color=GREY, linestyle=_DOTS, label=f"differences of {DISTANCE:g}")
    axes.set(xlabel="t", title=rf"entries of $\partial y(T) / \partial y(T-t)$, T = {record.case.T:g}")
    axes.grid(axis="y")
    axes.legend(loc="upper left", ncols=2)


EXPERIMENT = Experiment(
    name="counterexample",
    title="Slow motion does not prevent exploding gradients",
    source="2105.13205, Appendix III",
    case=Config,
    cases=cases,
    run=run,
    render=render,
    values=Values,
    cost=lambda case: 0.01 * case.T,
)
