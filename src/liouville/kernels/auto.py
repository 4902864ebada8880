r"""The engine that chooses an engine, and states which and why."""

from __future__ import annotations

__all__ = ["Auto", "Choice"]

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from liouville.backprop.base import Backprop, Stored, layer
from liouville.backprop.checkpointed import Checkpointed
from liouville.backprop.contract import is_autocast, is_plain_autograd
from liouville.backprop.gate import Manner, observed
from liouville.backprop.reversible import Reversible
from liouville.backprop.trial import bytes_per_layer
from liouville.compilers import is_watched
from liouville.devices import fast_products, memory_share
from liouville.fields.base import Theta, VectorField
from liouville.fields.bound import original
from liouville.fields.driven import DrivenField
from liouville.fields.wrapped import product_of
from liouville.kernels.batchlast import BatchLast
from liouville.kernels.fused import Fused, Plan
from liouville.kernels.library import is_built
from liouville.kernels.sequence import planned
from liouville.kernels.table import NoKernelError, ShearPlan
from liouville.schemes.base import ReversibleScheme, Scheme, ShearScheme, State

_MEMORY = 2**30
_SHARE = 0.25  # of a device's memory: a network has several flows, and what an operation needs at once comes on top


class Choice(NamedTuple):
    """An engine, and the reason for its choice."""

    engine: Backprop
    reason: str


@dataclass(frozen=True, repr=False)
class Auto(Backprop):
    r"""Use the native kernel where there is one, else `Stored` while it fits into ``memory``, else an engine with less.

    `Fused` for a pair of scheme and field that has a kernel, on the CPU in float32 or float64: it is the fastest, and
    its memory does not grow with the depth; 3 x 3 convolutions of more than 16 channels are left to torch. Where the
    kernel was not built, `BatchLast` for 64 samples or more of at most 32 features. Otherwise `Stored` while its
    memory fits into ``memory``; then `Reversible` where the scheme inverts, or `Checkpointed`.

    A run over time (`liouville.recurrent`) of a reversible scheme never takes `Stored` for training: its memory is
    constant in the number of steps.

    Where the states must be rebuilt through more layers than their precision allows (64 in float32, 1,024 in
    float64), the kernel runs on the exact grid if it inverts. `Reversible` then stores anchors as densely as half of
    ``memory`` allows, is compensated if they would still be too far apart, and is always exact for states of 16 bits.
    Where a GPU multiplies float32 by 10 bits (TF32) it is always compensated: only states rebuilt nearly to the bit
    meet the same roundings again. The choice depends on shapes, dtypes, scheme, ``memory``, device and on whether the
    kernel was built, so that a run can be repeated; the repr shows the last choice for training.

    Args:
        memory: bytes that the states kept for the backward pass may take; None: 1 GiB, on CUDA a quarter of the
            device's memory.

    Raises:
        ValueError: if memory is less than 1.

    Examples:
        >>> import liouville as lv
        >>> flow = lv.zoo.leapfrog(64, layers=1024, T=1.0)
        >>> Auto().choose(flow.scheme, flow.field, torch.zeros(4096, 64)).engine
        Reversible(anchors=16)
    """

    memory: int | None = None

    def __post_init__(self) -> None:
        if self.memory is not None and self.memory < 1:
            raise ValueError(f"memory must be at least 1 byte, got {self.memory}.")
        is_built()  # looks for the library now: a compiler could not trace it

    def run(self, scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float) -> State:
        plan, choice = self._chosen(scheme, field, state, theta, h)
        if plan and isinstance(choice.engine, Fused):
            return choice.engine.run_plan(plan, scheme, field, state, theta, h)
        return choice.engine.run(scheme, field, state, theta, h)

    def trajectory(
        self, scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float
    ) -> tuple[State, Tensor]:
        engine = self._chosen(scheme, field, state, theta, h)[1].engine
        return engine.trajectory(scheme, field, state, theta, h)

    def _chosen(
        self, scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float
    ) -> tuple[Plan | None, Choice]:
        """The plan of the pair, if it has one, and the choice for this run, which the repr shows from now on."""
        tensors = (*state, *theta)
        traced = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        plan = None
        if is_plain_autograd(tensors):
            plan = _plan(scheme, field, state, theta)
            choice = self._choose(plan, scheme, field, state, theta, h, traced)
        else:
            choice = Choice(Stored(), "torch.func and forward mode need the plain loop")
        if not is_watched() and (traced or not hasattr(self, "_last")):
            object.__setattr__(self, "_last", choice)  # for display; not a setting, and not compared
        return plan, choice

    def choose(self, scheme: Scheme, field: VectorField, y: Tensor) -> Choice:
        """The engine for a training step on the input ``y``, and why."""
        run, theta = field.in_run(0), field.theta()
        with torch.no_grad():
            state = scheme.init(run.at_layer(0), y, layer(theta, 0), 1.0)
        return self._choose(_plan(scheme, run, state, theta), scheme, run, state, theta, 1.0, traced=True)

    def __repr__(self) -> str:
        chosen = getattr(self, "_last", None)
        said = super().__repr__()
        return said if chosen is None else f"{said[:-1]}{', ' * (said[-2] != '(')}chose {chosen[0]}: {chosen[1]})"

    def _choose(
        self,
        plan: Plan | None,
        scheme: Scheme,
        field: VectorField,
        state: State,
        theta: Theta,
        h: float,
        traced: bool,
    ) -> Choice:
        N = field.layers
        digits = max(torch.finfo(x.dtype).eps for x in state)
        safe = 64 if digits > 1e-10 else 1024
        shears = isinstance(scheme, ShearScheme)
        if plan and is_built() and not _is_wide_stencil(plan, field):
            exact = traced and safe < N and shears  # states that are not rebuilt cannot drift
            return Choice(Fused(exact=exact), "there is a native kernel for this scheme and field")
        if not traced:
            return Choice(Stored(), "no gradient is needed")
        if observed(field) != Manner():
            return Choice(Stored(), "its layers draw random numbers or change buffers, so they are best run once")
        batch = state[0].shape[: field.feature_axis].numel()
        vectors = isinstance(plan, ShearPlan) and not plan.taps
        if vectors and not is_built() and safe >= N and batch >= 64 and field.features <= 32:
            return Choice(BatchLast(), "the native kernel was not built, and this engine is fast for few features")
        size, unmeasured = bytes_per_layer(scheme, field, state, theta, h)
        stored, memory = N * size, self._memory(state[0].device)
        fits = f"{N} layers keep about {_amount(stored)}{unmeasured}"
        over_time = isinstance(original(field), DrivenField) and isinstance(scheme, ReversibleScheme)
        if stored <= memory and not over_time:
            return Choice(Stored(), f"{fits}, within {_amount(memory)}")
        fits = "a run over time keeps only its last state" if over_time else f"{fits}, more than {_amount(memory)}"
        if not isinstance(scheme, ReversibleScheme):
            return Choice(Checkpointed(), f"{fits}, but {type(scheme).__name__} has no inverse")
        if scheme.kept_bits:
            return Choice(Reversible(exact=True, compensated=True), f"{fits}; the bits that its steps drop are kept")
        if digits > 1e-4:
            short = "states of 16 bits cannot be rebuilt by rounded sums"
            return Choice(Reversible(exact=True) if shears else Checkpointed(), f"{fits}; {short}")
        if fast_products(state[0].dtype, state[0].device.type, product_of(field)):
            few = "products of 10 bits (TF32) repeat only at states rebuilt nearly to the bit"
            return Choice(Reversible(compensated=True) if shears else Checkpointed(), f"{fits}; {few}")
        if safe >= N:
            if not plan and batch >= 64 and _walks(scheme, field, state, theta):
                return Choice(BatchLast(), f"{fits}; with the batch innermost a layer is the fewest operations")
            return Choice(Reversible(), f"{fits}; {N} layers can be rebuilt in this precision")
        anchors = max(16, math.ceil(N * sum(x.nbytes for x in state) / (memory / 2)))
        if anchors <= safe and not over_time:
            return Choice(Reversible(anchors=anchors), f"{fits}; every {anchors}th state is kept against drift")
        far = fits if over_time else f"{fits}; anchors within that would be {anchors} layers apart"
        return Choice(Reversible(compensated=True) if shears else Checkpointed(), far)

    def _memory(self, device: torch.device) -> int:
        return self.memory or memory_share(device, _SHARE) or _MEMORY


def _plan(scheme: Scheme, field: VectorField, state: State, theta: Theta) -> Plan | None:
    """The plan that `Fused` would run, if it can run here."""
    tensors = (*state, *theta)
    dtype = state[0].dtype
    if dtype not in (torch.float32, torch.float64) or any(t.dtype is not dtype or not t.is_cpu for t in tensors):
        return None  # there are kernels on the CPU only
    if is_autocast("cpu"):
        return None
    try:
        return planned(scheme, field, "cpu")
    except NoKernelError:
        return None


def _walks(scheme: Scheme, field: VectorField, state: State, theta: Theta) -> bool:
    """Whether `BatchLast` runs this, where there is no kernel: it has no device of its own."""
    if state[0].device.type != "cuda" or is_autocast("cuda") or len({t.dtype for t in (*state, *theta)}) > 1:
        return False
    try:
        BatchLast().check(scheme, field)
    except ValueError:
        return False
    return True


def _is_wide_stencil(plan: Plan, field: VectorField) -> bool:
    """Whether torch's convolutions are as fast: beyond 16 channels multiplications dominate the time."""
    return isinstance(plan, ShearPlan) and plan.taps > 1 and field.features > 16


def _amount(size: float) -> str:
    if torch.compiler.is_compiling():  # a formatted number would be compiled for this batch size only
        return "some"
    return f"{size / 2**20:,.0f} MiB" if size >= 2**20 else f"{size / 2**10:,.0f} KiB"
