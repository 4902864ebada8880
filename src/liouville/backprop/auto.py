r"""The engine that chooses an engine, and says which and why."""

from __future__ import annotations

__all__ = ["Auto", "Choice"]

import math
import weakref
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from liouville.backprop.base import Backprop, layer
from liouville.backprop.contract import is_plain_autograd
from liouville.backprop.reversible import Reversible
from liouville.backprop.storing import Checkpointed, Stored
from liouville.fields.base import Theta, VectorField, original
from liouville.schemes.base import ReversibleScheme, Scheme, ShearScheme, State

_costs: weakref.WeakKeyDictionary[VectorField, dict[Any, float]] = weakref.WeakKeyDictionary()


class Choice(NamedTuple):
    """An engine, and why it."""

    engine: Backprop
    reason: str


@dataclass(frozen=True, repr=False)
class Auto(Backprop):
    r"""`Stored` while what it keeps fits into ``memory``; else `Reversible`, or `Checkpointed` without an inverse.

    Where the states have to be rebuilt through more layers than their precision bears, 64 in float32 and 1,024 in
    float64, anchors are stored as densely as half of ``memory`` allows; if that is still too far apart,
    ``Reversible(compensated=True)`` is taken, and for states of 16 bits always ``Reversible(exact=True)``. The choice
    depends on shapes, dtypes, scheme and ``memory`` alone, so that a run can be repeated; its repr shows the last one.

    Args:
        memory: bytes that the states kept for the backward pass may take, 1 GiB by default.

    Raises:
        ValueError: if memory is less than 1.

    Example:
        >>> import liouville as lv
        >>> flow = lv.zoo.h2(64, layers=1024, T=1.0)
        >>> Auto().choose(flow.scheme, flow.field, torch.zeros(4096, 64)).engine
        Reversible(anchors=16)
    """

    memory: int = 2**30

    def __post_init__(self) -> None:
        if self.memory < 1:
            raise ValueError(f"memory must be at least 1 byte, got {self.memory}.")

    def run(self, scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float) -> State:
        tensors = (*state, *theta)
        if not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors)):
            choice = Choice(Stored(), "no gradient is asked for")
        elif not is_plain_autograd(tensors):
            choice = Choice(Stored(), "torch.func and forward mode go through the plain loop")
        else:
            choice = self._choose(scheme, field, state, theta, h)
        if not torch.compiler.is_compiling():
            object.__setattr__(self, "_last", choice)  # to be read by people; no setting, and not compared
        return choice.engine.run(scheme, field, state, theta, h)

    def choose(self, scheme: Scheme, field: VectorField, y: Tensor) -> Choice:
        """The engine that a training step on the input ``y`` gets, and why."""
        run, theta = field.in_run(0), field.theta()
        with torch.no_grad():
            state = scheme.init(run.at_layer(0), y, layer(theta, 0), 1.0)
        return self._choose(scheme, run, state, theta, 1.0)

    def __repr__(self) -> str:
        chosen = getattr(self, "_last", None)
        said = super().__repr__()
        return said if chosen is None else f"{said[:-1]}{', ' * (said[-2] != '(')}chose {chosen[0]}: {chosen[1]})"

    def _choose(self, scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float) -> Choice:
        N = field.layers
        stored = N * _bytes_per_layer(scheme, field, state, theta, h)
        fits = f"{N} layers keep about {_amount(stored)}"
        if stored <= self.memory:
            return Choice(Stored(), f"{fits}, within {_amount(self.memory)}")
        fits = f"{fits}, more than {_amount(self.memory)}"
        if not isinstance(scheme, ReversibleScheme):
            return Choice(Checkpointed(), f"{fits}, and {type(scheme).__name__} has no inverse")
        digits = max(torch.finfo(x.dtype).eps for x in state)
        shears = isinstance(scheme, ShearScheme)
        if digits > 1e-4:
            short = "states of 16 bits cannot be rebuilt by rounded sums"
            return Choice(Reversible(exact=True) if shears else Checkpointed(), f"{fits}; {short}")
        safe = 64 if digits > 1e-10 else 1024
        if safe >= N:
            return Choice(Reversible(), f"{fits}; {N} layers can be rebuilt in this precision")
        anchors = max(16, math.ceil(N * sum(x.nbytes for x in state) / (self.memory / 2)))
        if anchors <= safe:
            return Choice(Reversible(anchors=anchors), f"{fits}; every {anchors}th state is kept against drift")
        far = f"{fits}; anchors within that would be {anchors} layers apart"
        return Choice(Reversible(compensated=True) if shears else Checkpointed(), far)


def _bytes_per_layer(scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float) -> float:
    """What autograd keeps of one layer for each sample: measured on one and on two, once per kind of input."""
    batch = len(state[0]) if state[0].dim() > 1 else 1
    if not batch:
        return 0.0
    costs = _costs.setdefault(original(field), {})
    key = (scheme, state[0].shape[1:], state[0].dtype, state[0].device, torch.is_autocast_enabled(state[0].device.type))
    if key not in costs:
        one, two = (
            _kept(scheme, field, tuple(_samples(x, number) for x in state), layer(theta, 0), h) for number in (1, 2)
        )
        costs[key] = two - one  # what does not depend on the batch is a weight's size
    return batch * costs[key]


def _samples(x: Tensor, number: int) -> Tensor:
    """The first sample, ``number`` times."""
    first = x.detach()[:1] if x.dim() > 1 else x.detach()[None]
    return first.expand(number, *first.shape[1:]).clone()


def _kept(scheme: Scheme, field: VectorField, state: State, theta_0: Theta, h: float) -> float:
    storages: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    state = tuple(x.requires_grad_() for x in state)
    theta_0 = type(theta_0)(*(w.requires_grad_() for w in theta_0))
    with (
        torch.random.fork_rng(devices=[]),
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x),
    ):
        scheme.step(field.at_layer(0), state, theta_0, h)
    return float(sum(storages.values()))


def _amount(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB" if size >= 2**20 else f"{size / 2**10:,.0f} KiB"
