"""`check_scheme`: measures order, inverse, symmetry, determinant and symplecticity of one scheme."""

from __future__ import annotations

__all__ = ["check_scheme"]

import copy
import math

import torch
from torch import Tensor

from liouville.backprop import slices
from liouville.fields import (
    AntisymmetricField,
    HamiltonianField,
    Normal,
    PartitionedField,
    SeparableHamiltonianField,
    VectorField,
)
from liouville.fields.base import Theta
from liouville.schemes import ReversibleScheme, Scheme, SplittingScheme, State, SymmetricScheme
from liouville.testing.bounds import check_amplification, check_growth
from liouville.testing.measure import (
    CANCELLATION,
    EPS,
    fail,
    jacobian,
    near,
    rounding,
    same,
    start,
    velocity,
)

_T = 2.0


def check_scheme(
    scheme: Scheme, field: VectorField | None = None, *, symplectic: bool | None = None, seed: int = 0
) -> None:
    """Check that ``scheme`` has its stated order, and the inverse, symmetry and determinant of its type.

    The order is the slope of the error at T = 2 under halving of h, within 0.1 of ``scheme.order``, with weights
    constant in time; the reference is RK4 with 2048 steps. The inverse of a `ReversibleScheme` undoes a step; a
    `SymmetricScheme` undoes it by -h; a `SplittingScheme` has determinant 1. Where stated, ``log_growth`` bounds the
    norm of a step, and ``amplification`` is its largest eigenvalue on linear fields.

    Args:
        scheme: the scheme.
        field: a field for the measurement, smooth and with constant weights; by default the first of a separable
            Hamiltonian, a general Hamiltonian and an antisymmetric field that ``scheme.check`` accepts.
        symplectic: whether to require A J A^T = J of one step, A in numerator layout; by default for every splitting
            scheme on a field with a ``structure`` J.
        seed: seed of the random states.

    Raises:
        AssertionError: with the law that fails, the measured number and a hint.

    Examples:
        >>> from liouville.schemes import SymplecticEuler
        >>> check_scheme(SymplecticEuler())
    """
    generator = torch.Generator().manual_seed(seed)
    field = _accepted(scheme, generator) if field is None else copy.deepcopy(field).to("cpu", torch.float64)
    scheme.check(field)
    y = torch.randn(3, field.features, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        theta_0 = next(slices(field.theta(), field.layers))
        _check_steps(scheme, field, y, theta_0)
        _check_order(scheme, field, y, theta_0)
    A = _step_jacobian(scheme, field, y[:1], theta_0, 0.3)
    for step in (0.3, 1.0):
        for at in (y[:1], 0.0 * y[:1]):
            check_growth(scheme, field, _step_jacobian(scheme, field, at, theta_0, step), _stacked(theta_0), step)
    check_amplification(scheme)
    n, size = len(A), float(torch.linalg.matrix_norm(A, ord=2))
    if isinstance(scheme, SplittingScheme):
        near(
            "a splitting scheme has determinant 1",
            torch.linalg.det(A) - 1,
            CANCELLATION * n * n * EPS * max(1.0, size) ** n,
            "every stage must add a function of one half to the other half",
        )
    J = field.structure(theta_0)
    if symplectic is None:
        symplectic = isinstance(scheme, SplittingScheme) and J is not None
    if symplectic:
        if J is None:
            raise ValueError(f"{type(field).__name__} states no structure J; leave out symplectic=True.")
        near(
            "one step is symplectic, A J A^T = J",
            A @ J @ A.mT - J,
            CANCELLATION * n * EPS * size**2 * float(torch.linalg.matrix_norm(J, ord=2)),
            "check the signs of the stages, and that each half uses the newest value of the other",
        )


def _stacked(theta_0: Theta) -> Theta:
    """The weights of one layer, with an axis of layers."""
    return type(theta_0)(*(w[None] for w in theta_0))


def _accepted(scheme: Scheme, generator: torch.Generator) -> VectorField:
    X = torch.tensor([[1.0, 0.3], [-0.4, 0.8]])
    for field in (
        SeparableHamiltonianField(4, 1, X=X, shared=True, init=Normal(0.7), generator=generator),
        HamiltonianField(4, 1, shared=True, init=Normal(0.7), generator=generator),
        AntisymmetricField(4, 1, shared=True, init=Normal(0.7), generator=generator),
    ):
        try:
            scheme.check(field)
        except ValueError:
            continue
        return field.double()
    raise ValueError(f"{scheme!r} refuses the fields tried; give a `field` that it accepts.")


def _check_steps(scheme: Scheme, field: VectorField, y: Tensor, theta_0: Theta) -> None:
    h = 0.1
    state = scheme.init(field, y, theta_0, h)
    after = scheme.step(field, state, theta_0, h)
    if [s.shape for s in after] != [s.shape for s in state] or scheme.final(field, after).shape != y.shape:
        fail("a step maps a state to a state, and final to y", f"{[tuple(s.shape) for s in after]}", "check final")
    if not same(after, scheme.step(field, state, theta_0, h)):
        fail("a step is deterministic and changes nothing", "two calls differ", "avoid in-place work")
    # rounding of the step and of its inverse; an implicit equation is solved to 10 eps, hence another factor of 10
    allowed = 10 * max(rounding(s) for s in (*state, *after))
    if isinstance(scheme, ReversibleScheme):
        back = scheme.inverse(field, after, theta_0, h)
        for b, s in zip(back, state, strict=True):
            near("the inverse undoes a step", b - s, allowed, "undo the stages last to first, with sign -")
    stages: tuple[tuple[str, float], ...] = getattr(scheme, "stages", ())
    if isinstance(scheme, SymmetricScheme) or (stages and stages == stages[::-1]):
        back = scheme.step(field, after, theta_0, -h)
        for b, s in zip(back, state, strict=True):
            near("a symmetric scheme has Phi_{-h} Phi_h = id", b - s, allowed, "it is not symmetric")
    for half in {half for half, _ in stages}:
        total = torch.tensor(math.fsum(c for name, c in stages if name == half))
        near(f"the stages of {half} add up to one step", total - 1, 8 * EPS, "check the coefficients")


def _check_order(scheme: Scheme, field: VectorField, y: Tensor, theta_0: Theta) -> None:
    def error(N: int) -> float:
        h = _T / N
        state = scheme.init(field, y, theta_0, h)
        for _ in range(N):
            state = scheme.step(field, state, theta_0, h)
        return float((scheme.final(field, state) - exact).abs().max())

    exact = _reference(field, y, theta_0)
    errors = [error(8)]
    while errors[-1] > 1e-8 and len(errors) < 7:  # the reference is accurate to about 1e-12
        errors.append(error(8 << len(errors)))
    if len(errors) < 3:
        raise ValueError(f"{8 * len(errors)} steps have an error of only {errors[-1]:.1g}; give a faster field.")
    order = math.log2(errors[-2] / errors[-1])
    if not abs(order - scheme.order) <= 0.1:
        fail(
            f"{type(scheme).__name__} has order {scheme.order}",
            f"measured {order:.2f} (errors {', '.join(f'{e:.1e}' for e in errors)})",
            "state the measured order, or look for a wrong coefficient, start or sign",
        )


def _reference(field: VectorField, y: Tensor, theta_0: Theta) -> Tensor:
    """y(T) of the frozen ordinary differential equation: RK4, 2048 steps."""
    h = _T / 2048
    state = start(field, y, theta_0, 0.0)
    for _ in range(2048):
        k1 = velocity(field, state, theta_0)
        k2 = velocity(field, _along(state, k1, h / 2), theta_0)
        k3 = velocity(field, _along(state, k2, h / 2), theta_0)
        k4 = velocity(field, _along(state, k3, h), theta_0)
        slope = tuple(a + 2 * b + 2 * c + d for a, b, c, d in zip(k1, k2, k3, k4, strict=True))
        state = _along(state, slope, h / 6)
    return field.leave(*state) if isinstance(field, PartitionedField) else state[0]


def _along(state: State, slope: State, h: float) -> State:
    return tuple(s + h * k for s, k in zip(state, slope, strict=True))


def _step_jacobian(scheme: Scheme, field: VectorField, y: Tensor, theta_j: Theta, h: float) -> Tensor:
    with torch.no_grad():
        state = scheme.init(field, y, theta_j, h)
    return jacobian(lambda *s: scheme.step(field, s, theta_j, h), state)
