"""Execution: train as a plan says, and leave what there is, whatever ends it.

`trained` is the training by itself, in memory. `run` does it into a folder, and when something ends it early, saves the
best weights so far before the error goes on; beside them lies the last checkpoint, from which `run` goes on. `train`
does all of it: threads, data, network, training.
"""

from __future__ import annotations

__all__ = ["Failed", "Interrupted", "Stopped", "run", "settled", "train", "trained"]

import contextlib
import dataclasses
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from liouville.data import Split
from liouville.network import Network
from liouville.processes import Processes
from liouville.runs import logs
from liouville.runs.contents import config_of, metrics_of
from liouville.runs.folder import Writer, require_free, tidy
from liouville.runs.plan import Plan
from liouville.runs.resuming import require_same
from liouville.runs.run import CHECKPOINT, CONFIG, Run, Trained
from liouville.train import (
    Checkpoint,
    DivergenceError,
    GaussNewton,
    History,
    MultilevelHistory,
    fit,
    gauss_newton,
    multilevel,
)
from liouville.train.progress import Progress, silent


class Stopped(BaseException):
    """Something ended a training early; the best weights so far are kept, in ``run``.

    It is a `Failed`, or an `Interrupted`, which passes by ``except Exception`` as Ctrl-C does. ``__cause__`` is what
    ended it.

    Args:
        sentence: what ended it.
        best_epoch: whose weights ``run`` has; 0 for the initial ones.
        run: what there is.
    """

    def __init__(self, sentence: str, best_epoch: int, run: Run) -> None:
        super().__init__(sentence, best_epoch, run)
        self.best_epoch, self.run = best_epoch, run

    def __str__(self) -> str:
        path = self.run.path
        where = "in memory" if path is None else f"in {path}"
        goes_on = "" if path is None or not Checkpoint(path / CHECKPOINT).exists() else f"; {_command(path)} goes on"
        if self.best_epoch:
            return f"{self.args[0]} The best weights so far, those of epoch {self.best_epoch}, are {where}{goes_on}."
        return f"{self.args[0]} No epoch was completed, so the initial weights are {where}{goes_on}."


class Failed(Stopped, RuntimeError):
    """A training that diverged, lost one of its processes, or met an error after its first epoch."""


class Interrupted(Stopped, KeyboardInterrupt):
    """Somebody asked the training to end."""


def trained(
    plan: Plan,
    network: Network,
    split: Split,
    *,
    on_epoch: Callable[[History], None] | None = None,
    progress: Progress = silent,
    processes: Processes = Processes(),
    checkpoint: Checkpoint | None = None,
) -> History:
    """Train ``network`` in place as the plan says: by gradients or by Gauss-Newton, on one level or several.

    Args:
        plan: its settings, levels, seed and dtype; its data and network are as given.
        network: ``plan.network(split.facts())``, or another one.
        split: the data.
        on_epoch: called with the history after every epoch.
        progress: where to show it.
        processes: those that share every batch; each calls this with equal arguments.
        checkpoint: where to keep the state of the training, and to go on from.

    Raises:
        ValueError, DivergenceError, ConnectionError: as `liouville.train.fit`.

    Examples:
        >>> plan = Plan.of("double-moons").changed(layers=4, epochs=2, data_options={"points": 80})
        >>> split = plan.load()
        >>> len(trained(plan, plan.network(split.facts()), split).epochs)
        2
    """
    settings = plan.fit_settings()
    told: dict[str, Any] = {"progress": progress, "on_epoch": on_epoch, "checkpoint": checkpoint}
    if plan.levels > 1:
        return multilevel(network, split, settings, levels=plan.levels, processes=processes, **told)
    if not isinstance(settings, GaussNewton):
        return fit(network, split, settings, processes=processes, **told)
    if processes.size > 1:
        raise ValueError(f"gauss-newton trains in one process, got {processes.size}; take adam, adamw or sgd.")
    return gauss_newton(network, split, settings, **told)


def train(
    plan: Plan,
    split: Split | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    progress: Progress = silent,
    force: bool = False,
    resume: bool = False,
    checkpoint_every: float = 300.0,
    processes: Processes = Processes(),
    log: Sequence[str] = (),
) -> Run:
    """Train as `liouville train` does, and read the test part once.

    Threads and the flushing of denormal numbers are the plan's while it runs, and afterwards as they were. In several
    processes each calls this with equal arguments; the first one has the folder.

    Args:
        plan: what to do.
        split: data of one's own, whatever data the plan names; the plan in the run has ``data=None``. Data are loaded
            by the plan if None.
        out: the run folder; nothing is written if None.
        progress: where to show it; ``liouville.train.Terminal()`` draws a bar.
        force: replace the run that ``out`` holds.
        resume: go on with the run that ``out`` holds, from its last checkpoint or else from the beginning, to the bits
            of a run that nothing ended; begin where there is none. A run that is finished comes back as it is.
        checkpoint_every: seconds from one checkpoint to the next.
        processes: those that share every batch.
        log: also write every epoch to ``history.csv`` (``"csv"``) or for TensorBoard (``"tensorboard"``) in the folder.

    Raises:
        Stopped: something ended the training early; what there is was saved, and is in its ``run``.
        ValueError, OSError: before that, with nothing left behind; also where ``out`` holds a run of another plan,
            of other data or of another version, which are named.

    Examples:
        >>> from liouville import runs
        >>> plan = runs.Plan.of("swiss-roll").changed(layers=4, epochs=2, data_options={"points": 200})
        >>> run = runs.train(plan, out="runs/mine")
        >>> run.metrics["epochs"], runs.Run.open("runs/mine").network().predict([[0.0, 0.3]])[0] in (
        ...     "outer spiral", "inner spiral")
        (2, True)
    """
    first = processes.rank == 0
    before = Run.open(out) if resume and out is not None and (Path(out) / CONFIG).is_file() else None
    if out is not None and before is None and first:
        require_free(Path(out), force)
    with settled(plan) as plan:
        if split is None:
            split = plan.load()
        else:
            plan = dataclasses.replace(plan, data=None, data_options={}, table=None)
        if before is not None and plan.table is not None:
            split = dataclasses.replace(split, name=before.facts.name)  # a table may be moved
        network = plan.network(split.facts())
        if before is not None:
            require_same(before, plan, network, split)
            if before.finished:
                if first:
                    tidy(before.path)
                return before
        return run(
            plan,
            network,
            split,
            out,
            progress=progress,
            force=force,
            resume=before is not None,
            checkpoint_every=checkpoint_every,
            processes=processes,
            log=log,
        )


def run(
    plan: Plan,
    network: Network,
    split: Split,
    out: str | os.PathLike[str] | None = None,
    *,
    progress: Progress = silent,
    force: bool = False,
    resume: bool = False,
    checkpoint_every: float = 300.0,
    processes: Processes = Processes(),
    log: Sequence[str] = (),
    command: list[str] | None = None,
    on_stop: Callable[[], None] = lambda: None,
) -> Run:
    """Train a network that is made already, into a folder; what `train` does once it has data and network.

    Args:
        plan, split, out, progress, force, checkpoint_every, processes, log: as for `train`.
        network: the plan's, whose ``facts`` are those of the split.
        resume: ``out`` holds a run of this plan and these data, see `require_same`, and goes on.
        command: the words that were typed, if any.
        on_stop: called when something has ended the training early, before what there is is saved.

    Raises:
        Stopped, ValueError, OSError: as for `train`.
    """
    facts = network.facts or split.facts()
    checkpoint = None if out is None else Checkpoint(Path(out) / CHECKPOINT, checkpoint_every)
    writer = None
    folder = Path(out) if out is not None and processes.rank == 0 else None
    loggers = logs.loggers(folder, log)
    if folder is not None:
        writer = Writer(folder, plan, facts, network, command=command, force=force, resume=resume)
    config = config_of(plan, facts, network, command)
    history = History("accuracy" if split.classes else "r2")

    def on_epoch(now: History) -> None:
        nonlocal history
        history = now
        if writer is not None:
            writer.epoch(now)
        for logger in loggers:
            logger.on_train_epoch_end(now)

    def kept(**more: Any) -> Run:
        more = {"processes": processes.size, **more}
        done = Trained(network, history, split)
        if writer is None:
            return Run(None, config, metrics_of(network, history, **more), done)
        try:
            writer.finish(network, history, **more)
        except OSError as error:
            raise OSError(f"{error} {_safe(writer.path)}") from error
        return Run.open(writer.path, done)

    try:
        history = trained(
            plan, network, split, on_epoch=on_epoch, progress=progress, processes=processes, checkpoint=checkpoint
        )
    except KeyboardInterrupt as error:
        on_stop()
        if writer is not None and not writer.begun:
            raise
        of = "" if getattr(plan.settings, "steps", None) else f" of {plan.epochs}"
        sentence = f"interrupted in epoch {len(history.epochs) + 1}{of}"
        raise Interrupted(f"{sentence}.", history.best_epoch, kept(stopped=sentence)) from error
    except Exception as error:
        on_stop()
        if writer is not None and not writer.begun:
            raise
        known = history.best_epoch or (checkpoint is not None and checkpoint.exists())
        if known or isinstance(error, DivergenceError | ConnectionError):
            raise Failed(str(error), history.best_epoch, kept(stopped=str(error))) from error
        if writer is not None:
            writer.discard()
        raise
    else:
        if not isinstance(history, MultilevelHistory):
            return kept()
        levels = [dataclasses.asdict(level) for level in history.levels]
        return kept(levels=levels, levels_left_out=history.skipped)
    finally:
        for logger in loggers:
            logger.on_train_end()
        if writer is not None:
            writer.release()


def _command(path: Path) -> str:
    return f"`liouville train --resume {shlex.quote(str(path))}`"


def _safe(path: Path) -> str:
    """What there is of a training whose end could not be written, and where."""
    checkpoint = Checkpoint(path / CHECKPOINT)
    if checkpoint.exists():
        return f"The last checkpoint is safe in {path}; {_command(path)} goes on from there."
    return f"Its weights are lost; {_command(path)} begins again."


@contextlib.contextmanager
def settled(plan: Plan) -> Iterator[Plan]:
    """Run with the plan's threads, denormal numbers flushed to 0; the plan comes back with the threads it has.

    Examples:
        >>> with settled(Plan(threads=1)) as plan:
        ...     torch.get_num_threads()
        1
    """
    threads, flushing = torch.get_num_threads(), _flushes_denormals()
    if plan.threads is not None:
        torch.set_num_threads(plan.threads)
    torch.set_flush_denormal(True)
    try:
        yield dataclasses.replace(plan, threads=torch.get_num_threads())
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushing)


def _flushes_denormals() -> bool:
    """Torch can set it and not say it."""
    return not bool(torch.tensor(1e-40).mul(0.5).double() > 0)
