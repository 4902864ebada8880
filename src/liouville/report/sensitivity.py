r"""How strongly the last state depends on earlier ones: norms and singular values of dState_N/dState_j by depth.

Every sample is measured separately: lines are medians, bands reach from the least to the largest sample. The lower
bound 1 holds for single samples, not for the mean of their matrices.
"""

from __future__ import annotations

__all__ = [
    "growth_over_time",
    "lyapunov_spectra",
    "sensitivity_by_depth",
    "sensitivity_by_iteration",
    "singular_values_by_depth",
]

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from liouville.report.style import DARK, GREY, canvas, colours, heading, key, look_of, shades, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DASHES: Any = (0, (4, 3))
_FLOOR = 1e-30  # smaller values and 0 are drawn here


def sensitivity_by_depth(norms: Mapping[str, Tensor]) -> Figure:
    """||dState_N/dState_j|| over the number of layers N - j between them, a panel for each network, on one log scale.

    Args:
        norms: by network, (N + 1, *batch) with j = 0 ... N, from
            ``analysis.norms(analysis.backward_sensitivity(flow, y)).two``.

    Raises:
        ValueError: if there is no network, or a network without layers.

    Examples:
        >>> import liouville as lv
        >>> y = torch.randn(10, 4)
        >>> matrices = lv.analysis.backward_sensitivity(lv.zoo.h2(4, layers=8, T=1.0), y)
        >>> figure = sensitivity_by_depth({"h2": torch.linalg.matrix_norm(matrices, ord=2)})
    """
    curves = {name: _by_distance(values) for name, values in _named(norms)}
    with styled():
        figure, panels = _panels(curves)
        for axes, (name, values) in zip(panels, curves.items(), strict=True):
            _band(axes, values, look_of(name).colour)
            axes.set_title(f"{name}: {_number(values.min())} to {_number(values.max())}")
            _bound(axes)
        panels[0].set_ylabel(r"$\|\partial y_N / \partial y_{N-l}\|$")
        through = ", ".join(f"{_number(values[-1].median())} ({name})" for name, values in curves.items())
        heading(figure, f"Median norm through all layers: {through}", _NOTE)
    return figure


def sensitivity_by_iteration(iterations: Sequence[int], norms: Mapping[str, Tensor], lines: int = 6) -> Figure:
    """||dState_N/dState_j|| over the training iterations, for some depths, one colour each.

    Args:
        iterations: iterations of the measured norms, (I,).
        norms: by network, (I, N + 1, *batch).
        lines: number of depths drawn, from one layer to all; those of shallower networks, too, and their whole depth.

    Raises:
        ValueError: if there is no network, or the iterations do not match.
    """
    curves = {name: torch.stack([_by_distance(values) for values in stack]) for name, stack in _named(norms)}
    if any(len(values) != len(iterations) for values in curves.values()):
        raise ValueError(f"expected norms of {len(iterations)} iterations, got {[len(v) for v in curves.values()]}.")
    ends = {values.shape[1] for values in curves.values()}
    spread = torch.linspace(1, max(ends, default=1), min(lines, max(ends, default=1))).round().long().tolist()
    with styled():
        figure, panels = _panels(curves, height=4.4)
        depths = sorted({*spread, *ends})  # the same for all networks, so that one colour is one depth
        for axes, (name, values) in zip(panels, curves.items(), strict=True):
            drawn = zip(depths, shades(len(depths)), strict=True)
            for length, colour in ((depth, shade) for depth, shade in drawn if depth <= values.shape[1]):
                chosen = values[:, length - 1]
                axes.plot(iterations, chosen.median(1).values, color=colour, label=f"$l$ = {length}")
                axes.fill_between(iterations, chosen.amin(1), chosen.amax(1), color=colour, alpha=0.12, linewidth=0)
            axes.set_title(f"{name}: {_number(values.min())} to {_number(values.max())}")
            axes.set_xlabel("iteration")
            _bound(axes)
        panels[0].set_ylabel(r"$\|\partial y_N / \partial y_{N-l}\|$")
        least = ", ".join(f"{name} {_number(values.min())}" for name, values in curves.items())
        key(figure, _NOTE)
        heading(figure, f"Least norm of any sample in training: {least}")
    return figure


def singular_values_by_depth(spectra: Mapping[str, Tensor]) -> Figure:
    """All singular values of dState_N/dState_j over N - j: growing and shrinking directions, and pairs (s, 1/s).

    Args:
        spectra: by network, (N + 1, *batch, n), largest first, from ``analysis.singular_spectra``.

    Raises:
        ValueError: if there is no network, or one of no layers.
    """
    curves = {name: _by_distance(values.movedim(-1, 0), axis=1) for name, values in _named(spectra)}
    with styled():
        figure, panels = _panels(curves)
        for axes, (name, values) in zip(panels, curves.items(), strict=True):
            for k, (one, colour) in enumerate(zip(values, shades(len(values)), strict=True), 1):
                _band(axes, one, colour, _ordinal(k, len(values)))
            axes.set_title(f"{name}: {_number(values.min())} to {_number(values.max())}")
            _bound(axes)
        panels[0].set_ylabel(r"singular values of $\partial y_N / \partial y_{N-l}$")
        ends = ", ".join(
            f"{float(values[-1, -1].median()):.2g} to {float(values[0, -1].median()):.2g} ({name})"
            for name, values in curves.items()
        )
        key(figure, _PAIRS)
        heading(figure, f"Singular values through all layers: {ends}")
    return figure


def lyapunov_spectra(norms: Mapping[str, Tensor], exponents: Mapping[str, Tensor]) -> Figure:
    """Two panels for each network: the norms by depth, and below them its Lyapunov spectrum, largest first.

    Args:
        norms: as for `sensitivity_by_depth`.
        exponents: by network, (*batch, n), from ``analysis.lyapunov_spectrum``.

    Raises:
        ValueError: if there is no network, a network without layers, or the two have different networks.
    """
    curves = {name: _by_distance(values) for name, values in _named(norms)}
    spectra = {name: values.detach().double().cpu().flatten(0, -2) for name, values in _named(exponents)}
    if not curves or curves.keys() != spectra.keys():
        raise ValueError(f"expected norms and exponents of the same networks, got {[*curves]} and {[*spectra]}.")
    with styled():
        figure = canvas(1.6 + 2.7 * len(curves), 5.6)
        above, below = figure.subplots(2, len(curves), sharey="row", squeeze=False)
        for top, bottom, (name, values) in zip(above, below, curves.items(), strict=True):
            colour = look_of(name).colour
            top.set(yscale="log", xlabel="layers between, $l$", title=name)
            _band(top, values, colour)
            _bound(top)
            rates = spectra[name].clamp(min=math.log(_FLOOR))
            middle, k = rates.median(0).values, torch.arange(1, rates.shape[1] + 1)
            bottom.vlines(k, rates.amin(0), rates.amax(0), color=colour, alpha=0.35, linewidth=5)
            bottom.plot(k, middle, "o", color=colour, markersize=4)
            bottom.axhline(0.0, color=DARK, linewidth=0.9, linestyle=_DASHES, zorder=1)
            bottom.set_xlabel("exponent, $k$")
            if len(k) <= 16:
                bottom.set_xticks(k)
            for axes in (top, bottom):
                axes.grid(axis="y")
        above[0].set_ylabel(r"$\|\partial y_N / \partial y_{N-l}\|$")
        below[0].set_ylabel(r"$\lambda_k$, per unit of time")
        sums = ", ".join(
            f"{round(float(values.sum(1).median()), 2) + 0.0:.2f} ({name})" for name, values in spectra.items()
        )
        heading(figure, f"Lyapunov exponents add up to {sums}", _EXPONENTS)
    return figure


def growth_over_time(times: Tensor, norms: Mapping[str, Tensor], slope: float) -> Figure:
    """Norms over time, both on log scales, with a straight line of slope 1.

    Args:
        times: (M,), positive.
        norms: by curve, (M,).
        slope: the measured slope, for the title.
    """
    with styled():
        figure = canvas(6.4, 4.2)
        axes = figure.subplots()
        for (name, values), colour in zip(norms.items(), colours(len(norms)), strict=True):
            axes.plot(times, values, color=colour, label=name)
        start = next(iter(norms.values()))[-1] / times[-1]
        axes.plot(times, start * times, color=GREY, linewidth=0.9, linestyle=_DASHES, label="slope 1")
        axes.set(xscale="log", yscale="log", xlabel="t", ylabel=r"$\|\partial y(T) / \partial y(T-t)\|$")
        axes.set_ylim(bottom=0.8)
        axes.grid()
        axes.legend(loc="upper left")
        heading(figure, f"The norm grows like t to the power {slope:.3f}, at determinant 1")
    return figure


_SAMPLES = "line: median of the samples; band: least to largest sample; "
_NOTE = f"{_SAMPLES}dashed: the lower bound 1 of Hamiltonian networks"
_EXPONENTS = "line, dot: median of samples; band, bar: least to largest; dashed: 1, and 0, where lengths are constant"
_PAIRS = f"{_SAMPLES}dashed: 1; a symplectic network with X = I has pairs (s, 1/s) around it"


def _named(curves: Mapping[str, Tensor]) -> Iterable[tuple[str, Tensor]]:
    if not isinstance(curves, Mapping):
        raise TypeError(f"expected tensors by name, such as {{'h2': values}}, got {type(curves).__name__}.")
    return curves.items()


def _by_distance(values: Tensor, axis: int = 0) -> Tensor:
    """(N + 1, *batch) over j -> (N, samples) over l = N - j = 1 ... N; further leading axes stay."""
    values = values.detach().double().cpu()
    if values.shape[axis] < 2:
        raise ValueError(f"expected N + 1 >= 2 matrices, got {values.shape[axis]}; give one for each j = 0 ... N.")
    return values.flip(axis).narrow(axis, 1, values.shape[axis] - 1).flatten(axis + 1).clamp(min=_FLOOR)


def _panels(curves: Mapping[str, Tensor], height: float = 3.9) -> tuple[Figure, list[Axes]]:
    if not curves:
        raise ValueError("there is no network to draw.")
    figure = canvas(1.6 + 2.7 * len(curves), height)
    panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0].tolist()
    for axes in panels:
        axes.set_yscale("log")
        axes.set_xlabel("layers between, $l$")
        axes.grid(axis="y")
    return figure, panels


def _band(axes: Axes, values: Tensor, colour: Any, label: str = "") -> None:
    """Median and extremes of (N, samples)."""
    lengths = range(1, len(values) + 1)
    axes.fill_between(lengths, values.amin(1), values.amax(1), color=colour, alpha=0.22, linewidth=0)
    axes.plot(lengths, values.median(1).values, color=colour, label=label or None)


def _bound(axes: Axes) -> None:
    axes.axhline(1.0, color=DARK, linewidth=0.9, linestyle=_DASHES, zorder=1)


def _ordinal(k: int, of: int) -> str:
    """The k-th largest."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(k % 10 if k % 100 not in (11, 12, 13) else 0, "th")
    return f"{k}{ending}" + (" (largest)" if k == 1 else " (least)" if k == of else "")


def _number(value: Tensor) -> str:
    x = float(value)
    return f"{x:.4g}" if 1e-3 <= x < 1e4 else f"{x:.0e}".replace("e-0", "e-").replace("e+0", "e")
