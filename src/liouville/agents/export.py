r"""One node's part as files: its table, its weights, and its computations between messages as ONNX.

``node.json`` says whom it hears and tells in each round of a layer, how wide the messages are, and what its inputs and
outputs are called; ``weights.safetensors`` has its numbers; ``start.onnx``, ``force-K.onnx``, ``move-K.onnx`` (K is
the round) and ``readout.onnx`` compute what `liouville.agents.NodePart` does, for any batch, without liouville.
"""

from __future__ import annotations

__all__ = ["export_node", "read_part"]

import json
import os
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import torch
from torch import Tensor, nn

from liouville.activations import ACTIVATIONS
from liouville.agents.cutting import node_part
from liouville.agents.parts import NodePart, Round
from liouville.documents import Count, Name, Rule, conform, read
from liouville.files import atomic
from liouville.names import lookup
from liouville.network import Network
from liouville.nodes import Protocol

FORMAT = "liouville-node-1"
TABLE, WEIGHTS = "node.json", "weights.safetensors"
_Number = Annotated[float, Rule("a number", lambda v: True)]


class _Round(TypedDict):
    moves: Literal["p", "q", "y"]
    reads: Literal["p", "q", "y"]
    step: float
    weight: Name
    receive: list[tuple[Count, Count]]
    send: list[Count]
    shares: list[tuple[Count, Count]]
    collect: list[Count]


class _Table(TypedDict):
    format: Literal["liouville-node-1"]
    node: Count
    name: Name
    protocol: Protocol
    layers: Count
    widths: tuple[Count, Count]
    activation: Name
    inputs: list[Count]
    outputs: list[Count] | None
    rounds: list[_Round]
    about: dict[str, Any]


def export_node(network: Network, node: int | str, folder: str | os.PathLike[str], *, onnx: bool = True) -> NodePart:
    """Write one node's part of a network into a folder.

    Args:
        network: as for `liouville.agents.node_part`.
        node: its number or its name.
        folder: made where it is not there; files of an earlier export in it are replaced.
        onnx: whether to write ONNX files, which takes the package onnx.

    Returns:
        The part.

    Raises:
        ImportError: onnx is not installed.
        OSError: the folder cannot be written.
        ValueError: as for `liouville.agents.node_part`.

    Examples:
        >>> import tempfile, liouville as lv
        >>> ring = lv.Graph([("a", "b"), ("b", "c"), ("c", "a")])
        >>> network = lv.Network(lv.Lift(6, 3), lv.zoo.h2(6, 4, 1.0, operator=ring), lv.NodeHead(ring, 6))
        >>> network.placement = lv.agents.Placement(ring.links)
        >>> folder = Path(tempfile.mkdtemp())
        >>> part = export_node(network, "b", folder, onnx=False)
        >>> sorted(path.name for path in folder.iterdir()), read_part(folder).rounds == part.rounds
        (['node.json', 'weights.safetensors'], True)
    """
    from safetensors.torch import save

    part, folder = node_part(network, node), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.onnx"):
        old.unlink()
    with atomic(folder / WEIGHTS) as path:
        path.write_bytes(save({name: t.contiguous() for name, t in part.state_dict().items()}))
    with atomic(folder / TABLE) as path:
        text = json.dumps(_table(part), indent=2, allow_nan=False, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
    if onnx:
        _write_onnx(part, folder)
    return part


def read_part(folder: str | os.PathLike[str]) -> NodePart:
    """The part that `export_node` wrote.

    Raises:
        FileNotFoundError: there is none.
        ValueError: its files are damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    folder = Path(folder)
    if not (folder / TABLE).is_file():
        raise FileNotFoundError(f"{folder} has no {TABLE}; give a folder that agents.export_node wrote.")
    table = read(folder / TABLE)
    conform(table, _Table, file=folder / TABLE)
    try:
        tensors = load((folder / WEIGHTS).read_bytes())
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{folder / WEIGHTS} cannot be read ({error}); export the node again.") from error
    rounds = [
        Round(**{key: _as_tuples(value) if isinstance(value, list) else value for key, value in round.items()})
        for round in table["rounds"]
    ]
    activation = lookup(ACTIVATIONS, table["activation"], "activation")
    names = ("node", "name", "layers", "inputs", "outputs", "protocol", "about")
    known = {name: table[name] for name in names}
    return NodePart(**known, widths=tuple(table["widths"]), activation=activation, rounds=rounds, tensors=tensors)


def _table(part: NodePart) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "node": part.node,
        "name": part.name,
        "protocol": part.protocol,
        "layers": part.layers,
        "widths": part.widths,
        "activation": part.activation.name,
        "inputs": part.inputs,
        "outputs": part.outputs,
        "rounds": [asdict(round) for round in part.rounds],
        "about": part.about,
    }


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


class _Step(nn.Module):
    """One of a part's functions as a module, which is what an exporter takes."""

    def __init__(self, part: NodePart, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.part, self.function = part, function

    def forward(self, *inputs: Tensor) -> Tensor:
        """What the function gives."""
        return self.function(*inputs)


def _write_onnx(part: NodePart, folder: Path) -> None:
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise ImportError("ONNX files need onnx: pip install onnx; or export with onnx=False.") from error
    x = part.start_matrix.new_zeros(2, len(part.inputs))  # type: ignore[operator]
    y, layer = part.start(x), torch.tensor(0)
    batch = {0: "batch"}
    _onnx(part, part.start, (x,), ("inputs",), "y", {"inputs": batch}, folder / "start.onnx")
    _onnx(part, part.readout, (y,), ("y",), "outputs", {"y": batch}, folder / "readout.onnx")
    for k, round in enumerate(part.rounds):
        gathered = y.new_zeros(2, sum(width for _, width in round.receive))
        width = next(width for node, width in round.shares if node == part.node)
        shares = y.new_zeros(len(round.collect), 2, width)

        def force(layer: Tensor, gathered: Tensor, k: int = k) -> Tensor:
            return part.force(k, layer, gathered)

        def move(y: Tensor, shares: Tensor, k: int = k) -> Tensor:
            return part.move(k, y, shares)

        names = ("layer", "received")
        _onnx(part, force, (layer, gathered), names, "shares", {"received": batch}, folder / f"force-{k}.onnx")
        axes = {"y": batch, "shares": {1: "batch"}}
        _onnx(part, move, (y, shares), ("y", "shares"), "y_next", axes, folder / f"move-{k}.onnx")


def _onnx(
    part: NodePart,
    function: Callable[..., Tensor],
    inputs: tuple[Tensor, ...],
    names: tuple[str, ...],
    output: str,
    axes: dict[str, dict[int, str]],
    path: Path,
) -> None:
    """By the exporter that needs onnx and no more."""
    with warnings.catch_warnings(), atomic(path) as temporary:
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Step(part, function).eval(),
            inputs,
            str(temporary),
            input_names=list(names),
            output_names=[output],
            dynamic_axes=axes | {output: {0: "batch"}},
            dynamo=False,
        )
