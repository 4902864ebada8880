"""Tables of `language`: loss, which way is ahead, time, memory and the largest batch, by depth."""

from __future__ import annotations

__all__ = ["render"]

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from liouville.experiments.beyond.small_gpt import (
    BATCH,
    CHECKPOINT,
    DEPTHS,
    HELD,
    MAPS,
    MEASURED,
    ROOM,
    SCHEMES,
    TOKENS,
    WAYS,
    WIDTH,
)
from liouville.experiments.comparing import spread
from liouville.experiments.experiment import Rendering, Table
from liouville.experiments.paired import Paired, pairs
from liouville.experiments.records import Record

_DIVERGED = 1e9  # nats, worse than all others
_NAMES = {"plain": "plain, and so checkpoint"}


def render(records: Sequence[Record], folder: Path) -> Rendering:
    """Loss, which way is ahead, time, memory and the largest batch, by depth."""
    losses = [r for r in records if r.case.what == "loss"]
    measured = [r for r in records if r.case.what == "step"]
    room = {(r.case.way, r.case.depth): r.values["batch"] for r in records if r.case.what == "room"}
    tables, said = [], []
    if losses:
        tables += [_loss_table(losses), _ahead_table(losses)]
        said += [_better(losses), _by_engine(losses, [r for r in records if r.case.what == "engine"])]
    if measured:
        tables += [_time_table(measured), _memory_table(measured)]
        said += [_smaller(measured), _slower(measured)]
    if room:
        tables.append(_room_table(room))
        said.append(_larger(room))
    return Rendering("\n\n".join(filter(None, said)), tables)


def _loss(record: Record) -> float:
    return _DIVERGED if record.diverged else float(record.values["loss"])


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
    for way in MAPS:
        found = [_of(records, way, depth) for depth in depths]
        cells = [spread([_loss(r) for r in each if not r.diverged], 3) for each in found]
        rows.append((_NAMES.get(way, way), *cells))
    steps = ", ".join(dict.fromkeys(str(r.case.steps) for depth in depths for r in records if r.case.depth == depth))
    note = (
        f"Width {WIDTH}, 4 heads, {TOKENS} bytes of context, {steps} steps of {BATCH * TOKENS} bytes by depth, so that "
        f"columns must not be compared; {HELD * TOKENS:,} bytes of other files are tested. Guessing has log 256 = "
        f"{math.log(256):.3f}. Such short training shows which map learns faster at first, not the final result."
    )
    diverged = sum(r.diverged for r in records)
    note += f" {diverged} runs diverged, and count as the worst." if diverged else ""
    return Table("Held-out loss, nats a byte", ("", *(f"{d} blocks" for d in depths)), rows, note)


def _ahead_table(records: Sequence[Record]) -> Table:
    rows = []
    for one in MAPS:
        found = [_compared(records, one, other) for other in MAPS]
        rows.append((one, *("" if one == other else _short(pair) for other, pair in zip(MAPS, found, strict=True))))
    note = (
        "Pairs of one seed at one depth, all depths pooled: in how many of those that differ the row's loss is smaller."
    )
    return Table("The row against the column", ("", *MAPS), rows, note)


def _short(pair: Paired) -> str:
    return f"{pair.verdict}, {pair.wins} of {pair.wins + pair.losses}" if pair.wins + pair.losses else "equal"


def _better(records: Sequence[Record]) -> str:
    """Every way against the plain network, and the order of the ways that are different networks."""
    against = {way: _compared(records, way, "plain") for way in SCHEMES}
    told = [f"{way} {pair}" for way, pair in against.items() if pair.wins + pair.losses + pair.ties]
    best = []
    for depth in _depths(records):
        middle = {way: [_loss(r) for r in _of(records, way, depth)] for way in SCHEMES}
        ranked = sorted((statistics.median(values), way) for way, values in middle.items() if values)
        best.append(f"{depth} blocks {', '.join(way for _, way in ranked)}")
    order = f"From the smallest median up, of the reversible ways: {'; '.join(best)}."
    return f"**Loss.** Against plain: {'; '.join(told)}. {order}"


def _by_engine(losses: Sequence[Record], records: Sequence[Record]) -> str:
    """The difference between training a way by its own engine and by `Stored`."""
    told = []
    for r in records:
        theirs = {o.case.seed: _loss(o) for o in _of(losses, _map(r.case.way), r.case.depth)}
        if r.case.seed in theirs:
            told.append(f"{r.case.way} {_loss(r) - theirs[r.case.seed]:+.3f}")
    depths = ", ".join(dict.fromkeys(str(r.case.depth) for r in records))
    return f"Trained by its own engine instead, at {depths} blocks, one seed: {', '.join(told)} nats." if told else ""


def _map(way: str) -> str:
    return "plain" if way == CHECKPOINT else way


def _ratios(records: Sequence[Record], way: str, depth: int) -> list[float]:
    """The time of a step over checkpoint's, for every seed."""
    found = [r.values["seconds"] for r in records if r.case.depth == depth]
    return [seconds[way] / seconds[CHECKPOINT] for seconds in found]


def _time_table(records: Sequence[Record]) -> Table:
    depths = _depths(records)
    rows = [(way, *(spread(_ratios(records, way, depth), 2) for depth in depths)) for way in WAYS]
    base = [[r.values["seconds"][CHECKPOINT] for r in records if r.case.depth == depth] for depth in depths]
    taken = ", ".join(f"{1e3 * statistics.median(seconds):.0f}" for seconds in base)
    note = f"Checkpoint's step takes {taken} ms of one thread, at {MEASURED} x {TOKENS} bytes."
    return Table("Time of a step, over checkpoint's", ("", *(f"{d} blocks" for d in depths)), rows, note)


def _memory(records: Sequence[Record]) -> dict[tuple[str, int], int]:
    """The largest memory over the seeds, which should not differ."""
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
    state = MEASURED * TOKENS * WIDTH * 4 / 1e3
    note = f"In brackets over checkpoint's. A state, {MEASURED * TOKENS} x {WIDTH} numbers, has {state:.1f} kB."
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
    note = "Sequences; in brackets over checkpoint's. Weights, gradients and the optimiser's state are not included."
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
