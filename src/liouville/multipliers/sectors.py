r"""A flow as steps whose activations are replaced by what is known of their slopes.

Two states of a run, and so their difference y, obey exactly

    y += B_k w_k,        w_k = D_k R_k y,        D_k diagonal with entries in [0, s]

for a step y += h V sigma(K y + b) with B_k = h V, R_k = K: every quotient (sigma(u + r) - sigma(u)) / r of an
activation with 0 <= sigma' <= s lies in [0, s], kinks included. Every Jacobian has this form too. Nothing else of the
states is kept, so what follows from it holds for every input and every bias.
"""

from __future__ import annotations

__all__ = ["FIELDS", "Sectors", "sectors_of"]

import functools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from liouville.activations import logistic, relu, softplus, tanh
from liouville.fields import (
    AntisymmetricField,
    HamiltonianField,
    PairField,
    PartitionedField,
    ResidualField,
    SeparableHamiltonianField,
    VectorField,
)
from liouville.fields.base import Theta
from liouville.operators import Dense, Graph
from liouville.schemes import ForwardEuler, Scheme, SymplecticEuler, Verlet, Yoshida4

_ACTIVATIONS = (tanh, relu, softplus, logistic)  # 0 <= sigma' <= s is proved of these functions
_SPLITTINGS = (SymplecticEuler, Verlet, Yoshida4)
_WINDOW = 128  # a Cholesky factor of so many rows costs as much as the calls around it


@dataclass(frozen=True)
class Layout:
    """Which activations belong to which step; the same for all weights, and so made once.

    Args:
        widths: how many activations each step has, in order.
    """

    widths: tuple[int, ...]

    @cached_property
    def first(self) -> Tensor:
        """(p,): the first activation of each one's step."""
        return self.last - torch.tensor(self.widths).repeat_interleave(torch.tensor(self.widths))

    @cached_property
    def last(self) -> Tensor:
        """(p,): one behind the last activation of each one's step."""
        widths = torch.tensor(self.widths)
        return widths.cumsum(0).repeat_interleave(widths)

    @cached_property
    def steps(self) -> tuple[slice, ...]:
        """The activations of each step."""
        ends = list(accumulate(self.widths))
        return tuple(slice(end - width, end) for end, width in zip(ends, self.widths, strict=True))

    @cached_property
    def windows(self) -> tuple[slice, ...]:
        """Some consecutive steps each: at most `_WINDOW` activations, and one step at least."""
        found = [self.steps[0]]
        for step in self.steps[1:]:
            if step.stop - found[-1].start > _WINDOW:
                found.append(step)
            else:
                found[-1] = slice(found[-1].start, step.stop)
        return tuple(found)

    def later(self, columns: slice) -> Tensor:
        """(w, w), 1 where i's step is later than j's, else 0."""
        key = (columns.start, columns.stop)
        if key not in self._masks:
            of = self.first[columns]
            self._masks[key] = (of[:, None] > of).double()
        return self._masks[key]

    @cached_property
    def _masks(self) -> dict[tuple[int, int], Tensor]:
        return {}


@functools.lru_cache(32)
def _layout(widths: tuple[int, ...]) -> Layout:
    return Layout(widths)


@dataclass(frozen=True)
class Sectors:
    """All steps side by side, in float64; p is the number of activations in all of them.

    Args:
        B: (n, p).
        R: (p, n).
        slope: s.
        layout: of the p activations.
        sizes: entrywise bounds of the sums of absolute values that B and R are computed by, if asked for.
    """

    B: Tensor
    R: Tensor
    slope: float
    layout: Layout
    sizes: tuple[Tensor, Tensor] | None = None

    def inverse(self) -> Sectors:
        """The steps of the inverse of a composition of shears: the same ones backwards, with the other sign."""
        sizes = None if self.sizes is None else (self.sizes[0].flip(1), self.sizes[1].flip(0))
        return Sectors(-self.B.flip(1), self.R.flip(0), self.slope, _layout(self.layout.widths[::-1]), sizes)

    def ratio(self) -> Tensor:
        """|b_i| / (s |r_i|), columns of B and rows of R: the unit that multipliers are measured in; differentiable."""
        b, r = self.B.square().sum(0), self.R.square().sum(1)
        least = 1e-12 * torch.stack((b.detach(), r.detach())).amax(1) + 1e-300  # a root has no derivative at 0
        return (b.clamp(min=least[0]) / r.clamp(min=least[1])).sqrt() / self.slope

    def energy(self, x: Tensor, w: Tensor, multipliers: Tensor, shrink: float = 1.0) -> Tensor:
        """|y_M|^2 + 2 sum_i lambda_i w_i (s r_i y - w_i / shrink) along the run from x with the given w."""
        path = F.pad((self.B * w).cumsum(1), (1, 0))
        before = path.index_select(1, self.layout.first) + x[:, None]
        inner = self.slope * (self.R.mT * before).sum(0) - w / shrink
        return (x + path[:, -1]).square().sum() + 2 * (multipliers * w) @ inner


class _Velocity(NamedTuple):
    """left_1 left_2 ... sigma(R y + b) of all layers: stacks (N or 1, ...)."""

    left: tuple[Tensor, ...]
    R: Tensor
    R_size: Tensor | None = None


def sectors_of(field: VectorField, scheme: Scheme, theta: Theta, h: float, sized: bool = False) -> Sectors:
    """What is known of the steps of ``scheme`` through ``field`` with the weights ``theta``; differentiable in them.

    Args:
        field, scheme: what runs.
        theta: the field's weights, or others of these shapes.
        h: the step.
        sized: whether to compute `Sectors.sizes`.

    Raises:
        NotImplementedError: unless the field, its operator and activation and the scheme are exactly ones of these.

    Examples:
        >>> field = SeparableHamiltonianField(4, layers=3)
        >>> sectors_of(field, SymplecticEuler(), field.theta(), 0.1).B.shape
        torch.Size([4, 12])
    """
    inner: Any = field
    if type(field) not in _VELOCITIES or type(inner.operator) not in (Dense, Graph):
        raise NotImplementedError(f"no steps are known of {type(field).__name__}.")
    if inner.activation not in _ACTIVATIONS:
        raise NotImplementedError(f"no bounds of the slopes are proved of {inner.activation}.")
    wide = type(theta)(*(w.to("cpu", torch.float64) if w.dim() > 2 else w for w in theta))  # all but biases
    velocities = _VELOCITIES[type(field)](inner, wide)
    if type(scheme) in _SPLITTINGS and isinstance(field, PartitionedField):
        halves = dict(zip("pq", velocities, strict=True))
        stages: Any = scheme
        parts = [(halves[half], half, c * h) for half, c in stages.stages]
    elif type(scheme) is ForwardEuler:
        names = "pq" if isinstance(field, PartitionedField) else "y"
        parts = [(velocity, half, h) for half, velocity in zip(names, velocities, strict=True)]
    else:
        raise NotImplementedError(f"no steps are known of {type(scheme).__name__} through {type(field).__name__}.")
    widths = [velocity.R.shape[1] for velocity, _, _ in parts]
    layer = (sum(widths),) if type(scheme) is ForwardEuler else tuple(widths)
    B = _beside(field, [(h * _product(v.left), half) for v, half, h in parts], to=True)
    R = _beside(field, [(v.R.mT, half) for v, half, _ in parts], to=False).mT
    sizes = None
    if sized:
        left = [(abs(h) * _product(tuple(x.detach().abs() for x in v.left)), half) for v, half, h in parts]
        right = [((v.R.detach().abs() if v.R_size is None else v.R_size).mT, half) for v, half, _ in parts]
        sizes = _beside(field, left, to=True), _beside(field, right, to=False).mT
    return Sectors(B, R, inner.activation.lipschitz, _layout(layer * field.layers), sizes)


def _beside(field: VectorField, stacks: list[tuple[Tensor, str]], to: bool) -> Tensor:
    """(n, p) from stacks (N or 1, features of a half, m): layer after layer, and in each the stages in order."""
    placed = [F.pad(stack, (0, 0, *_places(field, half, to))) for stack, half in stacks]
    wide = placed[0] if len(placed) == 1 else torch.cat(placed, 2)
    return wide.expand(field.layers, -1, -1).permute(1, 0, 2).reshape(field.features, -1)


def _places(field: VectorField, half: str, to: bool) -> tuple[int, int]:
    """How many features lie before and after the half that is moved, or the one that is read."""
    if not isinstance(field, PartitionedField):
        return 0, 0
    n_p = field.p_features
    return (0, field.features - n_p) if (half == "p") == to else (n_p, 0)


def _product(factors: tuple[Tensor, ...]) -> Tensor:
    return factors[0] if len(factors) == 1 else factors[0] @ factors[1]


def _separable(field: SeparableHamiltonianField, theta: Theta) -> tuple[_Velocity, ...]:
    """p' = -X^T K_q^T sigma(K_q q + b_q), q' = X K_p^T sigma(K_p p + b_p)."""
    if field.X is None:
        minus, plus = (-field.sign * theta.K_q.mT,), (field.sign * theta.K_p.mT,)
        return _Velocity(minus, theta.K_q), _Velocity(plus, theta.K_p)
    X = field.X.to(theta.K_p)
    return _Velocity((-X.mT, theta.K_q.mT), theta.K_q), _Velocity((X, theta.K_p.mT), theta.K_p)


def _pair(field: PairField, theta: Theta) -> tuple[_Velocity, ...]:
    """p' = -sigma(K^T q + c), q' = sigma(K p + b)."""
    p, q = (torch.eye(n).to(theta.K)[None] for n in (field.p_features, field.features - field.p_features))
    return _Velocity((-p,), theta.K.mT), _Velocity((q,), theta.K)


def _hamiltonian(field: HamiltonianField, theta: Theta) -> tuple[_Velocity, ...]:
    """y' = J K^T sigma(K y + b)."""
    return (_Velocity((field.structure(theta).to(theta.K), theta.K.mT), theta.K),)


def _antisymmetric(field: AntisymmetricField, theta: Theta) -> tuple[_Velocity, ...]:
    """y' = sigma((A - factor gamma I) y + b)."""
    one = torch.eye(field.features).to(theta.A)[None]
    damping = field.factor * field.gamma * one
    return (_Velocity((one,), theta.A - damping, theta.A.detach().abs() + damping.abs()),)


def _residual(field: ResidualField, theta: Theta) -> tuple[_Velocity, ...]:
    """y' = sigma(K y + b)."""
    return (_Velocity((torch.eye(field.features).to(theta.K)[None],), theta.K),)


_VELOCITIES: dict[type[VectorField], Callable[[Any, Theta], tuple[_Velocity, ...]]] = {
    SeparableHamiltonianField: _separable,
    PairField: _pair,
    HamiltonianField: _hamiltonian,
    AntisymmetricField: _antisymmetric,
    ResidualField: _residual,
}
FIELDS: tuple[type[VectorField], ...] = tuple(_VELOCITIES)
"""The fields whose steps are known."""
