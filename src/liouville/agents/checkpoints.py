r"""What agents keep in a folder: for each node and epoch its weights, its optimiser's state, and what they belong to.

A file is one node's, so a run goes on in any number of processes. Each holds the settings, the graphs and a fingerprint
of the data that it was trained with, sealed by a hash: a run with other ones is refused, and a file that was changed is
passed over for the epoch before it.
"""

from __future__ import annotations

__all__ = ["Checkpoints", "Found", "record_of"]

import contextlib
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from liouville.agents.exchange import Consensus, Exchange
from liouville.agents.patterns import Protocol
from liouville.agents.transport import gathered
from liouville.data import Split
from liouville.facts import fingerprint
from liouville.fields import HamiltonianField
from liouville.files import atomic
from liouville.graphs import Pattern
from liouville.network import Network
from liouville.sealed import DamagedFileError, opened, sealed
from liouville.sealed import record_of as record_of_file

_KEPT = 2  # epochs: the others may be one ahead when a node dies
_LOOKED_AT = 16  # newest epochs of a node: somebody may have brought older files back
_ENTRY, _FORMAT = "liouville-agents", 2
_DATA = "the data (-d)"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def record_of(
    network: Network, graph: Pattern, split: Split, protocol: Protocol, consensus: Consensus, **options: Any
) -> dict[str, str]:
    """What trained weights depend on, in the words of `liouville agents`: option -> value, data and graphs by hash.

    Args:
        network: the central one, before it is spread.
        graph: who may receive from whom.
        split: the data, as loaded.
        protocol: see `liouville.agents.spread`, like ``consensus``.
        options: others, by their names.
    """
    flow: Any = network.body
    operator, lift = flow.field.operator, network.lift
    named = {
        "graph": _in_words(graph),
        "mask": _in_words(operator.links),
        "data": split.name,
        "model": "h1" if isinstance(flow.field, HamiltonianField) else "h2",
        "sizes": ",".join(map(str, operator.sizes)),
        "layers": flow.layers,
        "T": flow.T,
        "inputs": ",".join(map(str, getattr(lift, "place", ()))),
        "protocol": protocol,
        "consensus": consensus,
        "dtype": str(flow.field.theta()[0].dtype).removeprefix("torch."),
    }
    data = [getattr(split, name) for name in ("x_train", "y_train", "x_test", "y_test")]
    samples = f"{len(split.x_train)} and {len(split.x_test)} samples, {fingerprint(data)[:12]}"
    return {f"--{name}": str(value) for name, value in (named | options).items()} | {_DATA: samples}


class Found(NamedTuple):
    """Where a run goes on: epochs done, the loss of each, and for how many epochs the rates were planned.

    ``damaged`` are the files of this process that were changed after they were written, and passed over.
    """

    epoch: int
    losses: list[float]
    planned: int
    damaged: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training in a folder.

    Args:
        folder: made where it is not there.
        record: what the weights depend on, by name, see `record_of`; a checkpoint with another record is refused.
        epochs: how many this run wants.
    """

    folder: Path
    record: Mapping[str, str]
    epochs: int

    def require_same(self, nodes: Iterable[int]) -> None:
        """Refuse what `resume` would refuse, without reading weights.

        Raises:
            ValueError: if a node's newest checkpoint is of other settings, of more epochs, or of an older version.
        """
        for node in nodes:
            for epoch in sorted(_epochs(self.folder, node), reverse=True):
                path = _path(self.folder, node, epoch)
                with contextlib.suppress(DamagedFileError):
                    self._require_fits(_record(path), path)
                    break

    def resume(self, exchange: Exchange, local: Network, optimizer: torch.optim.Optimizer) -> Found:
        """Load the last epoch of which every node, of every process, has a sound checkpoint.

        Raises:
            ValueError: as `require_same`, or if a file is another node's.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        mine: dict[int, list[int]] = {}
        damaged: list[Path] = []
        for node in exchange.hosted:
            for left in self.folder.glob(f".node-{node}.epoch-*"):  # by a process that was killed while it wrote
                left.unlink(missing_ok=True)
            mine[node] = []
            for epoch in sorted(_epochs(self.folder, node))[-_LOOKED_AT:]:
                path = _path(self.folder, node, epoch)
                try:
                    self._require_fits(_record(path, whole=True), path)
                    mine[node].append(epoch)
                except DamagedFileError:
                    damaged.append(path)
        every = gathered(mine, _LOOKED_AT, exchange)
        common = set.intersection(*map(set, every.values()))
        if not common:
            self._require_new(exchange, every)
            return Found(0, [], self.epochs, tuple(damaged))
        found = Found(0, [], self.epochs)
        for node in exchange.hosted:
            path = _path(self.folder, node, max(common))
            state = _record(path, whole=True)
            found = Found(max(common), list(state["losses"]), state["epochs"], tuple(damaged))
            try:
                _restore(_of_node(local, node), optimizer, state["weights"])
            except KeyError as error:
                raise ValueError(
                    f"{path} is another node's file ({error} is missing); give each its own name."
                ) from error
            except RuntimeError as error:
                raise ValueError(f"{path} does not fit this network ({error}).") from error
        return found

    def write(
        self, exchange: Exchange, local: Network, optimizer: torch.optim.Optimizer, losses: Sequence[float]
    ) -> None:
        """The hosted nodes' files for the epoch that just ended; the oldest ones go."""
        epoch = len(losses)
        state = {"format": _FORMAT, "record": dict(self.record), "epochs": self.epochs, "losses": list(losses)}
        for node in exchange.hosted:
            weights = {
                name: (w, {key: optimizer.state[w][key] for key in _MOMENTS})
                for name, w in _of_node(local, node).items()
            }
            with atomic(_path(self.folder, node, epoch)) as path:
                path.write_bytes(sealed(state | {"weights": weights}, _ENTRY))
            for old in _epochs(self.folder, node) - {epoch - i for i in range(_KEPT)}:
                _path(self.folder, node, old).unlink(missing_ok=True)

    def _require_new(self, exchange: Exchange, every: Mapping[int, Sequence[int]]) -> None:
        """A run that was killed leaves nodes one epoch apart: more, and files are missing that the others need."""
        last = max(max(epochs, default=0) for epochs in every.values())
        if last > 1:
            lacks = min(every, key=lambda node: max(every[node], default=0))
            raise ValueError(
                f"{self.folder} holds {last} epochs of some nodes, and no epoch of all, {exchange.graph.label(lacks)} "
                "is behind; bring its files back, or train anew in another folder."
            )

    def _require_fits(self, header: dict[str, Any], path: Path) -> None:
        was = header["record"]
        names = [name for name in {**self.record, **was} if self.record.get(name) != was.get(name)]
        if "--data" in names and _DATA in names:
            names.remove(_DATA)
        if names:
            changes = "; ".join(
                f"{n} was {was.get(n, 'not there')}, is {self.record.get(n, 'not there')}" for n in names
            )
            raise ValueError(
                f"{self.folder} holds a training with other settings: {changes}. Give the same ones to go on, or "
                "another folder."
            )
        done = len(header["losses"])
        if done > self.epochs:
            raise ValueError(
                f"{self.folder} holds {done} epochs, more than --epochs {self.epochs}; give --epochs {done} or more, "
                "or another folder."
            )


def _record(path: Path, whole: bool = False) -> dict[str, Any]:
    """What a checkpoint says of itself; if ``whole`` with its weights, and held against its hash."""
    try:
        state = opened(path.read_bytes(), _ENTRY, path) if whole else record_of_file(path, _ENTRY)
        sound = state["format"] == _FORMAT and path.name.endswith(f".epoch-{len(state['losses'])}.safetensors")
        sound = sound and isinstance(state["record"], dict) and isinstance(state["epochs"], int)
    except DamagedFileError:
        _require_newer(path)
        raise
    except (OSError, LookupError, TypeError) as error:
        raise DamagedFileError(f"{path} is damaged ({error}).") from error
    if not sound:
        raise DamagedFileError(f"{path} is damaged: it is not what its name says.")
    return state


def _require_newer(path: Path) -> None:
    """Tell a file that an older version wrote, under other names, from one that is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            known = file.metadata() or {}
    except (SafetensorError, OSError, RuntimeError, ValueError):
        return
    if "losses" in known:
        raise ValueError(
            f"{path} was written by an older version, which did not keep the settings; train anew, in another folder."
        )


def _restore(weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, kept: Mapping[str, Any]) -> None:
    for name, w in weights.items():
        value, moments = kept[name]
        w.detach().copy_(value)
        optimizer.state[w] = {key: moments[key] for key in _MOMENTS}


def _of_node(local: Network, node: int) -> dict[str, Tensor]:
    """The parameters of one node by name, and the head's bias, of which every node has a copy."""
    return {
        name.split(".")[-1]: w
        for name, w in local.named_parameters()
        if w.requires_grad and (name.endswith(f"__{node}") or name == "head.bias")
    }


def _in_words(pattern: Pattern) -> str:
    links = sum(map(sum, pattern)) - len(pattern)
    called = hashlib.sha256(f"{tuple(pattern)} {pattern.names}".encode()).hexdigest()[:8]
    return f"{len(pattern)} nodes and {links} links ({called})"


def _path(folder: Path, node: int, epoch: int) -> Path:
    return folder / f"node-{node}.epoch-{epoch}.safetensors"


def _epochs(folder: Path, node: int) -> set[int]:
    names = (re.fullmatch(rf"node-{node}\.epoch-(\d+)\.safetensors", path.name) for path in folder.glob("node-*"))
    return {int(name[1]) for name in names if name and len(name[1]) < 10}
