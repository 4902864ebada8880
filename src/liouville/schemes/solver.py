r"""The nonlinear equation of an implicit layer, z = a + h phi(z): one per sample, solved and differentiated.

Where h Lip(phi) < 1 the solution is unique and fixed-point iteration finds it; otherwise Newton's method does, and the
solution is accepted only if I - h phi'(z) has a positive determinant and is far from singular; otherwise it does not
continue the solution at small h, and another one exists (p = 2 tanh p has three). Iteration stops when every sample is
within 10 eps of its own size, since the laws of a scheme hold to the solver's residual; a sample that is not finite
stays so and is ignored. Autocast is off for the step, and a state of lower precision is cast to the precision of the
weights. Gradients and forward-mode derivatives come from the implicit function theorem: one linear solve per layer, and
no iterate is stored.
"""

from __future__ import annotations

__all__ = ["full_precision", "require_dense", "solved"]

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual
from torch.func import jvp, vmap

from liouville.compilers import advanced, is_recorded
from liouville.derivatives import differentiable_once
from liouville.fields.base import Theta, VectorField
from liouville.precision import in_working_precision, solve
from liouville.schemes.base import Scheme, State

Map = Callable[[Tensor], Tensor]
Step = Callable[[Any, VectorField, State, Theta, float], State]


def full_precision(step: Step) -> Step:
    """The step with autocast off, and the state in the dtype of the weights if that is wider."""

    @functools.wraps(step)
    def run(scheme: Any, field: VectorField, state: State, theta_j: Theta, h: float) -> State:
        dtype = functools.reduce(torch.promote_types, (t.dtype for t in (*state, *theta_j)))
        with torch.autocast(state[0].device.type, enabled=False):
            return step(scheme, field, tuple(s.to(dtype) for s in state), theta_j, h)

    return run


def require_dense(scheme: Scheme, field: VectorField) -> None:
    """Raise a `ValueError` unless the field is on vectors, whose equations are solved one by one."""
    if field.feature_axis != -1 or field.sample_ndim not in (None, 1):
        raise ValueError(
            f"{type(scheme).__name__} solves a dense equation per sample and needs vectors, got a field on images or "
            "sequences; use a splitting scheme or LeapfrogMidpoint."
        )


def solved(phi: Map, a: Tensor, h: float, lipschitz: float | None, iterations: int) -> Tensor:
    """The z with z = a + h phi(z), differentiable in a and all inputs of phi, in reverse and forward mode."""
    if is_recorded():
        raise NotImplementedError(
            "an implicit layer iterates until every sample has converged, but a recording would fix the number of "
            "iterations of its example; run the network eagerly or by torch.compile, or record one with an explicit "
            "scheme."
        )
    if not torch.is_grad_enabled() and _has_tangent(advanced(a, phi(a), h)):
        return _dual_solve(phi, a, h, lipschitz, iterations)
    with torch.no_grad():
        z = _fixed_point(phi, a.detach(), h, lipschitz, iterations)
        if z is None:
            z = _newton(phi, a.detach(), h, iterations)
    if not torch.is_grad_enabled():
        return z
    residual = z - advanced(a, phi(z), h)
    if not residual.requires_grad:
        return z
    return z - _LinearSolve.apply(_matrix(phi, z, h), residual)


def _dual_solve(phi: Map, a: Tensor, h: float, lipschitz: float | None, iterations: int) -> Tensor:
    """The derivative in forward mode by the implicit function theorem, dz = M^-1 (da + h dphi)."""
    z = _fixed_point(lambda x: unpack_dual(phi(x)).primal, a.detach(), h, lipschitz, iterations)
    if z is None:
        raise ArithmeticError(
            f"forward mode through an implicit layer needs h Lip(f) < 1, where the layer's equation is solved by "
            f"fixed-point iteration (h = {abs(h):.3g}); take more layers, or an explicit scheme."
        )
    with torch.enable_grad():
        leaf = z.clone().requires_grad_()
        velocity = unpack_dual(phi(leaf)).primal
        rows = [torch.autograd.grad(v.sum(), leaf, retain_graph=True)[0] for v in velocity.unbind(-1)]
    matrix = torch.eye(z.shape[-1]).to(z) - h * torch.stack(rows, -2)
    residual = z - advanced(a, phi(z), h)
    return z - solve(matrix, residual.unsqueeze(-1)).squeeze(-1)


def _has_tangent(x: Tensor) -> bool:
    return unpack_dual(x).tangent is not None


def _fixed_point(phi: Map, a: Tensor, h: float, lipschitz: float | None, iterations: int) -> Tensor | None:
    """z <- a + h phi(z) until it converges; None where it contracts too slowly to be worth it."""
    if lipschitz is not None and abs(h) * lipschitz >= 1:
        return None
    # Started at a, an unstable solution can look like a limit (p = 2 tanh p at p = 0). So where no Lipschitz constant
    # promises contraction the iteration starts near a, displaced in a generic direction.
    z = a if lipschitz is not None else a + _tolerance(a).sqrt() * torch.arange(1, a.shape[-1] + 1).to(a).cos()
    change = torch.full_like(a[..., :1], torch.inf)
    for _ in range(iterations):
        after = advanced(a, phi(z), h)
        last, change = change, _size(after - z)
        z = after
        done = _within(change, z)
        if done.all():
            return z
        if ((change > 0.9 * last) & ~done).any():
            return None
    return None


def _newton(phi: Map, a: Tensor, h: float, iterations: int) -> Tensor:
    """Newton's method on z - a - h phi(z) = 0, each sample's step halved until its residual falls."""
    z = a
    residual = -h * phi(z)
    for _ in range(iterations):
        done = _within(_size(residual), z)
        if done.all():
            break
        matrix = _matrix(phi, z, h)
        step, info = torch.linalg.solve_ex(*map(in_working_precision, (matrix, residual.unsqueeze(-1))))
        if info.any():
            raise ArithmeticError(_SINGULAR.format(h=abs(h), value=0.0))
        step = step.squeeze(-1).to(residual.dtype)
        if (done | _within(_size(step), z)).all():  # a residual cannot fall below the rounding of h phi
            break
        z, residual = _line_search(phi, a, h, z, residual, step)
    else:
        left = ~_within(_size(residual), z)
        if left.any():
            raise ArithmeticError(
                f"the implicit equation of a layer was not solved in {iterations} Newton iterations (residual "
                f"{float(_size(residual)[left].max()):.2g} in {int(left.sum())} samples); take more layers (smaller h)."
            )
    _require_continuation(_matrix(phi, z, h), h)
    return torch.where(residual.isfinite().all(-1, keepdim=True), z, torch.nan)


def _line_search(phi: Map, a: Tensor, h: float, z: Tensor, residual: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    size = residual.norm(dim=-1, keepdim=True)
    t = torch.ones_like(size)
    for _ in range(8):
        after = z - t * step
        new = after - advanced(a, phi(after), h)
        worse = (new.norm(dim=-1, keepdim=True) > size) & (size > _tolerance(z))
        if not worse.any():
            break
        t = torch.where(worse, 0.5 * t, t)
    return after, new


_SINGULAR = (
    "the implicit equation of a layer has no unique solution here: I - h phi' is near-singular or past a fold "
    "(smallest real eigenvalue {value:.2g}, h = {h:.3g}); take more layers (smaller h) or smaller weights."
)


def _require_continuation(matrix: Tensor, h: float) -> None:
    """Raise where a real eigenvalue of I - h phi' is not positive: z then does not continue the root at h = 0."""
    eigenvalues = torch.linalg.eigvals(in_working_precision(matrix))
    is_real = eigenvalues.imag.abs() <= 1e-6 * eigenvalues.abs()
    real = torch.where(is_real, eigenvalues.real, torch.ones_like(eigenvalues.real))
    if real.numel() and real.min() <= torch.finfo(matrix.dtype).eps ** 0.5:
        raise ArithmeticError(_SINGULAR.format(h=abs(h), value=float(real.min())))


def _matrix(phi: Map, z: Tensor, h: float) -> Tensor:
    """I - h phi'(z) of every sample, (*batch, n, n), by n forward derivatives over the whole batch."""
    if torch.compiler.is_compiling():  # it has no forward mode for a batch of any size
        return torch.compiler.disable(_derived)(phi, z, h)
    return _derived(phi, z, h)


def _derived(phi: Map, z: Tensor, h: float) -> Tensor:
    z = z.detach()
    eye = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
    with torch.no_grad():
        columns = vmap(lambda e: jvp(phi, (z,), (e.expand_as(z),))[1], randomness="same")(eye)
    matrix = (eye - h * columns.movedim(0, -1)).detach()
    return torch.where(matrix.isfinite().all(-1, keepdim=True).all(-2, keepdim=True), matrix, eye)


def _size(x: Tensor) -> Tensor:
    """The largest |x| of every sample, (*batch, 1)."""
    return x.abs().amax(-1, keepdim=True)


def _tolerance(z: Tensor) -> Tensor:
    return 10 * torch.finfo(z.dtype).eps * _size(z).clamp(min=1.0)


def _within(error: Tensor, z: Tensor) -> Tensor:
    """Which samples have an error within their own tolerance; samples that are not finite are ignored."""
    return (error <= _tolerance(z)) | ~error.isfinite()


class _LinearSolve(torch.autograd.Function):
    """M^-1 r with M held fixed: exact first derivatives of the implicit function, and an error for second ones."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, residual: Tensor) -> Tensor:
        ctx.save_for_backward(matrix, residual)
        return solve(matrix, residual.unsqueeze(-1)).squeeze(-1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None]:
        matrix, residual = ctx.saved_tensors
        found = solve(matrix.mT, grad.unsqueeze(-1)).squeeze(-1)
        return None, differentiable_once([found], [residual], _ONCE)[0]


_ONCE = "a layer of an implicit scheme has no second derivatives; take an explicit scheme for them."
