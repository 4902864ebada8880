r"""The Jacobian of every layer, for every sample: A_j = d State_{j+1} / d State_j, numerator layout.

The scheme carries the state from layer to layer: (p, q), or the pair (y_{j-1}, y_j) of a two-step scheme, side
by side along the features' axis and flattened; so (p, q) is y, for vectors, images and sequences alike. A scheme
composes its Jacobian from Jacobians of the field: a shear p += c h p_dot(q) has [[I, c h S], [0, I]] with
S = d p_dot / dq, an implicit step one linear solve. The field's Jacobians have a closed form through
`Activation.derivative`, many layers at once. Otherwise the field is differentiated layer by layer, with one row of
every sample's matrix in each copy of the batch.
"""

from __future__ import annotations

__all__ = ["layer_jacobians"]

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from liouville.analysis.chain import Chain, chain_jacobians
from liouville.analysis.precise import precisely
from liouville.analysis.rows import allocate, rows
from liouville.analysis.states import Run, run_of
from liouville.backprop import slices
from liouville.fields.base import Theta, is_closed
from liouville.flow import Flow
from liouville.schemes import (
    RK4,
    SPLITTINGS,
    DiscreteGradient,
    ForwardEuler,
    ImplicitMidpoint,
    ImplicitSymplecticEuler,
    LeapfrogMidpoint,
    Scheme,
    SplittingScheme,
)

Parts = list[Tensor]  # parts of the states of some layers, (L, B, *features) each
Rule = Callable[[Any, "Local", Parts, Parts], Tensor]

_CHUNK = 2**22  # numbers in the temporaries of one chunk of layers: 32 MiB in float64
MEMORY = 4 * 2**30


@precisely
def layer_jacobians(flow: Flow | Chain, y: Tensor, *, memory: int = MEMORY) -> Any:
    r"""A_j = d State_{j+1} / d State_j of every layer and sample.

    Args:
        flow: a `Flow`, or any chain of modules: an ``nn.Sequential`` or a sequence of modules, axis 0 the batch.
        y: the input, (*batch, features), (B, C, H, W) or (B, tokens, features): the field's `sample_ndim` defines one
            sample; for a chain, the shape that its modules take.
        memory: maximum number of bytes of the result.

    Returns:
        (N, *batch, n, n) for a flow, n the size of one sample's state; for a chain the list of its N matrices
        (B, n_{j+1}, n_j), inputs and outputs flattened.

    Raises:
        ValueError: if the result would not fit into ``memory``, or a layer is random, couples the samples of a batch
            or has no derivative.

    Examples:
        >>> import liouville as lv
        >>> layer_jacobians(lv.zoo.h2(4, layers=8, T=1.0), torch.randn(10, 4)).shape
        torch.Size([8, 10, 4, 4])
    """
    if not isinstance(flow, Flow):
        return chain_jacobians(flow, y, memory)
    run = run_of(flow, y)
    n = run.size
    out = allocate((flow.layers, *run.batch, n, n), y, memory)
    fill_layer_jacobians(flow, run, out.view(flow.layers, -1, n, n))
    return out


def fill_layer_jacobians(flow: Flow, run: Run, out: Tensor) -> Tensor:
    """Write A_0 ... A_{N-1} into ``out``, (N, B, n, n), a chunk of layers at a time."""
    step = at_once(run)
    for first in range(0, flow.layers, step):
        last = min(first + step, flow.layers)
        out[first:last] = some_jacobians(flow, run, first, last)
    return out


def at_once(run: Run) -> int:
    """How many layers' matrices are one chunk."""
    return max(1, _CHUNK // max(1, run.parts[0].shape[1] * run.size**2))


@torch.no_grad()
def some_jacobians(flow: Flow, run: Run, first: int, last: int) -> Tensor:
    """A_first ... A_{last-1}, (last - first, B, n, n)."""
    local = Local(flow, run.theta, first, last)
    before, after = ([x[first + k : last + k] for x in run.parts] for k in (0, 1))
    found = _RULES.get(type(flow.scheme), _differentiated)(flow.scheme, local, before, after)
    return found if run.order is None else found[..., run.order, :][..., run.order]


@torch.no_grad()
def field_jacobians(flow: Flow, run: Run) -> Tensor:
    """f' at the states before every layer, (N, B, n, n): by (p, q) for splitting schemes, else by y."""
    local, parts = Local(flow, run.theta, 0, flow.layers), [x[:-1] for x in run.parts]
    if isinstance(flow.scheme, SplittingScheme):
        upper, lower = local.half(0, parts[1]), local.half(1, parts[0])
        return torch.cat((_right(upper, lower.shape[-1]), F.pad(lower, (0, upper.shape[-1]))), -2)
    return local.whole(flow.scheme.final(flow.field, tuple(parts)))


class Local:
    """The field's Jacobians in layers first ... last - 1; points are (L, B, *features), matrices (L, B, n, n)."""

    def __init__(self, flow: Flow, theta: Theta, first: int, last: int) -> None:
        self.flow, self.field, self.h, self.layers = flow, flow.field, flow.h, last - first
        self.theta = type(theta)(*(w[first:last] if len(w) > 1 else w for w in theta))

    def whole(self, y: Tensor) -> Tensor:
        """df/dy."""
        return self._matrix("jacobian", "y", y)

    def half(self, moved: int, x: Tensor) -> Tensor:
        """d p_dot / dq for part 0, d q_dot / dp for part 1."""
        return self._matrix("pq"[moved] + "_jacobian", "pq"[moved], x)

    def velocity(self, half: str, x: Tensor) -> Tensor:
        """p_dot(q), q_dot(p), or f(y) for "y"."""
        f = self._function(half)
        return torch.stack([f(x_j, theta_j) for x_j, theta_j in zip(x, self._slices(), strict=True)])

    def ends(self, y: Tensor, z: Tensor) -> Tensor:
        """The derivatives of the mean velocity between y and z, by y and by z, side by side."""
        mean = self.field.mean_velocity
        pairs = zip(y, z, self._slices(), strict=True)
        return torch.stack([rows(lambda a, b, t=t: mean(a, b, t), y_j, z_j) for y_j, z_j, t in pairs])

    def step(self, state: list[Tensor]) -> Tensor:
        """A by differentiating the scheme's step, for a scheme without a closed form."""
        return torch.stack(
            [
                rows(lambda *s, theta_j=theta_j: self.flow.scheme.step(self.field, s, theta_j, self.h), *s_j)
                for *s_j, theta_j in zip(*state, self._slices(), strict=True)
            ]
        )

    def _matrix(self, name: str, half: str, x: Tensor) -> Tensor:
        if x.dim() == 3 and is_closed(self.field, name):
            closed = getattr(self.field, name)(x, self.theta)
            if closed is not None:
                return closed
        f = self._function(half)
        return torch.stack([rows(lambda s, t=t: f(s, t), x_j) for x_j, t in zip(x, self._slices(), strict=True)])

    def _function(self, half: str) -> Callable[[Tensor, Theta], Tensor]:
        field: Any = self.field
        return {"p": lambda: field.p_dot, "q": lambda: field.q_dot, "y": lambda: field}[half]()

    def _slices(self) -> Iterator[Theta]:
        return slices(self.theta, self.layers)


def _differentiated(scheme: Scheme, local: Local, before: Parts, after: Parts) -> Tensor:
    """A by differentiating the step."""
    return local.step(before)


def _splitting(scheme: SplittingScheme, local: Local, before: Parts, after: Parts) -> Tensor:
    """A shear adds c h S times the rows of the part that it reads to the rows of the part that it moves."""
    parts, left = list(before), [half for half, _ in scheme.stages]
    blocks = list(_eye(before).split([x.flatten(2).shape[-1] for x in before], -2))
    for half, c in scheme.stages:
        moved = "pq".index(half)
        blocks[moved] = blocks[moved] + c * local.h * local.half(moved, parts[1 - moved]) @ blocks[1 - moved]
        left.remove(half)
        if half not in left:
            parts[moved] = after[moved]  # this was the part's last stage, and its result is known
        elif left:
            parts[moved] = parts[moved] + c * local.h * local.velocity(half, parts[1 - moved])
    return torch.cat(blocks, -2)


def _euler(scheme: Scheme, local: Local, before: Parts, after: Parts) -> Tensor:
    """I + h f'."""
    return _eye(before) + local.h * local.whole(before[0])


def _runge_kutta(scheme: Scheme, local: Local, before: Parts, after: Parts) -> Tensor:
    """Jacobians of the stages by the chain rule: k' = f'(y + c h k) (I + c h k')."""
    (y,), h, eye = before, local.h, _eye(before)
    total, k, dk = torch.zeros_like(eye), torch.zeros_like(y), torch.zeros_like(eye)
    for c, weight in ((0.0, 1), (0.5, 2), (0.5, 2), (1.0, 1)):
        point = y + c * h * k
        dk = local.whole(point) @ (eye + c * h * dk)
        k = local.velocity("y", point)
        total += weight * dk
    return eye + h / 6 * total


def _two_step(scheme: Scheme, local: Local, before: Parts, after: Parts) -> Tensor:
    """[[0, I], [I, 2 h f'(y_j)]] on the pair (y_{j-1}, y_j)."""
    J = 2 * local.h * local.whole(before[1])
    eye = _eye(before[:1])
    return torch.cat((torch.cat((torch.zeros_like(J), eye), -1), torch.cat((eye, J), -1)), -2)


def _implicit_midpoint(scheme: Scheme, local: Local, before: Parts, after: Parts) -> Tensor:
    """(I - h/2 f'(z))^-1 (I + h/2 f'(z)) at z = (y_j + y_{j+1})/2, which the states give."""
    J = 0.5 * local.h * local.whole(0.5 * (before[0] + after[0]))
    eye = _eye(before)
    return torch.linalg.solve(eye - J, eye + J)


def _discrete_gradient(scheme: Scheme, local: Local, before: Parts, after: Parts) -> Tensor:
    """(I - h F_1)^-1 (I + h F_0), F_0 and F_1 the derivatives of the mean velocity by the states before and after."""
    F_0, F_1 = (local.h * local.ends(before[0], after[0])).chunk(2, -1)
    eye = _eye(before)
    return torch.linalg.solve(eye - F_1, eye + F_0)


def _implicit_symplectic(scheme: Scheme, local: Local, before: Parts, after: Parts) -> Tensor:
    """p' = p + h f_p(p', q), q' = q + h f_q(p', q): one solve for dp', then dq'; f' is taken at (p', q)."""
    m = before[0].shape[-1]
    J = local.h * local.whole(torch.cat((after[0], before[1]), -1))
    eye = _eye(before)
    top = torch.linalg.solve(eye[..., :m, :m] - J[..., :m, :m], eye[..., :m, :] + _right(J[..., :m, m:], m))
    return torch.cat((top, eye[..., m:, :] + J[..., m:, :m] @ top + _right(J[..., m:, m:], m)), -2)


def _right(block: Tensor, width: int) -> Tensor:
    """[0, block]."""
    return F.pad(block, (width, 0))


def _eye(parts: Parts) -> Tensor:
    """I for every layer and sample, (L, B, n, n)."""
    n = sum(x.flatten(2).shape[-1] for x in parts)
    return torch.eye(n, dtype=parts[0].dtype, device=parts[0].device).expand(*parts[0].shape[:2], n, n)


_RULES: dict[type[Scheme], Rule] = {
    **dict.fromkeys(SPLITTINGS, _splitting),
    ForwardEuler: _euler,
    RK4: _runge_kutta,
    LeapfrogMidpoint: _two_step,
    ImplicitMidpoint: _implicit_midpoint,
    ImplicitSymplecticEuler: _implicit_symplectic,
    DiscreteGradient: _discrete_gradient,
}
