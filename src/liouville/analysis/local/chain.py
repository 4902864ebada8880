r"""A network as data: y_0 = L x + l, steps y[to] += B sigma(R y[of] + b), scores W y_N + w, all in float64.

Only fully known parts are admitted, by exact type: a subclass, a hook or a method replaced on an object may compute
something else, and then the certificate would be worthless.
"""

from __future__ import annotations

__all__ = ["Chain", "Step", "chain_of"]

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from liouville.activations import ACTIVATIONS, Activation
from liouville.analysis.proofs.assumptions import activation_of, is_shipped
from liouville.analysis.proofs.untouched import require_untouched
from liouville.budget import BUDGETED
from liouville.fields.wrapped import unwrapped
from liouville.flow import Flow
from liouville.kernels import ENGINES
from liouville.multipliers.steps import FIELDS, Part, steps_of
from liouville.network import Half, Lift, Network
from liouville.precision import name_of

_ENGINES = tuple(ENGINES.values())
_SELECTIONS = (nn.Identity, nn.Flatten, nn.Dropout)


@dataclass(frozen=True)
class Velocity:
    """B sigma(R y + b), and entrywise bounds |B|, |R| of the products by which the network evaluates them; ``peak``
    bounds the intermediate numbers in B relative to sigma.
    """

    B: Tensor
    R: Tensor
    b: Tensor
    B_size: Tensor
    R_size: Tensor
    peak: float

    @cached_property
    def in_columns(self) -> tuple[Tensor, Tensor]:
        """B and R, rounded to the dtype of columns."""
        return self.B.float(), self.R.float()


@dataclass(frozen=True)
class Step:
    """y[to] += h B sigma(R y[of] + b), the step length in B."""

    to: slice
    of: slice
    velocity: Velocity


@dataclass(frozen=True)
class Chain:
    """The result of `chain_of`; matrices are in float64, ``dtype`` is the dtype in which the network runs."""

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
        """How many columns each step adds to its set."""
        return [len(step.velocity.b) for step in self.steps]


def chain_of(network: Network) -> Chain:
    """The network in the form of this module.

    Raises:
        NotImplementedError: if a part of it is not known here; the message names it.
    """
    known = (Network, nn.Sequential, Flow, Lift, nn.Linear, Half, *_SELECTIONS, *BUDGETED, *FIELDS)
    require_untouched(network, known)
    parts = list(_parts(network.body))
    flows = [part for part in parts if isinstance(part, Flow)]  # one may run more than once
    if not flows:
        raise NotImplementedError("a local radius is for a network with a flow.")
    if any(type(part) not in (Flow, nn.Sequential, nn.Identity) for part in parts):
        raise NotImplementedError("a local radius needs only flows between lift and head, no connectors.")
    dtypes = {p.dtype for p in network.parameters()}
    if dtypes not in ({torch.float32}, {torch.float64}):
        got = " and ".join(sorted(map(name_of, dtypes)))
        raise NotImplementedError(f"a local radius is for networks in float32 or in float64, got {got}.")
    lift, lift_bias = _lift(network.lift, flows[0].field.features, next(network.parameters()).device)
    head, head_bias = _head(network.head, flows[-1].field.features)
    dtype = dtypes.pop()
    sigmas = {activation_of(flow.field) for flow in flows}
    sigma = sigmas.pop()
    if sigmas or sigma is None or not is_shipped(sigma):
        raise NotImplementedError(f"a local radius is known for one of {', '.join(ACTIVATIONS)} in all flows.")
    steps = tuple(step for flow in flows for step in _steps(flow))
    exact = type(network.lift) is not nn.Linear and getattr(network.lift, "scale", 1.0) == 1.0
    return Chain(lift, lift_bias, exact, steps, head, head_bias, sigma, dtype)


def _parts(body: nn.Module) -> Iterator[nn.Module]:
    yield body
    if type(body) is nn.Sequential:
        for part in body:
            yield from _parts(part)


def _steps(flow: Flow) -> Iterator[Step]:
    """All steps of a flow, its scheme and field known by exact type."""
    field, engine = unwrapped(flow.field), flow.backprop
    if type(engine) not in _ENGINES or getattr(engine, "exact", False) or getattr(engine, "compensated", False):
        raise NotImplementedError(f"{engine!r} computes on another grid, where no local radius is known.")
    theta = flow.field.theta()
    parts, at_once = steps_of(field, flow.scheme, type(theta)(*(w.double() for w in theta)), flow.h)
    if at_once and len(parts) > 1:  # the halves would move one after the other
        raise NotImplementedError(f"no local radius is known for {flow.scheme!r} through {type(field).__name__}.")
    stacks = [_velocities(part, flow.layers) for part in parts]
    for layer in zip(*stacks, strict=True):
        yield from (Step(part.to, part.of, velocity) for part, velocity in zip(parts, layer, strict=True))


def _velocities(part: Part, layers: int) -> Iterator[Velocity]:
    """For every layer, B as the product of some matrices, and the product of their absolute values."""
    *before, B = part.factors.left
    size = B.abs()
    peak = size.sum(-1).amax(-1)
    for factor in reversed(before):
        B, size = factor @ B, factor.abs() @ size
        peak = torch.maximum(peak, size.sum(-1).amax(-1))
    _, R, b, R_size = part.factors
    step = abs(part.length)
    stacks = (part.length * B, R, b, step * size, R.abs() if R_size is None else R_size)
    whole = [stack.expand(layers, *stack.shape[-own:]) for stack, own in zip(stacks, (2, 2, 1, 2, 2), strict=True)]
    peaks = (peak * max(1.0, step)).expand(layers).tolist()
    return (Velocity(*of) for of in zip(*whole, peaks, strict=True))


def _eye(like: Tensor, *shape: int) -> Tensor:
    return torch.eye(*shape, dtype=like.dtype, device=like.device)


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
    """Whether the module selects some of each sample's features."""
    if type(part) is Half:
        return part.axis == -1
    return type(part) in _SELECTIONS and getattr(part, "start_dim", 1) == 1


def _head(head: nn.Module, features: int) -> tuple[Tensor, Tensor]:
    """W and w of the scores W y_N + w: a linear map of some of the features."""
    parts = list(head) if type(head) is nn.Sequential else [head]
    before, last = parts[:-1], parts[-1] if parts else None
    if type(last) is not nn.Linear or not all(_selects(part) for part in before):
        raise NotImplementedError("a local radius needs a head that is linear in y_N or in a half of it.")
    weight = last.weight.double()
    selected = _eye(weight, features)
    for part in before:
        selected = part(selected)
    weight = weight @ selected.mT
    bias = weight.new_zeros(len(weight)) if last.bias is None else last.bias.double()
    return weight, bias
