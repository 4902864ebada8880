r"""What a network has of its nodes: heads that read one node each, and the graph that its nodes talk over.

A network on the nodes of a graph is a `liouville.Network` whose flow has a `liouville.Graph` as operator. Where its
outputs belong to nodes (u_i, the input of node i's actuator), the head is a `NodeHead`; where all nodes share the
outputs, it is an ``nn.Linear`` over all features.
"""

from __future__ import annotations

__all__ = ["CONSENSUS", "PROTOCOLS", "Consensus", "NodeHead", "Placement", "Protocol", "node_of"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from liouville.graphs import Pattern, adjacency
from liouville.names import lookup, suggestion
from liouville.operators import Graph

Protocol = Literal["replicated", "owner-computes"]
PROTOCOLS = ("replicated", "owner-computes")
Consensus = Literal["gossip", "all-reduce"]
CONSENSUS = ("gossip", "all-reduce")


@dataclass(frozen=True)
class Placement:
    """Where the parts of a network live: ``network.placement``, which is saved with it and followed by
    `liouville.agents.spread`.

    Args:
        graph: who may receive from whom, whatever `liouville.graphs.adjacency` reads; with the names of the nodes.
        protocol: which nodes hold a row of K, see `liouville.agents.check`.
        consensus: how the sums of a head that all nodes share are made; no matter for a `NodeHead`.

    Raises:
        ValueError: an unknown protocol or consensus, or a graph that cannot be read.

    Examples:
        >>> Placement([("tank", "pump"), ("pump", "valve")]).graph.names
        ('tank', 'pump', 'valve')
    """

    graph: Any
    protocol: Protocol = "owner-computes"
    consensus: Consensus = "gossip"

    def __post_init__(self) -> None:
        lookup(dict.fromkeys(PROTOCOLS), self.protocol, "protocol")
        lookup(dict.fromkeys(CONSENSUS), self.consensus, "consensus")
        object.__setattr__(self, "graph", adjacency(self.graph))


class NodeHead(nn.Module):
    r"""Outputs that belong to nodes, each a linear map of its own node's features: u_i = W_i y_i + b_i.

    As a matrix over all features, W has the blocks W_i and zeros elsewhere, which have no gradient and stay zero. So an
    output depends on what its node's features depend on, and on nothing else (`liouville.agents.check` says on which
    nodes after how many layers).

    Args:
        operator: of the flow: who owns which feature.
        features: width of the state.
        outputs: the node of each output, by number or name; one for each node, in their order, if None.
        bias: whether there are b_i.

    Shapes: (*batch, features) -> (*batch, outputs).

    Raises:
        ValueError: there is no such node, or the features do not fit the operator.

    Examples:
        >>> line = Graph([("tank", "pump"), ("pump", "valve")])
        >>> head = NodeHead(line, 6, outputs=("valve", "tank"))
        >>> head.outputs, head(torch.randn(5, 6)).shape
        ((2, 0), torch.Size([5, 2]))
    """

    mask: Tensor

    def __init__(
        self, operator: Graph, features: int, outputs: Sequence[int | str] | None = None, bias: bool = True
    ) -> None:
        super().__init__()
        chosen = range(operator.nodes) if outputs is None else outputs
        self.operator, self.features = operator, features
        self.outputs = tuple(node_of(operator.links, node) for node in chosen)
        if not self.outputs:
            raise ValueError("a head needs an output, got none; name the node of each.")
        owners = operator.owners(features)
        mask = owners[None, :] == torch.tensor(self.outputs)[:, None]
        self.register_buffer("mask", mask, persistent=False)
        bounds = 1 / mask.sum(1).double().sqrt()  # nn.Linear's, for the features that an output reads
        weight = (2 * torch.rand(mask.shape) - 1) * bounds[:, None].float()
        self.weight = nn.Parameter(torch.where(mask, weight, 0.0))
        self.bias = nn.Parameter((2 * torch.rand(len(self.outputs)) - 1) * bounds.float()) if bias else None

    def forward(self, y: Tensor) -> Tensor:
        """y_N -> u."""
        return F.linear(y, torch.where(self.mask, self.weight, 0.0), self.bias)

    def extra_repr(self) -> str:
        return f"features={self.features}, outputs={self.outputs}, bias={self.bias is not None}"


def node_of(graph: Pattern, node: int | str) -> int:
    """The number of a node, from its number or its name; where nodes have names, text is one.

    Raises:
        ValueError: there is none; the nearest name is suggested.

    Examples:
        >>> graph = adjacency([("tank", "pump"), ("pump", "valve")])
        >>> node_of(graph, "pump"), node_of(graph, 2), node_of(adjacency([(0, 1)]), "1")
        (1, 2, 1)
    """
    names = graph.names or tuple(map(str, range(len(graph))))
    word = " ".join(node.split()) if isinstance(node, str) else node
    if isinstance(word, str):
        if word in names:
            return names.index(word)
        has = f"its nodes are {_few(names)}" if graph.names else f"its nodes are 0 to {len(graph) - 1}"
        raise ValueError(f"the graph has no node {word!r}; {suggestion(word, names)}{has}.")
    if isinstance(word, bool) or word not in range(len(graph)):
        raise ValueError(f"the graph has no node {node!r}; its nodes are numbered 0 to {len(graph) - 1}.")
    return int(word)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
