"""Figures and animations of matplotlib that show themselves in a notebook, without ``%matplotlib inline``.

This module imports matplotlib, and is imported with the first figure.
"""

from __future__ import annotations

__all__ = ["Moving", "Shown"]

import io

from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure

_DPI = 150  # of the picture, which is shown at 96 to an inch


class Shown(Figure):
    """A figure that is a picture in a notebook."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        target = io.BytesIO()
        self.savefig(target, format="png", dpi=_DPI)
        width, height = (round(96 * side) for side in self.get_size_inches())
        return target.getvalue(), {"width": width, "height": height}


class Moving(FuncAnimation):
    """An animation with a player in a notebook."""

    def _repr_html_(self) -> str:
        return str(self.to_jshtml())
