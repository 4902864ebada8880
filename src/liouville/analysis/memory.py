r"""The memory of a training step, by engine: measured on copies of your network with N and 2N layers."""

from __future__ import annotations

__all__ = ["MemoryReport", "MemoryUse", "memory", "peak_bytes"]

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves

from liouville.backprop import Backprop, Checkpointed, Reversible, Stored
from liouville.compilers import Bystander
from liouville.flow import flows_of

_ENGINES = (Stored(), Checkpointed(), Reversible(), Reversible(compensated=True), Reversible(exact=True))


@dataclass(frozen=True)
class MemoryUse:
    """One engine: peak bytes of a step, and bytes per additional layer; or why it does not fit."""

    engine: Backprop
    peak: float
    per_layer: float
    refusal: str | None = None


@dataclass(frozen=True)
class MemoryReport:
    """The memory of each engine; print it to see a table."""

    layers: int
    uses: tuple[MemoryUse, ...]

    def __str__(self) -> str:
        head = f"{'engine':28} {'peak':>12} {'per layer':>12}   {self.layers} layers, without parameters and gradients"
        return "\n".join([head, *(_row(use) for use in self.uses)])


def memory(network: nn.Module, x: Tensor, engines: Sequence[Backprop] = _ENGINES) -> MemoryReport:
    """Peak memory of one training step on the input ``x``, and its growth by layer, for each engine.

    A step is a forward and a backward pass of the sum of all outputs. The count includes all tensors made in it that
    are alive at once, except the input, the parameters and their gradients: on the CPU to 2 %, by watching every
    operation, on CUDA by its allocator. It does not include temporaries inside an operation and freed memory that an
    allocator keeps: ``benchmarks/memory_vs_depth.py`` measures whole processes.

    Args:
        network: a `Flow`, a `Network`, or any module with flows in it; a copy is measured.
        x: an input.
        engines: engines to measure; one that does not fit gets a row with the reason.

    Raises:
        ValueError: if the network contains no flow.

    Examples:
        >>> import liouville as lv
        >>> report = memory(lv.zoo.h2(4, layers=32, T=1.0), torch.randn(1000, 4))
        >>> stored, reversible = report.uses[0], report.uses[2]
        >>> reversible.per_layer < 0.01 * stored.per_layer
        True
    """
    layers = sum(flow.layers for flow in flows_of(network))
    if not layers:
        raise ValueError(f"expected a Flow or a module that contains one, got {type(network).__name__}.")
    return MemoryReport(layers, tuple(_use(network, x, engine, layers) for engine in engines))


def _use(network: nn.Module, x: Tensor, engine: Backprop, layers: int) -> MemoryUse:
    try:
        for flow in flows_of(network):
            engine.check(flow.scheme, flow.field)
    except ValueError as error:
        return MemoryUse(engine, float("nan"), float("nan"), str(error))
    once, twice = (peak_bytes(_deepened(network, engine, twice), x) for twice in (False, True))
    return MemoryUse(engine, once, (twice - once) / layers)


def _deepened(network: nn.Module, engine: Backprop, twice: bool) -> nn.Module:
    network = copy.deepcopy(network)
    for flow in flows_of(network):
        flow.backprop = engine
        flow.field = flow.field.refined() if twice else flow.field
    return network


def peak_bytes(network: nn.Module, x: Tensor) -> float:
    """The peak memory of one training step, counted as in `memory`, for the engines that the network has."""
    network.zero_grad(set_to_none=True)
    if x.device.type == "cuda":
        network(x).sum().backward()  # a first step makes the libraries' workspaces, which no step pays again
        network.zero_grad(set_to_none=True)
        torch.cuda.reset_peak_memory_stats(x.device)
        before = torch.cuda.memory_allocated(x.device)
        network(x).sum().backward()
        return torch.cuda.max_memory_allocated(x.device) - before - _bytes(_gradients(network))
    with _Watch() as watch:
        network(x).sum().backward()
    return watch.peak(without=[x, *network.parameters(), *network.buffers(), *_gradients(network)])


def _gradients(network: nn.Module) -> list[Tensor]:
    return [p.grad for p in network.parameters() if p.grad is not None]


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(t.untyped_storage().nbytes() for t in tensors)


class _Watch(Bystander):
    """Records when each storage is made, and about when it is freed: checked whenever 2 % more have been added."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0
        self.alive: dict[int, tuple[StorageWeakRef, int, int]] = {}  # by identity: reference, bytes, time of creation
        self.gone: list[tuple[int, int, int]] = []  # bytes, time of creation, time of release
        self.size = self.added = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return out

    def peak(self, without: Sequence[Tensor]) -> float:
        """The maximum number of bytes alive at once, without some tensors."""
        self._look()
        left_out = {StorageWeakRef(t.untyped_storage()).cdata for t in without}
        lives = [(made, size) for key, (_, size, made) in self.alive.items() if key not in left_out]
        changes = lives + [(made, size) for size, made, _ in self.gone] + [(end, -size) for size, _, end in self.gone]
        most = now = 0
        for _, change in sorted(changes, key=lambda c: (c[0], -c[1])):
            now += change
            most = max(most, now)
        return float(most)

    def _note(self, storage: torch.UntypedStorage) -> None:
        reference = StorageWeakRef(storage)
        known = self.alive.get(reference.cdata)
        if known is not None and not known[0].expired():
            return
        if known is not None:
            self.gone.append((known[1], known[2], self.time))
        self.time += 1
        self.alive[reference.cdata] = (reference, storage.nbytes(), self.time)
        self.size, self.added = self.size + storage.nbytes(), self.added + storage.nbytes()
        if self.added > 0.02 * self.size:
            self._look()

    def _look(self) -> None:
        self.time += 1
        for key in [key for key, (reference, _, _) in self.alive.items() if reference.expired()]:
            _, size, made = self.alive.pop(key)
            self.gone.append((size, made, self.time))
            self.size -= size
        self.added = 0


def _row(use: MemoryUse) -> str:
    if use.refusal:
        return f"{use.engine!r:28} {use.refusal}"
    return f"{use.engine!r:28} {_amount(use.peak):>12} {_amount(use.per_layer):>12}"


def _amount(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{size:,.4g} {unit}"
        size /= 1024
    return f"{size:,.4g} GiB"
