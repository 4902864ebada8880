r"""Proof obligations: the computed layers compared with the formulas of a proof, at given states.

They are no proof: the exact type is (`liouville.analysis.proofs.untouched`). A number that differs is a defect,
whatever the type.
"""

from __future__ import annotations

__all__ = ["derivative_fact", "formula_facts", "functions"]

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from liouville.analysis.proofs.assumptions import Assumption
from liouville.analysis.proofs.formulas import FORMULAS, formula_of
from liouville.backprop import slices
from liouville.fields import PartitionedField, ResidualField, SemidefiniteField, SymmetricField
from liouville.fields.wrapped import unwrapped
from liouville.flow import Flow

_PROBES = 8  # states per layer, of each size
_SIZES = (1.0, 10.0, 100.0)
_GIVEN = 32  # maximum number of the given states
_FEW = 8  # maximum number of these, for derivatives
_PROMISE_NOTHING = (ResidualField, SymmetricField, SemidefiniteField)  # a subclass of these may compute anything
_ULPS = 4.0  # the perturbation of a state that shows the effect of rounding there
_ROOM = 1e3


@torch.no_grad()
def formula_facts(flow: Flow, points: Tensor | None = None) -> tuple[Assumption, ...]:
    """Whether the computed velocities follow the formula of the field's class; empty for a class without one."""
    field = unwrapped(flow.field)
    formula = formula_of(field)
    if formula is None:
        return ()
    generator = torch.Generator().manual_seed(0)
    probes = torch.cat([size * torch.randn(_PROBES, *field.sample_shape(), generator=generator) for size in _SIZES])
    probes = probes.to(next(flow.parameters())).expand(flow.layers, *(-1,) * probes.dim())
    given = _chosen(points, _GIVEN)
    alike = given is not None and given.shape[2:] == probes.shape[2:]
    batches = [probes] if given is None else [torch.cat((given, probes), 1)] if alike else [given, probes]
    found = [_distances(flow, y, generator) for y in batches]
    worst = max(float(distance.max()) for distance, _ in found)
    holds = all(bool((distance <= allowed).all()) for distance, allowed in found)
    kind = next(k for k in FORMULAS if isinstance(field, k))
    seen = f"{'' if given is None else f'{given.shape[1]} given and '}{probes.shape[1]} probe states"
    text = f"it computes the formula of {kind.__name__}"
    evidence = f"off by {worst:.3g} at {seen} a layer, of numbers up to {float(probes.abs().max()):.3g}"
    return (Assumption(text, holds, evidence, claimed=kind not in _PROMISE_NOTHING),)


def _distances(flow: Flow, y: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """At y, (N, B, ...): the distance of computed and stated velocities, and the possible distance of two orders of
    summation, estimated by perturbing y; (N, B) each.
    """
    field = unwrapped(flow.field)
    formula: Any = formula_of(field)
    moved = y * (1 + _ULPS * torch.finfo(y.dtype).eps * torch.randn(y.shape[1:], generator=g).to(y))
    both, B = torch.cat((y, moved), 1), y.shape[1]
    layers = [
        formula(field, x, theta_j) for x, theta_j in zip(both, slices(flow.field.theta(), flow.layers), strict=True)
    ]
    distance, size, spread = y.new_zeros(3, len(y), B)
    for pairs in zip(*layers, strict=True):
        computed, stated = (torch.stack(side).flatten(2) for side in zip(*pairs, strict=True))
        distance = torch.maximum(distance, (computed - stated)[:, :B].abs().amax(-1).nan_to_num(torch.inf))
        size = torch.maximum(size, stated[:, :B].abs().amax(-1))
        spread = torch.maximum(spread, (stated[:, :B] - stated[:, B:]).abs().amax(-1))
    return distance, 100 * y[0, 0].numel() * torch.finfo(y.dtype).eps * size.clamp(min=1.0) + _ROOM * spread


@torch.no_grad()
def functions(flow: Flow, points: Tensor | None = None) -> Assumption:
    """Whether each velocity is a function of its argument: unchanged after other evaluations, and in a larger batch."""
    field: Any = flow.field
    halves = isinstance(field, PartitionedField)
    text = "p' depends only on q, q' only on p" if halves else "the velocity depends only on the state"
    given = "p_dot is given q and q_dot p" if halves else "it is given the state"
    chosen = None if field.has_effects else _chosen(points, _FEW)
    if chosen is None:
        return Assumption(text, True, f"{given}, nothing else")
    worst, off, largest = 0.0, False, 0.0
    for j, theta_j in enumerate(slices(field.theta(), flow.layers)):
        run, y = field.in_run(0).at_layer(j), chosen[j]
        parts: Sequence[Tensor]
        velocities: Sequence[Any]
        if halves and field.p_features == field.features:  # y is only q
            parts, velocities = (y,), (run.p_dot,)
        else:
            parts, velocities = (field.split(y), (run.q_dot, run.p_dot)) if halves else ((y,), (run,))
        for velocity, x in zip(velocities, parts, strict=True):
            first = velocity(x, theta_j)
            velocity(100 * x, theta_j)
            again = velocity(torch.cat((x, 100 * x)), theta_j)[: len(x)]
            finite = first.isfinite()
            distance = float(torch.where(finite, (first - again).abs(), 0.0).max())
            size = float(torch.where(finite, first.abs(), 0.0).max())
            worst, largest = max(worst, distance), max(largest, float(x.abs().max()))
            off = off or not distance <= torch.finfo(x.dtype).eps ** 0.5 * max(1.0, size)
    return Assumption(text, not off, f"{given}; repeated within {worst:.2g} at {chosen.shape[1]} given states a layer")


@torch.no_grad()
def derivative_fact(flow: Flow, parts: Sequence[Tensor], A: Tensor, order: Tensor | None) -> Assumption:
    """Whether A, (N, B, n, n), are derivatives of the actual steps: one product u^T A per layer and state by autograd.

    Args:
        flow: a flow in evaluation mode.
        parts: parts of the states, (N + 1, B, *features) each.
        A: the layers' Jacobians to be checked.
        order: order of the numbers in the flattened state; see `liouville.analysis.states.Run`.
    """
    N, B = A.shape[:2]
    some = torch.linspace(0, B - 1, min(_FEW, B)).long()
    g = torch.Generator().manual_seed(0)
    here = [part[:-1, some] for part in parts]
    ulps = [_ULPS * torch.finfo(x.dtype).eps * torch.randn(x.shape, generator=g).to(x) for x in here]
    three = [torch.cat((x, x * (1 + d), x * (1 - d)), 1) for x, d in zip(here, ulps, strict=True)]
    u = [torch.randn(x.shape, generator=g).to(x) for x in here]
    tripled = [torch.cat((x, x, x), 1) for x in u]
    layers = []
    for j, theta_j in enumerate(slices(flow.field.theta(), N)):
        pulled = _pulled(flow, j, theta_j, [x[j] for x in three], [x[j] for x in tripled])
        if pulled is None:
            return Assumption(_DERIVATIVE, True, "not checked: the step has no derivative by autograd")
        layers.append(torch.cat([x.flatten(1) for x in pulled], 1))
    found, flat = torch.stack(layers), torch.cat([x.flatten(2) for x in u], -1)
    if order is not None:
        flat, found = flat[..., order], found[..., order]
    at, left, right = found.split(len(some), 1)
    spread = torch.maximum((left - at).abs().amax(-1), (right - at).abs().amax(-1))
    product = (flat.unsqueeze(-2) @ A[:, some]).squeeze(-2)
    size = A[:, some].abs().amax((-2, -1)).clamp(min=1.0) * flat.norm(dim=-1)
    distance = (product - at).abs().amax(-1)
    holds = bool((distance <= 1e-6 * size + _ROOM * spread).all())
    worst = float((distance / size).max())
    return Assumption(_DERIVATIVE, holds, f"off by {worst:.3g} at {len(some)} given states a layer")


_DERIVATIVE = "the Jacobian of every layer is the derivative of the step that runs"


def _pulled(flow: Flow, j: int, theta_j: Any, state: list[Tensor], u: list[Tensor]) -> list[Tensor] | None:
    """u^T A by autograd, from the scheme's step."""
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_() for x in state]
        out = flow.scheme.step(flow.field.at_layer(j), tuple(leaves), theta_j, flow.h)
        reached = [(o, v) for o, v in zip(out, u, strict=True) if o.requires_grad]
        if not reached:
            return None
        gradients = torch.autograd.grad([o for o, _ in reached], leaves, [v for _, v in reached], allow_unused=True)
    return [torch.zeros_like(x) if k is None else k for k, x in zip(gradients, leaves, strict=True)]


def _chosen(points: Tensor | None, most: int) -> Tensor | None:
    """Some of the samples that stay finite, (N, k, ...)."""
    if points is None:
        return None
    finite = points.isfinite().flatten(2).all(-1).all(0).nonzero().flatten()
    if not len(finite):
        return None
    return points[:, finite[torch.linspace(0, len(finite) - 1, min(most, len(finite))).long()]]
