r"""Stability regions: for which h lambda the modes of a frozen, linear layer do not grow.

A scheme multiplies a mode exp(lambda t) by the roots r(h lambda) of its step; it is stable where all |r| <= 1 and none
of modulus 1 is double. On the imaginary axis, where Hamiltonian and antisymmetric fields have their modes, that is
|h lambda| < 2 for symplectic Euler and Verlet, < 1 for the two-step midpoint rule, <= 2 sqrt 2 for RK4, everywhere for
the implicit midpoint rule, and nowhere but at 0 for forward Euler.
"""

from __future__ import annotations

__all__ = ["amplification", "imaginary_limit", "layer_spectra"]

import torch
from torch import Tensor

from liouville.analysis.jacobians import field_jacobians
from liouville.analysis.precise import precisely
from liouville.analysis.states import run_of
from liouville.flow import Flow
from liouville.schemes import RK4, ForwardEuler, ImplicitMidpoint, Midpoint, Scheme, SplittingScheme


@precisely
@torch.no_grad()
def layer_spectra(flow: Flow, y: Tensor) -> Tensor:
    r"""h times the eigenvalues of f' at the state of every layer and sample: (N, *batch, n), complex; NaN
    where f' is not finite.

    Draw them over the region where `amplification` is at most 1. For splitting schemes f' is that of (p, q); for the
    two-step scheme that of y. Small n only: `step_margin` does without matrices.

    Examples:
        >>> import liouville as lv
        >>> layer_spectra(lv.zoo.ms2(4, layers=8, T=1.0), torch.randn(10, 4)).shape
        torch.Size([8, 10, 4])
    """
    run = run_of(flow, y)
    matrices = flow.h * field_jacobians(flow, run)
    finite = matrices.isfinite().all(-1).all(-1)  # LAPACK may crash on others
    eigenvalues = torch.linalg.eigvals(torch.where(finite[..., None, None], matrices, 0.0))
    eigenvalues = torch.where(finite[..., None], eigenvalues, torch.nan)
    return eigenvalues.reshape(flow.layers, *run.batch, -1)


def amplification(scheme: Scheme, z: Tensor) -> Tensor:
    r"""The largest |r(z)| over the roots of one step with h lambda = z, complex, elementwise; stable where <= 1.

    1 + z for forward Euler, the exponential's first five terms for RK4, (1 + z/2)/(1 - z/2) for the implicit midpoint
    rule, r^2 = 1 + 2 z r for the two-step one, and for splitting schemes r^2 - tr(z) r + 1 = 0 with the trace of
    their shears on p' = z q, q' = z p. Where the two roots of modulus 1 coincide, modes grow linearly: that limit is
    strict.

    Raises:
        NotImplementedError: for a scheme whose region is not known here.

    Examples:
        >>> import liouville as lv
        >>> amplification(lv.SymplecticEuler(), torch.tensor([1.9j, 2.1j])) > 1 + 1e-6
        tensor([False,  True])
    """
    z = torch.as_tensor(z)
    z = z.to(torch.complex128 if z.dtype in (torch.float64, torch.complex128) else torch.complex64)
    if isinstance(scheme, ForwardEuler):
        return (1 + z).abs()
    if isinstance(scheme, RK4):
        return (1 + z * (1 + z / 2 * (1 + z / 3 * (1 + z / 4)))).abs()
    if isinstance(scheme, ImplicitMidpoint):
        return (1 + z / 2).abs() / (1 - z / 2).abs()
    if isinstance(scheme, Midpoint):
        return _largest_root(z, (z.square() + 1).sqrt())
    if isinstance(scheme, SplittingScheme):
        half = 0.5 * _trace(scheme, z)
        return _largest_root(half, (half.square() - 1).sqrt())
    raise NotImplementedError(f"the stability region of {type(scheme).__name__} is not known here.")


def imaginary_limit(scheme: Scheme) -> float:
    """The w up to which every i w' with w' < w is stable: ``scheme.stability_limit``, for a scheme of one's own too.

    Examples:
        >>> import liouville as lv
        >>> [round(imaginary_limit(s), 6) for s in (lv.Verlet(), lv.Midpoint(), lv.RK4(), lv.ForwardEuler())]
        [2.0, 1.0, 2.828427, 0.0]
    """
    return scheme.stability_limit


def _largest_root(a: Tensor, root: Tensor) -> Tensor:
    """The larger of |a + root| and |a - root|."""
    return torch.maximum((a + root).abs(), (a - root).abs())


def _trace(scheme: SplittingScheme, z: Tensor) -> Tensor:
    """Of the product of the shears [[1, c z], [0, 1]] of p and [[1, 0], [c z, 1]] of q."""
    one, zero = torch.ones_like(z), torch.zeros_like(z)
    rows = [[one, zero], [zero, one]]
    for half, c in scheme.stages:
        moved = "pq".index(half)
        rows[moved] = [x + c * z * y for x, y in zip(rows[moved], rows[1 - moved], strict=True)]
    return rows[0][0] + rows[1][1]
