"""The page: every experiment's tables and pictures, made from the records and nothing else."""

from __future__ import annotations

__all__ = ["draw", "page"]

from collections.abc import Sequence
from pathlib import Path

from liouville.experiments.experiment import Experiment, Rendering, Table
from liouville.experiments.records import Record, Store

_HEAD = """# Reproduce

{warning}Generated from records; nothing here is typed by hand. `{command}` makes it again: cases with a record are not
run again, so an interrupted run goes on where it was. Numbers are medians over seeds, with the range in brackets. A
number stands under "paper" only where the paper's own was at hand; else the cell says "not available". Weights are
chosen on a held-out part of the training data, and the test part is read once at the end, except where a preset repeats
what a script did otherwise, and says so in its name. 2104.13166 is the predecessor of 2105.13205 by the same authors.
"""
_QUICK = """**Made with `--quick`: every case is cut down to a few seconds. This page shows that all of it runs; no
number or sentence on it says anything about a network.**

"""
_MET = (
    "Of {} published numbers {} are met ({:.0%}), with the settings that held-out points prefer; each section says "
    "what it counts as met, and how the papers' own settings do."
)


def page(experiments: Sequence[Experiment], folder: Path, quick: bool = False) -> str:
    """The page in Markdown, of the experiments that have records.

    Args:
        experiments: in the order of the page.
        folder: of all experiments, beside the page.
        quick: whether the records are of quick cases.
    """
    found = [(e, Store(e, folder / e.name).current(quick)) for e in experiments]
    found = [(experiment, records) for experiment, records in found if records]
    rendered = [(e, records, e.render(records, folder / e.name)) for e, records in found]
    command = f"liouville reproduce --all{' --quick' if quick else ''}"
    parts = [_HEAD.format(command=command, warning=_QUICK if quick else ""), _overview(rendered)]
    parts += [_section(*each, folder) for each in rendered]
    return "\n".join(parts)


def draw(rendering: Rendering, folder: Path) -> list[Path]:
    """Draw the pictures of one experiment into its folder."""
    return [path for name, picture in rendering.pictures.items() for path in picture.write(folder / name)]


def _overview(rendered: Sequence[tuple[Experiment, Sequence[Record], Rendering]]) -> str:
    rows = []
    for experiment, records, rendering in rendered:
        cells = "" if rendering.cells is None else "{} of {}".format(*rendering.cells)
        name = f"[{experiment.name}](#{experiment.name})"
        rows.append((name, experiment.title, experiment.source, str(len(records)), _time(records), cells))
    total = [r.cells for _, _, r in rendered if r.cells]
    good, all_ = (sum(cells[k] for cells in total) for k in (0, 1))
    hours = sum(record.seconds for _, records, _ in rendered for record in records) / 3600
    note = f"All runs add up to {hours:.1f} hours of one core. "
    note += _MET.format(all_, good, good / all_) if all_ else ""
    head = ("experiment", "", "source", "runs", "time, added up", "published numbers met")
    return _markdown(Table("", head, rows, note))


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
            parts.append(f"![{picture.caption}]({place}.png)\n\n*{picture.caption}* ([SVG]({place}.svg))\n")
    return "\n".join(parts)


def _made(records: Sequence[Record]) -> str:
    """Where the records come from, in a sentence."""
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
