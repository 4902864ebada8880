r"""Units of a network's weights: what makes its training, too, the same at every final time.

A flow whose matrices are counted in s (`VectorField.weight_unit`) counts its states in u = s^-a (`state_unit`). A
linear map that reads states counted in u and writes states counted in v has weights in v/u and a bias in v; inputs and
scores are counted in 1. In these units the network of every T is one network, and so is its gradient, weight by weight.
"""

from __future__ import annotations

__all__ = ["count_in", "units_of"]

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from liouville.flow import Flow, flows_of
from liouville.network import Network


def units_of(network: nn.Module) -> dict[Tensor, float]:
    """The unit of each weight where it is not 1: matrices of flows and, of a `Network`, the linear maps beside them.

    A lift, a connector or a head of several linear maps, and whatever else is no flow, is counted in 1.

    Examples:
        >>> import liouville as lv
        >>> network = lv.classifier("verlet", inputs=2, classes=2, features=4, layers=64, T=64.0)
        >>> sorted(units_of(network).values()) == sorted([network.body.field.weight_unit] * 2)
        True
        >>> units_of(lv.Network(lv.Lift(4), lv.zoo.h2(4, layers=8, T=1.0), torch.nn.Linear(4, 1)))
        {}
    """
    units: dict[Tensor, float] = {
        p: flow.field.weight_unit for flow in flows_of(network) for p in flow.field.matrices()
    }
    for layer, before, after in _joints(network):
        units[layer.weight] = after / before
        if layer.bias is not None:
            units[layer.bias] = after
    return {p: unit for p, unit in units.items() if unit != 1.0}


@torch.no_grad()
def count_in(network: Network) -> Network:
    """Scale the initial weights of lift, connectors and head into their units, in place."""
    for layer, before, after in _joints(network):
        layer.weight.mul_(after / before)
        if layer.bias is not None:
            layer.bias.mul_(after)
    return network


_Linear = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def _joints(network: nn.Module) -> Iterator[tuple[_Linear, float, float]]:
    """Every linear map that stands by itself before a flow, after one or between two, and both units."""
    if not isinstance(network, Network):
        return
    body = list(network.body) if type(network.body) is nn.Sequential else [network.body]
    if any(flows_of(part) and not isinstance(part, Flow) for part in body):
        return
    before, waiting = 1.0, [network.lift]
    for part in (*body, network.head):
        if not isinstance(part, Flow):
            waiting.append(part)
        if isinstance(part, Flow) or part is network.head:
            after = part.field.state_unit if isinstance(part, Flow) else 1.0
            yield from ((layer, before, after) for layer in _only(waiting))
            before, waiting = after, []


def _only(modules: list[nn.Module]) -> list[_Linear]:
    """The linear map among these modules, if there is one and no other weights."""
    parts = [part for module in modules for part in module.modules()]
    own = [part for part in parts if next(part.parameters(recurse=False), None) is not None]
    return own if len(own) == 1 and isinstance(own[0], _Linear) else []  # type: ignore[return-value]
