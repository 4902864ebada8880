r"""The hosted nodes' share of a Hamiltonian field: its own features and rows of K, everything else by message.

They are fields like any other, so every scheme and every engine that evaluates layers one by one runs them: how a
network is distributed does not change what it computes.
"""

from __future__ import annotations

__all__ = ["LocalField", "LocalHamiltonianField", "LocalSeparableField"]

import functools
from collections import namedtuple
from typing import Any, cast

import torch
from torch import Tensor, nn

from liouville.agents.exchange import Exchange
from liouville.agents.patterns import Protocol
from liouville.agents.update import Update
from liouville.fields import HamiltonianField, PartitionedField, SeparableHamiltonianField, VectorField
from liouville.fields.base import Theta
from liouville.operators import Graph


class LocalField(VectorField):
    """What both kinds have in common: each hosted node's K and b, and the updates that they belong to."""

    sample_ndim = 1
    has_effects = True  # it sends and awaits messages

    def __init__(self, central: Any, exchange: Exchange, protocol: Protocol, weights: tuple[str, ...]) -> None:
        graph = central.operator
        features = torch.isin(graph.owners(central.features), torch.tensor(exchange.hosted)).nonzero().flatten()
        VectorField.__init__(self, len(features), central.layers)
        self.owned, self.exchange = features, exchange
        self.updates: dict[str, Update] = {}
        self.stacks = nn.ParameterDict()
        for round, name in enumerate(weights):
            K, b = getattr(central, name), getattr(central, name.replace("K", "b"))
            update = Update(graph, K.shape[-2], K.shape[-1], protocol, exchange, central.activation, 2 * round)
            self.updates[name] = update
            for i, share in update.shares.items():
                self.stacks[f"{name}__{i}"] = nn.Parameter(K.detach()[:, share.rows][:, :, share.columns].clone())
                self.stacks[f"{name.replace('K', 'b')}__{i}"] = nn.Parameter(b.detach()[:, share.rows].clone())
                self.register_buffer(f"mask_{name}__{i}", share.mask, persistent=False)

    def theta(self) -> Theta:
        """K and b of each hosted node, K masked."""
        masked = {
            name: raw if name[0] == "b" else torch.where(getattr(self, f"mask_{name}"), raw, 0.0)
            for name, raw in self.stacks.items()
        }
        return _theta(tuple(masked))(**masked)

    def at_layer(self, j: int) -> VectorField:
        """This field, with messages that say which layer they belong to."""
        return _AtLayer(self, j)  # type: ignore[return-value]

    def gradient(self, name: str, s: Tensor, theta_j: Theta, layer: int) -> Tensor:
        """The hosted parts of K^T sigma(K s + b)."""
        weights = [
            getattr(theta_j, f"{part}__{i}")
            for i in self.updates[name].shares
            for part in (name, name.replace("K", "b"))
        ]
        return self.updates[name](layer, s, *weights)

    def to_central(self, central: Any, gradients: bool = False) -> None:
        """Write the rows of K and b that hosted nodes own, or their gradients, into the central field's."""
        graph = central.operator
        for name, update in self.updates.items():
            for i, share in update.shares.items():
                mine = graph.owners(getattr(central, name).shape[-2])[share.rows] == i
                for part in (name, name.replace("K", "b")):
                    target, source = getattr(central, part), self.stacks[f"{part}__{i}"]
                    value = (source.grad if gradients else source).detach()[:, mine]
                    into = target.grad if gradients else target.detach()
                    if part[0] == "b":
                        into[:, share.rows[mine]] = value
                    else:
                        into[:, share.rows[mine][:, None], share.columns] = value


class LocalHamiltonianField(LocalField):
    """y' = J K^T sigma(K y + b) at the hosted nodes."""

    J: Tensor

    def __init__(self, central: HamiltonianField, exchange: Exchange, protocol: Protocol) -> None:
        if not central.constant_J:
            raise ValueError("agents run networks with one constant J for all layers; this one trains J or varies it.")
        _require_by_node(central.operator, central.J, "J")
        LocalField.__init__(self, central, exchange, protocol, ("K",))
        self.register_buffer("J", central.J[self.owned][:, self.owned].clone())
        owners = cast(Graph, central.operator).owners(central.features)[self.owned]
        self._J = _NodeByNode(self.J, owners, owners)

    def forward(self, y: Tensor, theta_j: Theta, layer: int = 0) -> Tensor:
        """J K^T sigma(K y + b)."""
        return self._J(self.gradient("K", y, theta_j, layer), self.J)


class LocalSeparableField(LocalField, PartitionedField):
    """p' = -X^T K_q^T sigma(K_q q + b_q), q' = X K_p^T sigma(K_p p + b_p) at the hosted nodes."""

    X: Tensor

    def __init__(self, central: SeparableHamiltonianField, exchange: Exchange, protocol: Protocol) -> None:
        n_p, n_q = central.p_features, central.features - central.p_features
        X = central.sign * torch.eye(n_q, n_p).to(central.K_p) if central.X is None else central.X
        _require_by_node(central.operator, X, "X")
        LocalField.__init__(self, central, exchange, protocol, ("K_q", "K_p"))
        p, q = self.updates["K_p"].features, self.updates["K_q"].features
        self._set_partition(len(p))
        self.register_buffer("X", X[q][:, p].clone())
        graph = cast(Graph, central.operator)
        of_p, of_q = graph.owners(n_p)[p], graph.owners(n_q)[q]
        self._X, self._XT = _NodeByNode(self.X, of_q, of_p), _NodeByNode(self.X.mT, of_p, of_q)

    def p_dot(self, q: Tensor, theta_j: Theta, layer: int = 0) -> Tensor:
        """-X^T K_q^T sigma(K_q q + b_q)."""
        return -self._XT(self.gradient("K_q", q, theta_j, layer), self.X.mT)

    def q_dot(self, p: Tensor, theta_j: Theta, layer: int = 0) -> Tensor:
        """X K_p^T sigma(K_p p + b_p)."""
        return self._X(self.gradient("K_p", p, theta_j, layer), self.X)


class _NodeByNode:
    """x -> x A^T for an A that couples no two nodes, which no number of a node leaves, be it infinite or NaN."""

    def __init__(self, matrix: Tensor, rows: Tensor, columns: Tensor) -> None:
        self.index: Tensor | None = None
        used = matrix != 0
        if bool((used.sum(1) == 1).all()):  # as of the canonical J: one number of a row
            self.index = used.int().argmax(1)
        nodes = rows.unique().tolist()
        self.blocks = [((rows == i).nonzero().flatten(), (columns == i).nonzero().flatten()) for i in nodes]
        self.order = torch.cat([own for own, _ in self.blocks]).argsort()

    def __call__(self, x: Tensor, matrix: Tensor) -> Tensor:
        if self.index is not None:
            return x[:, self.index] * matrix.gather(1, self.index.to(matrix.device)[:, None])[:, 0]
        return torch.cat([x[:, of] @ matrix[own][:, of].mT for own, of in self.blocks], 1)[:, self.order]


class _AtLayer:
    """A local field at layer j."""

    def __init__(self, field: LocalField, j: int) -> None:
        self._field, self._j = field, j

    def __getattr__(self, name: str) -> Any:
        return getattr(self._field, name)

    def __call__(self, y: Tensor, theta_j: Theta) -> Tensor:
        return self._field(y, theta_j, self._j)

    def p_dot(self, q: Tensor, theta_j: Theta) -> Tensor:
        return self._field.p_dot(q, theta_j, self._j)  # type: ignore[operator]

    def q_dot(self, p: Tensor, theta_j: Theta) -> Tensor:
        return self._field.q_dot(p, theta_j, self._j)  # type: ignore[operator]


def _require_by_node(graph: Any, matrix: Tensor, name: str) -> None:
    coupled = graph.blocks(matrix) & ~torch.eye(graph.nodes, dtype=torch.bool)
    if coupled.any():
        i, k = coupled.nonzero()[0].tolist()
        raise ValueError(
            f"agents run networks whose {name} couples no two nodes, but it couples {graph.links.label(i)} with "
            f"{graph.links.label(k)}; use the canonical J (X = I), or a {name} of one block per node."
        )


@functools.cache
def _theta(names: tuple[str, ...]) -> Any:
    return namedtuple("LocalTheta", names)
