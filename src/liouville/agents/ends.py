r"""The two ends of a network at the hosted nodes: the lift of their inputs, and their part of the head."""

from __future__ import annotations

__all__ = ["LocalHead", "LocalLift", "LocalReadout"]

from typing import Any, cast

import torch
from torch import Tensor, nn

from liouville.agents.exchange import Consensus, Exchange
from liouville.nodes import NodeHead


class LocalLift(nn.Module):
    """x -> the hosted nodes' features of y_0.

    ``inputs`` are those of the hosted nodes, by their places among all; None for a lift that takes any width.
    """

    owned: Tensor

    def __init__(self, lift: nn.Module, owned: Tensor) -> None:
        super().__init__()
        self.lift = lift
        self.register_buffer("owned", owned, persistent=False)
        self.width: int | None = getattr(lift, "inputs", len(owned))
        self.inputs: Tensor | None = None
        if isinstance(lift, nn.Identity):
            self.width, self.inputs = None, owned
        elif self.width is not None:
            numbers = cast(Tensor, lift(torch.arange(1.0, self.width + 1, dtype=torch.float64))) / cast(Any, lift).scale
            self.inputs = numbers[owned].round().long().unique()
            self.inputs = self.inputs[self.inputs > 0] - 1

    def forward(self, x: Tensor) -> Tensor:
        """x of all nodes, or of the hosted ones, -> y_0 at the hosted nodes."""
        if self.inputs is not None and x.shape[-1] == len(self.inputs) and len(self.inputs) != self.width:
            if self.width is None:  # an identity: these are the features
                return x
            whole = x.new_zeros(*x.shape[:-1], self.width)
            whole[..., self.inputs.to(x.device)] = x
            x = whole
        return cast(Tensor, self.lift(x))[:, self.owned]


class LocalReadout(nn.Module):
    """u_i = W_i y_i + b_i at each hosted node, which needs no message."""

    def __init__(self, head: NodeHead, owners: Tensor, exchange: Exchange) -> None:
        super().__init__()
        held = torch.isin(owners, torch.tensor(exchange.hosted)).nonzero().flatten()
        whose = torch.tensor(head.outputs)
        self.rows = {i: (whose == i).nonzero().flatten() for i in exchange.hosted if i in head.outputs}
        self.columns = {i: (owners == i).nonzero().flatten() for i in self.rows}
        self.own = {i: (owners[held] == i).nonzero().flatten() for i in self.rows}
        self._order = torch.cat([torch.empty(0, dtype=torch.int64), *self.rows.values()]).argsort()
        self.weights = nn.ParameterDict()
        for i, rows in self.rows.items():
            self.weights[f"W__{i}"] = nn.Parameter(head.weight.detach()[rows[:, None], self.columns[i]].clone())
            if head.bias is not None:
                self.weights[f"b__{i}"] = nn.Parameter(head.bias.detach()[rows].clone())

    def forward(self, y: Tensor) -> Tensor:
        """The outputs of the hosted nodes, in the order of the central network's."""
        parts = [y[:, :0]]  # a process without outputs takes part in the backward pass
        for i, own in self.own.items():
            u = y[:, own] @ self.weights[f"W__{i}"].mT
            parts.append(u + self.weights[f"b__{i}"] if f"b__{i}" in self.weights else u)
        return torch.cat(parts, 1)[:, self._order]

    def to_central(self, head: NodeHead, gradients: bool = False) -> None:
        """Write what hosted nodes own into the central head."""
        for i, rows in self.rows.items():
            into(head.weight, gradients)[rows[:, None], self.columns[i]] = of(self.weights[f"W__{i}"], gradients)
            if head.bias is not None:
                into(head.bias, gradients)[rows] = of(self.weights[f"b__{i}"], gradients)


class LocalHead(nn.Module):
    """The scores, known to every node: the sum of W_i y_i over nodes, and the bias, of which each has a copy."""

    def __init__(self, head: nn.Linear, owners: Tensor, exchange: Exchange, consensus: Consensus) -> None:
        super().__init__()
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

    def to_central(self, head: nn.Linear, gradients: bool = False) -> None:
        """Write the hosted nodes' columns, and the bias, into the central head."""
        for i, columns in self.columns.items():
            into(head.weight, gradients)[:, columns] = of(self.weights[f"W__{i}"], gradients)
        if head.bias is not None:
            into(head.bias, gradients).copy_(of(self.bias, gradients))


class _Total(torch.autograd.Function):
    """The sum over nodes; every node's part has the gradient of the sum, which all nodes know."""

    @staticmethod
    def forward(ctx: Any, head: LocalHead, *parts: Tensor) -> Tensor:
        ctx.number = len(parts)
        return head.exchange.total(dict(zip(head.own, parts, strict=True)), head.consensus)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *(gradient,) * ctx.number)


def into(target: Tensor, gradients: bool) -> Tensor:
    """The numbers of a central parameter, or of its gradient, to write into."""
    return cast(Tensor, target.grad) if gradients else target.detach()


def of(source: Tensor, gradients: bool) -> Tensor:
    """The numbers of a parameter of nodes, or of its gradient."""
    return (cast(Tensor, source.grad) if gradients else source).detach()
