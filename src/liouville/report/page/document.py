"""The page of one run, or of several beside each other: one file that needs no connection."""

from __future__ import annotations

__all__ = ["page", "write"]

import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from liouville.files import atomic, without_nan
from liouville.report.page.answers import answers
from liouville.report.page.blocks import Lines, Section, Table
from liouville.report.page.comparing import compared
from liouville.report.page.curves import training
from liouville.report.page.gradients import Norms, gradients, norms_of
from liouville.report.page.motion import motion
from liouville.report.page.plane import regions
from liouville.report.page.record import Record
from liouville.report.page.words import certified
from liouville.report.style import colours, percent
from liouville.version import __version__

_WHOLE = 6  # runs shown whole; of more, only what compares them


class _Part(NamedTuple):
    """What belongs together: a run, or the comparison; ``name`` is its heading, or ""."""

    id: str
    name: str
    sections: list[Section]


def page(records: Sequence[Record]) -> str:
    """The HTML of a page; equal records give equal text.

    Args:
        records: of one run, or of several, which are compared first.

    Raises:
        ValueError: there is no record.
        ImportError: plotly or matplotlib is not installed.
    """
    if not records:
        raise ValueError("there is no run to report on.")
    plotly = _plotly()
    found = [norms_of(record) for record in records]
    if len(records) == 1:
        parts = [_Part("run", "", _sections(records[0], found[0]))]
        title, lead = f"Report of the run {records[0].name}", _in_short(records[0])
    else:
        share = 1 / len(records)
        title, lead = f"{len(records)} runs beside each other", ", ".join(record.name for record in records)
        parts = [_Part("compared", "Comparison", [compared(records, found)])]
        if len(records) <= _WHOLE:
            parts += [
                _Part(f"run-{k}", record.name, _sections(record, norms, share))
                for k, (record, norms) in enumerate(zip(records, found, strict=True), 1)
            ]
    return _filled(title=title, lead=lead, parts=parts, plotly=plotly)


def write(records: Sequence[Record], path: str | os.PathLike[str]) -> Path:
    """Write the page into a file, whole or not at all.

    Raises:
        OSError: the file cannot be written.
        ValueError, ImportError: as `page`.
    """
    text = page(records)
    with atomic(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def _sections(record: Record, norms: Norms | str, share: float = 1.0) -> list[Section]:
    trained = [Table("The run", ("what", "in words"), list(record.what.items()))]
    every = [
        Section("What was trained", "All settings are in config.json, in the run's folder.", trained),
        training(record),
        answers(record),
        regions(record),
        motion(record, share),
        gradients(record, norms),
        certified(record),
        _use(record),
    ]
    return [section for section in every if section is not None]


def _in_short(record: Record) -> str:
    """Data, length and result in a sentence."""
    seconds, score = record.metrics.get("seconds"), record.metrics.get(f"test_{record.score_name}")
    length = f"{len(record.history)} epochs" + (f" in {seconds:.1f} s" if seconds is not None else "")
    words = f"{record.facts.name}: {length}"
    if score is None:
        return f"{words}; training did not come to its end ({record.metrics.get('stopped') or 'no metrics'})."
    shown = f"accuracy {percent(score)}" if record.score_name == "accuracy" else f"r² {score:.4g}"
    return f"{words}; {shown} on the test part."


def _use(record: Record) -> Section:
    lead = "The network with all that it needs to take raw inputs is in one file; loading it runs no code."
    if record.network is None:
        return Section("Use the model", f"Not applicable: {record.lacks}")
    blocks = [Lines(record.use.splitlines(), code=True)]
    if record.command:
        blocks += [Lines(("The same from a terminal:",)), Lines((record.command,), code=True)]
    return Section("Use the model", lead, blocks)


def _plotly() -> str:
    """Its script, which the page contains."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ImportError("a report needs plotly; install it: pip install 'liouville[report]'") from error
    script: str = get_plotlyjs()
    return script


def _filled(*, plotly: str, parts: list[_Part], **words: Any) -> str:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    here = resources.files("liouville.report.page")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.policies["json.dumps_function"] = _json
    few = 6
    palettes = {
        name: {"few": colours(few, dark=dark), "many": colours(10, dark=dark)}
        for name, dark in (("light", False), ("dark", True))
    }
    return environment.from_string((here / "page.html").read_text(encoding="utf-8")).render(
        **words,
        parts=parts,
        palettes=palettes | {"few": few},
        version=__version__,
        css=Markup((here / "page.css").read_text(encoding="utf-8")),
        script=Markup((here / "page.js").read_text(encoding="utf-8")),
        plotly=Markup(plotly),
    )


def _json(value: Any, **options: Any) -> str:
    import json

    return json.dumps(without_nan(value), allow_nan=False, separators=(",", ":"), ensure_ascii=False, **options)
