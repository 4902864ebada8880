r"""One update, K^T sigma(K s + b), computed by the nodes of a graph, and its reverse.

"replicated": node i gathers s from its neighbours and holds every row of K that touches it, so it computes its own part
of the result and needs no more. "owner-computes": node i holds only its own rows, gathers what they need, and sends
the parts of K^T sigma that are not its own to their owners. Backwards the costate v travels exactly as s did, since the
Jacobian K^T D K is symmetric: lambda = K^T D (K v), dK = sigma(z) v^T + D (K v) s^T.
"""

from __future__ import annotations

__all__ = ["Share", "Update"]

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from liouville.activations import Activation
from liouville.agents.exchange import Exchange, Pair, Route, Stamp
from liouville.agents.patterns import Protocol, product
from liouville.derivatives import differentiable_once
from liouville.operators import Graph


class Share(NamedTuple):
    """What one node holds of K: central rows and columns, the mask there, and where its own columns are.

    ``sources`` are the nodes that the columns belong to, in their order, with their widths.
    """

    rows: Tensor
    columns: Tensor
    mask: Tensor
    own: Tensor
    sources: dict[int, int]


class Update:
    """K^T sigma(K s + b) for the hosted nodes: their parts of s in, their parts of the result out.

    Args:
        graph: the mask of K and the owners of rows and columns.
        outputs, inputs: rows and columns of the central K.
        protocol: who holds which rows.
        exchange: carries the messages, and says which nodes are hosted.
        activation: sigma.
        round: number of its first round within a layer.
    """

    def __init__(
        self,
        graph: Graph,
        outputs: int,
        inputs: int,
        protocol: Protocol,
        exchange: Exchange,
        activation: Activation,
        round: int,
    ) -> None:
        self.exchange, self.activation, self.round = exchange, activation, round
        self.replicated = protocol == "replicated"
        R = torch.tensor(graph.links)
        sources = product(R.mT, R) if self.replicated else R
        columns, rows = graph.owners(inputs), graph.owners(outputs)
        self.shares = {i: _share(i, R, sources[i], rows, columns, self.replicated) for i in exchange.hosted}
        widths = torch.bincount(columns, minlength=graph.nodes).tolist()
        pairs = [(i, k) for i, k in sources.nonzero().tolist() if i != k]
        self._gather = Route({(i, k): widths[k] for i, k in pairs})
        self._return = Route({(k, i): widths[k] for i, k in pairs})
        held = torch.isin(columns, torch.tensor(exchange.hosted)).nonzero().flatten()
        self.features = held
        self.own = {i: (columns[held] == i).nonzero().flatten() for i in exchange.hosted}
        self._order = torch.cat(list(self.own.values())).argsort()

    def __call__(self, layer: int, s: Tensor, *weights: Tensor) -> Tensor:
        """The hosted parts of K^T sigma(K s + b); ``weights`` are K and b of each hosted node in turn."""
        return _Distributed.apply(self, layer, s, *weights)

    def gather(self, stamp: Stamp, s: Tensor) -> list[Tensor]:
        """For each hosted node, s at its sources."""
        parts = {i: s[:, own] for i, own in self.own.items()}
        sent = {(i, k): parts[k] for i, k in self._gather.widths if k in parts}
        arrived = self.exchange.swap(stamp, self._gather, sent, s)
        return [
            torch.cat([parts[i] if k == i else arrived[i, k] for k in share.sources], 1)
            for i, share in self.shares.items()
        ]

    def collect(self, stamp: Stamp, hidden: list[Tensor], weights: list[Tensor], like: Tensor) -> Tensor:
        """The hosted parts of K^T hidden."""
        shares = self.shares.items()
        if self.replicated:
            parts = [x @ K[:, share.own] for x, K, (_, share) in zip(hidden, weights, shares, strict=True)]
            return torch.cat(parts, 1)[:, self._order]
        made: dict[Pair, Tensor] = {}
        for x, K, (i, share) in zip(hidden, weights, shares, strict=True):
            split = (x @ K).split(list(share.sources.values()), 1)
            made |= {(k, i): part.contiguous() for k, part in zip(share.sources, split, strict=True)}
        sent = {pair: part for pair, part in made.items() if pair[0] != pair[1]}
        arrived = self.exchange.swap(stamp, self._return, sent, like) | {(i, i): made[i, i] for i, _ in shares}
        # in the order of the senders, so that the sum does not depend on who shares a process with whom
        parts = [sum(arrived[pair] for pair in sorted(arrived) if pair[0] == i) for i, _ in shares]  # type: ignore[misc]
        return torch.cat(parts, 1)[:, self._order]


class _Distributed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, update: Update, layer: int, s: Tensor, *weights: Tensor) -> Tensor:
        stamp = Stamp(layer, "forward", update.round)
        gathered = update.gather(stamp, s)
        K, b = list(weights[::2]), weights[1::2]
        z = [torch.addmm(b_i, x, K_i.mT) for x, K_i, b_i in zip(gathered, K, b, strict=True)]
        ctx.update, ctx.layer, ctx.nodes, ctx.inputs = update, layer, len(K), 1 + len(weights)
        ctx.save_for_backward(s, *weights, *gathered, *z, *K)
        return update.collect(stamp._replace(round=stamp.round + 1), [update.activation(x) for x in z], K, s)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        inputs, saved, n = ctx.saved_tensors[: ctx.inputs], ctx.saved_tensors[ctx.inputs :], ctx.nodes
        gathered, z, K = saved[:n], saved[n : 2 * n], saved[2 * n :]
        with torch.no_grad():
            found = _Distributed.gradients(ctx.update, ctx.layer, v, gathered, z, list(K))
        return None, None, *differentiable_once(found, (v, *inputs), _ONCE)

    @staticmethod
    def gradients(
        update: Update, layer: int, v: Tensor, gathered: Sequence[Tensor], z: Sequence[Tensor], K: list[Tensor]
    ) -> list[Tensor]:
        """Of s, and of every node's K and b."""
        stamp = Stamp(layer, "backward", update.round)
        costates = update.gather(stamp, v.contiguous())
        slopes = [update.activation.derivative(x) * (u @ K_i.mT) for x, u, K_i in zip(z, costates, K, strict=True)]
        gradients = [update.collect(stamp._replace(round=stamp.round + 1), slopes, K, v)]
        for s, x, u, w in zip(gathered, z, costates, slopes, strict=True):
            gradients += [update.activation(x).mT @ u + w.mT @ s, w.sum(0)]
        return gradients


_ONCE = "layers whose nodes send messages have no second derivatives; use the network itself, agents.central()."


def _share(node: int, R: Tensor, sources: Tensor, rows: Tensor, columns: Tensor, replicated: bool) -> Share:
    owners = R[:, node].nonzero().flatten() if replicated else torch.tensor([node])
    held = torch.isin(rows, owners).nonzero().flatten()
    used = {k: (columns == k).nonzero().flatten() for k in sources.nonzero().flatten().tolist()}
    order = torch.cat(list(used.values()))
    mask = R[rows[held]][:, columns[order]]
    own = (columns[order] == node).nonzero().flatten()
    return Share(held, order, mask, own, {k: len(index) for k, index in used.items()})
