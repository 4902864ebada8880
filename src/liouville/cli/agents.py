"""``liouville agents``: a network spread over the nodes of a graph, in this process or in several."""

from __future__ import annotations

__all__ = ["agents"]

import sys
from pathlib import Path
from typing import Any

import click

from liouville.cli import parallel
from liouville.cli.exits import BadInput, Interrupted
from liouville.cli.help import Command, section
from liouville.cli.options import INTEGERS
from liouville.cli.output import say
from liouville.cli.own import of_a_table
from liouville.environment import launched, require_environment
from liouville.names import spelled

_graph, _data, _network, _training, _machine, _output = (
    section(name) for name in ("Graph", "Data", "Network", "Training", "Machine", "Output")
)


@click.command(
    cls=Command,
    short_help="Train a network distributed over the nodes of a graph.",
    examples=(
        ("liouville agents --graph ring.graphml", "the nodes of a ring, simulated in one process"),
        ("liouville agents --graph links.csv --data log.csv --target u", "your graph and data, an answer of each node"),
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
@click.argument("run", required=False)
@_graph("--graph", metavar="FILE", help="Take this graph of who talks to whom: GraphML, node pairs or a matrix.")
@_graph("--undirected", is_flag=True, help="Let every link of --graph and --mask carry messages both ways.")
@_graph(
    "--mask",
    metavar="FILE",
    help="Let only the links of this graph have blocks in K.  [default: the largest that --graph admits]",
)
@_graph(
    "--protocol",
    default="owner-computes",
    metavar="owner-computes|replicated",
    help="Choose which nodes hold a row of K.",
)
@_graph(
    "--consensus", default="gossip", metavar="gossip|all-reduce", help="Choose how the sums of the head are computed."
)
@_data(
    "--data",
    default="swiss-roll",
    metavar="NAME|FILE",
    help="Train on this data set of vectors, or on a table of your own: CSV or Parquet.",
    show_default=True,
)
@_data(
    "--target",
    "targets",
    metavar="COLUMN",
    multiple=True,
    help="Predict this column of your table; u stands for NODE.u of every node; may be given again.",
)
@_data(
    "--map",
    "columns",
    metavar="FILE",
    help="Read which node has which column from this table, of two columns: column and node.  [default: columns are "
    "called NODE.NAME]",
)
@of_a_table(_data)
@_network("--model", default="h2", metavar="h1|h2", help="Take this network.", show_default=True)
@_network(
    "--sizes",
    type=INTEGERS,
    help="Give each node this many features of p, and of q; one number, or one each.  [default: 1; of your table as "
    "many as inputs, 2 or more]",
)
@_network("--layers", type=int, default=8, help="Set the number of layers.", show_default=True)
@_network("--T", "T", type=float, help="Set the final time; the step is T / layers.  [default: layers / 2]")
@_network(
    "--inputs",
    type=INTEGERS,
    help="Put each input into this feature of y_0.  [default: evenly spaced; of your table its node's]",
)
@_training(
    "--epochs", type=int, help="Make this many passes over the data.  [default: 40; of a table, those of 2,000 steps]"
)
@_training(
    "--batch-size",
    "batch",
    former="--batch",
    type=int,
    default=125,
    help="Take this many samples for each step.",
    show_default=True,
)
@_training(
    "--lr", type=float, default=0.02, help="Set the learning rate, the highest of the schedule.", show_default=True
)
@_machine(
    "--nproc",
    type=click.IntRange(1),
    help="Spread the nodes over this many processes.  [default: 1, a simulation; under torchrun, its own]",
)
@_machine("--force", is_flag=True, help="Start more processes than there are cores.")
@_machine("--host", metavar="ADDRESS", help="Meet at this address.  [default: in a folder that only you can enter]")
@_machine("--backend", default="gloo", metavar="gloo|nccl", help="Send messages by this transport.", show_default=True)
@_machine(
    "--timeout", type=float, default=60.0, help="Wait this many seconds for the answer of a node.", show_default=True
)
@_machine(
    "--dtype",
    default="float32",
    metavar="float32|float64",
    help="Compute and send in these numbers.",
    show_default=True,
)
@_machine("--seed", type=int, default=0, help="Seed weights and batches.", show_default=True)
@_output(
    "--out",
    metavar="RUN",
    help="Write the run, with a checkpoint of each node, into this folder; with --export-node, the part of the node.",
)
@_output("--resume", metavar="RUN", help="Continue the training in this --out folder.")
@_output(
    "--export-node",
    "exported",
    metavar="NAME",
    multiple=True,
    help="Write the part of this node of RUN (table, weights, ONNX) and train nothing; may be given again.",
)
@_output("--no-figures", is_flag=True, help="Draw no figures.")
@_output("--quiet", is_flag=True, help="Print only the test score.")
def agents(
    run: str | None,
    nproc: int | None,
    force: bool,
    host: str | None,
    graph: str | None,
    mask: str | None,
    backend: str,
    timeout: float,
    out: str | None,
    resume: str | None,
    exported: tuple[str, ...],
    no_figures: bool,
    quiet: bool,
    **words: Any,
) -> int:
    """Train a network whose features and weights live on the nodes of a graph.

    Every node communicates only with its neighbours, forwards and backwards. With --data my.csv --target u each node
    has columns of its own, and outputs of its own where the targets are its. The messages and bytes per layer are
    printed, with the numbers of a dense network for comparison. Start several processes with --nproc or torchrun.

    RUN belongs to --export-node: liouville agents --export-node "pump 3" RUN.
    """
    require_environment()
    if exported or run is not None:
        return _export(run, exported, out, quiet)
    if graph is None and resume is None:
        raise BadInput("--graph is missing: it says who may talk to whom; or give --resume RUN.")
    from liouville.cli import asking, running

    folder = _folder(out if resume is None else resume)
    goes_on = resume is not None or running.trained_before(folder)
    transport = spelled(backend, asking.NAMES["backend"])
    named, again = graph or f"of {resume}", resume is not None
    door = asking.Door(named, mask, transport, timeout, folder, quiet, again, goes_on, not no_figures)
    asked, split = (asking.taken_up(door), None) if again else asking.asked_of(door, words)
    if launched():
        return running.run(asked, door, running.Made.of(asked, door, split))
    running.require_free(door, asked)
    made = running.Made.of(asked, door, split)  # bad input is found once, before anything is started
    asking.require_fits(asked, made.network, door, nproc or 1)
    if made.checkpoints is not None:
        made.checkpoints.require_same(range(len(asked.graph)))
    parallel.require_cores(nproc, force)
    if nproc and nproc > 1:
        from liouville.processes import launch

        sys.stdout.flush()
        code = launch(sys.argv[1:], nproc, host, grace=2 * timeout)
        if code == Interrupted.exit_code:
            raise Interrupted(f"interrupted; {door.kept()}")
        return code
    return running.run(asked, door, made)


def _folder(out: str | None) -> Path | None:
    if out is None:
        return None
    if not out:
        raise BadInput("--out is empty; give the name of a folder.")
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"--out {folder} is a file; expected a folder, or a name for a new one.")
    return folder


def _export(run: str | None, nodes: tuple[str, ...], out: str | None, quiet: bool) -> int:
    """The parts of some nodes of a run, as files."""
    if not nodes:
        raise BadInput(
            f"{run!r} follows no option; an option for several is given once for each, --target A --target B, and one "
            "node's part is exported by liouville agents --export-node NAME RUN."
        )
    if run is None:
        raise BadInput(
            "one node's part is exported by liouville agents --export-node NAME RUN; to train, give --graph and --out."
        )
    from liouville.agents import export_node
    from liouville.checkpoint import load
    from liouville.cli.check import find_run
    from liouville.network import Network
    from liouville.nodes import node_of

    found, file = find_run(run)
    network = load(file) if found is None else found.network()
    if not isinstance(network, Network) or network.placement is None:
        raise BadInput(f"{run} has no graph, so it has no nodes; give a run of `liouville agents`.")
    graph = network.placement.graph
    chosen = [node_of(graph, word) for word in nodes]
    parent = Path(out) if out else file.parent / "nodes"
    for i in chosen:
        folder = parent / f"node-{i}"
        part = export_node(network, i, folder)
        heard = sorted({k for round in part.rounds for k, _ in round.receive} - {i})
        if not quiet:
            names = ", ".join(graph.label(k).removeprefix("node ") for k in heard) or "nobody"
            say(f"{graph.label(i)}: {sum(p.numel() for p in part.buffers()):,} numbers, hears {names}")
        say(str(folder))
    return 0
