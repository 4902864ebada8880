r"""One node's part of a trained network: what it computes between messages, with whom, in which order.

A decision of a node: `NodePart.start` makes its features of its own inputs; in every layer and each of its rounds it
sends `NodePart.message` to its neighbours, computes `NodePart.force` of what they sent, sends each neighbour its share
where the protocol is "owner-computes", and moves (`NodePart.move`); at the end `NodePart.readout` makes its outputs.
`together` is that, written out for all nodes in one process.
"""

from __future__ import annotations

__all__ = ["NodePart", "Round", "pair_of", "together"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from liouville.activations import Activation
from liouville.nodes import Protocol


@dataclass(frozen=True)
class Round:
    """One of the rounds that every layer has.

    Args:
        moves: which of the node's features it moves: "p", "q", or "y" for all.
        reads: of which it sends, and receives, the values.
        step: what the velocity is multiplied by, h times the scheme's number.
        weight: which weights it uses, by name.
        receive: (node, width) of the values that `NodePart.force` takes, side by side in this order; itself among them.
        send: the nodes that its own values go to.
        shares: (node, width) of what `NodePart.force` gives, side by side in this order: a share for each, its own
            among them; only its own where the protocol is "replicated".
        collect: the nodes whose shares `NodePart.move` adds up, in this order; itself among them.
    """

    moves: str
    reads: str
    step: float
    weight: str
    receive: tuple[tuple[int, int], ...]
    send: tuple[int, ...]
    shares: tuple[tuple[int, int], ...]
    collect: tuple[int, ...]


class NodePart(nn.Module):
    """One node's part of a network.

    Args:
        node: its number.
        name: what it is called.
        widths: how many features of p, and of q, it has; (n, 0) where features have no halves.
        layers: N.
        activation: sigma.
        rounds: of every layer.
        inputs: the places of its inputs among all.
        outputs: the places of its outputs among all; None where all nodes add their readouts up.
        protocol: which nodes hold a row of K.
        about: whatever else stands in its table: names and scaling of inputs and outputs, the tree of the sum.
        tensors: by name: K and b of each weight, (N, rows, columns) and (N, rows); ``start_matrix`` (features, inputs);
            ``matrix_p``, ``matrix_q`` or ``matrix_y`` of each half that is moved; ``readout_matrix`` (outputs,
            features) and ``bias``; where rows are replicated ``own_K``, the columns that are its own.

    Examples:
        >>> import liouville as lv
        >>> ring = lv.Graph([("a", "b"), ("b", "c"), ("c", "a")])
        >>> network = lv.Network(lv.Lift(6, 3), lv.zoo.h2(6, 4, 1.0, operator=ring), lv.NodeHead(ring, 6)).double()
        >>> network.placement = lv.agents.Placement(ring.links)
        >>> x = torch.randn(5, 3, dtype=torch.float64)
        >>> parts = [lv.agents.node_part(network, name) for name in ("a", "b", "c")]
        >>> bool(torch.allclose(together(parts, x), network(x)))
        True
    """

    def __init__(
        self,
        node: int,
        name: str,
        widths: tuple[int, int],
        layers: int,
        activation: Activation,
        rounds: Sequence[Round],
        inputs: Sequence[int],
        outputs: Sequence[int] | None,
        protocol: Protocol,
        about: dict[str, Any],
        tensors: dict[str, Tensor],
    ) -> None:
        super().__init__()
        self.node, self.name, self.widths, self.layers, self.activation = node, name, widths, layers, activation
        self.rounds, self.inputs = tuple(rounds), tuple(inputs)
        self.outputs, self.about = None if outputs is None else tuple(outputs), about
        self.protocol: Protocol = protocol
        for key, tensor in tensors.items():
            self.register_buffer(key, tensor)

    def start(self, x: Tensor) -> Tensor:
        """Its own inputs -> its features (p, q) of y_0."""
        return x @ cast(Tensor, self.start_matrix).transpose(-2, -1)

    def message(self, k: int, y: Tensor) -> Tensor:
        """What it sends in round k of a layer."""
        return self._of(self.rounds[k].reads, y)

    def force(self, k: int, layer: Tensor, gathered: Tensor) -> Tensor:
        """K^T sigma(K s + b): s is what it received in round k, by `Round.receive`; the shares, by `Round.shares`."""
        weight = self.rounds[k].weight
        K, b = (cast(Tensor, getattr(self, name)).index_select(0, layer.reshape(1))[0] for name in pair_of(weight))
        hidden = self.activation(gathered @ K.transpose(-2, -1) + b)
        if self.protocol == "owner-computes":
            return hidden @ K
        return hidden @ K[:, cast(Tensor, getattr(self, f"own_{weight}"))]

    def move(self, k: int, y: Tensor, shares: Tensor) -> Tensor:
        """Its features after round k; ``shares`` are (nodes, batch, width), by `Round.collect`."""
        round = self.rounds[k]
        velocity = shares.sum(0) @ cast(Tensor, getattr(self, f"matrix_{round.moves}"))
        moved = self._of(round.moves, y) + round.step * velocity
        if round.moves == "y":
            return moved
        return torch.cat((moved, self._of("q", y)) if round.moves == "p" else (self._of("p", y), moved), -1)

    def readout(self, y: Tensor) -> Tensor:
        """Its outputs; where all nodes share them, its summand, without the bias that is added to the sum."""
        u = y @ cast(Tensor, self.readout_matrix).transpose(-2, -1)
        return u if self.outputs is None else u + cast(Tensor, self.bias)

    def _of(self, half: str, y: Tensor) -> Tensor:
        return y if half == "y" else y[..., : self.widths[0]] if half == "p" else y[..., self.widths[0] :]

    def extra_repr(self) -> str:
        return f"{self.name}, {sum(self.widths)} features, {self.layers} layers of {len(self.rounds)} rounds"


def together(parts: Sequence[Any], x: Tensor) -> Tensor:
    """One decision of all nodes, which hear of each other only what their tables say.

    Args:
        parts: one for each node, in any order: `NodePart`, or anything that has its methods and attributes.
        x: the inputs of all nodes, (batch, inputs).

    Returns:
        The outputs of all nodes, (batch, outputs).

    Raises:
        ValueError: a node is missing.
    """
    by_node = {part.node: part for part in parts}
    known = {k for part in parts for round in part.rounds for k in (*round.send, *round.collect)}
    if known - by_node.keys():
        raise ValueError(f"the part of node {min(known - by_node.keys())} is missing; give one for each node.")
    y = {i: part.start(x[:, list(part.inputs)]) for i, part in by_node.items()}
    first = parts[0]
    for layer in range(first.layers):
        for k in range(len(first.rounds)):
            sent = {i: part.message(k, y[i]) for i, part in by_node.items()}
            shares: dict[tuple[int, int], Tensor] = {}
            for i, part in by_node.items():
                gathered = torch.cat([sent[j] for j, _ in part.rounds[k].receive], -1)
                force = part.force(k, torch.tensor(layer), gathered)
                split = force.split([width for _, width in part.rounds[k].shares], -1)
                shares |= {(j, i): one for (j, _), one in zip(part.rounds[k].shares, split, strict=True)}
            for i, part in by_node.items():
                y[i] = part.move(k, y[i], torch.stack([shares[i, j] for j in part.rounds[k].collect]))
    made = {i: part.readout(y[i]) for i, part in by_node.items()}
    if first.outputs is None:
        return cast(Tensor, sum(made[i] for i in sorted(made)) + first.bias)
    order = torch.tensor([place for i in made for place in by_node[i].outputs])
    return torch.cat(list(made.values()), -1)[:, order.argsort()]


def pair_of(weight: str) -> tuple[str, str]:
    """The names of the matrix and of the bias of a weight."""
    return weight, weight.replace("K", "b")
