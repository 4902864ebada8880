"""One style for all figures: colours that colour-blind readers can distinguish, thin axes, no needless frames."""

from __future__ import annotations

__all__ = ["DARK", "GREY", "blend", "canvas", "colours", "heading", "percent", "save", "styled"]

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from liouville.files import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

# Okabe and Ito's palette, which most colour-blind readers can distinguish; for more classes Paul Tol's muted palette.
_FEW = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MANY = ("#332288", "#CC6677", "#DDCC77", "#117733", "#88CCEE", "#882255", "#44AA99", "#999933", "#AA4499", "#777777")
DARK, GREY = "#222222", "#8A8A8A"
_SHAPES = 300  # maximum number of points that an SVG draws one by one

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": DARK,
    "axes.edgecolor": "#666666",
    "axes.labelcolor": DARK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "axes.axisbelow": True,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "image.cmap": "gray",
    "svg.fonttype": "path",
    "svg.hashsalt": "liouville",  # makes equal pictures equal files
}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Use this library's matplotlib settings inside the block, and restore the previous ones afterwards.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("figures need matplotlib; install it: pip install 'liouville[report]'") from error
    with matplotlib.rc_context(_STYLE):
        yield


def canvas(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, drawn by Agg and not registered in pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def heading(figure: Figure, title: str, below: str = "") -> Text:
    """Write the title sentence, and a note in smaller print; returns the sentence."""
    text = figure.suptitle(title, x=0.012, ha="left", fontsize=11.5, fontweight="bold", wrap=True)
    if below:
        figure.supxlabel(below, x=0.012, ha="left", fontsize=8, color=GREY, wrap=True)
    return text


def colours(number: int) -> tuple[str, ...]:
    """One colour for each class."""
    palette = _FEW if number <= len(_FEW) else _MANY
    return tuple(palette[k % len(palette)] for k in range(number))


def blend(probabilities: Tensor) -> Tensor:
    """(..., classes) -> (..., 3): the classes' colours mixed by probability; uncertain points are paler."""
    classes = probabilities.shape[-1]
    rgb = torch.tensor([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colours(classes)])
    certainty = (probabilities.amax(-1, keepdim=True) - 1 / classes) / (1 - 1 / classes)
    return 1 - (0.08 + 0.34 * certainty) * (1 - probabilities @ rgb.to(probabilities))


def percent(share: float) -> str:
    """A fraction as a percentage that is 100 % only if it is complete.

    Examples:
        >>> percent(1.0), percent(0.99999), percent(0.9975)
        ('100 %', '99.99 %', '99.75 %')
    """
    if share in (0.0, 1.0):
        return f"{100 * share:.0f} %"
    return f"{min(99.99, max(0.01, 100 * share)):.2f} %"


def save(figure: Figure, path: str | os.PathLike[str], *, svg: bool = False) -> list[Path]:
    """Write ``path`` as a PNG with 150 dots per inch, and an SVG if requested; whole or not at all.

    In the SVG more than a few hundred points are one embedded image: as shapes they would take megabytes.
    """
    path = Path(path)
    for axes in figure.axes:
        for cloud in axes.collections:
            points: Any = cloud.get_offsets()
            cloud.set_rasterized(len(points) > _SHAPES)
    targets = [path, path.with_suffix(".svg")] if svg else [path]
    with styled():
        for target in targets:
            with atomic(target) as temporary:
                figure.savefig(temporary, dpi=150, metadata={"Date": None} if target.suffix == ".svg" else None)
    return targets
