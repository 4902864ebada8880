"""Running cases: those without a record, several at a time in processes of their own, each recorded when it ends."""

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
    """A case that came to no record, and why."""

    experiment: Experiment
    case: Any
    reason: str


class Reporter(Protocol):
    """Is told what happens."""

    def start(self, jobs: Sequence[Job], processes: int) -> None:
        """Before the first case."""

    def done(self, experiment: Experiment, record: Record) -> None:
        """Behind every case that was recorded."""

    def failed(self, failure: Failure) -> None:
        """Behind every other one."""


def pending(experiments: Sequence[Experiment], folder: Path, seeds: int, quick: bool) -> list[Job]:
    """The cases without a record, the longest first; those that run alone at the end."""
    jobs = []
    for experiment in experiments:
        known = {record.case for record in Store(experiment, folder / experiment.name).read()}
        jobs += [(experiment, case) for case in experiment.cases(seeds, quick) if case not in known]
    return sorted(jobs, key=lambda job: (job[0].alone, -job[0].cost(job[1])))


def run_all(jobs: Sequence[Job], folder: Path, processes: int, reporter: Reporter) -> list[Failure]:
    """Run the cases and record each; return those that failed, which do not stop the others.

    Args:
        jobs: from `pending`.
        folder: of all experiments; each has its own in it, by its name.
        processes: at a time, of one thread each; a case that runs ``alone`` has one process and as many threads.
        reporter: is told.

    Raises:
        KeyboardInterrupt: the processes are stopped; what was recorded stays.
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
    """Processes that end with this block, however it ends."""
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
    """In a process of cases: its threads; no word of its own to Ctrl-C, which its parent answers; it ends with it."""
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
