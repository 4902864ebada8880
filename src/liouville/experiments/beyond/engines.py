"""Time and memory of a training step in our engines, compared with the same networks written by hand in torch.

A step is forward, backward and the gradients of all weights. Times are medians of steps taken in turn in one process,
given as ratios to the hand-written loop. Memory is the highest resident memory of a fresh process during one step, less
the memory before it and the gradients; its growth per layer is the price of depth. Memory is read from Linux.
"""

from __future__ import annotations

__all__ = ["EXPERIMENT", "Config", "cases", "render", "run"]

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor

from liouville.backprop import Backprop, Checkpointed, Reversible, Stored
from liouville.experiments.beyond.formulations import last_axis, loop, sliced
from liouville.experiments.beyond.resident import growth
from liouville.experiments.comparing import spread
from liouville.experiments.experiment import Experiment, Rendering, Table
from liouville.experiments.records import Record, rounded
from liouville.experiments.running import begin
from liouville.flow import Flow
from liouville.kernels import Fused
from liouville.zoo import MODELS

LOOP, SLICED = "loop by hand", "weights n x n x N"
ENGINES: dict[str, Backprop] = {
    "Stored": Stored(),
    "Checkpointed": Checkpointed(),
    "Reversible": Reversible(),
    "Fused": Fused(),
    "Fused(exact)": Fused(exact=True),
}
# Features, batch, layers; the first is the papers' size.
TIMED = ((4, 125, 64), (4, 125, 1024), (64, 256, 64))
WEIGHED, DEPTHS = (64, 256), (64, 256, 1024)


@dataclass(frozen=True)
class Config:
    """One measurement.

    Args:
        what: ``"time"`` of all ways, or ``"memory"`` of one.
        model: ``"h1"`` or ``"h2"``.
        way: an engine or a hand-written loop; empty for ``"time"``.
        features, batch, layers: the size.
        repeats: number of steps of a median time.
        seed: seed of weights and inputs; a measurement with another seed is a repeat.
    """

    what: str
    model: str
    way: str
    features: int
    batch: int
    layers: int
    repeats: int
    seed: int


class Values(TypedDict):
    """The recorded values of a case."""

    seconds: NotRequired[dict[str, float]]
    threads: NotRequired[int]
    bytes: NotRequired[int]


def cases(seeds: int, quick: bool) -> list[Config]:
    """Times by size and seed; memory by way and depth, once."""
    models = ("h1", "h2")
    if quick:
        timed = [Config("time", model, "", 4, 125, 16, 2, 0) for model in models]
        return timed + [Config("memory", "h2", way, *WEIGHED, 64, 1, 0) for way in (LOOP, "Stored", "Fused")]
    timed = [Config("time", model, "", *size, 3, s) for model in models for size in TIMED for s in range(seeds)]
    ways = (LOOP, SLICED, *ENGINES)
    return timed + [Config("memory", "h2", way, *WEIGHED, N, 1, 0) for way in ways for N in DEPTHS]


def run(config: Config, folder: Path) -> dict[str, Any]:
    """One measurement."""
    if config.what == "time":
        return {"seconds": _times(config), "threads": torch.get_num_threads()}
    spawn, threads = multiprocessing.get_context("spawn"), torch.get_num_threads()
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=begin, initargs=(threads,)) as fresh:
        return {"bytes": fresh.submit(_memory, config).result()}


def _times(config: Config) -> dict[str, float]:
    """Medians of steps in turn, after one untimed step of each."""
    steps = {way: step for way in (LOOP, SLICED, *ENGINES) if (step := _step(config, way))}
    taken: dict[str, list[float]] = {way: [] for way in steps}
    for repeat in range(config.repeats + 1):
        for way, step in steps.items():
            start = time.perf_counter()
            step()
            if repeat:
                taken[way].append(time.perf_counter() - start)
    return {way: rounded(statistics.median(seconds)) for way, seconds in taken.items()}


def _memory(config: Config) -> int | None:
    """Bytes, in a fresh process: the second network is measured, after the first has started libraries and threads."""
    warm = _step(Config(**{**vars(config), "layers": 2}), config.way)
    step = _step(config, config.way)
    if warm is None or step is None:
        raise ValueError(f"{config.way} cannot run {config.model}, so its memory cannot be measured.")
    warm()
    return growth(step)


def _step(config: Config, way: str) -> Callable[[], list[Tensor]] | None:
    """One training step that returns the gradients; None where the engine cannot run the model."""
    generator = torch.Generator().manual_seed(config.seed)
    flow: Flow = MODELS[config.model](config.features, config.layers, T=1.0, generator=generator)
    y = torch.randn(config.batch, config.features, generator=generator)
    weights: list[Tensor] = list(flow.field.parameters())
    if way in ENGINES:
        try:
            ENGINES[way].check(flow.scheme, flow.field)
        except (TypeError, ValueError):
            return None
        flow.backprop = ENGINES[way]
        run: Callable[[], Tensor] = lambda: flow(y)  # noqa: E731
    elif way == LOOP:
        run = lambda: loop(config.model, y, flow.field.theta(), flow.h)  # noqa: E731
    else:
        weights = last_axis(flow.field.theta())
        run = lambda: sliced(config.model, y, weights, flow.h)  # noqa: E731
    return lambda: list(torch.autograd.grad(run().sum(), weights))


def render(records: Sequence[Record], folder: Path) -> Rendering:
    """Ratios over the loop by hand, and memory by depth."""
    tables, parts = [], []
    timed = [r for r in records if r.case.what == "time"]
    if timed:
        tables.append(_time_table(timed))
        parts.append(_slower(timed))
    weighed = {(r.case.way, r.case.layers): r.values["bytes"] for r in records if r.case.what == "memory"}
    weighed = {key: value for key, value in weighed.items() if value is not None}
    if weighed:
        tables.append(_memory_table(weighed))
        parts.append(_kept(weighed))
    return Rendering(" ".join(filter(None, parts)), tables)


def _size(case: Config) -> tuple[str, int, int, int]:
    return case.model, case.features, case.batch, case.layers


def _ratios(records: Sequence[Record], size: tuple[str, int, int, int], way: str) -> list[float]:
    """How many times as fast as the loop by hand, one figure for every repeat."""
    found = [r.values["seconds"] for r in records if _size(r.case) == size]
    return [seconds[LOOP] / seconds[way] for seconds in found if way in seconds]


def _time_table(records: Sequence[Record]) -> Table:
    ways = (SLICED, *ENGINES)
    rows = []
    for size in dict.fromkeys(sorted(_size(r.case) for r in records)):
        base = [1e3 * r.values["seconds"][LOOP] for r in records if _size(r.case) == size]
        rows.append((", ".join(map(str, size)), spread(base, 1), *(spread(_ratios(records, size, w), 2) for w in ways)))
    head = ("model, features, batch, layers", f"{LOOP}, ms", *(f"{way}, ratio" for way in ways))
    threads = ", ".join(sorted({str(r.values["threads"]) for r in records}))
    note = f"Ratios: 2 is twice as fast as the {LOOP}. {threads} threads. h1 by forward Euler has no inverse."
    return Table("A training step", head, rows, note)


def _slower(records: Sequence[Record]) -> str:
    """Which engines are slower than the loop by hand, and how the papers' way of storing weights compares."""
    sizes = dict.fromkeys(_size(r.case) for r in records)
    middle = {way: [statistics.median(v) for s in sizes if (v := _ratios(records, s, way))] for way in ENGINES}
    slow = [f"{way} ({min(v):.2f} to {max(v):.2f} times its speed)" for way, v in middle.items() if v and min(v) < 1]
    fast = [f"{way} ({min(v):.1f} to {max(v):.1f} times)" for way, v in middle.items() if v and min(v) >= 1]
    told = [f"Faster than the {LOOP} at every size: {', '.join(fast) or 'none'}."]
    return " ".join([*told, f"Slower at some size: {', '.join(slow) or 'none'}."])


def _kept(weighed: Mapping[tuple[str, int], float]) -> str:
    """The memory of a layer, relative to the loop by hand."""
    slopes = _slopes(weighed)
    told = ", ".join(f"{way} {_share(slopes, way)}" for way in ENGINES if way in slopes and LOOP in slopes)
    if not told:
        return ""
    return f"Memory per layer, relative to the {LOOP}: {told}."


def _memory_table(weighed: Mapping[tuple[str, int], float]) -> Table:
    ways = [way for way in (LOOP, SLICED, *ENGINES) if any(key[0] == way for key in weighed)]
    depths = sorted({layers for _, layers in weighed})
    slopes = _slopes(weighed)
    rows = []
    for way in ways:
        sizes = [f"{weighed[way, N] / 1e6:.1f}" if (way, N) in weighed else "—" for N in depths]
        share = _share(slopes, way) if way in slopes and LOOP in slopes else "—"
        rows.append((way, *sizes, f"{max(0.0, slopes[way]) / 1e3:.2f}" if way in slopes else "—", share))
    head = ("h2", *(f"{N} layers, MB" for N in depths), "kB per layer", f"of the {LOOP}")
    note = (
        f"{WEIGHED[0]} features, batch {WEIGHED[1]}; a fresh process each. Memory that the allocator did not return "
        "counts: glibc fragments memory freed by Checkpointed, unless the environment has MALLOC_MMAP_THRESHOLD_=32768."
    )
    return Table("Resident memory of a training step", head, rows, note)


def _share(slopes: Mapping[str, float], way: str) -> str:
    return f"{max(0.0, slopes[way] / slopes[LOOP]):.1%}"  # constant memory may measure as a page or two less


def _slopes(weighed: Mapping[tuple[str, int], float]) -> dict[str, float]:
    """Bytes by layer between the shallowest and the deepest network, where there are two."""
    found = {}
    for way in dict.fromkeys(way for way, _ in weighed):
        depths = sorted(N for other, N in weighed if other == way)
        if len(depths) > 1:
            first, last = depths[0], depths[-1]
            found[way] = (weighed[way, last] - weighed[way, first]) / (last - first)
    return found


EXPERIMENT = Experiment(
    name="engines",
    title="Time and memory of the engines",
    source="beyond the papers",
    case=Config,
    cases=cases,
    run=run,
    render=render,
    values=Values,
    cost=lambda case: 4.0 if case.what == "memory" else 1.0 + 3e-3 * case.layers * (case.repeats + 1),
    alone=True,
)
