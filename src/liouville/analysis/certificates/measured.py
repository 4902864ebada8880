r"""The measurements of a certificate: sensitivities of some samples in float64, their norms, spectra and defects."""

from __future__ import annotations

__all__ = ["NORMS", "Measured", "measure"]

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from liouville.analysis.extremes import extreme_singular_values
from liouville.analysis.jacobians import fill_layer_jacobians
from liouville.analysis.proofs.assumptions import Assumption
from liouville.analysis.proofs.obligations import derivative_fact
from liouville.analysis.sensitivity import multiply
from liouville.analysis.states import run_of
from liouville.flow import Flow

NORMS = ("1", "2", "inf", "F")
_WORK = 5e8  # about this many multiplications: a second or two
_WIDEST = 256
_FEW = 2
_STEPS = 20


@dataclass(frozen=True)
class Measured:
    """Extremes over samples and depths j < N of the matrices dState_N/dState_j, in float64.

    Args:
        samples: how many samples.
        smallest, largest: extremes of the norms 1, 2, inf and F; for a wide state only of the norm 2 at j = 0.
        singular: the smallest and the largest singular value.
        log_det: the smallest and the largest log |det A_j| of a layer; None for a wide state.
        defect: the largest ||A J A^T - J|| / (||A||^2 ||J||) of a layer; None without a J.
        rounding: the error of a norm near 1: eps, times the number of summands, times the largest product.
        log_det_rounding: the error of log |det A_j|: eps n times the worst condition of a layer.
        drift: the error of state 0 in multiples of eps once all layers are undone, each with one rounding; infinite if
            unknown.
        derivative: whether the layers' matrices are derivatives of the actual steps; None for a wide state.
    """

    samples: int
    smallest: dict[str, float]
    largest: dict[str, float]
    singular: tuple[float, float]
    log_det: tuple[float, float] | None
    defect: float | None
    rounding: float
    log_det_rounding: float
    drift: float
    derivative: Assumption | None = None


@torch.no_grad()
def measure(flow: Flow, y: Tensor, J: Tensor | None = None) -> Measured:
    """The extremes over as many samples of y as a second or two allows.

    A state of more than 256 numbers, as for images, is measured by `extreme_singular_values`: two samples, j = 0.

    Raises:
        ArithmeticError: if a sensitivity is not finite.

    Examples:
        >>> import liouville as lv
        >>> found = measure(lv.zoo.h2(4, layers=8, T=1.0), torch.randn(10, 4))
        >>> found.samples, found.smallest["2"] > 1 - 1e-9
        (10, True)
    """
    if any(p.dtype != torch.float64 for p in flow.parameters()):
        flow = copy.deepcopy(flow).double()
    y = y.double()
    batch = flow.field.batch_shape(y)
    y = y.flatten(0, len(batch) - 1) if batch else y[None]
    n = sum(part[0].numel() for part in next(iter(flow.states(y))))
    samples = min(len(y), int(_WORK / ((flow.layers + 1) * n**3)))
    if n > _WIDEST or samples < 1:
        return _measure_wide(flow, y[:_FEW])
    run = run_of(flow, y[torch.linspace(0, len(y) - 1, samples).long()])
    M = y.new_empty(flow.layers + 1, samples, n, n)
    A = fill_layer_jacobians(flow, run, M[:-1]).clone()
    multiply(M)
    products, eps = M[:-1], torch.finfo(torch.float64).eps
    if not products.isfinite().all():
        raise ArithmeticError("the sensitivities over the given data are not finite: the states or weights overflow.")
    values, layers = torch.linalg.svdvals(products), torch.linalg.svdvals(A)
    norms = {
        "1": torch.linalg.matrix_norm(products, ord=1),
        "2": values[..., 0],
        "inf": torch.linalg.matrix_norm(products, ord=torch.inf),
        "F": torch.linalg.matrix_norm(products, ord="fro"),
    }
    log_dets = layers.log().sum(-1)
    condition = float((layers[..., 0] / layers[..., -1]).max())
    return Measured(
        samples=samples,
        smallest={k: float(v.min()) for k, v in norms.items()},
        largest={k: float(v.max()) for k, v in norms.items()},
        singular=(float(values.min()), float(values.max())),
        log_det=(float(log_dets.min()), float(log_dets.max())),
        defect=None if J is None else _defect(A, J.double(), y[0].shape[: flow.field.feature_axis].numel()),
        rounding=10 * eps * n * flow.layers * max(1.0, float(values.max())),
        log_det_rounding=10 * eps * n * condition,
        drift=_drift(M),
        derivative=derivative_fact(flow, run.parts, A, run.order),
    )


def _measure_wide(flow: Flow, y: Tensor) -> Measured:
    found = extreme_singular_values(flow, y, steps=_STEPS)
    if not (found.largest.isfinite().all() and found.smallest.isfinite().all()):
        raise ArithmeticError("the sensitivities over the given data are not finite: the states or weights overflow.")
    least = float((found.largest + found.largest_error).min())  # an upper bound of the norm
    high = float(found.largest.max())
    low = float((found.smallest - found.smallest_error).min()) if not found.inverted else float(found.smallest.min())
    rounding = 10 * torch.finfo(torch.float64).eps * flow.layers * y[0].numel() * max(1.0, high)
    return Measured(len(y), {"2": least}, {"2": high}, (low, high), None, None, rounding, 0.0, math.inf)


def _defect(A: Tensor, J: Tensor, tokens: int) -> float | None:
    pixels = A.shape[-1] // (J.shape[-1] * tokens)
    if tokens * pixels > 1:  # J acts on the features of every token or pixel: the feature axis is inside the token axis
        tokens_eye, pixels_eye = (torch.eye(k, dtype=J.dtype, device=J.device) for k in (tokens, pixels))
        J = torch.kron(tokens_eye, torch.kron(J, pixels_eye))
    size = torch.linalg.matrix_norm(A, ord=2).square() * torch.linalg.matrix_norm(J, ord=2)
    return float((torch.linalg.matrix_norm(A @ J @ A.mT - J, ord=2) / size).max())


def _drift(M: Tensor) -> float:
    """(sum_j ||M_0^-1 M_j||_F^2 / n)^(1/2) of the worst sample: roundings of all layers, pulled back to state 0."""
    back = torch.linalg.solve_ex(M[:1].expand_as(M), M).result
    per_sample = back.square().sum((-2, -1)).sum(0) / M.shape[-1]
    value = float(per_sample.max().sqrt())
    return value if math.isfinite(value) else math.inf
