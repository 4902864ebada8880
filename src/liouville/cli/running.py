"""A training of agents in this process, or in one of several: what is said of it, and what it leaves."""

from __future__ import annotations

__all__ = ["Made", "require_free", "run", "trained_before"]

import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from liouville.cli import summary
from liouville.cli.asking import Door
from liouville.cli.exits import BadInput, Interrupted
from liouville.cli.output import say, table
from liouville.cli.traffic import about, decision, report
from liouville.environment import launched

if TYPE_CHECKING:
    from liouville.agents import Exchange
    from liouville.agents.checkpoints import Checkpoints, Found
    from liouville.data import Split
    from liouville.network import Network
    from liouville.runs import Run
    from liouville.runs.folder import Writer
    from liouville.runs.spread import Spread
    from liouville.runs.spreading import Kept
    from liouville.train.history import Epoch


class Made(NamedTuple):
    """What is the same in every process: the data, loaded once, the central network, and where it goes on."""

    split: Split
    network: Network
    checkpoints: Checkpoints | None

    @classmethod
    def of(cls, asked: Spread, door: Door, split: Split | None = None) -> Made:
        """As asked; ``split`` is the data, if they are here already."""
        from liouville.runs import Run

        split = split or asked.load()
        if door.resumes and asked.plan.table is not None and door.out is not None:  # a table may be moved
            split = dataclasses.replace(split, name=Run.open(door.out).facts.name)
        network = asked.network(split.facts())
        return cls(split, network, None if door.out is None else asked.checkpoints(door.out, network, split))


def trained_before(folder: Path | None) -> bool:
    """Whether a training of agents lies in a folder."""
    from liouville.runs.files import AGENTS, CONFIG

    if folder is None or not folder.is_dir():
        return False
    if any(folder.glob("node-*.epoch-*.safetensors")) or (folder / AGENTS).is_file():
        return True
    from liouville.runs.spread import Spread

    if not (folder / CONFIG).is_file():
        return False
    try:
        Spread.open(folder)
    except (OSError, ValueError):
        return False
    return True


def require_free(door: Door, asked: Spread) -> None:
    """Refuse a folder that holds something else."""
    from liouville.runs.files import CONFIG
    from liouville.runs.spread import Spread

    folder = door.out
    if folder is None or door.resumes or not folder.exists():
        return
    if not door.goes_on:
        if any(not path.name.startswith(".") and path.name != "lock" for path in folder.iterdir()):
            raise BadInput(f"{folder} exists already, and holds no training of agents; choose another --out.")
        return
    if not any(folder.glob("node-*.epoch-*")) and (folder / CONFIG).is_file() and Spread.open(folder) != asked:
        raise BadInput(f"{folder} holds a training with other settings that did not begin; choose another --out.")


def run(asked: Spread, door: Door, made: Made) -> int:
    """Train, in this process; the exit code."""
    import torch

    from liouville.agents import AgentFault

    try:
        _train(asked, door, made, leader=not launched() or os.environ["RANK"] == "0")
    except AgentFault as fault:
        sys.stderr.write(f"liouville: error: {fault}.\n")
        sys.stderr.flush()
        os._exit(1)  # at once: what is left of the transport may wait for the node that failed
    except KeyboardInterrupt:
        if not launched():
            raise Interrupted(f"interrupted; {door.kept()}") from None
        os._exit(Interrupted.exit_code)  # whoever started the processes says so
    if launched():
        torch.distributed.destroy_process_group()
    return 0


def _train(asked: Spread, door: Door, made: Made, leader: bool) -> None:
    import torch

    from liouville.runs.spreading import Kept

    torch.set_num_threads(1)
    writer = _writer(asked, door, made) if leader and door.out is not None else None
    kept = Kept(asked, made.network, made.split, writer)
    try:
        done = _trained(asked, door, made, kept, leader)
    except Exception:
        if writer is not None and not kept.history.epochs:
            writer.discard()
        raise
    finally:
        if writer is not None:
            writer.release()
    if leader:
        assert done is not None
        _say_result(done, door, asked)


def _writer(asked: Spread, door: Door, made: Made) -> Writer:
    """The run folder, before other processes are met: what it refuses, it refuses before anything runs."""
    from liouville.runs.folder import Writer

    assert door.out is not None
    facts, command = made.split.facts(), ["liouville", *sys.argv[1:]]
    writer = Writer(door.out, asked, facts, made.network, command=command, resume=door.goes_on)
    if door.goes_on:
        writer.renew()
    return writer


def _trained(asked: Spread, door: Door, made: Made, kept: Kept, leader: bool) -> Run | None:
    from liouville.agents import Simulation, check, spread
    from liouville.agents.training import train
    from liouville.agents.transport import Distributed
    from liouville.processes import connect
    from liouville.task import Task

    split, network, checkpoints = made
    exchange: Exchange = Simulation(asked.graph)
    if launched():
        store = connect(max(60.0, door.timeout), door.backend)
        device = "cuda" if door.backend == "nccl" else "cpu"
        exchange = Distributed(asked.graph, store, door.timeout, device, asked.in_words())
    local = spread(network, exchange).to(getattr(exchange, "device", "cpu"))
    split = split.to(next(local.parameters()).device, next(local.parameters()).dtype)
    kept.split = split
    settings, talk = asked.settings, leader and not door.quiet
    if talk:
        say(about(asked.graph, door.graph))
        say(str(check(asked.graph, next(network.flows()), asked.protocol)))
    if leader:
        found = kept.locality()
        if talk:
            say(decision(found))

    def on_start(found: Found) -> None:
        kept.resume(found.losses)
        for path in found.damaged:  # each process says it of its own
            click.echo(f"liouville: note: {path} is damaged, and the epoch before it taken.", err=True)
        if talk and found.epoch:
            say(_resumed(found, settings.epochs, door.out))
        if talk and found.epoch and not door.resumes:
            click.echo(f"liouville: note: from the next version on, --resume {door.out} is what goes on.", err=True)

    def on_epoch(epoch: Epoch) -> None:
        kept.epoch(epoch)
        k = epoch.epoch
        if k == 1:
            report(exchange, network, settings.batch_size, len(split.x_train), talk)
        if talk and (k % max(1, settings.epochs // 10) == 0 or k == 1):
            say(f"epoch {k}: loss {epoch.loss:.4g}")

    task = Task.of(split.classes, local.width)
    train(local, exchange, split, task, settings, checkpoints, on_epoch, on_start)
    return kept.finish(local, exchange, leader)


def _say_result(done: Run, door: Door, asked: Spread) -> None:
    """What was reached, and where it is."""
    name = "accuracy" if "test_accuracy" in done.metrics else "r2"
    score = done.metrics[f"test_{name}"]
    say(f"test {name} {100 * score:.2f} %" if name == "accuracy" else f"test r2 {score:.4f}")
    if done.path is None:
        if not door.quiet:
            say("nothing is kept; --out RUN keeps the weights of every node, and the network")
        return
    drawn = summary.draw(done, done.path, False, door.quiet) if door.figures else []
    if door.quiet:
        return
    if found := done.metrics.get("test_r2_by_output"):
        table("outputs", ("node", "output", "test r2"), [(f["node"], f["output"], f"{f['r2']:.4f}") for f in found])
    if found := done.metrics.get("test_accuracy_by_output"):
        rows = [(f["node"], f["output"], f"{100 * f['accuracy']:.2f} %") for f in found]
        table("outputs", ("node", "output", "test accuracy"), rows)
    say(f"run: {done.path}")
    for path in drawn:
        say(f"     {path}")
    example = "ROWS.csv" if asked.plan.table is not None else "POINTS.csv"
    one = asked.graph.names[0] if asked.graph.names else "0"
    say(f"next: liouville check {done.path}; liouville predict {done.path} {example}")
    say(f"      liouville agents --export-node {one!r} {done.path}")


def _resumed(found: Found, epochs: int, folder: Path | None) -> str:
    if found.epoch == epochs:
        return f"all {epochs} epochs were done before, in {folder}; nothing is left to train"
    other = (
        f"; its learning rate was planned for {found.planned} epochs and now is for {epochs}, so the result is not "
        f"that of {epochs} epochs in one go"
    )
    return f"goes on after epoch {found.epoch}, from {folder}" + (other if found.planned != epochs else "")
