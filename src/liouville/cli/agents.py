"""``liouville agents``: a network spread over the nodes of a graph, in this process or in several."""

from __future__ import annotations

__all__ = ["agents"]

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from liouville.cli import parallel
from liouville.cli.exits import BadInput, Interrupted
from liouville.cli.help import Command, section
from liouville.cli.options import INTEGERS, convert_data_options
from liouville.cli.output import say
from liouville.cli.traffic import about, report
from liouville.environment import launched, require_environment
from liouville.names import lookup, spelled

if TYPE_CHECKING:
    from liouville.agents import Exchange
    from liouville.agents.checkpoints import Checkpoints, Found
    from liouville.agents.exchange import Consensus
    from liouville.agents.patterns import Protocol
    from liouville.data import Split
    from liouville.graphs import Pattern
    from liouville.network import Network
    from liouville.runs.spread import Spread

_graph, _data, _network, _training, _machine, _output = (
    section(name) for name in ("Graph", "Data", "Network", "Training", "Machine", "Output")
)

_NAMES = {
    "protocol": ("owner-computes", "replicated"),
    "consensus": ("gossip", "all-reduce"),
    "model": ("h1", "h2"),
    "backend": ("gloo", "nccl"),
    "dtype": ("float32", "float64"),
}


@click.command(
    cls=Command,
    short_help="Train a network distributed over the nodes of a graph.",
    examples=(
        ("liouville agents --graph ring.graphml", "the nodes of a ring, simulated in one process"),
        ("liouville agents --graph links.csv --nproc 4 --out nodes", "four processes; the weights of every node"),
        ("liouville agents --resume nodes", "go on with a training that was interrupted"),
    ),
    common=(
        "graph",
        "undirected",
        "data",
        "model",
        "layers",
        "epochs",
        "lr",
        "nproc",
        "seed",
        "out",
        "resume",
        "quiet",
    ),
    failure="the training diverged, or lost a process",
)
@_graph("--graph", metavar="FILE", help="Communication graph: GraphML, node pairs or a matrix.")
@_graph("--undirected", is_flag=True, help="Let every link of --graph and --mask carry messages both ways.")
@_graph("--mask", metavar="FILE", help="Graph of the blocks of K.  [default: the largest that --graph admits]")
@_graph(
    "--protocol", default="owner-computes", metavar="owner-computes|replicated", help="Which nodes hold a row of K."
)
@_graph("--consensus", default="gossip", metavar="gossip|all-reduce", help="How the sums of the head are computed.")
@_data("--data", default="swiss-roll", metavar="NAME", help="Data set of vectors and classes.", show_default=True)
@_data("-d", "--data-option", "data_options", multiple=True, metavar="NAME=VALUE", help="Option of the data set.")
@_network("--model", default="h2", metavar="h1|h2", help="Network.", show_default=True)
@_network("--sizes", type=INTEGERS, default=1, help="Features of p, and of q, per node; one number, or one each.")
@_network("--layers", type=int, default=8, help="Number of layers.", show_default=True)
@_network("--T", "T", type=float, help="Final time.  [default: layers / 2]")
@_network("--inputs", type=INTEGERS, help="Feature of y_0 for each input.  [default: evenly spaced]")
@_training("--epochs", type=int, default=40, help="Passes over the data.", show_default=True)
@_training(
    "--batch-size", "batch", former="--batch", type=int, default=125, help="Samples per step.", show_default=True
)
@_training("--lr", type=float, default=0.02, help="Maximum learning rate.", show_default=True)
@_machine(
    "--nproc", type=click.IntRange(1), help="Number of processes.  [default: 1, a simulation; under torchrun, its own]"
)
@_machine("--force", is_flag=True, help="Start more processes than there are cores.")
@_machine("--host", metavar="ADDRESS", help="Meet at this address.  [default: in a folder that only you can enter]")
@_machine("--backend", default="gloo", metavar="gloo|nccl", help="Transport.", show_default=True)
@_machine("--timeout", type=float, default=60.0, help="Seconds that a node may take to answer.", show_default=True)
@_machine(
    "--dtype",
    default="float32",
    metavar="float32|float64",
    help="Number type of weights and messages.",
    show_default=True,
)
@_machine("--seed", type=int, default=0, help="Seed of weights and batches.", show_default=True)
@_output("--out", metavar="FOLDER", help="Folder of the nodes' checkpoints, one for each epoch.")
@_output("--resume", metavar="FOLDER", help="Continue the training in this --out folder.")
@_output("--quiet", is_flag=True, help="Print only the accuracy.")
def agents(
    nproc: int | None,
    force: bool,
    host: str | None,
    graph: str | None,
    mask: str | None,
    backend: str,
    timeout: float,
    out: str | None,
    resume: str | None,
    quiet: bool,
    **words: Any,
) -> int:
    """Train a network whose features and weights live on the nodes of a graph.

    Every node communicates only with its neighbours, forwards and backwards. The messages and bytes per layer are
    printed, with the numbers of a dense network for comparison. Start several processes with --nproc or torchrun.
    """
    require_environment()
    if graph is None and resume is None:
        raise BadInput("--graph is missing: it says who may talk to whom; or give --resume FOLDER.")
    named = graph or f"of {resume}"
    folder = _folder(out if resume is None else resume)
    door = _Door(named, mask, spelled(backend, _NAMES["backend"]), timeout, folder, quiet, resume is not None)
    asked = _asked(door, words) if resume is None else _before(door)
    if launched():
        return _run(asked, door)
    made = _Made.of(asked, door)  # bad input is found once, before anything is started
    _require_fits(asked, made, door, nproc or 1)
    parallel.require_cores(nproc, force)
    if nproc and nproc > 1:
        from liouville.processes import launch

        sys.stdout.flush()
        code = launch(sys.argv[1:], nproc, host, grace=2 * timeout)
        if code == Interrupted.exit_code:
            raise Interrupted(f"interrupted; {door.kept()}")
        return code
    return _run(asked, door, made)


class _Door(NamedTuple):
    """What was typed and trains nothing: the files by name, how processes talk, what is kept and printed."""

    graph: str
    mask: str | None
    backend: str
    timeout: float
    out: Path | None
    quiet: bool
    resumes: bool

    def kept(self) -> str:
        """What an interrupt leaves, in words."""
        if self.out is None:
            return "nothing is kept without --out FOLDER."
        return f"`liouville agents --resume {self.out}` goes on after the last epoch that is whole there."


class _Made(NamedTuple):
    """What is the same in every process: the data, loaded once, the central network, and where it goes on."""

    split: Split
    network: Network
    checkpoints: Checkpoints | None

    @classmethod
    def of(cls, asked: Spread, door: _Door) -> _Made:
        split = asked.load()
        network = asked.network(split.facts())
        return cls(split, network, None if door.out is None else asked.checkpoints(door.out, network, split))


def _folder(out: str | None) -> Path | None:
    if out is None:
        return None
    if not out:
        raise BadInput("--out is empty; give the name of a folder.")
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"--out {folder} is a file; expected a folder, or a name for a new one.")
    return folder


def _asked(door: _Door, words: dict[str, Any]) -> Spread:
    """The options as one record; a graph that does not do is found before data are loaded."""
    for name in ("layers", "epochs", "batch", "timeout", "lr"):
        value = door.timeout if name == "timeout" else words[name]
        if not value > 0:
            raise BadInput(f"--{name} must be positive, got {value}.")
    words |= {name: spelled(words[name], known) for name, known in _NAMES.items() if name in words}
    _require_backend(door.backend)
    graph, mask = _graphs(door, words["undirected"], words["protocol"], words["consensus"])
    from liouville.data import SOURCES
    from liouville.runs import Plan
    from liouville.runs.spread import Spread
    from liouville.train import Settings

    data = spelled(words["data"], SOURCES)
    plan = Plan(
        data=data,
        data_options=convert_data_options(lookup(SOURCES, data, "data set").loader, words["data_options"]),
        model=words["model"],
        layers=words["layers"],
        T=words["T"] or words["layers"] / 2,
        settings=Settings(words["epochs"], words["batch"], words["lr"], warmup=0.3, validation=0.0),
        dtype=words["dtype"],
        threads=1,
        seed=words["seed"],
    )
    return Spread.of(plan, graph, mask, words["protocol"], words["consensus"], words["sizes"], words["inputs"])


def _before(door: _Door) -> Spread:
    """What a folder was trained with; nothing of it can be given again."""
    from liouville.runs.spread import Spread

    context = click.get_current_context()
    free = {"nproc", "force", "host", "backend", "timeout", "quiet", "resume"}
    given = [
        name
        for name in context.params
        if name not in free and context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        names = ", ".join(option.opts[0] for option in context.command.params if option.name in given)
        raise BadInput(f"--resume goes on with what {door.out} was trained with; leave {names} out.")
    _require_backend(door.backend)
    return Spread.open(door.out or Path())


def _require_backend(name: str) -> None:
    lookup(dict.fromkeys(_NAMES["backend"]), name, "backend")


def _run(asked: Spread, door: _Door, made: _Made | None = None) -> int:
    import torch

    from liouville.agents import AgentFault

    try:
        _train(asked, door, made or _Made.of(asked, door), leader=not launched() or os.environ["RANK"] == "0")
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


def _train(asked: Spread, door: _Door, made: _Made, leader: bool) -> None:
    import torch

    from liouville.agents import Simulation, check, spread
    from liouville.agents.training import accuracy, train
    from liouville.agents.transport import Distributed
    from liouville.processes import connect
    from liouville.task import Task, scores_for

    torch.set_num_threads(1)
    split, network, checkpoints = made
    exchange: Exchange = Simulation(asked.graph)
    if launched():
        store = connect(max(60.0, door.timeout), door.backend)
        device = "cuda" if door.backend == "nccl" else "cpu"
        exchange = Distributed(asked.graph, store, door.timeout, device, asked.in_words())
    local = spread(network, exchange, asked.protocol, asked.consensus).to(getattr(exchange, "device", "cpu"))
    split = split.to(next(local.parameters()).device, next(local.parameters()).dtype)
    task, settings = Task.of(split.classes, scores_for(split.classes)), asked.settings
    talk = leader and not door.quiet
    if talk:
        say(about(asked.graph, door.graph))
        say(str(check(asked.graph, next(network.flows()), asked.protocol)))

    def on_start(found: Found) -> None:
        for path in found.damaged:  # each process says it of its own
            click.echo(f"liouville: note: {path} is damaged, and the epoch before it taken.", err=True)
        if talk and found.epoch:
            say(_resumed(found, settings.epochs, door.out))
        if talk and found.epoch and not door.resumes:
            click.echo(f"liouville: note: from the next version on, --resume {door.out} is what goes on.", err=True)

    def on_epoch(epoch: int, loss: float) -> None:
        if epoch == 1:
            report(exchange, network, settings.batch_size, len(split.x_train), talk)
        if talk and (epoch % max(1, settings.epochs // 10) == 0 or epoch == 1):
            say(f"epoch {epoch}: loss {loss:.4g}")

    with _alone(asked, door, leader):
        train(local, exchange, split, task, settings, checkpoints, on_epoch, on_start)
    score = accuracy(local, split.x_test, split.y_test, task)
    if leader:
        say(f"test accuracy {100 * score:.2f} %")
    if talk and door.out is None:
        say("nothing is kept; --out FOLDER keeps the weights of every node")


@contextlib.contextmanager
def _alone(asked: Spread, door: _Door, leader: bool) -> Iterator[None]:
    """The folder says what is trained in it, and is nobody else's meanwhile."""
    from liouville.locks import Lock

    if door.out is None or not leader:
        yield
        return
    door.out.mkdir(parents=True, exist_ok=True)
    lock = Lock(door.out / "lock", str(door.out))
    try:
        asked.write(door.out)
        yield
    finally:
        lock.release()


def _resumed(found: Found, epochs: int, folder: Path | None) -> str:
    if found.epoch == epochs:
        return f"all {epochs} epochs were done before, in {folder}; nothing is left to train"
    other = (
        f"; its learning rate was planned for {found.planned} epochs and now is for {epochs}, so the result is not "
        f"that of {epochs} epochs in one go"
    )
    return f"goes on after epoch {found.epoch}, from {folder}" + (other if found.planned != epochs else "")


def _graphs(door: _Door, undirected: bool, protocol: Protocol, consensus: Consensus) -> tuple[Pattern, Pattern]:
    """The communication graph, and the mask of K: whether they do is found out before data and training are loaded."""
    from liouville.agents.exchange import ALL_REDUCE, apart
    from liouville.agents.locality import derived_mask
    from liouville.graphs import adjacency

    lookup(dict.fromkeys(("gossip", ALL_REDUCE)), consensus, "consensus")
    graph = adjacency(door.graph, undirected=undirected)
    if consensus != ALL_REDUCE and (why := apart(graph)):
        cure = "add --undirected, more links, " if graph.one_way() else "add links, "
        raise BadInput(
            f"--graph {door.graph}: {why}, so the sums of the head cannot reach every node; {cure}or "
            "--consensus all-reduce."
        )
    if not door.mask:
        return graph, derived_mask(graph, protocol)
    mask = adjacency(door.mask, undirected=undirected)
    if len(mask) != len(graph):
        raise BadInput(f"--mask {door.mask} has {len(mask)} nodes, and --graph {door.graph} {len(graph)}.")
    if bool(mask.names) != bool(graph.names):
        raise BadInput(
            f"--mask {door.mask} and --graph {door.graph}: one names its nodes, and the other numbers "
            "them from 0; call them the same."
        )
    try:
        return graph, mask.in_order_of(graph)
    except ValueError as error:
        raise BadInput(f"--mask {door.mask} and --graph {door.graph}: {error}") from None


def _require_fits(asked: Spread, made: _Made, door: _Door, processes: int) -> None:
    from liouville.agents import Simulation, check, spread
    from liouville.agents.transport import hosts_of

    network = made.network
    hosts_of(len(asked.graph), processes)
    violations = check(asked.graph, next(network.flows()), asked.protocol).violations
    if violations:
        fewer = ", or use --protocol owner-computes" if asked.protocol == "replicated" else ""
        raise BadInput(
            f"--mask {door.mask} does not fit --graph {door.graph}: {violations[0]}"
            f"{f' (and {len(violations) - 1} more)' if len(violations) > 1 else ''}. Leave --mask out{fewer}."
        )
    spread(network, Simulation(asked.graph), asked.protocol, asked.consensus)
    if made.checkpoints:
        made.checkpoints.require_same(range(len(asked.graph)))
