r"""Stability regions: for which h lambda the modes of a frozen, linear layer do not grow.

A scheme multiplies a mode exp(lambda t) by the roots r(h lambda) of its step; it is stable where all |r| <= 1 and none
of modulus 1 is double. On the imaginary axis, where Hamiltonian and antisymmetric fields have their modes, that is
|h lambda| < 2 for symplectic Euler and Verlet, < 1 for the two-step midpoint rule, <= 2 sqrt 2 for RK4, everywhere for
the implicit midpoint rule, and only at 0 for forward Euler.
"""

from __future__ import annotations

__all__ = ["amplification", "imaginary_limit", "layer_spectra"]

import torch
from torch import Tensor

from liouville.analysis.jacobians import field_jacobians
from liouville.analysis.precise import precisely
from liouville.analysis.states import run_of
from liouville.fields.base import is_closed
from liouville.flow import Flow
from liouville.schemes import Scheme
from liouville.schemes.growth import STEPS

_DOUBLE = (torch.float64, torch.complex128)


@precisely
@torch.no_grad()
def layer_spectra(flow: Flow, y: Tensor) -> Tensor:
    r"""h times the eigenvalues of f' at the state of every layer and sample: (N, *batch, n), complex; NaN
    where f' is not finite.

    Draw them over the region where `amplification` is at most 1. For splitting schemes f' is the derivative by (p, q),
    for the two-step scheme by y. Only for small n: `step_margin` needs no matrices.

    Examples:
        >>> import liouville as lv
        >>> layer_spectra(lv.zoo.ms2(4, layers=8, T=1.0), torch.randn(10, 4)).shape
        torch.Size([8, 10, 4])
    """
    run = run_of(flow, y)
    return eigenvalues(flow.h * field_jacobians(flow, run)).reshape(flow.layers, *run.batch, -1)


def eigenvalues(matrices: Tensor) -> Tensor:
    """The eigenvalues of each matrix, (..., n), complex; NaN where one is not finite or LAPACK does not converge."""
    finite = matrices.isfinite().all(-1).all(-1)  # LAPACK may crash on matrices that are not finite
    safe = torch.where(finite[..., None, None], matrices, 0.0)
    try:
        found = torch.linalg.eigvals(safe)
    except torch.linalg.LinAlgError:
        found = torch.stack([_eigenvalues(A) for A in safe.flatten(0, -3)]).reshape(matrices.shape[:-1])
    return torch.where(finite[..., None], found, torch.nan)


def _eigenvalues(matrix: Tensor) -> Tensor:
    try:
        return torch.linalg.eigvals(matrix)
    except torch.linalg.LinAlgError:
        return torch.full_like(matrix[0], torch.nan) + 0j


def amplification(scheme: Scheme, z: Tensor) -> Tensor:
    r"""The largest |r(z)| over the roots of one step with h lambda = z, complex, elementwise; stable where <= 1.

    The roots are 1 + z for forward Euler, the exponential's first five terms for RK4 and (1 + z/2)/(1 - z/2) for the
    implicit midpoint rule. For the two-step scheme r^2 = 1 + 2 z r, and for splitting schemes r^2 - tr(z) r + 1 = 0
    with the trace of their shears on p' = z q, q' = z p; a scheme of your own states it, `Scheme.amplification`. Where
    the two roots of modulus 1 coincide, modes grow linearly: that limit is strict.

    Raises:
        NotImplementedError: for a scheme that states none, or a subclass that has changed the step.

    Examples:
        >>> import liouville as lv
        >>> amplification(lv.SymplecticEuler(), torch.tensor([1.9j, 2.1j])) > 1 + 1e-6
        tensor([False,  True])
    """
    z = torch.as_tensor(z)
    if not is_closed(scheme, "amplification", STEPS):
        raise NotImplementedError(
            f"{type(scheme).__name__} has its own step and states no stability region; override amplification(z)."
        )
    return scheme.amplification(z.to(torch.complex128 if z.dtype in _DOUBLE else torch.complex64))


def imaginary_limit(scheme: Scheme) -> float:
    """The largest w such that every i w' with w' < w is stable: ``scheme.stability_limit``, for any scheme.

    Examples:
        >>> import liouville as lv
        >>> [round(imaginary_limit(s), 6) for s in (lv.Verlet(), lv.Midpoint(), lv.RK4(), lv.ForwardEuler())]
        [2.0, 1.0, 2.828427, 0.0]
    """
    return scheme.stability_limit
