"""Is reversible better than checkpointing? One small GPT on bytes of text, its blocks run in seven ways.

All ways have the same weights to begin with, the same batches and the loss in chunks (`linear_cross_entropy`). Each has
the rate of 0.001, 0.003 and 0.01 that did best on the validation part at this depth with another seed. Checkpointing is
the plain network and is trained all the same. Times are CPU seconds of forward and backward passes of all ways in turn,
in one process, medians; memory is bytes alive at once that came up in such a step, beside weights, gradients and the
optimiser's state, which all ways have alike; the largest batch is the largest whose step stays within `ROOM`.
"""

from __future__ import annotations

__all__ = ["EXPERIMENT", "Config", "cases", "render", "run"]

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch

from liouville.experiments.comparing import spread
from liouville.experiments.experiment import Experiment, Rendering, Table
from liouville.experiments.paired import Paired, pairs
from liouville.experiments.records import Record, rounded
from liouville.experiments.small_gpt import CHECKPOINT, GPT, SCHEMES, WAYS, Run, text, ways, windows
from liouville.experiments.step_costs import Step, peak, timed
from liouville.train import DivergenceError

DEPTHS = (6, 24, 96)
WIDTH, TOKENS, BATCH, STEPS, REPEATS = 32, 64, 4, 80, 5
ROOM = 32_000_000  # bytes
RATES: dict[str, tuple[float, float, float]] = dict.fromkeys(WAYS, (3e-3, 3e-3, 3e-3))  # by depth
HELD = 64  # windows of the test part
FEWEST, MOST = 4, 8  # batches between which the memory of a sample is measured
_COST = {"loss": 2.5e-3, "step": 25e-3, "room": 60e-3}  # seconds a block and step


@dataclass(frozen=True)
class Config:
    """One training run or measurement.

    Args:
        what: ``"loss"`` of one way, ``"step"``: time and memory of all, or ``"room"``: the largest batch of one.
        way: of `WAYS`; empty for ``"step"``.
        depth: blocks.
        lr: the largest rate; 0 where nothing is trained.
        steps: of training, or repeats of a measurement.
        seed: of the weights and of the batches.
    """

    what: str
    way: str
    depth: int
    lr: float
    steps: int
    seed: int


class Values(TypedDict):
    """What a case records."""

    loss: NotRequired[float]
    seconds: NotRequired[dict[str, float]]
    bytes: NotRequired[dict[str, int]]
    batch: NotRequired[int]


def cases(seeds: int, quick: bool) -> list[Config]:
    """Training and steps by seed; the largest batch, which scatters by nothing, once."""
    if quick:
        found = [Config("loss", way, DEPTHS[0], 3e-3, 2, 0) for way in WAYS]
        return [*found, Config("step", "", DEPTHS[0], 0.0, 1, 0), Config("room", WAYS[0], DEPTHS[0], 0.0, 1, 0)]
    each = itertools.product(WAYS, enumerate(DEPTHS), range(seeds))
    found = [Config("loss", way, depth, RATES[way][k], STEPS, seed) for way, (k, depth), seed in each]
    found += [Config("step", "", depth, 0.0, REPEATS, seed) for depth in DEPTHS for seed in range(seeds)]
    return found + [Config("room", way, depth, 0.0, 1, 0) for way in WAYS for depth in DEPTHS]


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Train one way and test it once, or measure."""
    torch.manual_seed(config.seed)
    model = GPT(WIDTH, config.depth, TOKENS)
    runs, generator = ways(model.blocks), torch.Generator().manual_seed(config.seed)
    if config.what == "loss":
        train(model, runs[config.way], config, generator)
        return {"loss": rounded(held_out(model, runs[config.way], "test"))}
    if config.what == "room":
        way = runs[config.way]
        _step(model, way, 1, generator)()  # so that gradients exist
        return {"batch": _largest(lambda batch: _step(model, way, batch, generator))}
    steps = {way: _step(model, each, BATCH, generator) for way, each in runs.items()}
    for step in steps.values():
        step()
    seconds = {way: rounded(median) for way, median in timed(steps, config.steps).items()}
    return {"bytes": {way: peak(step) for way, step in steps.items()}, "seconds": seconds}


def train(model: GPT, run: Run, config: Config, generator: torch.Generator) -> None:
    """AdamW with clipped gradients; the rate rises over a tenth of the steps and falls as a cosine."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, betas=(0.9, 0.95))
    rise = max(1, config.steps // 10)
    for step in range(config.steps):
        for group in optimizer.param_groups:
            fall = 0.5 + 0.5 * math.cos(math.pi * max(0, step - rise) / (config.steps - rise))
            group["lr"] = config.lr * min((step + 1) / rise, fall)
        loss = model.loss(windows(text()["train"], BATCH, TOKENS, generator), run)
        if not loss.isfinite():
            raise DivergenceError(f"training diverged at step {step} of {config.steps}.")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


@torch.no_grad()
def held_out(model: GPT, run: Run, part: str) -> float:
    """The loss on the same windows for all."""
    return float(model.loss(windows(text()[part], HELD, TOKENS, torch.Generator().manual_seed(0)), run))


def _step(model: GPT, run: Run, batch: int, generator: torch.Generator) -> Step:
    """A forward and a backward pass."""
    ids = windows(text()["train"], batch, TOKENS, generator)
    return lambda: model.loss(ids, run).backward()


def _largest(make: Callable[[int], Step]) -> int:
    """The largest batch within `ROOM`: memory is nearly affine in the batch, which says where to look."""
    few, many = (peak(make(batch)) for batch in (FEWEST, MOST))
    batch = max(1, int(FEWEST + (ROOM - few) * (MOST - FEWEST) / (many - few)))
    while batch and peak(make(batch)) > ROOM:
        batch -= 1
    while peak(make(batch + 1)) <= ROOM:
        batch += 1
    return batch


def render(records: Sequence[Record], folder: Path) -> Rendering:
    """Loss, who is ahead, time, memory and the largest batch, by depth."""
    losses = [r for r in records if r.case.what == "loss"]
    measured = [r for r in records if r.case.what == "step"]
    room = {(r.case.way, r.case.depth): r.values["batch"] for r in records if r.case.what == "room"}
    tables, said = [], []
    if losses:
        tables += [_loss_table(losses), _ahead_table(losses)]
        said.append(_better(losses))
    if measured:
        tables += [_time_table(measured), _memory_table(measured)]
        said += [_smaller(measured), _slower(measured)]
    if room:
        tables.append(_room_table(room))
        said.append(_larger(room))
    return Rendering("\n\n".join(filter(None, said)), tables)


def _loss(record: Record) -> float:
    return _DIVERGED if record.diverged else float(record.values["loss"])


_DIVERGED = 1e9  # nats: behind all others


def _of(records: Sequence[Record], way: str, depth: int) -> list[Record]:
    return [r for r in records if (r.case.way, r.case.depth) == (way, depth)]


def _compared(records: Sequence[Record], one: str, other: str) -> Paired:
    """Over pairs of one seed at one depth; a smaller loss is ahead."""
    return Paired.of(
        pair
        for depth in DEPTHS
        for pair in pairs(_of(records, one, depth), _of(records, other, depth), lambda r: -_loss(r))
    )


def _depths(records: Sequence[Record]) -> list[int]:
    return sorted({r.case.depth for r in records})


def _loss_table(records: Sequence[Record]) -> Table:
    depths = _depths(records)
    rows = []
    for way in WAYS:
        found = [_of(records, way, depth) for depth in depths]
        rates = ", ".join(dict.fromkeys(f"{r.case.lr:g}" for each in found for r in each))
        rows.append((way, *(spread([_loss(r) for r in each if not r.diverged], 3) for each in found), rates))
    case = records[0].case
    note = (
        f"Width {WIDTH}, 4 heads, {TOKENS} bytes of context, {case.steps} steps of {BATCH * TOKENS} bytes, after which "
        f"{HELD * TOKENS:,} bytes of other files are tested; guessing has log 256 = {math.log(256):.3f}. So little "
        "training says which way learns faster to begin with, and nothing of what it ends with."
    )
    diverged = sum(r.diverged for r in records)
    note += f" {diverged} runs diverged, and count as the worst." if diverged else ""
    return Table("Held-out loss, nats a byte", ("", *(f"{d} blocks" for d in depths), "rate, by depth"), rows, note)


def _ahead_table(records: Sequence[Record]) -> Table:
    rows = []
    for one in WAYS:
        found = [_compared(records, one, other) for other in WAYS]
        rows.append((one, *("" if one == other else _short(pair) for other, pair in zip(WAYS, found, strict=True))))
    note = (
        "Pairs of one seed at one depth, all depths pooled: in how many of those that differ the row's loss is smaller."
    )
    return Table("The row against the column", ("", *WAYS), rows, note)


def _short(pair: Paired) -> str:
    return f"{pair.verdict}, {pair.wins} of {pair.wins + pair.losses}" if pair.wins + pair.losses else "equal"


def _better(records: Sequence[Record]) -> str:
    """Every way against the plain network, and the order of those that are networks of their own."""
    against = {way: _compared(records, way, "plain") for way in WAYS[1:]}
    told = [f"{way} {_against(pair)}" for way, pair in against.items() if pair.wins + pair.losses + pair.ties]
    best = []
    for depth in _depths(records):
        middle = {way: [_loss(r) for r in _of(records, way, depth)] for way in SCHEMES}
        ranked = sorted((statistics.median(values), way) for way, values in middle.items() if values)
        best.append(f"{depth} blocks {', '.join(way for _, way in ranked)}")
    order = f"From the smallest median up, of the reversible ways: {'; '.join(best)}."
    return f"**Loss.** Against plain: {'; '.join(told)}. {order}"


def _against(pair: Paired) -> str:
    return str(pair) if pair.wins + pair.losses else f"equal in all {pair.ties} pairs"


def _ratios(records: Sequence[Record], way: str, depth: int) -> list[float]:
    """Of the time of checkpoint's step, for every seed."""
    found = [r.values["seconds"] for r in records if r.case.depth == depth]
    return [seconds[way] / seconds[CHECKPOINT] for seconds in found]


def _time_table(records: Sequence[Record]) -> Table:
    depths = _depths(records)
    rows = [(way, *(spread(_ratios(records, way, depth), 2) for depth in depths)) for way in WAYS]
    base = [[r.values["seconds"][CHECKPOINT] for r in records if r.case.depth == depth] for depth in depths]
    taken = ", ".join(f"{1e3 * statistics.median(seconds):.0f}" for seconds in base)
    note = f"Checkpoint's step takes {taken} ms of one thread, at {BATCH} x {TOKENS} bytes."
    return Table("Time of a step, over checkpoint's", ("", *(f"{d} blocks" for d in depths)), rows, note)


def _memory(records: Sequence[Record]) -> dict[tuple[str, int], int]:
    """The largest over the seeds, which should not differ."""
    return {
        (way, depth): max(r.values["bytes"][way] for r in records if r.case.depth == depth)
        for way in WAYS
        for depth in _depths(records)
    }


def _memory_table(records: Sequence[Record]) -> Table:
    depths, held = _depths(records), _memory(records)
    slopes = {way: (held[way, depths[-1]] - held[way, depths[0]]) / max(1, depths[-1] - depths[0]) for way in WAYS}
    rows = []
    for way in WAYS:
        cells = [f"{held[way, d] / 1e6:.2f} ({held[way, d] / held[CHECKPOINT, d]:.0%})" for d in depths]
        rows.append((way, *cells, f"{slopes[way] / 1e3:.2f}"))
    head = ("", *(f"{d} blocks, MB" for d in depths), "kB per block")
    state = BATCH * TOKENS * WIDTH * 4 / 1e3
    note = f"In brackets over checkpoint's. A state, {BATCH * TOKENS} x {WIDTH} numbers, has {state:.1f} kB."
    return Table("Bytes alive in a step", head, rows, note)


def _smaller(records: Sequence[Record]) -> str:
    held = _memory(records)
    told = []
    for depth in _depths(records):
        less = {way: held[way, depth] / held[CHECKPOINT, depth] for way in SCHEMES}
        won = [f"{way} {share:.0%}" for way, share in less.items() if share < 1]
        lost = [f"{way} {share:.0%}" for way, share in less.items() if share >= 1]
        told.append(f"at {depth} blocks less: {', '.join(won) or 'none'}; not less: {', '.join(lost) or 'none'}")
    return f"**Memory**, over checkpoint's: {'. '.join(t[0].upper() + t[1:] for t in told)}."


def _slower(records: Sequence[Record]) -> str:
    told = []
    for way in ("plain", *SCHEMES):
        middle = [statistics.median(_ratios(records, way, depth)) for depth in _depths(records)]
        told.append(f"{way} {min(middle):.2f} to {max(middle):.2f}")
    return f"**Time**, over checkpoint's, medians by depth: {', '.join(told)}."


def _room_table(room: Mapping[tuple[str, int], int]) -> Table:
    depths = sorted({depth for _, depth in room})
    rows = []
    for way in WAYS:
        found = [(room.get((way, d)), room.get((CHECKPOINT, d))) for d in depths]
        cells = ["—" if own is None else f"{own}" + (f" ({own / base:.2f})" if base else "") for own, base in found]
        rows.append((way, *cells))
    note = "Sequences; in brackets over checkpoint's. Weights, gradients and the optimiser's state are beside it."
    return Table(f"Largest batch in {ROOM / 1e6:.0f} MB", ("", *(f"{d} blocks" for d in depths)), rows, note)


def _larger(room: Mapping[tuple[str, int], int]) -> str:
    told = []
    for depth in sorted({depth for _, depth in room}):
        base = room.get((CHECKPOINT, depth))
        if base:
            found = {way: room[way, depth] / base for way in SCHEMES if (way, depth) in room}
            if found:
                told.append(f"{min(found.values()):.2f} to {max(found.values()):.2f} times at {depth} blocks")
    return f"**Largest batch** of the reversible ways, over checkpoint's: {', '.join(told)}." if told else ""


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
