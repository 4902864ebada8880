"""``liouville reproduce``: the papers' tables and figures, ours beside theirs."""

from __future__ import annotations

__all__ = ["reproduce"]

import contextlib
import dataclasses
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from liouville.cli import completion
from liouville.cli.completion import names_of
from liouville.cli.errors import DEBUG
from liouville.cli.exits import BadInput, Interrupted
from liouville.cli.help import Command
from liouville.cli.output import say, table
from liouville.terminal import printable

if TYPE_CHECKING:
    from rich.progress import Progress

    from liouville.experiments.experiment import Experiment
    from liouville.experiments.records import Record
    from liouville.experiments.running import Failure, Job


@click.command(
    "reproduce",
    cls=Command,
    short_help="Run the papers' experiments; compare with their numbers.",
    examples=(
        ("liouville reproduce counterexample --quick", "one small run of each kind of case"),
        ("liouville reproduce swiss-roll peaks --out results", "two of them, with five seeds"),
        ("liouville reproduce --all", "everything; hours"),
    ),
    failure="a case failed",
)
@click.argument("names", metavar="[NAME]...", nargs=-1, **names_of(completion.experiments))
@click.option("--all", "everything", is_flag=True, help="Run every experiment (hours).")
@click.option("--seeds", type=click.IntRange(1, 100), default=5, show_default=True, help="Run each case so often.")
@click.option("--quick", is_flag=True, help="Make one small run of each kind of case, as a test.")
@click.option(
    "--jobs", type=click.IntRange(1), help="Run so many processes at a time, of one thread each.  [default: the cores]"
)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results"),
    show_default=True,
    help="Write records, figures and the page into this folder.",
)
@click.option("--again", is_flag=True, help="Discard the records of these experiments and run them again.")
@click.option("--render", is_flag=True, help="Run nothing; make tables, figures and page from existing records.")
@click.option("--no-figures", is_flag=True, help="Draw no figures.")
@click.option("--svg", is_flag=True, help="Draw every figure as SVG, too.")
def reproduce(
    names: tuple[str, ...],
    everything: bool,
    seeds: int,
    quick: bool,
    jobs: int | None,
    out: Path,
    again: bool,
    render: bool,
    no_figures: bool,
    svg: bool,
) -> int:
    """Run the experiments NAME (see `liouville list experiments`), or all of them.

    Every finished case is recorded in DIR/reproduce/NAME/records.jsonl, so an interrupted run can continue. The tables
    are printed and written, with the figures, to DIR/reproduce.md; with --quick to DIR/reproduce-quick.md, with
    separate records.
    """
    experiments = _chosen(names, everything)
    folder = out / ("reproduce-quick" if quick else "reproduce")
    failures = [] if render else _run(experiments, folder, seeds, quick, jobs or os.cpu_count() or 1, again)
    from liouville.experiments.records import Store

    found = [(e, Store(e, folder / e.name).current(quick)) for e in experiments]
    missing = [experiment.name for experiment, records in found if not records]
    if render and missing and (not everything or len(missing) == len(found)):
        what = "any experiment" if everything else ", ".join(missing)
        raise BadInput(f"{folder} has no records of {what}; leave out --render.")
    for experiment, records in found:
        if records:
            _show(experiment, records, folder, not no_figures, svg)
    _write_page(folder, quick)
    for failure in failures:
        click.echo(f"liouville: failed: {failure.experiment.name} {failure.case}: {failure.reason}", err=True)
    return 1 if failures else 0


def _chosen(names: Sequence[str], everything: bool) -> list[Experiment]:
    from liouville.experiments import EXPERIMENTS, load
    from liouville.names import spelled

    if everything and names:
        raise BadInput("--all is every experiment; give names or --all, not both.")
    if not everything and not names:
        raise BadInput("give the name of an experiment, or --all; `liouville list experiments` shows them.")
    chosen = dict.fromkeys(spelled(name, EXPERIMENTS) for name in names)
    return [load(name) for name in (EXPERIMENTS if everything else chosen)]


def _run(
    experiments: Sequence[Experiment], folder: Path, seeds: int, quick: bool, processes: int, again: bool
) -> list[Failure]:
    from liouville.experiments.records import Store
    from liouville.experiments.running import pending, run_all

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot write {folder}: {error.strerror}; choose another --out.") from error
    if again:
        for experiment in experiments:
            Store(experiment, folder / experiment.name).clear()
    todo = pending(experiments, folder, seeds, quick)
    try:
        with _reporter() as reporter:
            if not todo:
                reporter.say("every case is recorded; nothing to run")
                return []
            return run_all(todo, folder, processes, reporter)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; what was recorded is in {folder}, and the same command goes on from there."
        ) from None


@contextlib.contextmanager
def _reporter() -> Iterator[_Lines]:
    """A bar under the lines on a terminal, only the lines elsewhere."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True, highlight=False), transient=True) as bar:
        yield _Bar(bar)


class _Lines:
    """A line on standard error for every case that ends, with the time left."""

    def start(self, jobs: Sequence[Job], processes: int) -> None:
        self.left = self.total = sum(experiment.cost(case) for experiment, case in jobs)
        self.number, self.ended, self.began = len(jobs), 0, time.perf_counter()
        about = _duration(self.total / processes)
        self.say(f"{len(jobs)} cases to run, {processes} at a time, about {about}")

    def done(self, experiment: Experiment, record: Record) -> None:
        what = "diverged" if record.diverged else f"{record.seconds:.1f} s"
        self._ended(experiment.cost(record.case), f"{experiment.name}: {_words(record.case)}: {what}")

    def failed(self, failure: Failure) -> None:
        name = failure.experiment.name
        self._ended(failure.experiment.cost(failure.case), f"{name}: {_words(failure.case)}: failed: {failure.reason}")

    def say(self, text: str) -> None:
        click.echo(printable(text), err=True)

    def _ended(self, cost: float, text: str) -> None:
        self.ended += 1
        self.left -= cost
        gone, done = time.perf_counter() - self.began, self.total - self.left
        left = f", {_duration(gone * self.left / done)} left" if done and self.ended < self.number else ""
        self.say(f"[{self.ended}/{self.number}{left}] {text}")


class _Bar(_Lines):
    """The same above a bar of the work that is done; a case counts by its cost."""

    def __init__(self, bar: Progress) -> None:
        self.bar = bar

    def start(self, jobs: Sequence[Job], processes: int) -> None:
        self.task = self.bar.add_task("", total=None)
        super().start(jobs, processes)
        self.bar.update(self.task, total=self.total)

    def say(self, text: str) -> None:
        self.bar.console.print(printable(text), markup=False)
        self.bar.update(self.task, completed=self.total - self.left)


def _words(case: Any) -> str:
    return " ".join(f"{f.name}={getattr(case, f.name)}" for f in dataclasses.fields(case))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def _show(experiment: Experiment, records: list[Record], folder: Path, figures: bool, svg: bool) -> None:
    from liouville.experiments.page import draw

    with _rendering(folder / experiment.name):
        rendering = experiment.render(records, folder / experiment.name)
    say(f"{experiment.title} ({experiment.source})")
    if rendering.text:
        say(f"{rendering.text.strip()}\n")
    for each in rendering.tables:
        table(each.title, each.columns, each.rows, each.note, heads=True)
    with _rendering(folder / experiment.name):
        drawn = draw(rendering, folder / experiment.name, svg=svg) if figures else []
    for path in drawn:
        say(f"wrote {path}")


@contextlib.contextmanager
def _rendering(folder: Path) -> Iterator[None]:
    """Each record is sound by itself; whether they belong together, lengths for example, shows when they are drawn."""
    try:
        yield
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        raise BadInput(
            f"the records in {folder} do not fit together ({type(error).__name__}: {error}): they were edited, or "
            "another version wrote them; --again runs the experiment anew."
        ) from error


def _write_page(folder: Path, quick: bool) -> None:
    from liouville.experiments import EXPERIMENTS, load
    from liouville.experiments.page import page
    from liouville.files import atomic

    target = folder.parent / f"{folder.name}.md"
    if not folder.is_dir():
        return
    with atomic(target) as path:
        path.write_text(page([load(name) for name in EXPERIMENTS], folder, quick), encoding="utf-8")
    say(f"wrote {target}")
