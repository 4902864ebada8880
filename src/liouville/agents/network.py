r"""A central network, spread over nodes: each process gets the lift, the flow and the head of the nodes that it hosts.

A head that all nodes share is linear, so every node multiplies its own features with its own columns and all of them
add up: the scores are the one thing that every node must know, and the head's consensus is their sum. Outputs that
belong to nodes (`liouville.NodeHead`, or the features themselves under ``nn.Identity``) need no message at all.
"""

from __future__ import annotations

__all__ = ["SpreadFlow", "SpreadNetwork", "spread", "to_central"]

import copy
from typing import Any, cast, overload

import torch
from torch import Tensor, nn

from liouville.agents.ends import LocalHead, LocalLift, LocalReadout
from liouville.agents.exchange import ALL_REDUCE, Consensus, Exchange, Simulation
from liouville.agents.fields import LocalHamiltonianField, LocalSeparableField
from liouville.agents.locality import require_local
from liouville.agents.patterns import Protocol
from liouville.backprop import Stored
from liouville.checkpoint import register
from liouville.fields import HamiltonianField
from liouville.flow import Flow
from liouville.kernels import Auto
from liouville.network import Lift, Network
from liouville.nodes import NodeHead, Placement


class SpreadFlow(Flow):
    """A flow at the hosted nodes, as `spread` makes it: (batch, hosted features) -> (batch, hosted features)."""

    central: Flow  # without its weights
    placement: Placement
    exchange: Exchange


class SpreadNetwork(Network):
    """A network at the hosted nodes, as `spread` makes it.

    Attributes:
        exchange: carries its messages.
        placement: graph, protocol and consensus.
        outputs: which of the central network's outputs these are, in their order; None where all nodes know all.
        parts: for each hosted node that has outputs of its own, their places among these.
        width: how many outputs all nodes have together.
    """

    exchange: Exchange
    placement: Placement
    outputs: Tensor | None
    parts: dict[int, Tensor]
    width: int

    def __init__(self, network: Network, exchange: Exchange, placement: Placement) -> None:
        flow = cast(Flow, network.body)
        local = _local_flow(flow, exchange, placement)
        field: Any = local.field
        owners = cast(Any, flow.field).operator.owners(flow.field.features)
        head: nn.Module = nn.Identity()
        if isinstance(network.head, NodeHead):
            head = LocalReadout(network.head, owners, exchange)
        elif isinstance(network.head, nn.Linear):
            head = LocalHead(network.head, owners, exchange, placement.consensus)
        super().__init__(LocalLift(network.lift, field.owned), local, head)
        self.exchange, self.placement, self.facts = exchange, placement, network.facts
        whose = None if isinstance(head, LocalHead) else torch.tensor(getattr(network.head, "outputs", owners.tolist()))
        self.outputs, self.parts = None, {}
        self.width = len(whose) if whose is not None else cast(nn.Linear, network.head).out_features
        if whose is not None:
            self.outputs = torch.isin(whose, torch.tensor(exchange.hosted)).nonzero().flatten()
            places = {i: (whose[self.outputs] == i).nonzero().flatten() for i in exchange.hosted}
            self.parts = {i: place for i, place in places.items() if len(place)}
        self._central = (_weightless(network),)  # a tuple: no sub-module

    def central(self) -> Network:
        """The central network with the weights of the hosted nodes, and zeros where other processes have theirs."""
        central: Network = copy.deepcopy(self._central[0])
        like = next(self.parameters())
        for module in central.modules():
            for name, weight in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(like.new_zeros(weight.shape), weight.requires_grad))
        central = central.to(like)  # buffers, too
        to_central(self, central)
        central.placement, central.facts = self.placement, self.facts
        return central.train(self.training)


@overload
def spread(
    network: Network,
    exchange: Exchange | None = None,
    protocol: Protocol | None = None,
    consensus: Consensus | None = None,
) -> SpreadNetwork: ...
@overload
def spread(
    network: Flow,
    exchange: Exchange | None = None,
    protocol: Protocol | None = None,
    consensus: Consensus | None = None,
) -> SpreadFlow: ...
def spread(
    network: Network | Flow,
    exchange: Exchange | None = None,
    protocol: Protocol | None = None,
    consensus: Consensus | None = None,
) -> SpreadNetwork | SpreadFlow:
    """The share of a network that the hosted nodes of an exchange hold: a network, with weights of its own.

    Its outputs, and after a backward pass its gradients, are those of the central one. Every process has to run the
    same passes in the same order.

    Args:
        network: a `Lift` (or ``nn.Identity``), one flow on a `Graph`, and a head: an ``nn.Linear`` that all nodes
            share, a `liouville.NodeHead`, or ``nn.Identity``. Its weights are copied. A flow by itself is spread, too.
        exchange: carries the messages; its graph is the communication graph. All nodes in this process, on the graph
            that the network is placed on, if None.
        protocol: "replicated" or "owner-computes", see `liouville.agents.check`; as the network is placed, else
            "owner-computes", if None.
        consensus: how the sums of a shared head are made: "gossip" along links of the graph, or "all-reduce"; as the
            network is placed, else "gossip", if None.

    Inputs are those of all nodes, (batch, inputs), of which each takes its own; or those of the hosted nodes, in their
    order. Where outputs belong to nodes, the outputs are those of the hosted nodes.

    Raises:
        ValueError: if the network does not fit the communication graph or has other parts, or gossip cannot reach all.

    Examples:
        >>> import liouville as lv
        >>> from liouville.agents import Simulation
        >>> ring = lv.Graph([(0, 1), (1, 2), (2, 3), (3, 0)])
        >>> network = lv.Network(lv.Lift(8, 2, place=(0, 6)), lv.zoo.h2(8, 4, 1.0, operator=ring), nn.Linear(8, 1))
        >>> agents = spread(network, Simulation(ring.links))
        >>> x = torch.randn(5, 2)
        >>> bool(torch.allclose(agents(x), network(x), atol=1e-5))
        True
    """
    known: Placement | None = getattr(network, "placement", None)
    if exchange is None:
        if known is None:
            raise ValueError(
                "this network does not say who talks to whom: give an exchange, such as "
                "agents.Simulation(graph), or set network.placement = agents.Placement(graph)."
            )
        exchange = Simulation(known.graph)
    before = known or Placement(exchange.graph)
    placement = Placement(exchange.graph, protocol or before.protocol, consensus or before.consensus)
    if isinstance(network, Flow):
        return _local_flow(network, exchange, placement)
    _require_parts(network)
    require_local(exchange.graph, cast(Flow, network.body), placement.protocol)
    if isinstance(network.head, nn.Linear) and placement.consensus != ALL_REDUCE:
        exchange.require_connected()
    return SpreadNetwork(network, exchange, placement)


_PARTS = (
    "agents run networks of a Lift or nn.Identity, one Flow, and a head that is an nn.Linear (all nodes know its "
    "scores), a NodeHead (each node its own outputs) or nn.Identity"
)


def _require_parts(network: Any) -> None:
    if not isinstance(network, Network):
        raise ValueError(
            f"{_PARTS}, got {type(network).__name__}; put its parts into a Network(lift, flow, head), or spread a flow."
        )
    lift, head = network.lift, network.head
    flow: Any = network.body
    fits = isinstance(lift, Lift | nn.Identity) and isinstance(flow, Flow)
    if not fits or not isinstance(head, nn.Linear | NodeHead | nn.Identity):
        raise ValueError(f"{_PARTS}, got {type(lift).__name__}, {type(flow).__name__} and {type(head).__name__}.")
    operator = getattr(flow.field, "operator", None)
    if isinstance(head, NodeHead) and (operator != head.operator or head.features != flow.field.features):
        raise ValueError(
            f"the head is for {head.features} features on {head.operator}, and the flow has {flow.field.features} on "
            f"{operator}; make it of the flow's, NodeHead(flow.field.operator, flow.field.features)."
        )


def _local_flow(flow: Flow, exchange: Exchange, placement: Placement) -> SpreadFlow:
    require_local(exchange.graph, flow, placement.protocol)
    kind = LocalHamiltonianField if isinstance(flow.field, HamiltonianField) else LocalSeparableField
    local = SpreadFlow(
        kind(flow.field, exchange, placement.protocol),  # type: ignore[arg-type]
        flow.scheme,
        flow.T,
        Stored() if isinstance(flow.backprop, Auto) else flow.backprop,  # a process may choose unlike another
    )
    local.exchange, local.placement = exchange, placement
    local._central = (_weightless(flow),)  # type: ignore[assignment]
    return local


def _weightless(module: nn.Module) -> Any:
    """A copy whose weights have shapes and no numbers."""
    empty: dict[int, Any] = {id(w): nn.Parameter(w.detach().to("meta"), w.requires_grad) for w in module.parameters()}
    return copy.deepcopy(module, empty)


def to_central(local: Network, central: Network, gradients: bool = False) -> None:
    """Write what hosted nodes own, weights or gradients, into the central network, whose gradients must exist."""
    field: Any = cast(Flow, local.body).field
    field.to_central(cast(Flow, central.body).field, gradients)
    if isinstance(local.head, LocalHead | LocalReadout):
        local.head.to_central(cast(Any, central.head), gradients)


def _described(local: Any) -> dict[str, Any]:
    """What rebuilds a spread network, or flow: the central one without weights, and its place."""
    if len(local.exchange.hosted) < len(local.exchange.graph):
        raise ValueError(
            f"this process has {len(local.exchange.hosted)} of {len(local.exchange.graph)} nodes, and a file holds "
            "them all; export each node (agents.export_node), or save the central network."
        )
    return {"central": local._central[0], "placement": local.placement}


def _rebuilt(central: Any, placement: Placement) -> Any:
    return spread(central, Simulation(placement.graph), placement.protocol, placement.consensus)


for _kind in (SpreadNetwork, SpreadFlow):
    register(_kind, _described, _rebuilt)
