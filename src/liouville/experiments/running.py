"""Runs the cases without a record, several at a time in separate processes, and records each when it ends."""

from __future__ import annotations

__all__ = ["Failure", "Reporter", "begin", "pending", "run_all"]

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from liouville.experiments.experiment import Experiment
from liouville.experiments.records import Record, Store, provenance
from liouville.train import DivergenceError

Job = tuple[Experiment, Any]


@dataclass(frozen=True)
class Failure:
    """A case without a record, and the reason."""

    experiment: Experiment
    case: Any
    reason: str


class Reporter(Protocol):
    """Receives the progress of the cases."""

    def start(self, jobs: Sequence[Job], processes: int) -> None:
        """Called before the first case."""

    def done(self, experiment: Experiment, record: Record) -> None:
        """Called after every recorded case."""

    def failed(self, failure: Failure) -> None:
        """Called after every other case."""


def pending(experiments: Sequence[Experiment], folder: Path, seeds: int, quick: bool) -> list[Job]:
    """The cases without a record, the longest first; cases that run alone come last."""
    jobs = []
    for experiment in experiments:
        known = {record.case for record in Store(experiment, folder / experiment.name).read()}
        jobs += [(experiment, case) for case in experiment.cases(seeds, quick) if case not in known]
    return sorted(jobs, key=lambda job: (job[0].alone, -job[0].cost(job[1])))


def run_all(jobs: Sequence[Job], folder: Path, processes: int, reporter: Reporter) -> list[Failure]:
    """Run the cases and record each; returns the failed ones, which do not stop the others.

    Args:
        jobs: from `pending`.
        folder: folder of all experiments; each has a sub-folder with its name.
        processes: number of processes at a time, of one thread each; a case that runs ``alone`` has one process and as
            many threads.
        reporter: receives the progress.

    Raises:
        KeyboardInterrupt: after the processes are stopped; records stay.
    """
    failures: list[Failure] = []
    reporter.start(jobs, processes)
    together = [job for job in jobs if not job[0].alone]
    alone = [job for job in jobs if job[0].alone]
    for group, workers, threads in ((together, processes, 1), (alone, 1, processes)):
        for experiment, case, result in _results(group, folder, min(workers, len(group)), threads):
            if isinstance(result, Record):
                Store(experiment, folder / experiment.name).append(result)
                reporter.done(experiment, result)
            else:
                failures.append(Failure(experiment, case, result))
                reporter.failed(failures[-1])
    return failures


def _results(
    jobs: Sequence[Job], folder: Path, processes: int, threads: int
) -> Iterator[tuple[Experiment, Any, Record | str]]:
    if not jobs:
        return
    with _pool(processes, threads) as pool:
        made = provenance()
        futures: Mapping[Future[Any], Job] = {
            pool.submit(_run, experiment.run, case, folder / experiment.name, made): (experiment, case)
            for experiment, case in jobs
        }
        for future in as_completed(futures):
            experiment, case = futures[future]
            try:
                yield experiment, case, future.result()
            except BrokenProcessPool:
                yield experiment, case, "a process was killed (out of memory?); try --jobs 1."
            except Exception as error:
                yield experiment, case, " ".join(str(error).split()) or type(error).__name__


@contextlib.contextmanager
def _pool(processes: int, threads: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes that end with this block, in any case."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=begin, initargs=(threads,))
    try:
        yield pool
    except BaseException:
        workers = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.terminate()
        raise
    pool.shutdown()


def begin(threads: int) -> None:
    """Set up a process of cases: its threads; Ctrl-C is left to the parent, and the process ends with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _run(run: Callable[[Any, Path], Mapping[str, Any]], case: Any, folder: Path, made: Mapping[str, str]) -> Record:
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    try:
        values = run(case, folder)
    except DivergenceError as error:
        values = {"diverged": " ".join(str(error).split())}
    return Record(case, values, round(time.perf_counter() - start, 2), made)
