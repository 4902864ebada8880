r"""A network as data: y_0 = L x + l, steps y[to] += B sigma(R y[of] + b), scores W y_N + w, all in float64.

Only what is known entirely is admitted, by exact type: a subclass, a hook or a method replaced on an object may compute
something else, and a certificate of something else is worth nothing.
"""

from __future__ import annotations

__all__ = ["Chain", "Step", "chain_of"]

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from liouville.activations import ACTIVATIONS, Activation
from liouville.analysis.untouched import require_untouched
from liouville.backprop import Checkpointed, Reversible, Stored, slices
from liouville.budget import BudgetedField, PartitionedBudgetedField
from liouville.fields import (
    AntisymmetricField,
    HamiltonianField,
    PairField,
    PartitionedField,
    SeparableHamiltonianField,
    VectorField,
)
from liouville.fields.base import Theta
from liouville.flow import Flow
from liouville.kernels import Auto, BatchLast, Fused
from liouville.network import Half, Lift, Network
from liouville.operators import Dense, Graph
from liouville.precision import name_of
from liouville.schemes import ForwardEuler, SymplecticEuler, Verlet, Yoshida4

_BUDGETED = (BudgetedField, PartitionedBudgetedField)
_ENGINES = (Stored, Checkpointed, Reversible, Fused, BatchLast, Auto)
_SPLITTINGS = (SymplecticEuler, Verlet, Yoshida4)
_SELECTIONS = (nn.Identity, nn.Flatten, nn.Dropout)


@dataclass(frozen=True)
class Velocity:
    """B sigma(R y + b), and entrywise bounds |B|, |R| of the products that the network evaluates them by; ``peak``
    bounds how many times larger than sigma a number on the way through B can be.
    """

    B: Tensor
    R: Tensor
    b: Tensor
    B_size: Tensor
    R_size: Tensor
    peak: float


@dataclass(frozen=True)
class Step:
    """y[to] += h B sigma(R y[of] + b), the step length in B."""

    to: slice
    of: slice
    velocity: Velocity


@dataclass(frozen=True)
class Chain:
    """What `chain_of` reads off a network; matrices are in float64, ``dtype`` is what the network runs in."""

    lift: Tensor
    lift_bias: Tensor
    lift_is_exact: bool
    steps: tuple[Step, ...]
    head: Tensor
    head_bias: Tensor
    activation: Activation
    dtype: torch.dtype

    @property
    def added(self) -> list[int]:
        """How many columns each step adds to the set of what it can lead to."""
        return [len(step.velocity.b) for step in self.steps]


def chain_of(network: Network) -> Chain:
    """The network in the form of this module.

    Raises:
        NotImplementedError: if a part of it is not known here; the sentence names it.
    """
    known = (Network, nn.Sequential, Flow, Lift, nn.Linear, Half, *_SELECTIONS, *_BUDGETED, *_VELOCITIES)
    require_untouched(network, known)
    parts = list(_parts(network.body))
    flows = [part for part in parts if isinstance(part, Flow)]  # one may run more than once
    if not flows:
        raise NotImplementedError("a local radius is for a network with a flow.")
    if any(type(part) not in (Flow, nn.Sequential, nn.Identity) for part in parts):
        raise NotImplementedError("a local radius needs flows only between lift and head, no connectors.")
    dtypes = {p.dtype for p in network.parameters()}
    if dtypes not in ({torch.float32}, {torch.float64}):
        got = " and ".join(sorted(map(name_of, dtypes)))
        raise NotImplementedError(f"a local radius is for networks in float32 or in float64, got {got}.")
    lift, lift_bias = _lift(network.lift, flows[0].field.features, next(network.parameters()).device)
    head, head_bias = _head(network.head, flows[-1].field.features)
    dtype = dtypes.pop()
    sigma = {_plain(flow.field).activation for flow in flows}
    if len(sigma) != 1 or not all(s is ACTIVATIONS.get(s.name) for s in sigma):
        raise NotImplementedError(f"a local radius is known for one of {', '.join(ACTIVATIONS)} in all flows.")
    steps = tuple(step for flow in flows for step in _steps(flow))
    exact = type(network.lift) is not nn.Linear
    return Chain(lift, lift_bias, exact, steps, head, head_bias, sigma.pop(), dtype)


def _parts(body: nn.Module) -> Iterator[nn.Module]:
    yield body
    if type(body) is nn.Sequential:
        for part in body:
            yield from _parts(part)


def _plain(field: VectorField) -> Any:
    return field.field if type(field) in _BUDGETED else field


def _steps(flow: Flow) -> Iterator[Step]:
    """All steps of a flow, its scheme and field known by exact type."""
    scheme: Any = flow.scheme
    field, engine = _plain(flow.field), flow.backprop
    if type(engine) not in _ENGINES or getattr(engine, "exact", False) or getattr(engine, "compensated", False):
        raise NotImplementedError(f"{engine!r} computes on another grid, for which no local radius is known.")
    if type(field) not in _VELOCITIES or type(field.operator) not in (Dense, Graph):
        raise NotImplementedError(f"no local radius is known for {type(field).__name__} with {field.operator!r}.")
    splits = type(scheme) in _SPLITTINGS and isinstance(field, PartitionedField)
    if not splits and (type(scheme) is not ForwardEuler or isinstance(field, PartitionedField)):
        raise NotImplementedError(f"no local radius is known for {scheme!r} through {type(field).__name__}.")
    velocities = _VELOCITIES[type(field)]
    for theta_j in slices(flow.field.theta(), flow.layers):
        if splits:
            p, q = slice(0, field.p_features), slice(field.p_features, field.features)
            halves = dict(zip("pq", zip((p, q), (q, p), velocities(field, theta_j), strict=True), strict=True))
            for half, c in scheme.stages:
                to, of, velocity = halves[half]
                yield Step(to, of, _scaled(velocity, c * flow.h))
        else:
            everything = slice(0, field.features)
            yield Step(everything, everything, _scaled(velocities(field, theta_j)[0], flow.h))


def _scaled(v: Velocity, step: float) -> Velocity:
    return Velocity(step * v.B, v.R, v.b, abs(step) * v.B_size, v.R_size, v.peak * max(1.0, abs(step)))


def _velocity(left: tuple[Tensor, ...], R: Tensor, b: Tensor, R_size: Tensor | None = None) -> Velocity:
    """B as the product of some matrices, and the product of their entrywise sizes."""
    B, peak = left[-1].double(), 0.0
    size = B.abs()
    for factor in reversed(left[:-1]):
        peak = max(peak, float(size.sum(1).amax()))
        B, size = factor.double() @ B, factor.double().abs() @ size
    R = R.double()
    peak = max(peak, float(size.sum(1).amax()))
    return Velocity(B, R, b.double(), size, R.abs() if R_size is None else R_size, peak)


def _eye(like: Tensor, *shape: int) -> Tensor:
    return torch.eye(*shape, dtype=like.dtype, device=like.device)


def _separable(field: SeparableHamiltonianField, theta: Theta) -> tuple[Velocity, ...]:
    """p' = -X^T K_q^T sigma(K_q q + b_q), q' = X K_p^T sigma(K_p p + b_p)."""
    n_p, n_q = field.p_features, field.features - field.p_features
    X = _eye(theta.K_p, n_q, n_p) * field.sign if field.X is None else field.X
    return _velocity((-X.mT, theta.K_q.mT), theta.K_q, theta.b_q), _velocity((X, theta.K_p.mT), theta.K_p, theta.b_p)


def _pair(field: PairField, theta: Theta) -> tuple[Velocity, ...]:
    """p' = -sigma(K^T q + c), q' = sigma(K p + b)."""
    n_p, n_q = field.p_features, field.features - field.p_features
    one = _eye(theta.K, max(n_p, n_q))
    return _velocity((-one[:n_p, :n_p],), theta.K.mT, theta.c), _velocity((one[:n_q, :n_q],), theta.K, theta.b)


def _hamiltonian(field: HamiltonianField, theta: Theta) -> tuple[Velocity, ...]:
    """y' = J K^T sigma(K y + b)."""
    return (_velocity((field.structure(theta), theta.K.mT), theta.K, theta.b),)


def _antisymmetric(field: AntisymmetricField, theta: Theta) -> tuple[Velocity, ...]:
    """y' = sigma((A - factor gamma I) y + b)."""
    one, A = _eye(theta.A, field.features), theta.A.double()
    diffusion = field.factor * field.gamma * one.double()
    return (_velocity((one,), A - diffusion, theta.b, A.abs() + diffusion),)


_VELOCITIES: dict[type[VectorField], Callable[[Any, Theta], tuple[Velocity, ...]]] = {
    SeparableHamiltonianField: _separable,
    PairField: _pair,
    HamiltonianField: _hamiltonian,
    AntisymmetricField: _antisymmetric,
}


def _lift(lift: nn.Module, features: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """L and l of y_0 = L x + l."""
    if type(lift) is nn.Linear:
        bias = lift.weight.new_zeros(features) if lift.bias is None else lift.bias
        return lift.weight.double(), bias.double()
    none = torch.zeros(features, dtype=torch.float64, device=device)
    if type(lift) is nn.Identity:
        return _eye(none, features), none
    if type(lift) is Lift and lift.axis == -1 and lift.inputs is not None:
        return lift(_eye(none, lift.inputs)).mT.contiguous(), none
    raise NotImplementedError("a local radius needs a lift with a known number of inputs, Lift(features, inputs).")


def _selects(part: nn.Module) -> bool:
    """Whether it reads some of each sample's features."""
    if type(part) is Half:
        return part.axis == -1
    return type(part) in _SELECTIONS and getattr(part, "start_dim", 1) == 1


def _head(head: nn.Module, features: int) -> tuple[Tensor, Tensor]:
    """W and w of the scores W y_N + w: a linear map of some of the features."""
    parts = list(head) if type(head) is nn.Sequential else [head]
    before, last = parts[:-1], parts[-1] if parts else None
    if type(last) is not nn.Linear or not all(_selects(part) for part in before):
        raise NotImplementedError("a local radius needs a head that is linear in y_N, or in a half of it.")
    weight = last.weight.double()
    selected = _eye(weight, features)
    for part in before:
        selected = part(selected)
    weight = weight @ selected.mT
    bias = weight.new_zeros(len(weight)) if last.bias is None else last.bias.double()
    return weight, bias
