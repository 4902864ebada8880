r"""Extreme singular values of large sensitivities, only by products with vectors.

Golub-Kahan bidiagonalisation of A = dState_N/dState_j, all samples at once: after k steps A V = U B and
A^T U = V B^T + beta v e_k^T with an upper bidiagonal B. For a singular triplet (s, x, y) of B the residual is
beta |x_k|, so some singular value of A lies within beta |x_k| of s: that is the error given here, plus the rounding of
N layers. The largest s never exceeds ||A|| and, from a random start, soon reaches it. The smallest one converges
slowly; where the scheme is reversible it is 1 / ||A^-1|| instead, with A^-1 the product of the inverse layers.
"""

from __future__ import annotations

__all__ = ["SingularExtremes", "extreme_singular_values"]

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from liouville.analysis.chain import Chain, chain_states, floating, modules_of
from liouville.analysis.jacobians import layer_jacobians
from liouville.analysis.precise import precisely
from liouville.analysis.states import run_of
from liouville.backprop import slices
from liouville.flow import Flow
from liouville.schemes import IMPLICIT, ReversibleScheme, State

Times = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class SingularExtremes:
    """The largest and smallest singular value of every sample's matrix, (*batch) each.

    Some singular value lies within ``largest_error`` of ``largest``, and likewise for the smallest. ``largest`` never
    exceeds the true norm by more than rounding; where ``inverted`` is False, ``smallest`` is never below the true one.
    """

    largest: Tensor
    largest_error: Tensor
    smallest: Tensor
    smallest_error: Tensor
    steps: int
    inverted: bool


@precisely
@torch.no_grad()
def extreme_singular_values(
    flow: Flow | Chain,
    y: Tensor,
    *,
    layer: int = 0,
    steps: int = 60,
    tolerance: float = 1e-3,
    generator: torch.Generator | None = None,
) -> SingularExtremes:
    r"""s_max and s_min of dState_N/dState_layer for every sample, only by products with vectors.

    Each step needs one forward and one reverse derivative through the layers; the states and 2 ``steps`` vectors per
    sample are stored.

    Args:
        flow: a `Flow`, or a chain of modules as for `backward_sensitivity`; rectangular matrices have min(m, n) values.
        y: the input.
        layer: j, the state by which State_N is differentiated.
        steps: maximum number of steps; min(m, n) steps give every singular value to rounding.
        tolerance: stop once both relative errors are at most this, in every sample.
        generator: random generator of the start vectors; a fixed seed if None.

    Raises:
        ValueError: if ``layer`` is not one of the states before the last, or the chain cannot be analysed.

    Examples:
        >>> import liouville as lv
        >>> images = torch.randn(2, 8, 14, 14)
        >>> flow = lv.zoo.h2(8, layers=6, T=1.0, operator=lv.Conv(3))
        >>> found = extreme_singular_values(flow, images)
        >>> bool((found.largest >= 1).all() and (found.smallest <= 1).all())
        True
    """
    layers, batch = _layers(flow, y)
    if not 0 <= layer < len(layers):
        raise ValueError(f"layer must lie in 0 ... {len(layers) - 1}, got {layer}.")
    if generator is None:
        generator = torch.Generator(y.device).manual_seed(0)
    search, y = _Search(steps, tolerance, generator), y.reshape(math.prod(batch), -1)
    backwards = [part.inverse for part in reversed(layers[layer:]) if part.inverse is not None]
    inverted = bool(backwards)
    largest, error, low, low_error, taken = search.extremes(layers[layer:], y, both=not inverted)
    if inverted:
        high, high_error, _, _, more = search.extremes(backwards, y, both=False)
        low, taken = 1 / high, taken + more
        low_error = torch.where(high_error < high, high_error / (high * (high - high_error)), low)
    largest, error, low, low_error = (x.reshape(batch) for x in (largest, error, low, low_error))
    return SingularExtremes(largest, error, low, low_error, taken, inverted)


@dataclass(frozen=True)
class _Layer:
    """One linearised layer, (B, n) -> (B, m), its transpose, and its inverse where the scheme has one."""

    inputs: int
    outputs: int
    times: Times
    transposed: Times
    inverse: _Layer | None = None


def _layers(flow: Flow | Chain, y: Tensor) -> tuple[list[_Layer], torch.Size]:
    if not isinstance(flow, Flow):
        modules = modules_of(flow)
        states: list[State] = [(x,) for x in chain_states(modules, floating(y))]
        maps = [lambda x, m=m: (m(x.clone()),) for m in modules]
        return [_linearised(*of) for of in zip(maps, states, states[1:], strict=False)], y.shape[:1]
    run = run_of(flow, y)
    if isinstance(flow.scheme, IMPLICIT):
        n = run.size
        return [_matrix(A) for A in layer_jacobians(flow, y).reshape(flow.layers, -1, n, n)], run.batch
    states = [tuple(part[j] for part in run.parts) for j in range(flow.layers + 1)]
    thetas = slices(run.theta, flow.layers)
    return [_of_scheme(flow, *of) for of in zip(thetas, states, states[1:], strict=False)], run.batch


def _of_scheme(flow: Flow, theta_j: Any, before: State, after: State) -> _Layer:
    scheme, field, h = flow.scheme, flow.field, flow.h
    inverse = None
    if isinstance(scheme, ReversibleScheme):
        inverse = _linearised(lambda *s: scheme.inverse(field, s, theta_j, h), after, before)
    return _linearised(lambda *s: scheme.step(field, s, theta_j, h), before, after, inverse)


def _linearised(function: Callable[..., State], at: State, to: State, inverse: _Layer | None = None) -> _Layer:
    """The derivative of ``function`` at the parts ``at``, whose value has the shapes of ``to``."""

    def times(v: Tensor) -> Tensor:
        # contiguous, as the forward derivative of group norm requires; fused attention has no forward derivative, and
        # is used where nothing needs a gradient
        leaves = tuple(x.detach().contiguous().requires_grad_() for x in at)
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            return _flat(jvp(function, leaves, _parts(v, at))[1]).detach()

    def transposed(u: Tensor) -> Tensor:
        leaves = [x.detach().requires_grad_() for x in at]
        with torch.enable_grad():
            out = function(*leaves)
        return _flat(torch.autograd.grad(out, leaves, _parts(u, to), materialize_grads=True))

    return _Layer(_flat(at).shape[-1], _flat(to).shape[-1], times, transposed, inverse)


def _matrix(A: Tensor) -> _Layer:
    """A layer whose matrices (B, n, n) are known, and its inverse."""
    inverse = torch.linalg.inv(A)

    def layer(M: Tensor, other: _Layer | None) -> _Layer:
        n = M.shape[-1]
        return _Layer(n, n, lambda v: (M @ v[..., None])[..., 0], lambda u: (M.mT @ u[..., None])[..., 0], other)

    return layer(A, layer(inverse, None))


def _flat(state: State) -> Tensor:
    return torch.cat([x.flatten(1) for x in state], -1)


def _parts(v: Tensor, like: State) -> State:
    pieces = v.split([x[0].numel() for x in like], -1)
    return tuple(piece.reshape(x.shape) for piece, x in zip(pieces, like, strict=True))


@dataclass(frozen=True)
class _Search:
    """Golub-Kahan bidiagonalisation with full reorthogonalisation, for each sample separately."""

    steps: int
    tolerance: float
    generator: torch.Generator

    def extremes(
        self, layers: Sequence[_Layer], like: Tensor, both: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
        """Largest and smallest value with their errors, and the steps taken; if not ``both``, the largest decides."""
        times, transposed, n, m = _product(layers)
        V, U = [self._start(like, n)], list[Tensor]()
        alphas, betas = list[Tensor](), list[Tensor]()
        for k in range(1, min(self.steps, n) + 1):
            u, alpha = self._next(times(V[-1]), U, m)
            U, alphas = [*U, u], [*alphas, alpha]
            v, beta = self._next(transposed(u), V, n)
            found = _ends(alphas, betas, beta)
            if k == min(self.steps, n) or self._done(found, both):
                break
            V, betas = [*V, v], [*betas, beta]
        high, high_error, low, low_error = found
        rounding = 10 * len(layers) * torch.finfo(high.dtype).eps * high
        return high, high_error + rounding, low, low_error + rounding, k

    def _done(self, found: tuple[Tensor, Tensor, Tensor, Tensor], both: bool) -> bool:
        high, high_error, low, low_error = found
        done = high_error <= self.tolerance * high
        return bool((done & (low_error <= self.tolerance * low) if both else done).all())

    def _start(self, like: Tensor, n: int) -> Tensor:
        v = torch.randn(len(like), n, generator=self.generator, dtype=like.dtype, device=like.device)
        return v / v.norm(dim=-1, keepdim=True)

    def _next(self, w: Tensor, basis: list[Tensor], n: int) -> tuple[Tensor, Tensor]:
        """The part of w that is orthogonal to the basis, as unit vector and length. Where it is only rounding, the
        length is 0 and the vector random, so that the search goes on in new directions."""
        scale = w.norm(dim=-1, keepdim=True)
        rest = _orthogonal(w, basis)
        length = rest.norm(dim=-1, keepdim=True)
        lost = length <= 10 * n * torch.finfo(w.dtype).eps * scale
        if lost.any():
            rest = torch.where(lost, _orthogonal(self._start(w, n), basis), rest)
            length = torch.where(lost, 0.0, length)
        return rest / rest.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(w.dtype).tiny), length[:, 0]


def _product(layers: Sequence[_Layer]) -> tuple[Times, Times, int, int]:
    """Times A and times A^T, and their sizes; the transposed problem where A has more columns than rows."""

    def times(v: Tensor) -> Tensor:
        for layer in layers:
            v = layer.times(v)
        return v

    def transposed(u: Tensor) -> Tensor:
        for layer in reversed(layers):
            u = layer.transposed(u)
        return u

    n, m = layers[0].inputs, layers[-1].outputs
    return (times, transposed, n, m) if n <= m else (transposed, times, m, n)


def _orthogonal(w: Tensor, basis: list[Tensor]) -> Tensor:
    """w without its part in the span of the basis; twice is enough."""
    if not basis:
        return w
    Q = torch.stack(basis, -1)
    for _ in range(2):
        w = w - (Q @ (Q.mT @ w[..., None]))[..., 0]
    return w


def _ends(alphas: list[Tensor], betas: list[Tensor], beta: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Largest and smallest singular value of B with the residuals of their triplets."""
    B = torch.diag_embed(torch.stack(alphas, -1))
    if betas:
        B = B + torch.diag_embed(torch.stack(betas, -1), 1)
    finite = B.isfinite().all(-1).all(-1)[:, None]
    x, s, _ = torch.linalg.svd(torch.where(finite[..., None], B, 0.0))
    s = torch.where(finite, s, torch.nan)
    error = torch.where(finite, beta[:, None] * x[:, -1].abs(), torch.nan)
    return s[:, 0], error[:, 0], s[:, -1], error[:, -1]
