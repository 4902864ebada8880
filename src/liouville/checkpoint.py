r"""Save and load networks: one safetensors file that holds the weights and a JSON description of what they belong to.

The description is data: names of a registry and numbers. Loading builds the objects that it names and copies the
weights into them; nothing in a file is executed. Beside it stand the `Facts` of the data, where they are known. A
SHA-256 hash over description, facts and every tensor ties them together, so an edited description, another name of a
class or a flipped bit is refused.
"""

from __future__ import annotations

__all__ = ["DamagedModelError", "describe", "load", "register", "save"]

import ctypes
import functools
import hashlib
import importlib
import inspect
import json
import math
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from liouville import fields
from liouville.activations import ACTIVATIONS, Activation
from liouville.budget import BUDGETED
from liouville.documents import parse
from liouville.facts import Facts
from liouville.fields import HamiltonianField, PortHamiltonianField, SeparableHamiltonianField, ShearField
from liouville.fields.modules import tied
from liouville.files import atomic
from liouville.flow import Flow
from liouville.graphs import Pattern, adjacency
from liouville.kernels import ENGINES
from liouville.names import suggestion
from liouville.network import ChannelsLast, Connector, Half, Lift, Network
from liouville.nodes import NodeHead, Placement
from liouville.operators import Conv, Dense, Graph
from liouville.randomness import seeded
from liouville.recurrent import (
    AntisymmetricRNN,
    AntisymmetricRNNCell,
    Cell,
    HamiltonianRNN,
    HamiltonianRNNCell,
    Recurrent,
    SequenceNetwork,
)
from liouville.schemes import FORMER_NAMES, SCHEMES
from liouville.sketch import Sketch, TooLargeError

FORMAT = "liouville-1"
WITH_FACTS = "liouville-2"  # a format of its own, so that earlier versions say what they lack
WITH_PREPROCESSING = "liouville-3"
_UNIT = "weight_unit"  # of a field whose start was scaled; no argument of any class
_ARGUMENT = "argument."  # how the names of tensors begin that are no weights
# What loading may take beside the file: the network, and what its constructors draw or try on the way.
_SPARE, _FACTOR, _OBJECT = 1 << 25, 6, 1 << 12  # bytes; per byte of the file; bytes of a module without weights
_FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_UNFIT = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, RuntimeError, TypeError)

Reader = Callable[[Any], dict[str, Any]]


class DamagedModelError(ValueError):
    """A model file that was changed after it was written, or whose description and weights are not of one network."""


class _UnregisteredError(ValueError):
    """The file is sound, but this process lacks a class or an activation that it names."""


class _Entry(NamedTuple):
    kind: type
    build: Callable[..., Any]
    arguments: Reader


_REGISTRY: dict[str, _Entry] = {}
_ABOVE = {"SpreadFlow": "liouville.agents", "SpreadNetwork": "liouville.agents"}  # rooms that register when imported
_NOT_DESCRIBED = {"generator", "init"}  # they made the initial weights, and the weights are saved


def register(kind: Any, arguments: Reader | None = None, build: Callable[..., Any] | None = None) -> Any:
    """Let files name ``kind``; works as a decorator on your own fields, schemes and modules.

    Args:
        kind: a class; files call it by its name.
        arguments: object -> the keyword arguments that rebuild it. By default every argument of ``__init__`` is read
            from the attribute of the same name.
        build: called with these arguments; the class itself by default.

    Examples:
        >>> @register
        ... class Scale(nn.Module):
        ...     def __init__(self, factor: float) -> None:
        ...         super().__init__()
        ...         self.factor = factor
        >>> describe(Scale(2.0))
        {'type': 'Scale', 'factor': 2.0}
    """
    _REGISTRY[kind.__name__] = _Entry(kind, build or kind, arguments or _attributes(kind))
    return kind


def describe(thing: Any, tensors: dict[str, Tensor] | None = None) -> Any:
    """A JSON value that `load` can rebuild ``thing`` from; tensors among its arguments go into ``tensors``.

    Raises:
        ValueError: if a part is of a class that is not registered; the message says which.
    """
    if thing is None or isinstance(thing, (bool, int, float, str)):
        return thing
    if isinstance(thing, (list, tuple)):
        return [describe(part, tensors) for part in thing]
    if isinstance(thing, Tensor):
        if tensors is None:
            raise ValueError("a tensor argument can be described only when saving.")
        key = f"{_ARGUMENT}{len(tensors)}"
        tensors[key] = thing.detach().cpu().contiguous()
        return {"type": "Tensor", "key": key}
    if isinstance(thing, Activation):
        if ACTIVATIONS.get(thing.name) is not thing:
            raise ValueError(
                f"cannot save the activation {thing.name!r}: a file holds names, not functions. Put it under its name "
                "into liouville.activations.ACTIVATIONS before saving and before loading."
            )
        return {"type": "Activation", "name": thing.name}
    name = type(thing).__name__
    if name not in _REGISTRY or _REGISTRY[name].kind is not type(thing):
        raise ValueError(
            f"cannot save a {type(thing).__module__}.{name}: a file holds names, not code. Register the class with "
            "liouville.checkpoint.register before saving and before loading."
        )
    described = {k: describe(v, tensors) for k, v in _REGISTRY[name].arguments(thing).items()}
    unit = vars(thing).get("weight_unit") if isinstance(thing, fields.VectorField) else None
    return {"type": name} | described | ({} if unit is None else {_UNIT: unit})


class _Content(NamedTuple):
    """What a file holds; texts as they were hashed."""

    description: str
    tensors: dict[str, Tensor]
    facts: str | None = None


def save(network: nn.Module, path: str | os.PathLike[str], *, facts: Facts | None = None) -> Path:
    """Write a network, or any registered part of one, to ``path``, whole or not at all.

    Args:
        network: what to write.
        path: the file.
        facts: of the data it was trained on, ``split.facts()``, so that the loaded network answers raw inputs;
            ``network.facts`` if None.

    Raises:
        ValueError: if a part is not registered, or its description does not lead back to its weights.
        OSError: if the file cannot be written; nothing is left behind then.

    Examples:
        >>> import tempfile, liouville as lv
        >>> network = lv.classifier("h2", inputs=2, classes=2, features=4, layers=8, T=1.0)
        >>> path = save(network, Path(tempfile.mkdtemp()) / "model.safetensors")
        >>> x = torch.randn(3, 2)
        >>> bool((load(path)(x) == network(x)).all())
        True
    """
    from safetensors.torch import save as serialised

    arguments: dict[str, Tensor] = {}
    text = json.dumps(describe(network, arguments), sort_keys=True)
    tensors = arguments | {k: v.detach().cpu().contiguous().clone() for k, v in network.state_dict().items()}
    known = facts or getattr(network, "facts", None)
    said = json.dumps(known.as_dict(), sort_keys=True) if isinstance(known, Facts) else None
    content = _Content(text, tensors, said)
    header = {"format": FORMAT, "description": text, "sha256": _digest(*content)}
    if content.facts is not None:
        prepared = isinstance(known, Facts) and known.preprocessing is not None
        header |= {"format": WITH_PREPROCESSING if prepared else WITH_FACTS, "facts": content.facts}
    metadata = {"liouville": json.dumps(header, sort_keys=True)}  # one entry: safetensors does not keep their order
    _require_loadable(content)
    with atomic(path) as temporary:
        temporary.write_bytes(serialised(tensors, metadata=metadata))  # an OSError where the disk is full
    return Path(path)


def load(path: str | os.PathLike[str]) -> Any:
    """Read a network back, in evaluation mode; nothing in the file is executed.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedModelError: (a `ValueError`) if it was changed after it was written, or describes another network than
            its weights belong to.
        ValueError: if the file is not a liouville model, or names classes that are not registered.
    """
    content = _read(Path(path))
    try:
        _require_fits(content)
        return _assembled(content).eval()
    except _UNFIT as error:
        why = str(error).strip().partition("\n")[0].rstrip(".:")  # torch goes on with lists of what it would take
        raise DamagedModelError(f"{path}: its description does not fit its weights ({why}).") from error
    except _UnregisteredError as error:
        raise ValueError(f"{path}: {error}") from error
    except ValueError as error:
        raise DamagedModelError(f"{path}: {error}") from error


def read_description(path: str | os.PathLike[str]) -> Any:
    """The description inside a model file, checked against the hash, without building anything."""
    return parse(_read(Path(path)).description, f"{path}: its description")


def _read(path: Path) -> _Content:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"there is no model file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            header = dict(parse((file.metadata() or {}).get("liouville", "{}"), "its header"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not a readable model file ({error}); expected a file written by liouville.save."
        ) from error
    facts = header.get("facts")
    known = header.get("format") in ((FORMAT,) if facts is None else (WITH_FACTS, WITH_PREPROCESSING))
    if not known or not isinstance(header.get("description"), str) or not isinstance(facts, str | None):
        raise ValueError(
            f"{path} is a safetensors file, but not a liouville model (format {header.get('format')!r}, expected "
            f"{FORMAT!r}, {WITH_FACTS!r} or {WITH_PREPROCESSING!r}); expected a file written by liouville.save."
        )
    content = _Content(header["description"], tensors, facts)
    if header.get("sha256") != _digest(*content):
        raise DamagedModelError(
            f"{path} was changed after it was written: its hash does not match; restore or retrain it."
        )
    return content


def _digest(description: str, tensors: dict[str, Tensor], facts: str | None = None) -> str:
    digest = hashlib.sha256(description.encode())
    if facts is not None:
        digest.update(f"\0facts\0{facts}".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        tensor = tensor.contiguous()
        digest.update(ctypes.string_at(tensor.data_ptr(), tensor.nbytes) if tensor.numel() else b"")
    return digest.hexdigest()


def _build(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_build(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    name = value["type"]
    if name == "Tensor":
        return tensors[value["key"]]
    if name == "Activation":
        name = value["name"]
        if name not in ACTIVATIONS:
            raise _UnregisteredError(
                f"the file names the activation {name!r}; put it into liouville.activations.ACTIVATIONS first."
            )
        return ACTIVATIONS[name]
    if name == "FittedEstimator" and name not in _REGISTRY:
        raise _UnregisteredError(
            "the file holds a scikit-learn estimator; read it with liouville.estimators.HamiltonianClassifier.load or "
            "HamiltonianRegressor.load, whose to_network() can be saved for the command."
        )
    if name in _ABOVE:
        importlib.import_module(_ABOVE[name])
    if name not in _REGISTRY:
        raise _UnregisteredError(
            f"the file names the class {name!r}, which is not registered; {suggestion(name, _REGISTRY)}register "
            "it with liouville.checkpoint.register before loading."
        )
    arguments = {k: _build(v, tensors) for k, v in value.items() if k not in ("type", _UNIT)}
    built = _REGISTRY[name].build(**arguments)
    if _UNIT in value:
        built.weight_unit = _unit(value[_UNIT])
    return built


def _unit(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"the unit of a field's matrices must be a positive number, got {value!r}.")
    return float(value)


def _assembled(content: _Content) -> nn.Module:
    with seeded(0):  # initial weights are drawn, and overwritten at once
        network = _build(parse(content.description, "its description"), content.tensors)
    if not isinstance(network, nn.Module):
        raise TypeError(f"it describes a {type(network).__name__}, not a module")
    _fill(network, {k: v for k, v in content.tensors.items() if not k.startswith(_ARGUMENT)})
    if content.facts is not None:
        network.facts = Facts.from_dict(parse(content.facts, "its facts"), "facts")  # type: ignore[assignment]
    return network


def _require_fits(content: _Content) -> None:
    """Raise where the description is of another network than the weights, before memory is taken for it."""
    state = {k: v for k, v in content.tensors.items() if not k.startswith(_ARGUMENT)}
    size = len(content.description) + len(content.facts or "") + sum(v.nbytes for v in content.tensors.values())
    allowance = _SPARE + _FACTOR * size
    objects = content.description.count('"type"')
    if objects * _OBJECT > allowance:
        raise TooLargeError(f"it describes {objects:,} parts, and has {size:,} bytes")
    with Sketch(allowance, strict=True), seeded(0):
        network = _build(parse(content.description, "its description"), content.tensors)
    if not isinstance(network, nn.Module):
        raise TypeError(f"it describes a {type(network).__name__}, not a module")
    planned = network.state_dict()
    for name in sorted(planned.keys() ^ state.keys()):
        raise TypeError(f"{name} is {'not in the file' if name in planned else 'no weight of this network'}")
    for name, tensor in state.items():
        if planned[name].shape != tensor.shape:
            was, is_ = tuple(planned[name].shape), tuple(tensor.shape)
            raise TypeError(f"{name} has shape {is_} in the file, and {was} in the network that it describes")
        known = planned[name].dtype
        if tensor.dtype not in (_FLOATS if known in _FLOATS else {known}):
            raise TypeError(f"{name} has the dtype {tensor.dtype} in the file, expected {known}")


def _require_loadable(content: _Content) -> None:
    try:
        _assembled(content)
    except Exception as error:
        raise ValueError(
            f"cannot save this network: rebuilt from its description it would not take its own weights ({error}). "
            "Register its parts with the arguments that rebuild them, liouville.checkpoint.register(kind, arguments)."
        ) from error


def _fill(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy the weights in: their dtype wins, the network's memory layout stays."""
    own = dict(network.named_parameters()) | dict(network.named_buffers())
    for name, tensor in state.items():
        if name in own:
            own[name].data = torch.empty_like(own[name].data, dtype=tensor.dtype)
    network.load_state_dict(state, strict=True)


def _attributes(kind: Callable[..., Any]) -> Reader:
    if is_dataclass(kind):
        names = [field.name for field in dataclass_fields(kind)]
    else:
        names = [
            name
            for name, parameter in inspect.signature(kind).parameters.items()
            if name not in _NOT_DESCRIBED and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
    return lambda thing: {name: getattr(thing, name) for name in names}


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
    _REGISTRY[_former] = _REGISTRY[_name]
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
        register(_kind, _attributes(_base), functools.partial(_made_as, _kind, _base))
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
