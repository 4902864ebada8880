"""What a network on a graph asks of its links: the claim that it needs no others, and what a decision costs."""

from __future__ import annotations

__all__ = ["cost", "locality"]

from typing import Any, cast

import torch
from torch import Tensor

from liouville.agents import Simulation, check, node_part, spread
from liouville.agents.exchange import ALL_REDUCE
from liouville.analysis import Claim
from liouville.facts import Facts
from liouville.flow import Flow
from liouville.network import Lift, Network
from liouville.nodes import NodeHead, Placement

_TOLERANCE = 1e-9  # relative, in float64: far above rounding, far below a message that is missing


@torch.no_grad()
def locality(network: Network, x: Tensor | None) -> Claim:
    """That every node needs nothing but its neighbours, and that the nodes compute what the network computes.

    Args:
        network: a network that is placed on a graph.
        x: inputs over which the two are compared; normally distributed ones if None.
    """
    placement, flow = cast(Placement, network.placement), cast(Flow, network.body)
    found = check(placement.graph, flow, placement.protocol)
    text = (
        "every node needs the states, costates and weights of its neighbours only, in every layer, forwards and "
        "backwards; all nodes together compute the network"
    )
    bound = {"exchanges": float(sum(found.exchanges)), "hops": float(found.spans[-1])}
    if not found.holds:
        return Claim("locality", text, "broken", "block patterns", bound=bound, note=str(found.violations[0]))
    try:
        local = spread(network).double()
    except ValueError as error:
        return Claim("locality", text, "broken", "block patterns", bound=bound, note=str(error).rstrip("."))
    width = getattr(network.lift, "inputs", None) or flow.field.features
    x = torch.randn(32, width, generator=torch.Generator().manual_seed(0)) if x is None else x[:32]
    expected = local.central()(x.double())
    off = float((local(x.double()) - expected).abs().max() / expected.abs().max().clamp_min(1e-300))
    status: Any = "pass" if off <= _TOLERANCE else "broken"
    return Claim("locality", text, status, "block patterns", bound=bound, measured={"difference": off})


def cost(network: Network) -> dict[str, Any]:
    """What a decision takes, at all nodes and at each: exchanges, messages, numbers; whom it hears and depends on."""
    placement, flow = cast(Placement, network.placement), cast(Flow, network.body)
    graph = placement.graph
    found = check(graph, flow, placement.protocol)
    names = [graph.label(i).removeprefix("node ") for i in range(len(graph))]
    exchange = Simulation(graph)
    shared = not isinstance(network.head, NodeHead)
    rounds = 0 if not shared else 1 if placement.consensus == ALL_REDUCE else len(exchange._up) + len(exchange._down)
    nodes = []
    for i, name in enumerate(names):
        messages, numbers = _sent(network, i)
        near = found.receptive[-1][i].nonzero().flatten().tolist()
        hears = [names[k] for k in range(len(graph)) if graph[i][k] and k != i]
        nodes.append(
            {"name": name, "hears": hears, "messages": messages, "numbers": numbers}
            | {"depends_on": [names[k] for k in near]}
            | _ends(network, i)
        )
    return {
        "protocol": placement.protocol,
        "holds": found.holds,
        "violations": [str(violation) for violation in found.violations],
        "layers": flow.layers,
        "exchanges": sum(found.exchanges),
        "hops": found.spans[-1],
        "hops_by_layer": found.spans[1:],
        "head": {"shared": shared, "consensus": placement.consensus if shared else None, "rounds": rounds},
        "nodes": nodes,
    }


def _sent(network: Network, i: int) -> tuple[int, int]:
    """Messages and numbers that a node sends for one decision, in the layers."""
    part = node_part(network, i)
    messages = numbers = 0
    for round in part.rounds:
        own = next(width for node, width in round.receive if node == i)
        given = [width for node, width in round.shares if node != i]
        messages += len(round.send) + len(given)
        numbers += own * len(round.send) + sum(given)
    return part.layers * messages, part.layers * numbers


def _ends(network: Network, i: int) -> dict[str, list[str]]:
    """The names of a node's inputs and outputs."""
    part, facts = node_part(network, i), network.facts
    inputs = _input_names(facts, cast(Lift, network.lift))
    found = {"inputs": [inputs[k] for k in part.inputs]}
    return (
        found
        if part.outputs is None
        else found | {"outputs": list(dict.fromkeys(_output_name(facts, k) for k in part.outputs))}
    )


def _input_names(facts: Facts | None, lift: Lift) -> list[str]:
    if facts is not None and facts.preprocessing is not None:
        return facts.preprocessing.features()
    return list((facts and facts.column_names) or [f"input {k}" for k in range(lift.inputs or lift.features)])


def _output_name(facts: Facts | None, k: int) -> str:
    if facts is None:
        return f"output {k}"
    if isinstance(facts.classes, tuple):
        k = facts.target_of_scores()[k]
    return facts.targets[k] if facts.targets else facts.target or f"output {k}"
