r"""The memory that autograd keeps for one layer, measured on a copy of the state: for engines that choose by it."""

from __future__ import annotations

__all__ = ["Cost", "bytes_per_layer"]

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from liouville.backprop.base import layer
from liouville.backprop.contract import is_autocast
from liouville.compilers import is_watched
from liouville.fields.base import Theta, VectorField
from liouville.fields.blocks import Row
from liouville.fields.given import kind_of_call
from liouville.fields.stochastic import original
from liouville.schemes.base import Scheme, State

_GUESS = 64.0  # states that a layer keeps if that cannot be measured: the number for a transformer block
_REMEMBERED = 256  # kinds of input per field, such as sequences of different lengths


class Cost(NamedTuple):
    """Bytes that one layer keeps, and the reason if they are a guess."""

    size: float
    unmeasured: str = ""


_costs: weakref.WeakKeyDictionary[VectorField, dict[Any, Cost]] = weakref.WeakKeyDictionary()


def bytes_per_layer(scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float) -> Cost:
    """The memory that autograd keeps for one layer at this state: measured on a copy of it, once per kind of input.

    The copy is the whole state, so the axes of a sample, the number that a module needs and the growth of memory with
    samples or tokens need not be known.
    """
    if is_watched() or state[0].is_meta:  # a trial must not run where operations are recorded or transformed
        return Cost(_GUESS * sum(x.numel() * x.dtype.itemsize for x in state), " (a guess)")
    costs = _costs.setdefault(original(field), {})
    like = state[0]
    kind = (like.dtype, like.device, is_autocast(like.device.type), original(field).training, *kind_of_call(field))
    key = (scheme, tuple(x.shape for x in state), kind)
    if key not in costs:
        if len(costs) >= _REMEMBERED:
            costs.clear()
        try:
            costs[key] = Cost(_kept(scheme, field, state, layer(theta, 0), h))
        except Exception as error:  # torch.func inside a field forbids the hooks; a real error appears in the step
            costs[key] = Cost(_GUESS * sum(x.nbytes for x in state), f" (a guess: {type(error).__name__} in a trial)")
    return costs[key]


def _kept(scheme: Scheme, field: VectorField, state: State, theta_0: Theta, h: float) -> float:
    storages: dict[int, torch.UntypedStorage] = {}  # kept alive, so that no other storage reuses their memory

    def pack(x: Tensor) -> Tensor:
        storages[x.untyped_storage()._cdata] = x.untyped_storage()
        return x

    if not isinstance(theta_0, Row):  # the parameters of a block do not count
        theta_0 = type(theta_0)(*(w.detach().requires_grad_(w.is_floating_point()) for w in theta_0))
    with _left_alone(field, state[0].device), torch.enable_grad():
        state = tuple(x.detach().requires_grad_().clone() for x in state)  # no leaves: a module may work in place
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            scheme.step(field.at_layer(0), state, theta_0, h)
    weights = {w.untyped_storage()._cdata for w in theta_0}
    return float(sum(s.nbytes() for key, s in storages.items() if key not in weights))


@contextlib.contextmanager
def _left_alone(field: VectorField, device: torch.device) -> Iterator[None]:
    """Restores buffers and torch's random streams afterwards."""
    buffers = [(b, b._version, b.detach().clone()) for b in original(field).buffers()]
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            for b, version, before in buffers:
                if b._version != version:
                    b.detach().copy_(before)
