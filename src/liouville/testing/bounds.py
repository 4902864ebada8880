"""The stated bounds of a field and a scheme, compared with their Jacobians."""

from __future__ import annotations

__all__ = ["check_amplification", "check_growth", "check_rate_and_lipschitz"]

import math
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

from liouville.fields import PartitionedField, VectorField
from liouville.fields.base import Lipschitz, Theta, is_closed
from liouville.schemes import Scheme, SplittingScheme, StabilityWarning, State
from liouville.schemes.growth import log_growth
from liouville.testing.measure import CANCELLATION, EPS, fail, jacobian, near, velocity

_SIZES = (0.0, 1.0, 3.0)  # scales of the states: slopes of most activations are largest at 0


def check_rate_and_lipschitz(field: VectorField, state: State, theta: Theta, layers: list[Theta]) -> None:
    """Check that ``rate``, if stated, bounds the spectral radius of each layer's Jacobian, ``lipschitz`` its norms."""
    rate, constants = _stated(field, "rate", theta), _stated(field, "lipschitz", theta)
    if rate is not None:
        _require_per_layer(field, rate, "rate")
    for bound in () if constants is None else (*constants.parts, constants.one_sided):
        _require_per_layer(field, bound, "each part of lipschitz")
    if rate is None and constants is None:
        return
    if constants is not None and (is_closed(field, "scaled") or (is_closed(field, "scaling") and field.scaling)):
        _check_scaled(field, theta, constants)
    for j, theta_j in enumerate(layers):
        for sample in range(len(state[0])):
            for size in _SIZES:
                at = tuple(size * s[sample : sample + 1] for s in state)
                A = jacobian(lambda *s, w=theta_j: velocity(field, s, w), at)
                if rate is not None and size == 1.0:
                    _check_rate(A, float(rate.detach().expand(field.layers)[j]))
                if constants is not None:
                    _check_lipschitz(A, constants, j, field.layers, [s.numel() for s in at])


def _check_scaled(field: VectorField, theta: Theta, constants: Lipschitz) -> None:
    factor = torch.tensor(0.3, dtype=torch.float64)
    found = field.lipschitz(field.scaled(theta, factor))
    for L, whole in zip((*found.parts, found.one_sided), (*constants.parts, constants.one_sided), strict=True):
        near(
            "scaled weights have scaled constants",
            (L - factor * whole).clamp(min=0),
            CANCELLATION * EPS * max(1.0, float(whole.abs().max())),
            "take the factor's root where constants are quadratic in a weight",
        )


def _stated(field: VectorField, name: str, theta: Theta) -> Any:
    try:
        return getattr(field, name)(theta)
    except NotImplementedError:
        return None


def _require_per_layer(field: VectorField, bound: Tensor, what: str) -> None:
    if bound.shape not in ((1,), (field.layers,)):
        fail(f"{what} is one number per layer", f"got {tuple(bound.shape)}", "keep the layer axis")


def _check_rate(A: Tensor, bound: float) -> None:
    radius = torch.linalg.eigvals(A).abs().max()
    # rounding of A moves a double eigenvalue by its square root
    slack = math.sqrt(EPS) * float(torch.linalg.matrix_norm(A, ord=2))
    near(
        "rate bounds the spectral radius of the Jacobian",
        (radius - bound).clamp(min=0),
        slack,
        f"radius {float(radius):.4g}, stated {bound:.4g}",
    )


def _check_lipschitz(A: Tensor, constants: Lipschitz, j: int, layers: int, sizes: list[int]) -> None:
    size = float(torch.linalg.matrix_norm(A, ord=2))
    slack = CANCELLATION * len(A) * EPS * max(1.0, size)
    n, parts = sizes[0], constants.parts
    if len(parts) not in (1, 2) or (len(parts) == 2 and len(sizes) != 2):
        fail("lipschitz has one part, or two of halves", f"got {len(parts)} for {len(sizes)}", "bound ||f'|| at least")
    blocks = [(A, "f'")] if len(parts) == 1 else [(A[:n, n:], "d p_dot / dq"), (A[n:, :n], "d q_dot / dp")]
    fastest = torch.linalg.eigvalsh(0.5 * (A + A.mT)).max()
    found = [(torch.linalg.matrix_norm(B, ord=2), f"||{name}||") for B, name in blocks]
    stated = [float(L.detach().expand(layers)[j]) for L in (*parts, constants.one_sided)]
    for (value, name), bound in zip([*found, (fastest, "(f' + f'^T) / 2")], stated, strict=True):
        near(
            f"lipschitz bounds {name} at every state",
            (value - bound).clamp(min=0),
            slack,
            f"measured {float(value):.4g} in layer {j}, stated {bound:.4g}",
        )


def check_growth(scheme: Scheme, field: VectorField, A: Tensor, theta_0: Theta, h: float) -> None:
    """Check that ``log_growth`` bounds log ||A||_2 of a step, where scheme and field state the necessary facts."""
    try:
        bound = float(log_growth(scheme, field.lipschitz(theta_0), h).detach().max())
    except NotImplementedError:
        return
    norm = torch.linalg.matrix_norm(A, ord=2)
    near(
        "log_growth bounds the norm of a step",
        (norm.log() - bound).clamp(min=0),
        CANCELLATION * len(A) * EPS,
        f"measured {float(norm):.4g}, stated {math.exp(bound):.4g}",
    )


def check_amplification(scheme: Scheme) -> None:
    """Check that ``amplification``, if stated, is the largest modulus of an eigenvalue of a step on linear fields."""
    halves = isinstance(scheme, SplittingScheme)
    for z in (0.7j, 1.9j, 0.3 + 0.0j, -0.4 + 0.0j, *(() if halves else (-0.5 + 0.8j, 0.2 - 1.1j))):
        field = _Mode(z, halves)
        try:
            with warnings.catch_warnings():  # silence the warning about damped modes, which are measured here
                warnings.simplefilter("ignore", StabilityWarning)
                scheme.check(field)
            stated = float(scheme.amplification(torch.tensor(z, dtype=torch.complex128)))
        except (NotImplementedError, ValueError):
            return
        theta_0 = _ModeTheta(field.theta().M[0])
        state = scheme.init(field, torch.ones(1, 2, dtype=torch.float64), theta_0, 1.0)
        A = jacobian(lambda *s, f=field, w=theta_0: scheme.step(f, s, w, 1.0), state)
        largest = torch.linalg.eigvals(A).abs().max()
        near(
            "amplification is the largest eigenvalue of a step",
            largest - stated,
            1e-6 * max(1.0, stated),  # rounding moves two nearly equal eigenvalues by its square root
            f"measured {float(largest):.6g} at h lambda = {z}, stated {stated:.6g}",
        )


class _ModeTheta(NamedTuple):
    M: Tensor


class _Mode(PartitionedField):
    """p' = z q, q' = z p (a rotation for imaginary z), or y' = z y with a complex z written as two real numbers."""

    def __init__(self, z: complex, halves: bool) -> None:
        super().__init__(2, 1)
        a, b = z.real, z.imag
        rows = [[0.0, -b or a], [b or a, 0.0]] if halves else [[a, -b], [b, a]]
        self.register_buffer("M", torch.tensor([rows], dtype=torch.float64))
        self.spectrum_ = "imaginary" if not a else "any"

    @property
    def spectrum(self) -> Any:
        return self.spectrum_

    def theta(self) -> _ModeTheta:
        return _ModeTheta(self.get_buffer("M"))

    def forward(self, y: Tensor, theta_j: _ModeTheta) -> Tensor:
        return y @ theta_j.M.mT

    def p_dot(self, q: Tensor, theta_j: _ModeTheta) -> Tensor:
        return theta_j.M[0, 1] * q

    def q_dot(self, p: Tensor, theta_j: _ModeTheta) -> Tensor:
        return theta_j.M[1, 0] * p
