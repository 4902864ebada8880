"""An experiment of a few milliseconds: it squares its seed, unless told to fail, to diverge, to die or to wait."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liouville.experiments.comparing import spread, verdict
from liouville.experiments.experiment import Experiment, Picture, Rendering, Table
from liouville.experiments.records import Record
from liouville.experiments.running import begin
from liouville.files import atomic
from liouville.train import DivergenceError


@dataclass(frozen=True)
class Config:
    what: str
    seed: int
    depths: tuple[int, ...] = (1, 2)


def cases(seeds: int, quick: bool) -> list[Config]:
    return [Config("square", seed) for seed in range(1 if quick else seeds)]


def run(config: Config, folder: Path) -> dict[str, Any]:
    if config.what == "fail":
        raise ValueError("the data are\nnot there.")
    if config.what == "diverge":
        raise DivergenceError("training diverged at step 3.")
    if config.what == "divide":
        return {"square": 1 / 0}
    if config.what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if config.what == "wait":
        with atomic(folder / "started") as path:
            path.write_text(str(os.getpid()))
        time.sleep(600)
    if config.what == "wait inside":
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn, initializer=begin, initargs=(1,)) as inner:
            inner.submit(run, Config("wait", 0), folder).result()
    return {"square": config.seed**2, "nan": float("nan"), "process": os.getpid()}


def render(records: Sequence[Record], folder: Path) -> Rendering:
    values = [float(r.values["square"]) for r in records if not r.diverged]
    table = Table("Squares", ("what", "ours", "paper"), [("square", spread(values), "4")])
    found = [(None, verdict(values, 4.0, 1.0))] if values else []
    return Rendering("Squares grow.", [table], {"line": Picture("A line of squares", lambda: drawing(values))}, found)


def drawing(values: Sequence[float]) -> Any:
    from liouville.report.style import canvas

    figure = canvas(3.0, 2.0)
    figure.subplots().plot(values)
    return figure


TOY = Experiment("toy", "Squares", "beyond the papers", Config, cases, run, render, cost=lambda case: 1.0 + case.seed)
ALONE = Experiment("alone", "Alone", "beyond the papers", Config, cases, run, render, lambda case: 9.0, alone=True)
EXPERIMENT = TOY
