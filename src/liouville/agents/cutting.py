r"""How a network is cut into the parts of its nodes: whose rows, columns, inputs and outputs, and their names."""

from __future__ import annotations

__all__ = ["node_part"]

from typing import Any, cast

import torch
from torch import Tensor, nn

from liouville.agents.exchange import ALL_REDUCE
from liouville.agents.network import SpreadNetwork, spread
from liouville.agents.parts import NodePart, Round, pair_of
from liouville.columns import Number
from liouville.facts import Facts
from liouville.flow import Flow
from liouville.network import Lift, Network
from liouville.nodes import NodeHead, node_of
from liouville.schemes import SplittingScheme
from liouville.task import scores_for


@torch.no_grad()
def node_part(network: Network, node: int | str) -> NodePart:
    """The part of one node of a network, with weights of its own.

    Args:
        network: a central network that is placed on a graph (``network.placement``), or one of `spread`, of
            which all nodes are here.
        node: its number or its name.

    Raises:
        ValueError: there is no such node, or the network is not placed, or does not say how wide its inputs are.
    """
    central = network.central() if isinstance(network, SpreadNetwork) else network
    local = spread(central)
    i = node_of(local.placement.graph, node)
    if isinstance(central.lift, Lift) and central.lift.inputs is None:
        raise ValueError(
            f"the lift takes any number of inputs, so node {node} does not know its own; write "
            f"Lift({central.lift.features}, inputs=WIDTH)."
        )
    flow = cast(Flow, central.body)
    owners = cast(Any, flow.field).operator.owners(flow.field.features)
    own = (owners == i).nonzero().flatten()
    half = getattr(flow.field, "p_features", flow.field.features)
    widths = int((own < half).sum()), int((own >= half).sum())
    inputs, start = _start(central, own)
    outputs, readout = _readout(central, i, own, local)
    rounds, tensors = _rounds(local, i, own, half)
    placement = local.placement
    about = _names(central.facts, inputs, outputs)
    if outputs is None:
        about |= {"sum": _tree(local, i)}
    label = placement.graph.label(i).removeprefix("node ")
    activation = cast(Any, flow.field).activation
    parts = start | tensors | readout
    return NodePart(
        i, label, widths, flow.layers, activation, rounds, inputs, outputs, placement.protocol, about, parts
    )


def _start(central: Network, own: Tensor) -> tuple[list[int], dict[str, Tensor]]:
    """The places of a node's inputs, and the matrix that makes its features of them."""
    weight = next(central.parameters())
    width = getattr(central.lift, "inputs", None) or cast(Flow, central.body).field.features
    whole = cast(Tensor, central.lift(torch.eye(width).to(weight))).mT[own]
    inputs = (whole != 0).any(0).nonzero().flatten()
    return inputs.tolist(), {"start_matrix": whole[:, inputs].contiguous()}


def _readout(central: Network, i: int, own: Tensor, local: SpreadNetwork) -> tuple[list[int] | None, dict[str, Tensor]]:
    head, like = central.head, next(central.parameters())
    if isinstance(head, nn.Linear):
        bias = head.bias if head.bias is not None else torch.zeros(head.out_features).to(like)
        return None, {"readout_matrix": head.weight.detach()[:, own].clone(), "bias": bias.detach().clone()}
    if not isinstance(head, NodeHead):  # the features themselves
        return own.tolist(), {"readout_matrix": torch.eye(len(own)).to(like), "bias": torch.zeros(len(own)).to(like)}
    rows = torch.tensor([k for k, node in enumerate(head.outputs) if node == i], dtype=torch.int64)
    own_bias = torch.zeros(len(rows)).to(like) if head.bias is None else head.bias.detach()[rows].clone()
    return rows.tolist(), {"readout_matrix": head.weight.detach()[rows][:, own].clone(), "bias": own_bias}


def _rounds(local: SpreadNetwork, i: int, own: Tensor, half: int) -> tuple[list[Round], dict[str, Tensor]]:
    """The rounds of a layer, and the weights that they use."""
    flow = cast(Flow, local.body)
    field: Any = flow.field
    theta, scheme = field.theta(), flow.scheme
    tensors: dict[str, Tensor] = {}
    stages = scheme.stages if isinstance(scheme, SplittingScheme) else (("y", 1.0),)
    rounds = []
    for moves, factor in stages:
        reads = {"p": "q", "q": "p", "y": "y"}[moves]
        weight = "K" if moves == "y" else f"K_{reads}"
        update = field.updates[weight]
        share = update.shares[i]
        for name in pair_of(weight):
            tensors[name] = getattr(theta, f"{name}__{i}").detach().clone()
        if update.replicated:
            tensors[f"own_{weight}"] = share.own
        tensors[f"matrix_{moves}"] = _matrix(field, moves, own, half)
        hears = tuple(share.sources.items())
        told = tuple(k for k, s in update.shares.items() if i in s.sources and k != i)
        shares = ((i, len(share.own)),) if update.replicated else hears
        collect = (i,) if update.replicated else tuple(sorted((*told, i)))
        rounds.append(Round(moves, reads, factor * flow.h, weight, hears, told, shares, collect))
    return rounds, tensors


def _matrix(field: Any, moves: str, own: Tensor, half: int) -> Tensor:
    """What a velocity's force is multiplied by, from the right: the node's own block of J^T, -X or X^T."""
    if moves == "y":
        return cast(Tensor, field.J)[own][:, own].mT.contiguous()
    block = cast(Tensor, field.X)[own[own >= half] - half][:, own[own < half]]
    return -block.contiguous() if moves == "p" else block.mT.contiguous()


def _tree(local: SpreadNetwork, i: int) -> Any:
    """How the sum of all readouts travels: by the transport, or up a tree to node 0 and down again."""
    if local.placement.consensus == ALL_REDUCE:
        return ALL_REDUCE
    up = [pair for pairs in local.exchange._up for pair in pairs]
    return {
        "parent": next((receiver for receiver, sender in up if sender == i), None),
        "children": [sender for receiver, sender in up if receiver == i],
    }


def _names(facts: Facts | None, inputs: list[int], outputs: list[int] | None) -> dict[str, Any]:
    """Names and scaling of inputs, x = (raw - offset) / scale, and of outputs, answer = u * scale + offset."""
    if facts is None:
        return {}
    features: list[Any] = _of_columns(facts) or _of_numbers(facts)
    told: dict[str, Any] = {"data": facts.name, "inputs": [features[k] for k in inputs]}
    if isinstance(facts.classes, tuple):
        return told | {"targets": _choices(facts, outputs)}
    if outputs is None or facts.classes:
        return told | ({"labels": list(facts.label_names or range(facts.classes))} if facts.classes else {})
    offset, scale = (facts.tensor(f"target_{name}") for name in ("offset", "scale"))
    if offset is not None and scale is not None:
        whole = [t.expand(facts.outputs).tolist() for t in (offset, scale)]
        names = facts.targets or (facts.target,) * (facts.outputs == 1) or (None,) * facts.outputs
        told["outputs"] = [{"name": names[k], "offset": whole[0][k], "scale": whole[1][k]} for k in outputs]
    return told


def _choices(facts: Facts, outputs: list[int] | None) -> list[dict[str, Any]]:
    """Of several targets of classes those of a node: name, classes, and how many of its outputs are their scores.

    Of one score, above 0 is the second class; of more, the largest one is the class.
    """
    assert isinstance(facts.classes, tuple)
    whose = facts.target_of_scores()
    mine = dict.fromkeys(whose if outputs is None else (whose[k] for k in outputs))
    called, names = facts.targets or (None,) * len(facts.classes), facts.names()
    return [{"name": called[k], "labels": list(names[k]), "outputs": scores_for(facts.classes[k])} for k in mine]


def _of_columns(facts: Facts) -> list[Any]:
    if facts.preprocessing is None:
        return []
    found: list[Any] = []
    for column in facts.preprocessing.columns:
        names = column.features()
        if isinstance(column, Number):
            found.append({"name": column.name, "offset": column.offset, "scale": column.scale, "missing": column.fill})
            names = names[1:]
        found += [{"name": name, "one if true": True} for name in names]
    return found


def _of_numbers(facts: Facts) -> list[Any]:
    names = facts.column_names or [f"input {k}" for k in range(facts.shape[0])]
    offset, scale = (facts.tensor(name) for name in ("offset", "scale"))
    if offset is None or scale is None:
        return [{"name": name} for name in names]
    whole = [t.expand(facts.shape).tolist() for t in (offset, scale)]
    return [{"name": name, "offset": a, "scale": b} for name, a, b in zip(names, *whole, strict=True)]
