r"""A central network, spread over nodes: each process gets the lift, the flow and the head of the nodes that it hosts.

The head is linear, so every node multiplies its own features with its own columns and all of them add up: the scores
are the one thing that every node must know, and the head's consensus is their sum.
"""

from __future__ import annotations

__all__ = ["LocalHead", "LocalLift", "spread", "to_central"]

from typing import Any, cast

import torch
from torch import Tensor, nn

from liouville.agents.exchange import ALL_REDUCE, Consensus, Exchange
from liouville.agents.fields import LocalHamiltonianField, LocalSeparableField
from liouville.agents.locality import require_local
from liouville.agents.patterns import PROTOCOLS, Protocol
from liouville.fields import HamiltonianField
from liouville.flow import Flow
from liouville.names import lookup
from liouville.network import Lift, Network


def spread(
    network: Network, exchange: Exchange, protocol: Protocol = "owner-computes", consensus: Consensus = "gossip"
) -> Network:
    """The share of a network that the hosted nodes of an exchange hold: a network, with weights of its own.

    Its scores, and after a backward pass its gradients, are those of the central one. Every process has to run the same
    passes in the same order.

    Args:
        network: `Lift`, one flow on a `Graph`, a linear head; its weights are copied.
        exchange: carries the messages; its graph is the communication graph.
        protocol: "replicated" or "owner-computes", see `liouville.agents.check`.
        consensus: how the head's sums are made: "gossip" along links of the graph, or "all-reduce".

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
    lookup(dict.fromkeys(PROTOCOLS), protocol, "protocol")
    lookup(dict.fromkeys(("gossip", ALL_REDUCE)), consensus, "consensus")
    if not isinstance(network, Network):
        raise ValueError(
            f"agents run networks of a Lift, one Flow and an nn.Linear head, got {type(network).__name__}; put the "
            "flow into a Network(lift, flow, head)."
        )
    lift, flow, head = network.lift, network.body, network.head
    if not isinstance(lift, Lift) or not isinstance(flow, Flow) or not isinstance(head, nn.Linear):
        raise ValueError(
            "agents run networks of a Lift, one Flow and an nn.Linear head, got "
            f"{type(lift).__name__}, {type(flow).__name__} and {type(head).__name__}."
        )
    require_local(exchange.graph, flow, protocol)
    if consensus != ALL_REDUCE:
        exchange.require_connected()
    kind = LocalHamiltonianField if isinstance(flow.field, HamiltonianField) else LocalSeparableField
    field = kind(flow.field, exchange, protocol)  # type: ignore[arg-type]
    local = Flow(field, flow.scheme, flow.T, flow.backprop)
    return Network(LocalLift(lift, field.owned), local, LocalHead(head, flow.field, exchange, consensus))


def to_central(local: Network, central: Network, gradients: bool = False) -> None:
    """Write what hosted nodes own, weights or gradients, into the central network, whose gradients must exist."""
    field: Any = local.body.field
    field.to_central(central.body.field, gradients)
    head, full = cast(LocalHead, local.head), cast(nn.Linear, central.head)
    pairs = [(full.weight, head.weights[f"W__{i}"], columns) for i, columns in head.columns.items()]
    for target, source, columns in pairs:
        _into(target, gradients)[:, columns] = _of(source, gradients)
    if full.bias is not None:
        _into(full.bias, gradients).copy_(_of(head.bias, gradients))


def _into(target: Tensor, gradients: bool) -> Tensor:
    return cast(Tensor, target.grad) if gradients else target.detach()


def _of(source: Tensor, gradients: bool) -> Tensor:
    return (cast(Tensor, source.grad) if gradients else source).detach()


class LocalLift(nn.Module):
    """x -> the hosted nodes' features of y_0."""

    owned: Tensor

    def __init__(self, lift: Lift, owned: Tensor) -> None:
        super().__init__()
        self.lift = lift
        self.register_buffer("owned", owned, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x -> y_0 at the hosted nodes."""
        return cast(Tensor, self.lift(x))[:, self.owned]


class LocalHead(nn.Module):
    """The scores, known to every node: the sum of W_i y_i over nodes, and the bias, of which each has a copy."""

    def __init__(self, head: nn.Linear, field: Any, exchange: Exchange, consensus: Consensus) -> None:
        super().__init__()
        owners = field.operator.owners(field.features)
        held = torch.isin(owners, torch.tensor(exchange.hosted)).nonzero().flatten()
        self.exchange, self.consensus = exchange, consensus
        self.columns = {i: (owners == i).nonzero().flatten() for i in exchange.hosted}
        self.own = {i: (owners[held] == i).nonzero().flatten() for i in exchange.hosted}
        self.weights = nn.ParameterDict(
            {f"W__{i}": nn.Parameter(head.weight.detach()[:, columns].clone()) for i, columns in self.columns.items()}
        )
        bias = head.bias if head.bias is not None else torch.zeros(head.out_features).to(head.weight)
        self.bias = nn.Parameter(bias.detach().clone(), requires_grad=head.bias is not None)

    def forward(self, y: Tensor) -> Tensor:
        """Scores, (batch, outputs)."""
        parts = [y[:, own] @ self.weights[f"W__{i}"].mT for i, own in self.own.items()]
        return cast(Tensor, _Total.apply(self, *parts)) + self.bias


class _Total(torch.autograd.Function):
    """The sum over nodes; every node's part has the gradient of the sum, which all nodes know."""

    @staticmethod
    def forward(ctx: Any, head: LocalHead, *parts: Tensor) -> Tensor:
        ctx.number = len(parts)
        return head.exchange.total(dict(zip(head.own, parts, strict=True)), head.consensus)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *(gradient,) * ctx.number)
