"""Is reversible better than checkpointing? One small GPT on bytes of text, with its blocks run in seven ways.

The loss depends on the map, not on how its states are stored, so training uses `Stored`, the fastest engine;
checkpointing is the plain network. One run of each way by its own engine tests this. All have the same initial weights,
the same batches, the loss in chunks (`linear_cross_entropy`), and one rate: the best of 0.001, 0.003 and 0.01 for the
plain network of 24 blocks on the validation part, with another seed.

Times are medians of CPU seconds of a forward and backward pass, with all ways in turn in one process. Memory is the
largest number of bytes allocated in such a pass and alive at once. It excludes weights, gradients and the optimiser's
state, which are the same for all ways. The largest batch is the largest whose pass stays within `ROOM`.
"""

from __future__ import annotations

__all__ = ["EXPERIMENT", "Config", "cases", "render", "run"]

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch

from liouville.backprop import Stored
from liouville.experiments.beyond.language_tables import render
from liouville.experiments.beyond.small_gpt import (
    BATCH,
    DEPTHS,
    EXACT,
    GPT,
    HELD,
    MAPS,
    MEASURED,
    ROOM,
    TOKENS,
    WAYS,
    WIDTH,
    Run,
    text,
    ways,
    windows,
)
from liouville.experiments.beyond.step_costs import Step, peak, timed
from liouville.experiments.experiment import Experiment
from liouville.experiments.records import rounded
from liouville.train import DivergenceError

STEPS = (200, 80, 30)  # steps of training, by depth
RATE = 3e-3
TIMED, REPEATS = 2, 3  # maximum number of seeds of a measured step, and repeats of each
FEWEST, MOST = 2, 4  # batch sizes from which the memory of a sample is measured
_COST = {"loss": 2e-3, "engine": 5e-3, "step": 0.1, "room": 0.3}  # seconds per block and step


@dataclass(frozen=True)
class Config:
    """One training run or measurement.

    Args:
        what: ``"loss"`` of one map, ``"engine"``: the loss of one way trained by its own engine, ``"step"``: time and
            memory of all ways, or ``"room"``: the largest batch of one.
        way: a name of `MAPS` or `WAYS`; empty for ``"step"``.
        depth: number of blocks.
        steps: steps of training, or repeats of a measurement.
        seed: seed of the weights and of the batches.
    """

    what: str
    way: str
    depth: int
    steps: int
    seed: int


class Values(TypedDict):
    """The recorded values of a case."""

    loss: NotRequired[float]
    seconds: NotRequired[dict[str, float]]
    bytes: NotRequired[dict[str, int]]
    batch: NotRequired[int]


def cases(seeds: int, quick: bool) -> list[Config]:
    """Training and steps by seed; the runs by own engines and the largest batch, which do not vary, once."""
    if quick:
        found = [Config("loss", way, DEPTHS[0], 2, 0) for way in MAPS]
        found += [Config("engine", way, DEPTHS[0], 2, 0) for way in WAYS[1:]]
        return [*found, Config("step", "", DEPTHS[0], 1, 0), Config("room", WAYS[0], DEPTHS[0], 1, 0)]
    found = [
        Config("loss", way, depth, steps, seed)
        for way in MAPS
        for depth, steps in zip(DEPTHS, STEPS, strict=True)
        for seed in range(seeds)
    ]
    found += [Config("engine", way, DEPTHS[0], STEPS[0], 0) for way in WAYS[1:]]
    found += [Config("step", "", depth, REPEATS, seed) for depth in DEPTHS for seed in range(min(seeds, TIMED))]
    return found + [Config("room", way, depth, 1, 0) for way in WAYS for depth in DEPTHS]


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Train one way and test it once, or measure."""
    torch.manual_seed(config.seed)
    model, generator = GPT(WIDTH, config.depth, TOKENS), torch.Generator().manual_seed(config.seed)
    if config.what in ("loss", "engine"):
        way = ways(model.blocks, Stored() if config.what == "loss" else EXACT)[config.way]
        train(model, way, config, generator)
        return {"loss": rounded(held_out(model, way, "test"))}
    runs = ways(model.blocks)
    if config.what == "room":
        way = runs[config.way]
        _step(model, way, 1, generator)()  # so that gradients exist
        return {"batch": _largest(lambda batch: _step(model, way, batch, generator))}
    steps = {name: _step(model, way, MEASURED, generator) for name, way in runs.items()}
    for step in steps.values():
        step()
    seconds = {name: rounded(median) for name, median in timed(steps, config.steps).items()}
    return {"bytes": {name: peak(step) for name, step in steps.items()}, "seconds": seconds}


def train(model: GPT, run: Run, config: Config, generator: torch.Generator) -> None:
    """AdamW with clipped gradients; the rate rises over a tenth of the steps and falls as a cosine."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95))
    rise = max(1, config.steps // 10)
    for step in range(config.steps):
        for group in optimizer.param_groups:
            fall = 0.5 + 0.5 * math.cos(math.pi * max(0, step - rise) / (config.steps - rise))
            group["lr"] = RATE * min((step + 1) / rise, fall)
        loss = model.loss(windows(text()["train"], BATCH, TOKENS, generator), run)
        if not loss.isfinite():
            raise DivergenceError(f"training diverged at step {step} of {config.steps}.")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


@torch.no_grad()
def held_out(model: GPT, run: Run, part: str) -> float:
    """The loss on the same windows for all ways."""
    return float(model.loss(windows(text()[part], HELD, TOKENS, torch.Generator().manual_seed(0)), run))


def _step(model: GPT, run: Run, batch: int, generator: torch.Generator) -> Step:
    """A forward and a backward pass."""
    ids = windows(text()["train"], batch, TOKENS, generator)
    return lambda: model.loss(ids, run).backward()


def _largest(make: Callable[[int], Step]) -> int:
    """The largest batch within `ROOM`, found from the nearly affine growth of memory with the batch."""
    few, many = (peak(make(batch)) for batch in (FEWEST, MOST))
    batch = max(1, int(FEWEST + (ROOM - few) * (MOST - FEWEST) / (many - few)))
    while batch and peak(make(batch)) > ROOM:
        batch -= 1
    while peak(make(batch + 1)) <= ROOM:
        batch += 1
    return batch


EXPERIMENT = Experiment(
    name="language",
    title="Is reversible better than checkpointing?",
    source="beyond the papers",
    case=Config,
    cases=cases,
    run=run,
    render=render,
    values=Values,
    cost=lambda case: 1.0 + _COST[case.what] * case.depth * case.steps,
)
