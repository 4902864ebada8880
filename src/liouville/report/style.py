"""One style for all figures: colours that colour-blind readers can distinguish, thin axes, no needless frames.

On white, text has a contrast of at least 4.5 and every colour of a class or a line at least 3. Classes differ in shape
as well, networks in dashes, and regions in lightness, so that a page printed in grey can be read.
"""

from __future__ import annotations

__all__ = [
    "DARK",
    "GREY",
    "HELD",
    "NORM",
    "TRAIN",
    "Look",
    "blend",
    "canvas",
    "cloud",
    "colours",
    "heading",
    "key",
    "look_of",
    "name_classes",
    "percent",
    "save",
    "shades",
    "shapes",
    "strengths",
    "styled",
]

import contextlib
import os
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from liouville.files import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure
    from matplotlib.text import Text

# After Okabe and Ito, and for more classes after Paul Tol's muted colours, each darkened until it shows on white; the
# second row of each is for dark pages.
_FEW = ("#0072B2", "#D55E00", "#008F68", "#B5598F", "#9A7400", "#5A5A5A")
_FEW_ON_DARK = ("#56B4E9", "#F28A3C", "#2EBF93", "#E39CC6", "#E0B434", "#B8B8B8")
_MANY = ("#332288", "#CC6677", "#9A8000", "#117733", "#2F8FC0", "#882255", "#2E9082", "#7F7F2A", "#AA4499", "#777777")
_MANY_ON_DARK = (
    *("#9A8CFF", "#E98C9A", "#DDCC77", "#4DBB70", "#88CCEE", "#D96BA0", "#5CC7B4", "#B9B94A", "#D98BD0", "#B0B0B0"),
)
_MARKERS = ("o", "^", "s", "D", "v", "P", "X", "<", ">", "*")
TRAIN, HELD, NORM = _FEW[:3]
DARK, GREY = "#222222", "#595959"


class Look(NamedTuple):
    """The colour of a line and its dashes, as matplotlib takes them."""

    colour: str
    dashes: Any


_SOLID, _LONG, _SHORT, _MIXED = "-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 1.5, 1, 1.5))
NETWORKS: dict[str, Look] = {
    "h2": Look("#0072B2", _SOLID),
    "h1": Look("#D55E00", _LONG),
    "ms1": Look("#008F68", _SHORT),
    "ms2": Look("#B5598F", _MIXED),
    "ms3": Look("#9A7400", _LONG),
    "antisymmetric": Look("#882255", _MIXED),
    "verlet": Look("#2F8FC0", _LONG),
    "leapfrog": Look("#117733", _SHORT),
    "midpoint": Look("#7F7F2A", _MIXED),
    "resnet": Look("#5A5A5A", _SOLID),
    "mlp": Look("#AA4499", _SHORT),
    "cnn": Look(DARK, _MIXED),
    # variants: the colour of their network in other dashes, or of their own where it is another network
    "h2, pixelwise": Look("#0072B2", _SHORT),
    "h1, time-invariant": Look("#D55E00", _SHORT),
    "resnet with scaled start": Look("#5A5A5A", _LONG),
    "resnet with layernorm": Look("#CC6677", _SHORT),
    "tanh mlp": Look("#AA4499", _SHORT),
    "fully connected, 32": Look("#AA4499", _SHORT),
    "fully connected, 8": Look("#AA4499", _LONG),
}
"""The look of each network in every figure that sets networks apart, by the beginning of its name."""

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
    """An empty figure of this size in inches, drawn by Agg and not registered in pyplot; a notebook shows it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from liouville.report.shown import Shown

    figure = Shown(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def heading(figure: Figure, title: str, below: str = "") -> Text:
    """Write the title sentence, and a note in smaller print; returns the sentence."""
    text = figure.suptitle(title, x=0.012, ha="left", fontsize=11.5, fontweight="bold", wrap=True)
    if below:
        figure.supxlabel(below, x=0.012, ha="left", fontsize=8, color=GREY, wrap=True)
    return text


def colours(number: int, *, dark: bool = False) -> tuple[str, ...]:
    """One colour for each class, on white or on a dark page."""
    few, many = (_FEW_ON_DARK, _MANY_ON_DARK) if dark else (_FEW, _MANY)
    palette = few if number <= len(few) else many
    return tuple(palette[k % len(palette)] for k in range(number))


def shapes(number: int) -> tuple[str, ...]:
    """One marker of matplotlib for each class.

    Examples:
        >>> shapes(3)
        ('o', '^', 's')
    """
    return tuple(_MARKERS[k % len(_MARKERS)] for k in range(number))


def look_of(network: str) -> Look:
    """The look of a network in all figures; of one that is not in `NETWORKS`, black and dotted.

    Examples:
        >>> look_of("H2, 64 layers") == look_of("h2"), look_of("a net").colour == DARK
        (True, True)
    """
    known = [name for name in NETWORKS if network.lower().startswith(name)]
    return NETWORKS[max(known, key=len)] if known else Look(DARK, _SHORT)


def cloud(axes: Axes, points: Tensor, y: Tensor, classes: int, size: float, **more: Any) -> PathCollection:
    """Points of the plane, (samples, 2), as one collection: the colour and the shape of each are those of its class."""
    from matplotlib.markers import MarkerStyle

    palette, styles = colours(classes), map(MarkerStyle, shapes(classes))
    paths = [style.get_path().transformed(style.get_transform()) for style in styles]
    across, up = points.unbind(1)
    dots = axes.scatter(across, up, s=size, c=[palette[int(k)] for k in y], linewidths=0, alpha=0.85, **more)
    dots.set_paths([paths[int(k)] for k in y])
    return dots


def name_classes(axes: Axes, names: Sequence[str]) -> None:
    """An entry for each class, for `key`."""
    for name, colour, shape in zip(names, colours(len(names)), shapes(len(names)), strict=True):
        axes.scatter([], [], s=26, c=colour, marker=shape, linewidths=0, label=name)


def key(figure: Figure, note: str = "", *, longest: int = 40, **more: Any) -> None:
    """A legend of everything that has a label in the figure, below all panels, under a note in smaller print.

    It has as many columns as fit the width, and cuts names of more than ``longest`` letters; a label that stands twice
    is there once.
    """
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    width = figure.get_figwidth()
    most = max(8, min(longest, int((width - 0.6) / _LETTER)))
    labels = [label if len(label) <= most else f"{label[: most - 1]}…" for label in found]
    widest = 0.45 + _LETTER * max(map(len, labels), default=1)
    columns = max(1, min(len(labels), int((width - 0.2) / widest)))
    lines = textwrap.wrap(note, int((width - 0.3) / _SMALL))
    figure.legend(
        list(found.values()),
        labels,
        loc="outside lower left",
        ncols=columns,
        handletextpad=0.4,
        columnspacing=1.2,
        title="\n".join(lines) or None,
        title_fontproperties={"size": 8},
        alignment="left",
        **more,
    ).get_title().set_color(GREY)


_LETTER, _SMALL = 0.072, 0.063  # inches of a letter of a label and of a note


def shades(number: int) -> list[Any]:
    """Colours from light to dark for ordered values, the lightest with a contrast of 3 on white."""
    import matplotlib

    return [matplotlib.colormaps["viridis"](0.58 - 0.58 * k / max(1, number - 1)) for k in range(number)]


def strengths(classes: int) -> Tensor:
    """How strongly the region of each class is shaded: different lightness even without colour, (classes,)."""
    return torch.linspace(0.46, 0.18, classes, dtype=torch.float64)


def blend(probabilities: Tensor) -> Tensor:
    """(..., classes) -> (..., 3): the classes' colours mixed by probability; uncertain points are paler."""
    classes = probabilities.shape[-1]
    rgb = torch.tensor([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colours(classes)])
    certainty = (probabilities.amax(-1, keepdim=True) - 1 / classes) / (1 - 1 / classes)
    strength = probabilities @ strengths(classes).to(probabilities)
    return 1 - strength[..., None] * (0.2 + 0.8 * certainty) * (1 - probabilities @ rgb.to(probabilities))


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
