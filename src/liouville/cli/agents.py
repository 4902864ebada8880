"""``liouville agents``: a network spread over the nodes of a graph, in this process or in several."""

from __future__ import annotations

__all__ = ["agents"]

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from liouville.cli import parallel
from liouville.cli.exits import BadInput, Interrupted
from liouville.cli.options import INTEGERS, SectionedCommand, convert_data_options, section
from liouville.cli.output import say, table
from liouville.environment import launched, require_environment
from liouville.names import spelled

if TYPE_CHECKING:
    from liouville.agents import Exchange
    from liouville.agents.checkpoints import Checkpoints, Found
    from liouville.data import Split
    from liouville.graphs import Pattern
    from liouville.network import Network

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


@click.command(cls=SectionedCommand, short_help="Train a network distributed over the nodes of a graph.")
@_graph("--graph", required=True, metavar="FILE", help="Communication graph: GraphML, node pairs or a matrix.")
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
@_machine("--host", default="127.0.0.1", help="Address of the rendezvous.", show_default=True)
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
@_output("--out", metavar="FOLDER", help="Folder of the nodes' checkpoints; the same command continues from it.")
@_output("--quiet", is_flag=True, help="Print only the accuracy.")
def agents(nproc: int | None, host: str, force: bool, **options: Any) -> int:
    """Train a network whose features and weights live on the nodes of a graph.

    Every node communicates only with its neighbours, forwards and backwards. The messages and bytes per layer are
    printed, with the numbers of a dense network for comparison. Start several processes with --nproc or torchrun.
    """
    require_environment()
    options |= {"host": host} | {name: spelled(options[name], known) for name, known in _NAMES.items()}
    if not launched():
        made = _central(options)  # bad input is found once, before anything is started
        _require_fits(made, options, nproc or 1)
        parallel.require_cores(nproc, force)
        if nproc and nproc > 1:
            from liouville.processes import launch

            sys.stdout.flush()
            code = launch(sys.argv[1:], nproc, host, grace=2 * options["timeout"])
            if code == Interrupted.exit_code:
                raise Interrupted(f"interrupted; {_kept(options)}")
            return code
    _run(options)
    return 0


def _kept(options: dict[str, Any]) -> str:
    if options["out"] is None:
        return "nothing is kept without --out FOLDER."
    return f"the same command goes on after the last epoch that is whole in {options['out']}."


def _run(options: dict[str, Any]) -> None:
    import torch

    from liouville.agents import AgentFault

    try:
        _train(options, leader=not launched() or os.environ["RANK"] == "0")
    except AgentFault as fault:
        sys.stderr.write(f"liouville: error: {fault}.\n")
        sys.stderr.flush()
        os._exit(1)  # at once: what is left of the transport may wait for the node that failed
    except KeyboardInterrupt:
        if not launched():
            raise Interrupted(f"interrupted; {_kept(options)}") from None
        os._exit(Interrupted.exit_code)  # whoever started the processes says so
    if launched():
        torch.distributed.destroy_process_group()


def _train(options: dict[str, Any], leader: bool) -> None:
    import torch

    from liouville.agents import Simulation, check, spread
    from liouville.agents.training import Training, accuracy, train
    from liouville.agents.transport import Distributed
    from liouville.processes import connect
    from liouville.task import Task, scores_for

    torch.set_num_threads(1)
    network, graph, split = made = _central(options)
    words = " ".join(str(options[name]) for name in ("protocol", "consensus", "model", "sizes", "layers", "batch"))
    exchange: Exchange = Simulation(graph)
    if launched():
        store = connect(max(60.0, options["timeout"]), options["backend"])
        device = "cuda" if options["backend"] == "nccl" else "cpu"
        exchange = Distributed(graph, store, options["timeout"], device, words)
    local = spread(network, exchange, options["protocol"], options["consensus"]).to(getattr(exchange, "device", "cpu"))
    split = split.to(next(local.parameters()).device, next(local.parameters()).dtype)
    task = Task.of(split.classes, scores_for(split.classes))
    talk = leader and not options["quiet"]
    if talk:
        say(_about(graph, options))
        say(str(check(graph, network.body, options["protocol"])))  # type: ignore[arg-type]
    settings = Training(options["epochs"], options["batch"], options["lr"], options["seed"])

    def on_start(found: Found) -> None:
        if talk and found.epoch:
            say(_resumed(found, options))

    def on_epoch(epoch: int, loss: float) -> None:
        if epoch == 1:
            _report(exchange, network, options, len(split.x_train), talk)
        if talk and (epoch % max(1, settings.epochs // 10) == 0 or epoch == 1):
            say(f"epoch {epoch}: loss {loss:.4g}")

    train(local, exchange, split, task, settings, _checkpoints(made, options), on_epoch, on_start)
    score = accuracy(local, split.x_test, split.y_test, task)
    if leader:
        say(f"test accuracy {100 * score:.2f} %")
    if talk and options["out"] is None:
        say("nothing is kept; --out FOLDER keeps the weights of every node")


def _about(graph: Pattern, options: dict[str, Any]) -> str:
    """The graph as it was read, in one line."""
    links, one_way = sum(map(sum, graph)) - len(graph), len(graph.one_way())
    ways = f"{(links - one_way) // 2} links both ways" + (f" and {one_way} one way" if one_way else "")
    names = f" ({graph.names[0]} ... {graph.names[-1]})" if graph.names else ""
    return "; ".join((f"graph {options['graph']}: {len(graph)} nodes{names}, {ways}", *graph.notes))


def _resumed(found: Found, options: dict[str, Any]) -> str:
    epochs, folder = options["epochs"], options["out"]
    if found.epoch == epochs:
        return f"all {epochs} epochs were done before, in {folder}; nothing is left to train"
    other = (
        f"; its learning rate was planned for {found.planned} epochs and now is for {epochs}, so the result is not "
        f"that of {epochs} epochs in one go"
    )
    return f"goes on after epoch {found.epoch}, from {folder}" + (other if found.planned != epochs else "")


def _checkpoints(made: tuple[Network, Pattern, Split], options: dict[str, Any]) -> Checkpoints | None:
    from liouville.agents.checkpoints import Checkpoints, record_of

    if options["out"] is None:
        return None
    if not options["out"]:
        raise BadInput("--out is empty; give the name of a folder.")
    folder, given = Path(options["out"]), {name: options[name] for name in ("batch", "lr", "seed")}
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"--out {folder} is a file; expected a folder, or a name for a new one.")
    record = record_of(*made, options["protocol"], options["consensus"], **given)
    return Checkpoints(folder, record, options["epochs"])


def _central(options: dict[str, Any]) -> tuple[Network, Pattern, Split]:
    """The network that is spread, the same in every process, the communication graph, and the data."""
    for name in ("layers", "epochs", "batch", "timeout", "lr"):
        if not options[name] > 0:
            raise BadInput(f"--{name} must be positive, got {options[name]}.")
    graph, mask = _graphs(options)
    import torch
    from torch import nn

    from liouville.data import load
    from liouville.names import lookup
    from liouville.network import Lift, Network
    from liouville.operators import Graph
    from liouville.randomness import seeded
    from liouville.task import scores_for
    from liouville.zoo import h1, h2

    operator = Graph(mask, options["sizes"])
    n = 2 * sum(operator.sizes)  # type: ignore[arg-type]
    split = _split(load, options)
    width = split.x_train.shape[1]
    if split.x_train.ndim != 2 or not split.classes or width > n:
        raise BadInput(
            f"agents need vectors of at most {n} inputs and classes; {split.name} has inputs of shape "
            f"{tuple(split.x_train.shape[1:])} and {split.classes} classes."
        )
    places = options["inputs"]
    places = (places,) if isinstance(places, int) else places or tuple(k * n // width for k in range(width))
    dtype = lookup({"float32": torch.float32, "float64": torch.float64}, options["dtype"], "dtype")
    lookup(dict.fromkeys(("gloo", "nccl")), options["backend"], "backend")
    builders: dict[str, Any] = {"h1": h1, "h2": h2}
    build = lookup(builders, options["model"], "model")
    with seeded(options["seed"]):
        flow = build(n, options["layers"], options["T"] or options["layers"] / 2, operator=operator)
        head = nn.Linear(n, scores_for(split.classes))
    return Network(Lift(n, width, place=places), flow, head).to(dtype), graph, split


def _graphs(options: dict[str, Any]) -> tuple[Pattern, Pattern]:
    """The communication graph, and the mask of K: whether they do is found out before data and training are loaded."""
    from liouville.agents.exchange import ALL_REDUCE, apart
    from liouville.agents.locality import derived_mask
    from liouville.graphs import adjacency
    from liouville.names import lookup

    lookup(dict.fromkeys(("gossip", ALL_REDUCE)), options["consensus"], "consensus")
    graph = adjacency(options["graph"], undirected=options["undirected"])
    if options["consensus"] != ALL_REDUCE and (why := apart(graph)):
        cure = "add --undirected, more links, " if graph.one_way() else "add links, "
        raise BadInput(
            f"--graph {options['graph']}: {why}, so the sums of the head cannot reach every node; {cure}or "
            "--consensus all-reduce."
        )
    if not options["mask"]:
        return graph, derived_mask(graph, options["protocol"])
    mask = adjacency(options["mask"], undirected=options["undirected"])
    if len(mask) != len(graph):
        raise BadInput(f"--mask {options['mask']} has {len(mask)} nodes, and --graph {options['graph']} {len(graph)}.")
    if bool(mask.names) != bool(graph.names):
        raise BadInput(
            f"--mask {options['mask']} and --graph {options['graph']}: one names its nodes, and the other numbers "
            "them from 0; call them the same."
        )
    try:
        return graph, mask.in_order_of(graph)
    except ValueError as error:
        raise BadInput(f"--mask {options['mask']} and --graph {options['graph']}: {error}") from None


def _require_fits(made: tuple[Network, Pattern, Split], options: dict[str, Any], processes: int) -> None:
    from liouville.agents import Simulation, check, spread
    from liouville.agents.transport import hosts_of

    network, graph, _ = made
    hosts_of(len(graph), processes)
    violations = check(graph, network.body, options["protocol"]).violations  # type: ignore[arg-type]
    if violations:
        fewer = ", or use --protocol owner-computes" if options["protocol"] == "replicated" else ""
        raise BadInput(
            f"--mask {options['mask']} does not fit --graph {options['graph']}: {violations[0]}"
            f"{f' (and {len(violations) - 1} more)' if len(violations) > 1 else ''}. Leave --mask out{fewer}."
        )
    spread(network, Simulation(graph), options["protocol"], options["consensus"])
    if checkpoints := _checkpoints(made, options):
        checkpoints.require_same(range(len(graph)))


def _split(load: Any, options: dict[str, Any]) -> Split:
    from liouville.data import SOURCES
    from liouville.names import lookup

    name = spelled(options["data"], SOURCES)
    given = convert_data_options(lookup(SOURCES, name, "data set").loader, options["data_options"])
    return load(name, **given)


def _report(exchange: Exchange, network: Network, options: dict[str, Any], samples: int, talk: bool) -> None:
    """What each node sent per layer and step in the first epoch, and what a dense network would have sent."""
    from liouville.agents.transport import gathered

    steps = -(-samples // options["batch"])
    field: Any = network.body.field
    mine = {
        (node, where, phase): exchange.traffic.of(node, layer, phase)
        for node in exchange.hosted
        for where, layer in (("layer", 0), ("head", -1))
        for phase in ("forward", "backward")
    }
    counts = {key: count for share in gathered(mine, exchange) for key, count in share.items()}
    if not talk:
        return
    nodes, size = field.operator.nodes, 8 if options["dtype"] == "float64" else 4
    rows = []
    for node in range(nodes):
        dense = (nodes - 1) * size * samples * int((field.operator.owners(field.features) == node).sum())
        sent = {phase: counts[node, "layer", phase] for phase in ("forward", "backward")}
        per = [f"{p}: {c.messages / steps:.0f} messages, {c.bytes / steps:,.0f} bytes" for p, c in sent.items()]
        head = f"head: {counts[node, 'head', 'forward'].bytes / steps:,.0f} bytes"
        rows.append((exchange.graph.label(node), *per, f"dense all-gather: {dense / steps:,.0f} bytes each way", head))
    note = f"mean batch {samples / steps:.0f}; a header of 64 bytes for each peer and round is not counted"
    table("sent in one layer and step", ("node", "forward", "backward", "dense", "the head's sum"), rows, note)
