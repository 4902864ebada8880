"""``liouville report``: the page of a run, or of several beside each other."""

from __future__ import annotations

__all__ = ["opened", "report", "written"]

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from liouville.cli import completion
from liouville.cli.check import split_of
from liouville.cli.completion import names_of
from liouville.cli.exits import BadInput
from liouville.cli.help import Command
from liouville.cli.options import data_option
from liouville.cli.output import say

if TYPE_CHECKING:
    from liouville.data import Split
    from liouville.runs import Run


@click.command(
    cls=Command,
    short_help="Write an HTML report of a run, or of several beside each other.",
    examples=(
        ("liouville report runs/swiss-roll-h2-1 --open", "write the page of a run, and show it"),
        ("liouville report runs/a runs/b --out both.html", "two runs, compared"),
    ),
)
@click.argument("runs", metavar="RUN [RUN]...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write to this file.  [default: RUN/report.html; report.html for several]",
)
@click.option(
    "--data",
    metavar="NAME|FILE",
    help="Show this data set, or the table of the run.  [default: the run's own with a name]",
    **names_of(completion.data, files=True),
)
@data_option()
@click.option("--open", "show", is_flag=True, help="Show the report in a browser.")
def report(runs: Sequence[str], out: Path | None, data: str | None, data_options: tuple[str, ...], show: bool) -> None:
    """Write a report of RUN, a run folder: what was trained, curves, answers, decision regions, features that move
    through the layers, gradient norms, and the certificate in plain words. Several runs are compared first.

    The report is one HTML file that needs no connection. `liouville train` writes one into every run folder.
    """
    from liouville.runs import Run

    if data_options and data is None:
        raise BadInput("-d belongs to --data; give both, or none for the run's own data.")
    if data is not None and len(runs) > 1:
        raise BadInput("--data names the data of one run; give one run, or leave --data out.")
    opened_runs = [Run.open(name) for name in dict.fromkeys(runs)]
    splits = [_split(run, data, data_options) for run in opened_runs]
    target = (
        out or (opened_runs[0].path or Path()) / "report.html" if len(opened_runs) == 1 else out or Path("report.html")
    )
    if out is None and len(runs) == 1 and splits[0] is None and target.exists():
        click.echo(f"liouville: note: {target} stays as it is; --out FILE writes one without the data.", err=True)
    else:
        written(opened_runs, splits, target)
    say(str(target))
    if show:
        opened(target)


def _split(run: Run, data: str | None, options: tuple[str, ...]) -> Split | None:
    """The run's data; None, with a note, where they are a table that was not named or cannot be had."""
    try:
        found: Split | None = split_of(run, data, options)
    except (OSError, ImportError) as error:
        if data is not None:
            raise
        click.echo(f"liouville: note: {run.path}: without its data ({error}).", err=True)
        return None
    if found is None:
        click.echo(
            f"liouville: note: {run.path} was trained on data of one's own, which it does not hold; --data FILE shows "
            "its table.",
            err=True,
        )
    return found


def written(runs: Sequence[Run], splits: Sequence[Split | None], target: Path) -> None:
    """Write the page of some runs.

    Raises:
        BadInput: the file cannot be written.
    """
    from liouville.report.page import write

    records = [run.record(split) for run, split in zip(runs, splits, strict=True)]
    try:
        write(records, target)
    except OSError as error:
        raise BadInput(f"{target} cannot be written: {error.strerror or error}; choose another --out.") from error


def opened(target: Path) -> None:
    """Show a file in the browser; a note where there is none."""
    import webbrowser

    if not webbrowser.open(target.resolve().as_uri()):
        click.echo(f"liouville: note: there is no browser here; open {target} in one.", err=True)
