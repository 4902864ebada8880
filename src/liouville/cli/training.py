"""A training by ``liouville train``: what is said of it, how it ends, and what it leaves."""

from __future__ import annotations

__all__ = ["Asked", "Watch", "trained"]

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from liouville.cli import parallel, summary
from liouville.cli.exits import BadInput, Failed, Interrupted
from liouville.cli.output import say
from liouville.cli.own import note
from liouville.cli.report import opened
from liouville.environment import is_first

if TYPE_CHECKING:
    from liouville.data import Split
    from liouville.runs import Plan, Run


class Watch:
    """Where the time goes."""

    def __init__(self) -> None:
        self.last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """Note the time since the last lap under this name."""
        now = time.perf_counter()
        self.laps[name], self.last = now - self.last, now


class Asked(NamedTuple):
    """What was asked for beside the plan."""

    folder: Path | None
    before: Run | None
    every: float
    force: bool
    quiet: bool
    log: tuple[str, ...]
    figures: bool
    svg: bool
    report: bool
    show: bool


def trained(plan: Plan, asked: Asked, watch: Watch) -> int:
    """Train as the plan says, and leave what was asked for; the exit code."""
    from liouville import processes
    from liouville.runs import execute
    from liouville.runs.cautions import cautions
    from liouville.runs.folder import next_free
    from liouville.runs.logs import loggers
    from liouville.runs.resuming import require_same
    from liouville.train import Checkpoint, Terminal
    from liouville.train.progress import silent

    mine = Checkpoint(asked.folder or Path(), asked.every)  # refuses a bad interval before anything is said
    loggers(Path(), asked.log)  # and a bad name, or a package that is missing
    processes.join()
    notes: list[str] = []
    split = _loaded(plan, notes, asked.before)
    if is_first() and not asked.quiet:
        for text in notes:
            note(text)
    network = plan.network(split.facts())
    if asked.before is not None:
        require_same(asked.before, plan, network, split)
    together = processes.share(network)
    folder, quiet = asked.folder, asked.quiet
    if not is_first():  # the state of the first one is all that there is
        parallel.follow(lambda: execute.trained(plan, network, split, processes=together, checkpoint=mine))
        processes.leave()
        parallel.end(0)
    if folder is None:
        folder = next_free("runs", f"{plan.subject}-{plan.model}")
    watch.lap("data")
    if not quiet:
        say(summary.describe(plan, split, network, together))
        for caution in cautions(network) if plan.levels == 1 else ():
            click.echo(f"liouville: note: {caution}", err=True)
    with _told():
        done = execute.run(
            plan,
            network,
            split,
            folder,
            progress=silent if quiet else Terminal(),
            force=asked.force,
            resume=asked.before is not None,
            checkpoint_every=asked.every,
            processes=together,
            log=asked.log,
            command=_command_line(),
            on_stop=parallel.deafen,
        )
    processes.leave()
    watch.lap("train")
    drawn = summary.draw(done, folder, asked.svg, quiet) if asked.figures else []
    watch.lap("figures")
    reported = summary.page(done, folder, quiet) if asked.report else None
    watch.lap("report")
    if quiet:
        say(str(folder))
    else:
        summary.report(done, folder, [*drawn, *([reported] if reported else [])], watch.laps)
    if asked.show and reported is not None:
        opened(reported)
    return 0


def _loaded(plan: Plan, notes: list[str], before: Run | None) -> Split:
    try:
        if plan.table is None:
            return plan.load()
        split = plan.load(notes)
        if before is None:
            return split
        return dataclasses.replace(split, name=before.facts.name)  # a table may be moved
    except FileNotFoundError as error:
        if before is None or plan.table is None:
            raise
        raise BadInput(
            f"the table of {before.path}, {plan.table.path}, is not there any more; move it back, or say where it is "
            "with --data FILE."
        ) from error


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What ended a training, as the command says it."""
    from liouville import runs
    from liouville.train import DivergenceError

    try:
        yield
    except runs.Interrupted as stopped:
        raise Interrupted(str(stopped)) from None
    except runs.Failed as stopped:
        if isinstance(stopped.__cause__, DivergenceError | ConnectionError):
            raise Failed(str(stopped)) from stopped
        if isinstance(stopped.__cause__, OSError):
            raise BadInput(str(stopped)) from stopped
        assert stopped.__cause__ is not None
        raise stopped.__cause__ from stopped


def _command_line() -> list[str]:
    return ["liouville", *sys.argv[1:]]
