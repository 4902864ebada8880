"""The page: every experiment's tables and pictures, made only from the records."""

from __future__ import annotations

__all__ = ["draw", "page"]

from collections.abc import Sequence
from pathlib import Path

from liouville.experiments.comparing import EXCEEDED, MET, MISSED, chance
from liouville.experiments.experiment import Experiment, Rendering, Table
from liouville.experiments.paired import LEVEL
from liouville.experiments.records import Record, Store

_HEAD = """# Reproduce

{warning}Generated from records; nothing here is typed by hand. `{command}` makes it again: cases with a record are not
run again, so an interrupted run can continue. Numbers are medians over seeds, with the range in brackets. The column
"paper" has published numbers; where none was at hand, the cell says "not available". Weights are chosen on a held-out
part of the training data, and the test part is read once at the end, except where a preset repeats another procedure of
a script and is named after it. 2104.13166 is the predecessor of 2105.13205 by the same authors.

{headline}"""
_QUICK = """**Made with `--quick`: every case is cut down to a few seconds. This page only shows that everything runs;
its numbers and sentences say nothing about networks.**

"""
_HEADLINE = """**By the papers' own procedure {met} of {all} published numbers are met**{rest}. By the
procedure with the best held-out accuracy, including ours: {ours}. Missed by both: {neither}.

*Met*: the published number lies within the range of our seeds, or no further from our median than the tolerance stated
in its section. *Exceeded*: ours is above it. *Missed*: ours is below. A number exceeded by another procedure is not
reproduced. A further run of the same procedure lies within the range of 5 others with probability {five}, of 3 with
{three}, for any procedure: a single number that is met proves little.

*Ahead* and *behind* mean that the exact sign test over pairs of one seed in one cell, with all cells of a table pooled
and ties left out, has a two-sided p of at most {level:g}; otherwise two methods are "not told apart". "Higher" and
"lower" refer only to medians. No p is corrected for the number of tests, and cells that share seeds are not quite
independent, so that p is somewhat too small.
"""


def page(experiments: Sequence[Experiment], folder: Path, quick: bool = False) -> str:
    """The page in Markdown, with the experiments that have records.

    Args:
        experiments: experiments in the order of the page.
        folder: folder of all experiments, next to the page.
        quick: whether the records are from quick cases.
    """
    found = [(e, Store(e, folder / e.name).current(quick)) for e in experiments]
    found = [(experiment, records) for experiment, records in found if records]
    rendered = [(e, records, e.render(records, folder / e.name)) for e, records in found]
    command = f"liouville reproduce --all{' --quick' if quick else ''}"
    headline = _headline([pair for _, _, r in rendered for pair in r.verdicts])
    parts = [_HEAD.format(command=command, warning=_QUICK if quick else "", headline=headline), _overview(rendered)]
    parts += [_section(*each, folder) for each in rendered]
    return "\n".join(parts)


def draw(rendering: Rendering, folder: Path, *, svg: bool = False) -> list[Path]:
    """Draw the pictures of one experiment into its folder, as PNG and, if requested, SVG."""
    return [path for name, picture in rendering.pictures.items() for path in picture.write(folder / name, svg=svg)]


def _overview(rendered: Sequence[tuple[Experiment, Sequence[Record], Rendering]]) -> str:
    rows = []
    for experiment, records, rendering in rendered:
        name, found = f"[{experiment.name}](#{experiment.name})", rendering.verdicts
        counts = ["", "", "", ""]
        if found:
            theirs, ours = ([pair[k] for pair in found] for k in (0, 1))
            counts = [str(len(found)), f"**{_tally(theirs)}**", _tally(ours), str(_neither(found))]
        rows.append((name, experiment.title, experiment.source, str(len(records)), _time(records), *counts))
    hours = sum(record.seconds for _, records, _ in rendered for record in records) / 3600
    note = f"All runs add up to {hours:.1f} hours of one core."
    head = ["experiment", "", "source", "runs", "time, added up", "published numbers", "by the papers' own procedure"]
    head += ["by the held-out choice", "missed by both"]
    return _markdown(Table("", head, rows, note))


def _headline(pairs: Sequence[tuple[str | None, str | None]]) -> str:
    """The counts of all published numbers, and the definitions of the terms."""
    theirs, ours = ([pair[k] for pair in pairs] for k in (0, 1))
    counts = {"met": theirs.count(MET), "all": len(pairs), "ours": _tally(ours), "neither": _neither(pairs)}
    rest = "".join(f", {part}" for part in _tally(theirs).split(", ")[1:])
    words = {"five": chance(5), "three": chance(3), "level": LEVEL}
    return _HEADLINE.format(rest=rest, **counts, **words) if pairs else ""


def _tally(found: Sequence[str | None]) -> str:
    """The counts of numbers met, exceeded, missed and not run."""
    said = ", ".join(f"{found.count(word)} {word}" for word in (MET, EXCEEDED, MISSED))
    return said + (f", {found.count(None)} not run" if None in found else "")


def _neither(pairs: Sequence[tuple[str | None, str | None]]) -> int:
    return sum(not {MET, EXCEEDED} & {*pair} for pair in pairs)


def _section(experiment: Experiment, records: Sequence[Record], rendering: Rendering, folder: Path) -> str:
    parts = [f'## <a id="{experiment.name}"></a>{experiment.title}\n', f"{experiment.source}. {_made(records)}\n"]
    parts += [f"`liouville reproduce {experiment.name}`\n"]
    parts += [f"{rendering.text.strip()}\n"] if rendering.text.strip() else []
    parts += [_markdown(table) for table in rendering.tables]
    for name, picture in rendering.pictures.items():
        stem, place = folder / experiment.name / name, f"{folder.name}/{experiment.name}/{name}"
        if stem.with_suffix(".gif").exists():
            parts.append(f"![{picture.caption}]({place}.gif)\n\n*{picture.caption}*\n")
        elif stem.with_suffix(".png").exists():
            more = f" ([SVG]({place}.svg))" if stem.with_suffix(".svg").exists() else ""
            parts.append(f"![{picture.caption}]({place}.png)\n\n*{picture.caption}*{more}\n")
    return "\n".join(parts)


def _made(records: Sequence[Record]) -> str:
    """The origin of the records, in a sentence."""
    of = {key: ", ".join(sorted({str(r.made.get(key)) for r in records})) for key in ("commit", "torch")}
    seeds = sorted({r.case.seed for r in records})
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    return f"{len(records)} runs, {which}, {_time(records)} added up; code {of['commit']}, torch {of['torch']}."


def _time(records: Sequence[Record]) -> str:
    seconds = sum(r.seconds for r in records)
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _markdown(table: Table) -> str:
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    grid = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    title = f"**{table.title}**\n\n" if table.title else ""
    return f"{title}{grid}\n" + (f"\n{table.note}\n" if table.note else "")
