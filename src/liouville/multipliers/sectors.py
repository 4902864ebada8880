r"""A flow as steps whose activations are replaced by bounds of their slopes.

Two states of a run, and so their difference y, obey exactly

    y += B_k w_k,        w_k = D_k R_k y,        D_k diagonal with entries in [0, s]

for a step y += h V sigma(K y + b) with B_k = h V, R_k = K: every quotient (sigma(u + r) - sigma(u)) / r of an
activation with 0 <= sigma' <= s lies in [0, s], kinks included. Every Jacobian has this form too. Nothing else of the
states is kept, so the results hold for every input and every bias. `liouville.multipliers.steps` has V, K, h.
"""

from __future__ import annotations

__all__ = ["Sectors", "sectors_of"]

import functools
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from liouville.activations import Activation, logistic, relu, softplus, tanh
from liouville.fields import VectorField
from liouville.fields.base import Theta
from liouville.multipliers.steps import steps_of
from liouville.schemes import Scheme

_ACTIVATIONS = (tanh, relu, softplus, logistic)  # 0 <= sigma' <= s is proved for these functions
_WINDOW = 128  # at this number of rows a Cholesky factorisation costs as much as the calls around it


@dataclass(frozen=True)
class Layout:
    """Which activations belong to which step; it does not depend on the weights, so it is made once.

    Args:
        widths: how many activations each step has, in order.
    """

    widths: tuple[int, ...]

    @cached_property
    def first(self) -> Tensor:
        """(p,): for each activation, the first one of its step."""
        return self.last - torch.tensor(self.widths).repeat_interleave(torch.tensor(self.widths))

    @cached_property
    def last(self) -> Tensor:
        """(p,): for each activation, one past the last one of its step."""
        widths = torch.tensor(self.widths)
        return widths.cumsum(0).repeat_interleave(widths)

    @cached_property
    def steps(self) -> tuple[slice, ...]:
        """The activations of each step."""
        ends = list(accumulate(self.widths))
        return tuple(slice(end - width, end) for end, width in zip(ends, self.widths, strict=True))

    @cached_property
    def windows(self) -> tuple[slice, ...]:
        """Windows of consecutive steps: at most `_WINDOW` activations, and at least one step."""
        found = [self.steps[0]]
        for step in self.steps[1:]:
            if step.stop - found[-1].start > _WINDOW:
                found.append(step)
            else:
                found[-1] = slice(found[-1].start, step.stop)
        return tuple(found)

    def later(self, columns: slice) -> Tensor:
        """(w, w), 1 where the step of i is later than the step of j, else 0."""
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
        sizes: entrywise bounds of the sums of absolute values from which B and R are computed, if requested.
    """

    B: Tensor
    R: Tensor
    slope: float
    layout: Layout
    sizes: tuple[Tensor, Tensor] | None = None

    def inverse(self) -> Sectors:
        """The steps of the inverse of a composition of shears: the same shears in reverse order, with opposite sign."""
        sizes = None if self.sizes is None else (self.sizes[0].flip(1), self.sizes[1].flip(0))
        return Sectors(-self.B.flip(1), self.R.flip(0), self.slope, _layout(self.layout.widths[::-1]), sizes)

    def ratio(self) -> Tensor:
        """|b_i| / (s |r_i|), columns of B and rows of R: the unit of the multipliers; differentiable."""
        b, r = self.B.square().sum(0), self.R.square().sum(1)
        least = 1e-12 * torch.stack((b.detach(), r.detach())).amax(1) + 1e-300  # a square root has no derivative at 0
        return (b.clamp(min=least[0]) / r.clamp(min=least[1])).sqrt() / self.slope

    def energy(self, x: Tensor, w: Tensor, multipliers: Tensor, shrink: float = 1.0) -> Tensor:
        """|y_M|^2 + 2 sum_i lambda_i w_i (s r_i y - w_i / shrink) along the run from x with the given w."""
        path = F.pad((self.B * w).cumsum(1), (1, 0))
        before = path.index_select(1, self.layout.first) + x[:, None]
        inner = self.slope * (self.R.mT * before).sum(0) - w / shrink
        return (x + path[:, -1]).square().sum() + 2 * (multipliers * w) @ inner


def sectors_of(field: VectorField, scheme: Scheme, theta: Theta, h: float, sized: bool = False) -> Sectors:
    """The sectors of the steps of ``scheme`` through ``field`` with the weights ``theta``; differentiable in them.

    Args:
        field, scheme: the field and the scheme of the flow.
        theta: the field's weights, or others of the same shapes.
        h: the step.
        sized: whether to compute `Sectors.sizes`.

    Raises:
        NotImplementedError: unless the classes of field, operator, activation and scheme are exactly known ones.

    Examples:
        >>> from liouville.fields import SeparableHamiltonianField
        >>> from liouville.schemes import SymplecticEuler
        >>> field = SeparableHamiltonianField(4, layers=3)
        >>> sectors_of(field, SymplecticEuler(), field.theta(), 0.1).B.shape
        torch.Size([4, 12])
    """
    wide = type(theta)(*(w.to("cpu", torch.float64) if w.dim() > 2 else w for w in theta))  # all except biases
    parts, at_once = steps_of(field, scheme, wide, h)
    sigma: Activation = field.activation  # type: ignore[assignment]
    if sigma not in _ACTIVATIONS:
        raise NotImplementedError(f"no bounds of the slopes of {sigma} are proved.")
    widths = tuple(part.factors.R.shape[-2] for part in parts)
    B = _beside(field, [(part.length * _product(part.factors.left), part.to) for part in parts])
    R = _beside(field, [(part.factors.R.mT, part.of) for part in parts]).mT
    sizes = None
    if sized:
        left = [(abs(part.length) * _product(tuple(x.detach().abs() for x in part.factors.left))) for part in parts]
        right = [R.detach().abs() if size is None else size for _, R, _, size in (part.factors for part in parts)]
        to, of = [part.to for part in parts], [part.of for part in parts]
        sizes = (
            _beside(field, list(zip(left, to, strict=True))),
            _beside(field, [(size.mT, rows) for size, rows in zip(right, of, strict=True)]).mT,
        )
    layer = (sum(widths),) if at_once else widths
    return Sectors(B, R, sigma.lipschitz, _layout(layer * field.layers), sizes)


def _beside(field: VectorField, stacks: list[tuple[Tensor, slice]]) -> Tensor:
    """(n, p) from stacks (N or 1, features of a half, m): layer by layer, with the parts of each in order."""
    placed = [F.pad(stack, (0, 0, rows.start, field.features - rows.stop)) for stack, rows in stacks]
    wide = placed[0] if len(placed) == 1 else torch.cat(placed, 2)
    return wide.expand(field.layers, -1, -1).permute(1, 0, 2).reshape(field.features, -1)


def _product(factors: tuple[Tensor, ...]) -> Tensor:
    return factors[0] if len(factors) == 1 else factors[0] @ factors[1]
