"""The parts that a page is made of. Strings are plain text here; the template escapes them."""

from __future__ import annotations

__all__ = ["Block", "Chart", "Gallery", "Grid", "Lines", "Motion", "Section", "Table", "axis", "chart_text", "number"]

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Lines:
    """Paragraphs, or code that can be copied."""

    kind: ClassVar[str] = "lines"
    lines: Sequence[str]
    code: bool = False


@dataclass(frozen=True)
class Table:
    """A table with a caption; the first cell of a row is its head. ``folded`` shows it on demand."""

    kind: ClassVar[str] = "table"
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False


@dataclass(frozen=True)
class Grid:
    """A confusion matrix: counts whose cells are shaded by their share of the row."""

    kind: ClassVar[str] = "grid"
    caption: str
    names: Sequence[str]
    counts: Sequence[Sequence[int]]

    def share(self, row: int, column: int) -> float:
        """Of the row's samples, those in this cell."""
        return self.counts[row][column] / max(1, sum(self.counts[row]))


@dataclass(frozen=True)
class Chart:
    """A figure of plotly with what it shows in words, and its numbers.

    Args:
        alt: what is to be seen, in a sentence.
        figure: ``data`` and ``layout``; the colours ``@ink``, ``@soft`` and ``@grid`` are the page's.
        numbers: a table of its numbers.
    """

    kind: ClassVar[str] = "chart"
    alt: str
    figure: dict[str, Any]
    numbers: Table | None = None


@dataclass(frozen=True)
class Motion:
    """Points that move with a slider, in the plane and in space.

    Args:
        alt: what is to be seen.
        plane, space: figures with one trace for each group of points; ``space`` is None where there is no third axis.
        labels: one for each position of the slider.
        sizes: the number of points in each group.
        points: base64 of little-endian float32 (labels, points, 3).
        numbers: a table of its numbers.
    """

    kind: ClassVar[str] = "motion"
    alt: str
    plane: dict[str, Any]
    space: dict[str, Any] | None
    labels: Sequence[str]
    sizes: Sequence[int]
    points: str
    numbers: Table


@dataclass(frozen=True)
class Gallery:
    """Small pictures, each with its words; ``images`` are data URIs."""

    kind: ClassVar[str] = "gallery"
    images: Sequence[tuple[str, str]]


Block = Lines | Table | Grid | Chart | Motion | Gallery


@dataclass(frozen=True)
class Section:
    """A heading, what it says in a sentence, and its blocks."""

    title: str
    lead: str
    blocks: Sequence[Block] = ()


def number(value: Any) -> str:
    """A number as people read it; a dash where there is none.

    Examples:
        >>> number(0.123456), number(12345), number(None), number(2.0), number(139812.0), number(7.152e-06)
        ('0.1235', '12,345', '–', '2', '139,800', '7.152 × 10⁻⁶')
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, int) or value == 0:
        return f"{value:,.0f}"
    if 1e-3 <= abs(value) < 1e3:
        return f"{value:.4g}"
    if 1e3 <= abs(value) < 1e7:
        return f"{float(f'{value:.4g}'):,.5g}" if abs(value) < 1e4 else f"{float(f'{value:.4g}'):,.0f}"
    digits, power = f"{value:.3e}".split("e")
    return f"{digits.rstrip('0').rstrip('.')} × 10{str(int(power)).translate(_RAISED)}"


def chart_text(text: str) -> str:
    """Text of others inside a figure: plotly takes some HTML for formatting.

    Examples:
        >>> chart_text("<b>a</b>")
        '&lt;b&gt;a&lt;/b&gt;'
    """
    return html.escape(text, quote=False)


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis in the page's colours."""
    plain = {"gridcolor": "@grid", "zerolinecolor": "@grid", "linecolor": "@soft", "tickcolor": "@soft"}
    return {"title": {"text": title}, "color": "@ink", "automargin": True, **plain, **more}
