r"""Jacobian spectra in the complex plane, over the region where the scheme is stable."""

from __future__ import annotations

__all__ = ["spectra_over_regions"]

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from liouville.analysis import amplification
from liouville.report.style import canvas, heading, look_of, styled
from liouville.schemes import Scheme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STABLE = "#D3E0EC"
_SHOWN = 4000  # eigenvalues drawn; more hide each other


def spectra_over_regions(spectra: Mapping[str, tuple[Scheme, Tensor]]) -> Figure:
    """h times the eigenvalues of f', one panel for each network; shaded where a mode does not grow from step to step.

    The region is for frozen, linear layers: eigenvalues inside are advice, not proof. For partitioned and two-step
    schemes it is an interval of the imaginary axis.

    Args:
        spectra: by network, its scheme and (..., n) complex values h lambda, from ``analysis.layer_spectra``.

    Raises:
        ValueError: if there is no network.

    Examples:
        >>> import liouville as lv
        >>> flow = lv.zoo.ms2(4, layers=8, T=1.0)
        >>> values = lv.analysis.layer_spectra(flow, torch.randn(10, 4))
        >>> figure = spectra_over_regions({"ms2": (flow.scheme, values)})
    """
    if not spectra:
        raise ValueError("there is no network to draw.")
    with styled():
        figure = canvas(3.3 * len(spectra) + 0.3, 4.4)
        panels = figure.subplots(1, len(spectra), squeeze=False)[0]
        for axes, (name, (scheme, values)) in zip(panels, spectra.items(), strict=True):
            z = values.detach().to(torch.complex128).cpu().flatten()
            reach = max(3.2, 1.1 * float(z.abs().max()))
            _region(axes, scheme, reach)
            shown = z[torch.linspace(0, len(z) - 1, min(len(z), _SHOWN)).long()]
            axes.scatter(shown.real, shown.imag, s=5, color=look_of(name).colour, linewidths=0, alpha=0.6, zorder=3)
            growth = amplification(scheme, z).max()
            axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
            axes.set_title(f"{name}: growth ≤ {float(growth):.3g} a step", fontsize=9.5)
            axes.set_xlabel(r"Re $h\lambda$")
        panels[0].set_ylabel(r"Im $h\lambda$")
        note = "shaded: the scheme does not amplify a frozen, linear layer; a bar if that is an interval of the axis"
        heading(figure, "Eigenvalues of the layers' Jacobians, times h, over the stable region of the scheme", note)
    return figure


def _region(axes: Axes, scheme: Scheme, reach: float) -> None:
    """The region, or a bar where it is only an interval of the imaginary axis."""
    ticks = torch.linspace(-reach, reach, 400, dtype=torch.float64)
    x, y = torch.meshgrid(ticks, ticks, indexing="xy")
    stable = amplification(scheme, torch.complex(x, y)) <= 1
    axes.contourf(x, y, stable.double(), levels=[0.5, 1.5], colors=[_STABLE], zorder=0)
    for line in (axes.axhline, axes.axvline):
        line(0, color="#CCCCCC", linewidth=0.7, zorder=1)
    inside = ticks[amplification(scheme, 1j * ticks) <= 1 + 1e-9]
    if len(inside) > 1 and not stable.any():
        ends = [float(inside.min()), float(inside.max())]
        axes.plot([0, 0], ends, color=_STABLE, linewidth=12, solid_capstyle="butt", zorder=0)
