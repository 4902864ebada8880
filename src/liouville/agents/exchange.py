r"""How nodes hear of each other: one interface, and the simulation in one process that follows it.

A swap is one round of messages between neighbours: every node sends what the round's route says and receives likewise.
A process hosts some of the nodes (all of them in a simulation); what passes between two of those never leaves it, but
is counted as the message that it is.
"""

from __future__ import annotations

__all__ = [
    "ALL_REDUCE",
    "Consensus",
    "Count",
    "Exchange",
    "Route",
    "Simulation",
    "Stamp",
    "Traffic",
    "apart",
    "spanning_tree",
]

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from liouville.graphs import Pattern, adjacency
from liouville.nodes import Consensus

ALL_REDUCE = "all-reduce"
Pair = tuple[int, int]  # receiver, sender


class Stamp(NamedTuple):
    """What a message belongs to: a layer (-1 is the head), a pass, and a round of that layer."""

    layer: int
    phase: Literal["forward", "backward"]
    round: int

    def __str__(self) -> str:
        where = "the head" if self.layer < 0 else f"layer {self.layer}"
        return f"{where}'s {self.phase} pass"


class Route(NamedTuple):
    """Who sends to whom in one kind of round, and how many features: (receiver, sender) -> width."""

    widths: Mapping[Pair, int]


class Count(NamedTuple):
    """Messages that a node sent, and the bytes of tensors in them."""

    messages: int = 0
    bytes: int = 0

    def __add__(self, other: object) -> Count:
        if not isinstance(other, Count):
            return NotImplemented
        return Count(self.messages + other.messages, self.bytes + other.bytes)


class Traffic:
    """What the hosted nodes have sent since the last `clear`, by node, layer and pass."""

    def __init__(self) -> None:
        self.counts: dict[tuple[int, int, str], Count] = defaultdict(Count)

    def add(self, node: int, stamp: Stamp, tensor: Tensor) -> None:
        """One more message."""
        self.counts[node, stamp.layer, stamp.phase] += Count(1, tensor.numel() * tensor.element_size())

    def of(self, node: int, layer: int, phase: str | None = None) -> Count:
        """What one node sent in one layer, in one pass or in both."""
        phases = ("forward", "backward") if phase is None else (phase,)
        return sum((self.counts.get((node, layer, p), Count()) for p in phases), Count())

    def clear(self) -> None:
        """Forget."""
        self.counts.clear()


class Exchange(ABC):
    """Carries messages between the nodes of a graph for one process, which hosts some of them.

    Args:
        graph: who may receive from whom, whatever `liouville.graphs.adjacency` reads; a route may use no other link.
        hosted: the nodes of this process.
    """

    def __init__(self, graph: Any, hosted: tuple[int, ...]) -> None:
        self.graph, self.hosted = adjacency(graph), hosted
        self.traffic = Traffic()
        self._up, self._down = spanning_tree(self.graph)

    def swap(self, stamp: Stamp, route: Route, parts: Mapping[Pair, Tensor], like: Tensor) -> dict[Pair, Tensor]:
        """One round: what hosted nodes send, by (receiver, sender), against what hosted nodes receive.

        ``like`` has the batch size, dtype and device of every message.
        """
        for (receiver, sender), part in parts.items():
            if not self.graph[receiver][sender]:
                raise ValueError(
                    f"{self.graph.label(receiver)} may not receive from {self.graph.label(sender)}, which no link of "
                    "the graph allows."
                )
            self.traffic.add(sender, stamp, part)
        arrived = {pair: part for pair, part in parts.items() if pair[0] in self.hosted}
        return arrived | self._carry(stamp, route, parts, like)

    @abstractmethod
    def _carry(self, stamp: Stamp, route: Route, parts: Mapping[Pair, Tensor], like: Tensor) -> dict[Pair, Tensor]:
        """What hosted nodes receive from nodes of other processes."""

    @abstractmethod
    def _reduce(self, total: Tensor) -> Tensor:
        """The sum over all processes."""

    def total(self, parts: Mapping[int, Tensor], consensus: Consensus) -> Tensor:
        """The sum over all nodes of one tensor each, known to every node after the call and the same at each.

        "all-reduce" is the collective operation of the transport; "gossip" uses links of the graph alone: sums go up
        a spanning tree, and the total comes down again.
        """
        if consensus == ALL_REDUCE:
            stamp = Stamp(-1, "forward", 0)
            for node, part in parts.items():
                self.traffic.add(node, stamp, part)
            return self._reduce(torch.stack([parts[i] for i in self.hosted]).sum(0))
        return self._gossip(dict(parts))

    def require_connected(self) -> None:
        """Raise a `ValueError` unless links that go both ways connect all nodes, as "gossip" needs."""
        if not self._up:
            raise ValueError(
                f"links that go both ways do not connect all nodes ({apart(self.graph)}), so the head's sums cannot "
                'travel along them; use consensus="all-reduce", adjacency(graph, undirected=True), or more links.'
            )

    def _gossip(self, parts: dict[int, Tensor]) -> Tensor:
        self.require_connected()
        like = next(iter(parts.values()))
        for round, pairs in enumerate((*self._up, *self._down)):
            upwards = round < len(self._up)
            mine = {pair: parts[pair[1]] for pair in pairs if pair[1] in self.hosted}
            route = Route(dict.fromkeys(pairs, like.shape[1]))
            for (receiver, _), part in sorted(self.swap(Stamp(-1, "forward", round), route, mine, like).items()):
                parts[receiver] = parts[receiver] + part if upwards else part
        return parts[self.hosted[0]]


class Simulation(Exchange):
    """All nodes in this process: the same code as the distributed run, without a transport.

    Examples:
        >>> from liouville.graphs import adjacency
        >>> nodes = Simulation(adjacency([(0, 1), (1, 2)]))
        >>> nodes.total({i: torch.ones(1, 1) for i in range(3)}, "gossip")
        tensor([[3.]])
    """

    def __init__(self, graph: Any) -> None:
        graph = adjacency(graph)
        super().__init__(graph, tuple(range(len(graph))))

    def _carry(self, stamp: Stamp, route: Route, parts: Mapping[Pair, Tensor], like: Tensor) -> dict[Pair, Tensor]:
        return {}

    def _reduce(self, total: Tensor) -> Tensor:
        return total


def spanning_tree(graph: Pattern) -> tuple[list[list[Pair]], list[list[Pair]]]:
    """Rounds of (receiver, sender) towards node 0, and away from it, along links that go both ways; ([], []) where
    these do not connect all nodes. A single node takes one empty round each way.
    """
    parent = {0: 0}
    depths = [[0]]
    while depths[-1]:
        depths.append([])
        for k in depths[-2]:
            for i in range(len(graph)):
                if i not in parent and graph[i][k] and graph[k][i]:
                    parent[i] = k
                    depths[-1].append(i)
    if len(parent) < len(graph):
        return [], []
    down = [[(i, parent[i]) for i in depth] for depth in depths[1:-1]] or [[]]
    up = [[(k, i) for i, k in pairs] for pairs in reversed(down)]
    return up, down


def apart(graph: Pattern) -> str:
    """Why the links that go both ways do not connect all nodes, in words; "" where they do.

    Examples:
        >>> apart(adjacency([(0, 1), (1, 2), (2, 7)]))
        'nodes 3 to 6 have no link'
        >>> apart(adjacency([[0, 0, 1], [1, 0, 0], [0, 1, 0]]))
        'no link goes both ways, node 2 -> node 0 for example'
    """
    if spanning_tree(graph)[0]:
        return ""
    reasons = []
    one_way, alone = graph.one_way(), graph.alone()
    if one_way:
        sender, receiver = one_way[0]
        links = sum(map(sum, graph)) - len(graph)
        what = (
            "no link goes both ways"
            if len(one_way) == links
            else f"{len(one_way)} of {links} links lack their way back"
        )
        reasons.append(f"{what}, {graph.label(sender)} -> {graph.label(receiver)} for example")
    if alone:
        hint = " (does the list count from 1?)" if alone[0] == 0 and not graph.names and len(alone) < len(graph) else ""
        reasons.append(f"{_listed(graph, alone)} no link{hint}")
    if not reasons:
        reached = {0}
        while more := {i for k in reached for i in range(len(graph)) if graph[i][k]} - reached:
            reached |= more
        far = next(i for i in range(len(graph)) if i not in reached)
        reasons.append(f"no path leads from {graph.label(0)} to {graph.label(far)}")
    return ", and ".join(reasons)


def _listed(graph: Pattern, nodes: list[int]) -> str:
    """These nodes, as the subject of "have"."""
    if len(nodes) == 1:
        return f"{graph.label(nodes[0])} has"
    if not graph.names and nodes == list(range(nodes[0], nodes[-1] + 1)):
        return f"nodes {nodes[0]} to {nodes[-1]} have"
    more = f" and {len(nodes) - 3} more" if len(nodes) > 3 else ""
    return ", ".join(graph.label(node) for node in nodes[:3]) + f"{more} have"
