r"""Checkpoints: the whole state of a training, written while it runs, from which it goes on to the same bits.

A training that can go on is `Resumable`: it has a `state`, plain data and tensors, and `restore` takes it back. A
`Keeper` asks it at the end of a step, where that is due or somebody wants the process to end, and writes one sealed
file (`liouville.sealed`): first beside the last one, then read back, then put into its place; the one before stays.
"""

from __future__ import annotations

__all__ = ["Checkpoint", "Keeper", "Resumable", "belongings", "optimizer_state", "restore_optimizer"]

import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from liouville.checkpoint import describe
from liouville.data import Split
from liouville.files import atomic, remove_left_over
from liouville.interrupts import Interrupts
from liouville.processes.sharing import Processes
from liouville.provenance import versions
from liouville.sealed import DamagedFileError, opened, sealed

State = dict[str, Any]
_ENTRY = "liouville-training-1"
_UNNOTICED, _MOST = 0.05, 1000  # seconds, and steps, that processes take between two questions to each other
_OF_WEIGHTS = {"exp_avg", "exp_avg_sq", "momentum_buffer"}  # what torch's optimizers keep in the shape of a weight
_NAMED = 6  # differences that an error names
_DUE = 1  # what a process says to the others at the end of a step: 0 go on, 1 write, 1 + s write and answer signal s


@dataclass(frozen=True)
class Checkpoint:
    """Where a training keeps its state, and how often.

    Where ``path`` holds the state of the same training, `fit` goes on from there, to the bits of a run that nothing
    stopped; it holds the last state afterwards, too, so remove it to train anew. The state before it is kept beside
    it, as ``NAME.previous``, and takes its place where it is damaged. Callbacks have no part in it.

    While `fit` runs, SIGINT, SIGTERM and SIGHUP wait for the end of a step and for this file, and are then answered
    as before; a second SIGINT is answered at once.

    Args:
        path: the file; its folder must be there.
        every: seconds from one state to the next; 0 keeps that of every step.

    Raises:
        ValueError: ``every`` is no number of seconds.

    Examples:
        >>> import tempfile, liouville as lv
        >>> checkpoint = Checkpoint(Path(tempfile.mkdtemp()) / "moons.checkpoint")
        >>> data, settings = lv.data.load("double-moons", points=200), lv.train.Settings(epochs=2)
        >>> network = lv.classifier("h2", inputs=2, classes=2, features=4, layers=4, T=1.0)
        >>> history = lv.train.fit(network, data, settings, checkpoint=checkpoint)
        >>> checkpoint.path.exists()
        True
    """

    path: Path
    every: float = 300.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        if not isinstance(self.every, int | float) or not 0 <= self.every < math.inf:
            raise ValueError(f"every must be a number of seconds, at least 0, got {self.every!r}.")

    @property
    def previous(self) -> Path:
        """The state before the last one."""
        return self.path.with_name(f"{self.path.name}.previous")

    def exists(self) -> bool:
        """Whether there is a state to go on from."""
        return self.path.is_file() or self.previous.is_file()

    def remove(self) -> None:
        """Remove the states, and what a process that was killed left of one."""
        remove_left_over(self.path.parent, self.path.name)
        self.path.unlink(missing_ok=True)
        self.previous.unlink(missing_ok=True)


class Resumable(Protocol):
    """A training that can go on."""

    def state(self) -> State:
        """Everything that the rest of the training depends on, at the end of a step."""

    def restore(self, state: State) -> None:
        """Take a state back, before the first step."""


class Keeper:
    """Keeps the state of one training; without a `Checkpoint` it does nothing, at no cost.

    Args:
        checkpoint: where and how often; None keeps nothing.
        belongs: what the state depends on, by name, see `belongings`.
        processes: those that train together; the first one has the file.
        device: of the network.
        note: is told in a sentence where a file could not be read or written.

    Raises:
        ValueError: the file is of another training, with the names of what differs, or both files are damaged.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | None,
        belongs: Mapping[str, str] | None = None,
        processes: Processes = Processes(),
        device: torch.device | str = "cpu",
        note: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.checkpoint, self.belongs, self.processes = checkpoint, dict(belongs or {}), processes
        self.device, self.note = torch.device(device), note
        self.interrupts = Interrupts()
        self.found: State | None = None
        self._around: Callable[[State], State] = lambda state: state
        self._root = self
        self._streams: list[list[Tensor]] = []
        self._taken, self._patience, self._asked = 0, 1, time.monotonic()  # steps since the last question, to the next
        if checkpoint is not None:
            self._read(checkpoint)
            self._next = time.monotonic() + checkpoint.every

    def within(self, around: Callable[[State], State], found: State | None) -> Keeper:
        """For a training that is part of this one: ``around`` makes this one's state of that one's."""
        part = Keeper(None)
        part.checkpoint, part.found, part._root, part._around = self.checkpoint, found, self._root, around
        return part

    def __enter__(self) -> Self:
        if self.checkpoint is not None and self._root is self:
            self.interrupts.__enter__()
        return self

    def __exit__(self, *ended: object) -> None:
        if self._root is self:
            self.interrupts.__exit__(*ended)

    def begin(self, training: Resumable) -> bool:
        """Give a training back the state that was found, and torch's random streams theirs; whether there was one.

        Raises:
            ValueError: it does not fit.
        """
        root, found, self.found = self._root, self.found, None
        if found is None or root.checkpoint is None:
            return False
        try:
            training.restore(found)
            _set_streams(root._streams[root.processes.rank], root.device)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{root.checkpoint.path} does not fit this training ({error}).") from error
        return True

    def step(self, training: Resumable) -> None:
        """At the end of a step: write where it is due or a signal came, and answer the signal."""
        root = self._root
        if root.checkpoint is None:
            return
        asked = root._agreed(root.checkpoint.every)
        if asked:
            self.keep(training)
        if asked > _DUE:
            root.interrupts.answer(asked - _DUE)

    def end(self, training: Resumable) -> None:
        """After the last step: write, and answer the signal that came, if any."""
        root = self._root
        if root.checkpoint is None:
            return
        root._patience = 0
        asked = root._agreed(root.checkpoint.every)
        self.keep(training)
        if asked > _DUE:
            root.interrupts.answer(asked - _DUE)

    def _agreed(self, every: float) -> int:
        """What is to be done after this step; several processes ask each other, but not more often than they notice."""
        held, now = self.interrupts.pending, time.monotonic()
        mine = held + _DUE if held else int(now >= self._next)
        if self.processes.size == 1:
            return mine
        self._taken += 1
        if self._taken < self._patience:
            return 0
        pace = max(now - self._asked, 1e-9) / self._taken
        patience = 1 if every < _UNNOTICED else max(1, min(int(_UNNOTICED / pace), _MOST))
        word = self.processes.largest(mine * (_MOST + 1) + patience)  # one number for both: the same in all of them
        self._taken, self._asked, self._patience = 0, now, word % (_MOST + 1)
        return word // (_MOST + 1)

    def keep(self, training: Resumable) -> None:
        """Write the state now; where that fails, the last one stays, and training goes on."""
        root = self._root
        if root.checkpoint is None:
            return
        streams = [root.processes.gathered(stream) for stream in _streams(root.device)]
        mine = training.state()
        if not all(bool(t.isfinite().all()) for t in mine["network"].values() if t.is_floating_point()):
            return  # the next step says so; the state that is kept is the last one that could be gone on from
        if root.processes.rank == 0:
            state = {"belongs": root.belongs, "streams": streams, "training": self._around(mine)}
            try:
                _write(root.checkpoint, sealed(state, _ENTRY))
            except OSError as error:
                root.note(
                    f"{root.checkpoint.path} cannot be written ({error.strerror or error}); "
                    f"{'the state before it is safe there' if root.checkpoint.exists() else 'no state is kept yet'}."
                )
        root._next = time.monotonic() + root.checkpoint.every

    def _read(self, checkpoint: Checkpoint) -> None:
        content = b""
        if self.processes.rank == 0:
            _require_place(checkpoint)
            remove_left_over(checkpoint.path.parent, checkpoint.path.name)
            content = _sound(checkpoint, self.note)
        content = self.processes.from_first(content)
        if not content:
            return
        whole = opened(content, _ENTRY, checkpoint.path)
        try:
            before = dict(whole["belongs"])
            streams = [list(each) for each in zip(*whole["streams"], strict=True)]  # by process
            found = dict(whole["training"])
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(f"{checkpoint.path} is damaged: it holds no state of a training ({error}).") from error
        self._require_same(before, checkpoint)
        self.found, self._streams = found, streams

    def _require_same(self, before: Mapping[str, str], checkpoint: Checkpoint) -> None:
        names = [name for name in {**self.belongs, **before} if self.belongs.get(name) != before.get(name)]
        if names:
            changes = "; ".join(
                f"{name} was {before.get(name, 'not there')}, is {self.belongs.get(name, 'not there')}"
                for name in names[:_NAMED]
            )
            changes += f"; {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            raise ValueError(
                f"{checkpoint.path} is of another training: {changes}. Train as before to go on, or remove it."
            )


def belongings(kind: str, network: nn.Module, data: Split | str, settings: Any, processes: Processes) -> dict[str, str]:
    """What the state of a training depends on, by name; it goes on only where all of it is the same.

    ``data`` is the split, or what names other data and their numbers.
    """
    shapes = [(name, tuple(p.shape), str(p.dtype)) for name, p in network.state_dict().items()]
    versioned = versions()
    return {
        "the method": kind,
        **{f"settings.{name}": json.dumps(value) for name, value in dataclasses.asdict(settings).items()},
        "the data": data if isinstance(data, str) else f"{data.name} ({str(data.facts().fingerprint)[:12]})",
        "the network": f"{len(shapes)} tensors ({hashlib.sha256(repr(shapes).encode()).hexdigest()[:12]})",
        **_described(network),
        "processes": str(processes.size),
        "liouville": versioned["liouville"],
        "torch": versioned["torch"],
    }


def optimizer_state(optimizer: torch.optim.Optimizer) -> State:
    """Groups and moments in the order of the weights; torch's own ``state_dict`` imports its compiler first."""
    groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    return {"groups": groups, "moments": [dict(optimizer.state.get(p, {})) for p in weights]}


def restore_optimizer(optimizer: torch.optim.Optimizer, state: State) -> None:
    """Take back what `optimizer_state` gave.

    Raises:
        ValueError: it is of other groups or weights.
    """
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    for group, known in zip(optimizer.param_groups, state["groups"], strict=True):
        if not all(_alike(known[name], value) for name, value in group.items() if name != "params"):
            raise ValueError("its optimizer has settings of other kinds")
        group.update(known)
    for p, moments in zip(weights, state["moments"], strict=True):
        for name in _OF_WEIGHTS & dict(moments).keys():
            if not (_alike(moments[name], p) or (name == "momentum_buffer" and moments[name] is None)):
                raise ValueError(f"its {name} does not fit a weight of the shape {tuple(p.shape)}")
        if "step" in moments and not (isinstance(moments["step"], Tensor) and moments["step"].numel() == 1):
            raise ValueError("its optimizer counts no steps")
        optimizer.state[p] = {k: v.to(p.device) if isinstance(v, Tensor) else v for k, v in moments.items()}


def _alike(value: Any, known: Any) -> bool:
    """Whether two values are of one kind: numbers, tensors of one shape and dtype, or rows of such."""
    if isinstance(known, Tensor):
        return isinstance(value, Tensor) and value.shape == known.shape and value.dtype == known.dtype
    if isinstance(known, list | tuple):
        rows = isinstance(value, list | tuple) and len(value) == len(known)
        return rows and all(_alike(v, k) for v, k in zip(value, known, strict=True))
    if isinstance(known, float) or type(known) is int:
        return isinstance(value, float) or type(value) is int
    return type(value) is type(known)


def _require_place(checkpoint: Checkpoint) -> None:
    """Raise where no state could ever be written, before a training whose states are lost."""
    folder = checkpoint.path.parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{checkpoint.path} cannot be written: there is no folder {folder}; make it first.")
    for path in (checkpoint.path, checkpoint.previous):
        if path.exists() and not path.is_file():
            raise ValueError(f"{path} is no file, so no state can be kept there; choose another name.")


def _described(network: nn.Module) -> dict[str, str]:
    """What a network is beyond its weights, as in a model file, by name; of parts that no file knows, their classes."""
    found: dict[str, str] = {}

    def add(value: Any, name: str) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                add(part, f"{name}.{key}")
        elif isinstance(value, list) and any(isinstance(part, dict) for part in value):
            for k, part in enumerate(value):
                add(part, f"{name}.{k}")
        else:
            text = json.dumps(value)
            short = text if len(text) <= 40 else f"{text[:20]} ... ({hashlib.sha256(text.encode()).hexdigest()[:12]})"
            found[name] = short

    def part(module: nn.Module, name: str) -> None:
        arguments: dict[str, Tensor] = {}
        try:
            add(describe(module, arguments), name)
        except ValueError:
            found[f"{name}.type"] = type(module).__qualname__
            for key, child in module.named_children():
                part(child, f"{name}.{key}")
        for key, tensor in arguments.items():
            content = repr((str(tensor.dtype), tensor.tolist())).encode()
            found[f"{name}.{key}"] = hashlib.sha256(content).hexdigest()[:12]

    part(network, "network")
    return found


def _sound(checkpoint: Checkpoint, note: Callable[[str], None]) -> bytes:
    """The bytes of the newest state that is whole; none where there is no state."""
    damage: DamagedFileError | None = None
    for path in (checkpoint.path, checkpoint.previous):
        if not path.is_file():
            continue
        content = path.read_bytes()
        try:
            opened(content, _ENTRY, path)
        except DamagedFileError as error:
            damage = damage or error
            continue
        if damage is not None:
            note(f"{damage} The state before it, {path.name}, takes its place.")
        return content
    if damage is not None:
        raise ValueError(f"{damage} There is no state before it; remove it to train from the beginning.") from damage
    return b""


def _write(checkpoint: Checkpoint, content: bytes) -> None:
    path = checkpoint.path
    with atomic(path) as temporary:
        temporary.write_bytes(content)
        if temporary.read_bytes() != content:
            raise OSError(f"what was written of {path} reads otherwise; the disk may be failing")
        if path.is_file():
            os.replace(path, checkpoint.previous)  # noqa: PTH105 (over the one before)


def _streams(device: torch.device) -> list[Tensor]:
    """The states of torch's random streams that a step may draw from, each of a fixed size."""
    streams = [torch.get_rng_state()]
    return [*streams, torch.cuda.get_rng_state(device)] if device.type == "cuda" else streams


def _set_streams(streams: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(streams[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(streams[1], device)
