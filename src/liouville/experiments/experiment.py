"""The class of experiments: cases that can be run one by one, and a rendering that reads their records.

Running writes records, rendering reads them. Tables and figures depend only on records, so an interrupted experiment
can continue, and a page can be made again without running anything.
"""

from __future__ import annotations

__all__ = ["Experiment", "Picture", "Record", "Rendering", "Table"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.animation import Animation
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Record:
    """One case, its results and their origin.

    Args:
        case: the settings of the run.
        values: the results; ``{"diverged": sentence}`` where training diverged.
        seconds: duration.
        made: the commit of the code and the versions of its libraries.
    """

    case: Any
    values: Mapping[str, Any]
    seconds: float
    made: Mapping[str, str]

    @property
    def diverged(self) -> bool:
        """Whether training diverged."""
        return "diverged" in self.values


@dataclass(frozen=True)
class Table:
    """A table of words, ready for a terminal or a page; the first column is the row's name."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure and its caption; drawn on demand.

    Args:
        caption: one sentence.
        draw: draws it; a figure becomes a PNG, and an SVG if requested, an animation a GIF.
        frames_per_second: speed of an animation.
    """

    caption: str
    draw: Callable[[], Figure | Animation]
    frames_per_second: int = 12

    def write(self, stem: Path, *, svg: bool = False) -> list[Path]:
        """Draw it into ``stem.png``, with ``stem.svg`` if requested, or ``stem.gif``, each whole or not at all."""
        from matplotlib.animation import Animation

        from liouville.files import atomic
        from liouville.report import save
        from liouville.report.style import styled

        with styled():
            drawn = self.draw()
        if not isinstance(drawn, Animation):
            return save(drawn, stem.with_suffix(".png"), svg=svg)
        target = stem.with_suffix(".gif")
        with atomic(target) as path, styled():
            drawn.save(path, writer="pillow", fps=self.frames_per_second)
        return [target]


@dataclass(frozen=True)
class Rendering:
    """The text, tables and pictures of an experiment.

    Args:
        text: paragraphs in Markdown; every number in them comes from the records.
        tables: tables in the order of the page.
        pictures: pictures by file name.
        verdicts: for each published number whether it is met, exceeded or missed
        (`liouville.experiments.comparing`): by the papers' own procedure, and by the one chosen on
            held-out points; None where that was not run.
    """

    text: str = ""
    tables: Sequence[Table] = ()
    pictures: Mapping[str, Picture] = field(default_factory=dict)
    verdicts: Sequence[tuple[str | None, str | None]] = ()


@dataclass(frozen=True)
class Experiment:
    """A table or figure of a paper, or an experiment beyond the papers.

    Args:
        name: its name in the command.
        title: its heading.
        source: the paper and the table or figure, or ``"beyond the papers"``.
        case: the type of its cases: a frozen dataclass of numbers, strings, booleans and tuples of them, with a field
            ``seed``.
        cases: all cases, from the number of seeds and whether it should be quick: every kind of case once, small
            enough that all experiments together take less than ten minutes on two cores.
        run: runs one case and returns JSON. The folder belongs to the experiment, for models that a figure
            needs. A training that diverges raises DivergenceError, and is recorded as diverged.
        render: makes tables and pictures from the available records, even none.
        cost: approximate seconds of a case on one core.
        alone: whether a case runs without others, on all cores, because it measures time.
        values: the type that ``run`` returns, as an annotation for `liouville.documents.conform`.
    """

    name: str
    title: str
    source: str
    case: type[Any]
    cases: Callable[[int, bool], Sequence[Any]]
    run: Callable[[Any, Path], Mapping[str, Any]]
    render: Callable[[Sequence[Record], Path], Rendering]
    cost: Callable[[Any], float]
    alone: bool = False
    values: Any = Any

    def read_case(self, value: Mapping[str, Any]) -> Any:
        """The case from its JSON object.

        Raises:
            ValueError: if it is a case of another experiment, or of another version of this one.
        """
        names = {f.name for f in fields(self.case)}
        if value.keys() != names:
            raise ValueError(f"a case of {self.name} has {', '.join(sorted(names))}; got {', '.join(sorted(value))}.")
        return self.case(**{name: tuple(v) if isinstance(v, list) else v for name, v in value.items()})
