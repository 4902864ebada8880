"""The library's own classes in the registry of `liouville.registry`, and the parts of torch that a network may have.

A class whose constructor keeps every argument under its name needs no more than its line; the others say here how they
are read and rebuilt.
"""

from __future__ import annotations

__all__: list[str] = []

import functools
import inspect
import json
from collections import OrderedDict
from typing import Any

from torch import nn

from liouville import fields
from liouville.budget import BUDGETED
from liouville.fields import HamiltonianField, PortHamiltonianField, SeparableHamiltonianField, ShearField
from liouville.fields.modules import tied
from liouville.flow import Flow
from liouville.graphs import Pattern, adjacency
from liouville.kernels import ENGINES
from liouville.network import ChannelsLast, Connector, Half, Lift, Network
from liouville.nodes import NodeHead, Placement
from liouville.operators import Conv, Dense, Graph
from liouville.recurrent import (
    AntisymmetricRNN,
    AntisymmetricRNNCell,
    Cell,
    HamiltonianRNN,
    HamiltonianRNNCell,
    Recurrent,
    SequenceNetwork,
)
from liouville.registry import also_called, attributes, register
from liouville.schemes import FORMER_NAMES, SCHEMES


def _hamiltonian(field: HamiltonianField) -> dict[str, Any]:
    varying = None if field.constant_J else field.J_raw - field.J_raw.mT
    if varying is not None and field.constant:  # one J for all layers
        varying = varying[0]
    J = field.J_name or (field.J if varying is None else varying)
    return _field(field, "hidden", "train_J") | {"J": J}


def _port_hamiltonian(field: PortHamiltonianField) -> dict[str, Any]:
    more = ("hidden", "rank", "damping", "shared_damping", "inputs", "quadratic")
    return _field(field, *more) | {"J": field.J_name or field.J}


def _separable(field: SeparableHamiltonianField) -> dict[str, Any]:
    X = field.sign if field.X is None else field.X
    return _field(field, "hidden", "p_features") | {"X": X}


def _field(field: Any, *more: str) -> dict[str, Any]:
    names = ("features", "layers", "operator", "activation", "shared", *more)
    return {name: getattr(field, name) for name in names}


def _shear(field: ShearField) -> dict[str, Any]:
    names = ("layers", "features", "p_features", "feature_axis", "sample_ndim")
    described = field.skeletons | {name: getattr(field, name) for name in names}
    return described if field.sharing is None else described | {"sharing": json.dumps(field.sharing)}


def _built_shear(F: nn.Module, G: nn.Module, layers: int, sharing: str | None = None, **more: Any) -> ShearField:
    if sharing is None:
        return ShearField(F, G, layers=layers, **more)
    numbers, known = json.loads(sharing), dict[int, nn.Parameter]()
    modules = [tied(m, layers, numbers[key], known) for key, m in (("F", F), ("G", G))]
    return ShearField(*modules, layers=layers, **more)


def _linear(layer: nn.Linear) -> dict[str, Any]:
    return {"in_features": layer.in_features, "out_features": layer.out_features, "bias": layer.bias is not None}


def _node_head(head: NodeHead) -> dict[str, Any]:
    names = ("operator", "features", "outputs")
    return {name: getattr(head, name) for name in names} | {"bias": head.bias is not None}


def _convolution(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> dict[str, Any]:
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    return {name: getattr(layer, name) for name in names} | {"bias": layer.bias is not None}


def _of_graph(graph: Graph) -> dict[str, Any]:
    """Names stand where there are some, so that files of graphs without any are those of earlier versions."""
    described = {"links": graph.links, "sizes": graph.sizes, "structure": graph.structure}
    return described | ({"names": graph.links.names} if graph.links.names else {})


def _graph(links: Any, sizes: Any, structure: Any, names: Any = ()) -> Graph:
    return Graph(_pattern(links, names), sizes, _pattern(structure, names))


def _of_placement(placement: Placement) -> dict[str, Any]:
    graph = placement.graph
    return {"graph": graph, "names": graph.names, "protocol": placement.protocol, "consensus": placement.consensus}


def _placement(graph: Any, names: Any, protocol: Any, consensus: Any) -> Placement:
    return Placement(_pattern(graph, names), protocol, consensus)


def _pattern(matrix: Any, names: Any) -> Any:
    """A graph from its matrix: a description names no other file of this machine."""
    if not isinstance(matrix, list) or not all(isinstance(row, list) for row in matrix):
        raise ValueError("the links of a graph are kept as a matrix, got something else.")
    pattern = adjacency(matrix)
    if not names:
        return pattern
    if not isinstance(names, list) or len(names) != len(pattern) or not all(isinstance(n, str) for n in names):
        raise ValueError(f"a graph of {len(pattern)} nodes needs a name for each, got {str(names)[:60]}.")
    return Pattern(pattern, names)


def _of_network(network: Network) -> dict[str, Any]:
    described = {name: getattr(network, name) for name in ("lift", "body", "head")}
    return described if network.placement is None else described | {"placement": network.placement}


def _network(lift: Any, body: Any, head: Any, placement: Placement | None = None) -> Network:
    network = Network(lift, body, head)
    network.placement = placement
    return network


def _made_as(kind: Any, base: Any, **arguments: Any) -> Any:
    """A ``kind`` whose constructor makes the parts that a file names: put together as its base is."""
    made = kind.__new__(kind)
    base.__init__(made, **arguments)
    return made


for _kind in (*SCHEMES.values(), *ENGINES.values(), Dense, Conv):
    register(_kind)
for _former, _name in FORMER_NAMES.items():
    also_called(_former, SCHEMES[_name])
register(Graph, _of_graph, _graph)
register(Placement, _of_placement, _placement)
register(Network, _of_network, _network)
for _kind in (Flow, Lift, ChannelsLast, Connector, Half):
    register(_kind)
for _kind in vars(fields).values():  # those that keep an argument under another name are registered again below
    if inspect.isclass(_kind) and issubclass(_kind, fields.VectorField) and not inspect.isabstract(_kind):
        register(_kind)
for _kind in BUDGETED:
    register(_kind, build=functools.partial(_kind, bound="norms"))  # what files without the word were written by
for _kind in (nn.Tanh, nn.Sigmoid, nn.ReLU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Identity):
    register(_kind)
for _kind in (nn.ELU, nn.LeakyReLU, nn.Flatten, nn.Dropout, nn.AvgPool2d, nn.AdaptiveAvgPool2d):
    register(_kind)
for _kind in (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d):
    register(_kind)
for _kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
    register(_kind, _convolution)
for _base, _kinds in {
    Cell: (Cell, HamiltonianRNNCell, AntisymmetricRNNCell),
    Recurrent: (Recurrent, HamiltonianRNN, AntisymmetricRNN),
}.items():
    for _kind in _kinds:
        register(_kind, attributes(_base), functools.partial(_made_as, _kind, _base))
register(SequenceNetwork)
register(nn.ModuleList, lambda parts: {"modules": list(parts)})
register(HamiltonianField, _hamiltonian)
register(PortHamiltonianField, _port_hamiltonian)
register(SeparableHamiltonianField, _separable)
register(ShearField, _shear, _built_shear)
register(nn.Linear, _linear)
register(NodeHead, _node_head)
register(
    nn.LayerNorm,
    lambda n: {
        "normalized_shape": n.normalized_shape,
        "eps": n.eps,
        "elementwise_affine": n.elementwise_affine,
        "bias": n.bias is not None,
    },
)
register(
    nn.Sequential,
    lambda s: {"parts": list(s), "names": [name for name, _ in s.named_children()]},
    lambda parts, names: nn.Sequential(OrderedDict(zip(names, parts, strict=True))),
)
register(
    nn.GroupNorm,
    lambda n: {"num_groups": n.num_groups, "num_channels": n.num_channels, "eps": n.eps, "affine": n.affine},
)
