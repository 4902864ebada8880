"""What `liouville agents` was asked: graph, data, network and settings as one record, found fit before it runs."""

from __future__ import annotations

__all__ = ["NAMES", "Door", "asked_of", "require_fits", "taken_up"]

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from liouville.cli.exits import BadInput
from liouville.cli.options import convert_data_options
from liouville.cli.own import HOW, note, refuse_columns, table_options
from liouville.names import lookup, spelled

if TYPE_CHECKING:
    from liouville.data import Split, TableFile
    from liouville.graphs import Pattern
    from liouville.network import Network
    from liouville.nodes import Consensus, Protocol
    from liouville.runs.spread import Spread

NAMES = {
    "protocol": ("owner-computes", "replicated"),
    "consensus": ("gossip", "all-reduce"),
    "model": ("h1", "h2"),
    "backend": ("gloo", "nccl"),
    "dtype": ("float32", "float64"),
}
_STEPS = 2000  # that a table is trained for at least
_LONGEST = 400  # epochs, unless somebody asks for more


class Door(NamedTuple):
    """What was typed and trains nothing: the files by name, how processes talk, what is kept and printed."""

    graph: str
    mask: str | None
    backend: str
    timeout: float
    out: Path | None
    quiet: bool
    resumes: bool
    goes_on: bool
    figures: bool

    def kept(self) -> str:
        """What an interrupt leaves, in words."""
        if self.out is None:
            return "nothing is kept without --out RUN."
        return f"`liouville agents --resume {self.out}` goes on after the last epoch that is whole there."


def asked_of(door: Door, words: dict[str, Any]) -> tuple[Spread, Split | None]:
    """The options as one record, and the table if one was given; a graph that does not do is found before data."""
    for name in ("layers", "epochs", "batch", "timeout", "lr"):
        value = door.timeout if name == "timeout" else words[name]
        if value is not None and not value > 0:
            raise BadInput(f"--{name} must be positive, got {value}.")
    words |= {name: spelled(words[name], known) for name, known in NAMES.items() if name in words}
    lookup(dict.fromkeys(NAMES["backend"]), door.backend, "backend")
    from liouville.data import SOURCES
    from liouville.data.own import is_file_name

    words["data"] = spelled(words["data"], SOURCES)
    own = words["data"] not in SOURCES and is_file_name(words["data"])
    graph, mask = _graphs(door, words["undirected"], words["protocol"], words["consensus"])
    if not own:
        _require_reach(door, graph, words["consensus"])
        return _of_name(words, graph, mask), None
    return _of_table(door, words, graph, mask)


def _of_name(words: dict[str, Any], graph: Pattern, mask: Pattern) -> Spread:
    from liouville.data import SOURCES

    refuse_columns(words, {"targets": "--target", "columns": "--map"})
    try:
        loader = lookup(SOURCES, words["data"], "data set").loader
    except ValueError as error:
        raise BadInput(f"{error} {HOW}") from None
    options = convert_data_options(loader, words["data_options"])
    return _spread(words, graph, mask, {"data": words["data"], "data_options": options}, words["sizes"] or 1)


def _of_table(door: Door, words: dict[str, Any], graph: Pattern, mask: Pattern) -> tuple[Spread, Split]:
    from liouville.agents.exchange import ALL_REDUCE
    from liouville.data import TableFile
    from liouville.data.headers import listed
    from liouville.data.raw import read_raw
    from liouville.runs.mapping import nodes_of, targets_in
    from liouville.runs.spread import sizes_for

    raw = read_raw(words["data"], header=words["header"] or "auto", known=words["targets"])
    if not words["targets"]:
        raise BadInput(
            f"say what of {words['data']} to predict: --target COLUMN, or --target u for NODE.u of every node; its "
            f"columns are {listed(raw.names)}."
        )
    targets = targets_in(raw, words["targets"], graph)
    ids = [raw.column(word, "--id") for word in words["ids"]]
    inputs = [name for name in raw.names if name not in (*targets, *ids) and name != raw.index]
    columns = nodes_of(raw, inputs, targets, graph, words["columns"])
    if not all(name in columns for name in targets) and words["consensus"] != ALL_REDUCE:
        _require_reach(door, graph, words["consensus"])
    table = TableFile(
        str(Path(words["data"]).absolute()),
        targets[0] if len(targets) == 1 else tuple(targets),
        tuple(ids),
        tuple(targets_in(raw, words["categories"], graph, "--category")),
        words["header"] or "auto",
        **table_options(words["data_options"]),
    )
    notes: list[str] = []
    split = table.load(notes=notes)
    told = (*notes, *_idle(graph, columns, inputs))
    if not door.quiet:
        for text in told:
            note(text)
    rows = len(split.x_train)
    words["epochs"] = words["epochs"] or min(_LONGEST, max(40, -(-_STEPS * words["batch"] // rows)))
    sizes = words["sizes"] or sizes_for(split.facts(), columns, len(graph))
    return _spread(words, graph, mask, {"data": None, "table": table}, sizes, columns), split


def _spread(
    words: dict[str, Any], graph: Pattern, mask: Pattern, data: dict[str, Any], sizes: Any, columns: Any = None
) -> Spread:
    from liouville.runs import Plan
    from liouville.runs.spread import Spread
    from liouville.train import Settings

    plan = Plan(
        **data,
        model=words["model"],
        layers=words["layers"],
        T=words["T"] or words["layers"] / 2,
        settings=Settings(words["epochs"] or 40, words["batch"], words["lr"], warmup=0.3, validation=0.0),
        dtype=words["dtype"],
        threads=1,
        seed=words["seed"],
    )
    return Spread.of(plan, graph, mask, words["protocol"], words["consensus"], sizes, words["inputs"], columns)


def _idle(graph: Pattern, columns: dict[str, int], inputs: list[str]) -> list[str]:
    """A sentence on nodes without a column."""
    idle = sorted(set(range(len(graph))) - {columns[name] for name in inputs})
    if not idle:
        return []
    shown = ", ".join(graph.label(i) for i in idle[:4]) + (f" and {len(idle) - 4} more" if len(idle) > 4 else "")
    return [f"{shown} {'has' if len(idle) == 1 else 'have'} no input of its own, and passes on what neighbours send."]


def taken_up(door: Door) -> Spread:
    """What a folder was trained with; nothing of it can be given again but where its table is."""
    from liouville.runs.spread import Spread

    context = click.get_current_context()
    asked = Spread.open(door.out or Path())
    free = {"nproc", "force", "host", "backend", "timeout", "quiet", "resume", "no_figures"}
    free |= set() if asked.plan.table is None else {"data"}
    given = [
        name
        for name in context.params
        if name not in free and context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        names = ", ".join(option.opts[0] for option in context.command.params if option.name in given)
        raise BadInput(f"--resume goes on with what {door.out} was trained with; leave {names} out.")
    lookup(dict.fromkeys(NAMES["backend"]), door.backend, "backend")
    table = asked.plan.table
    if table is None:
        return asked
    if context.get_parameter_source("data") is click.core.ParameterSource.COMMANDLINE:
        table = dataclasses.replace(table, path=str(Path(context.params["data"]).absolute()))
    _require_there(table, door)
    return dataclasses.replace(asked, plan=dataclasses.replace(asked.plan, table=table))


def _require_there(table: TableFile, door: Door) -> None:
    if not Path(table.path).exists():
        raise BadInput(
            f"the table of {door.out}, {table.path}, is not there; move it back, or say where it is with --data FILE."
        )


def _graphs(door: Door, undirected: bool, protocol: Protocol, consensus: Consensus) -> tuple[Pattern, Pattern]:
    """The communication graph, and the mask of K: whether they do is found out before data and training are loaded."""
    from liouville.agents.locality import derived_mask
    from liouville.graphs import adjacency

    lookup(dict.fromkeys(NAMES["consensus"]), consensus, "consensus")
    graph = adjacency(door.graph, undirected=undirected)
    if not door.mask:
        _require_two_ways(door, graph)
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


def _require_two_ways(door: Door, graph: Pattern) -> None:
    """Refuse a drawing whose links all go one way, along which no node hears another; a note where some do."""
    one_way, links = graph.one_way(), sum(map(sum, graph)) - len(graph)
    if not one_way:
        return
    sender, receiver = one_way[0]
    example = f"{graph.label(sender)} -> {graph.label(receiver)} for example"
    if len(one_way) == links:
        raise BadInput(
            f"--graph {door.graph}: no link goes both ways, {example}, so no two nodes can share a block of K; drawing "
            "programs write directed links, and --undirected lets each carry messages both ways."
        )
    if not door.quiet:
        note(
            f"--graph {door.graph}: {len(one_way)} of {links} links go one way, {example}, and carry no message of the "
            "network; --undirected lets them carry messages both ways."
        )


def _require_reach(door: Door, graph: Pattern, consensus: Consensus) -> None:
    """Refuse a graph on which the sums of a head that all nodes share cannot be made."""
    from liouville.agents.exchange import ALL_REDUCE, apart

    if consensus != ALL_REDUCE and (why := apart(graph)):
        cure = "add --undirected, more links, " if graph.one_way() else "add links, "
        raise BadInput(
            f"--graph {door.graph}: {why}, so the sums of the head cannot reach every node; {cure}or "
            "--consensus all-reduce."
        )


def require_fits(asked: Spread, network: Network, door: Door, processes: int) -> None:
    """Refuse what could not be spread, or not over so many processes."""
    from liouville.agents import Simulation, check, spread
    from liouville.agents.transport import hosts_of

    hosts_of(len(asked.graph), processes)
    violations = check(asked.graph, next(network.flows()), asked.protocol).violations
    if violations:
        fewer = ", or use --protocol owner-computes" if asked.protocol == "replicated" else ""
        raise BadInput(
            f"--mask {door.mask} does not fit --graph {door.graph}: {violations[0]}"
            f"{f' (and {len(violations) - 1} more)' if len(violations) > 1 else ''}. Leave --mask out{fewer}."
        )
    spread(network, Simulation(asked.graph), asked.protocol, asked.consensus)
