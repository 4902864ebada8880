"""What `liouville agents` prints of a graph: who is linked to whom, and what each node sent."""

from __future__ import annotations

__all__ = ["about", "decision", "report"]

from typing import TYPE_CHECKING, Any

from liouville.cli.output import table

if TYPE_CHECKING:
    from liouville.agents import Exchange
    from liouville.graphs import Pattern
    from liouville.network import Network


def about(graph: Pattern, file: str) -> str:
    """The graph as it was read, in one line."""
    links, one_way = sum(map(sum, graph)) - len(graph), len(graph.one_way())
    ways = f"{(links - one_way) // 2} links both ways" + (f" and {one_way} one way" if one_way else "")
    names = f" ({graph.names[0]} ... {graph.names[-1]})" if graph.names else ""
    return "; ".join((f"graph {file}: {len(graph)} nodes{names}, {ways}", *graph.notes))


def decision(found: dict[str, Any]) -> str:
    """What the head takes beyond the layers, and what a node sends for one decision, in one line."""
    head = found["head"]
    rounds = f"{head['rounds']} rounds for the head's sum ({head['consensus']})" if head["shared"] else "no message"
    sent = [(node["messages"], node["numbers"]) for node in found["nodes"]]
    (least, few), (most, many) = min(sent), max(sent)
    count = (
        f"{least} messages, {few} numbers"
        if sent[0] == max(sent) == min(sent)
        else (f"{least} to {most} messages, {few} to {many} numbers")
    )
    ends = "outputs of nodes, which take " if not head["shared"] else ""
    return f"a node sends {count} for a decision in the layers; {ends}{rounds}"


def report(exchange: Exchange, network: Network, batch_size: int, samples: int, talk: bool) -> None:
    """What each node sent per layer and step in the first epoch, and what a dense network would have sent."""
    from liouville.agents.transport import gathered
    from liouville.nodes import NodeHead

    steps = -(-samples // batch_size)
    field: Any = network.body.field
    places = [(layer, phase) for layer in (0, -1) for phase in ("forward", "backward")]
    mine = {
        node: [number for place in places for number in exchange.traffic.of(node, *place)] for node in exchange.hosted
    }
    every = gathered(mine, 2 * len(places), exchange)
    if not talk:
        return
    nodes, size = field.operator.nodes, next(network.parameters()).element_size()
    shared = not isinstance(network.head, NodeHead)
    rows = []
    for node in range(nodes):
        dense = (nodes - 1) * size * samples * int((field.operator.owners(field.features) == node).sum())
        sent = dict(zip(places, zip(every[node][::2], every[node][1::2], strict=True), strict=True))
        per = [
            f"{phase}: {messages / steps:.0f} messages, {volume / steps:,.0f} bytes"
            for (layer, phase), (messages, volume) in sent.items()
            if layer == 0
        ]
        head = f"head: {sent[-1, 'forward'][1] / steps:,.0f} bytes"
        ends = (head,) if shared else ()
        rows.append((exchange.graph.label(node), *per, f"dense all-gather: {dense / steps:,.0f} bytes each way", *ends))
    note = f"mean batch {samples / steps:.0f}; a header of 64 bytes for each peer and round is not counted"
    names = ("node", "forward", "backward", "dense", *(("the head's sum",) if shared else ()))
    table("sent in one layer and step", names, rows, note)
