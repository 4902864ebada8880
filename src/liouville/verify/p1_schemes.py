r"""P1, secs. 4.1 to 4.3, and P4's midpoint: the largest stable step of each scheme.

A linearised mode of frequency omega has the eigenvalue i omega. A scheme is stable for it up to a limit of h omega:
below the limit all powers of one step are bounded, above it they grow exponentially. Where two eigenvalues meet at
the limit, it is excluded: a Jordan block grows linearly there.
"""

from __future__ import annotations

__all__: list[str] = []

from typing import Literal

import torch

from liouville import zoo
from liouville.backprop import layer
from liouville.fields import (
    AntisymmetricField,
    Normal,
    PairField,
    SecondOrderField,
    SemidefiniteField,
    SeparableHamiltonianField,
    SymmetricField,
    VectorField,
)
from liouville.flow import Flow
from liouville.schemes import RK4, ForwardEuler, LeapfrogMidpoint, Scheme, SymplecticEuler, Verlet, Yoshida4
from liouville.testing.measure import CANCELLATION, EPS
from liouville.verify.measuring import fill, generator, order, radius, step_matrix
from liouville.verify.statements import Finding, Number, at_least, at_most, near, statement


def _oscillator() -> VectorField:
    """p' = -tanh q, q' = tanh p, at the origin of frequency 1."""
    return fill(SeparableHamiltonianField(2, 1), K_p=1.0, K_q=1.0)


def _pair() -> VectorField:
    return fill(PairField(2, 1), K=1.0)


def _spring() -> VectorField:
    return SecondOrderField(fill(SymmetricField(1, 1), K=1.0))


def _limit(scheme: Scheme, field: VectorField, limit: float, grows_at_limit: bool) -> tuple[Number, ...]:
    """The spectral radius 0.1 % below and above the limit, and the norm of 1000 layers at it."""
    origin = torch.zeros(field.features)
    below, at, above = (step_matrix(scheme, field, origin, share * limit) for share in (0.999, 1.0, 1.001))
    powers = torch.linalg.matrix_norm(torch.linalg.matrix_power(at, 1000))
    return (
        # 0.1 % from the limit the eigenvalues are a distance of 0.09 apart: their error is 10 times that of the matrix
        at_most("radius - 1 below", radius(below) - 1, 10 * CANCELLATION * EPS),
        at_least("above", radius(above) - 1, 1e-3),
        at_least("norm of 1000 layers at it", powers, 1000.0)
        if grows_at_limit
        else near("at it", radius(at), 1, 1e-12),
    )


@statement(
    "p1-verlet-limit",
    "P1 sec. 4.3, limit derived here",
    "the Verlet network (zoo.verlet) is stable for h omega < 2, not at 2",
)
def _verlet_limit() -> tuple[Number, ...]:
    return _limit(SymplecticEuler(), _pair(), 2.0, grows_at_limit=True)


@statement(
    "p1-stormer-limit",
    "P1 sec. 4.3, limit derived here",
    "the second-order Verlet scheme is stable for h omega < 2, not at 2",
)
def _stormer_limit() -> tuple[Number, ...]:
    return _limit(Verlet(), _oscillator(), 2.0, grows_at_limit=True)


@statement("p1-leapfrog-limit", "P1 sec. 4.3, limit derived here", "leapfrog is stable for h omega < 2, not at 2")
def _leapfrog_limit() -> tuple[Number, ...]:
    return _limit(SymplecticEuler(), _spring(), 2.0, grows_at_limit=True)


@statement(
    "p1-midpoint-limit",
    "P4, midpoint, limit derived here",
    "the two-step midpoint scheme is stable for h omega < 1, not at 1",
)
def _midpoint_limit() -> tuple[Number, ...]:
    return _limit(LeapfrogMidpoint(), _oscillator(), 1.0, grows_at_limit=True)


@statement(
    "p1-rk4-limit",
    "P1 (4.12), another integrator",
    "RK4 is stable on the imaginary axis for h omega < 2 sqrt 2, and neutral at it",
)
def _rk4_limit() -> tuple[Number, ...]:
    return _limit(RK4(), _oscillator(), 8**0.5, grows_at_limit=False)


@statement(
    "p1-euler-unstable",
    "P1 (4.12), gamma = 0",
    "forward Euler grows on the imaginary axis by |1 + i h omega| at every step size",
)
def _euler() -> tuple[Number, ...]:
    steps = (1e-3, 1e-2, 0.1, 1.0, 10.0)
    radii = [float(radius(step_matrix(ForwardEuler(), _oscillator(), torch.zeros(2), h))) for h in steps]
    error = max(abs(r / (1 + h * h) ** 0.5 - 1) for r, h in zip(radii, steps, strict=True))
    return at_least("least growth - 1, at h omega = 0.001", min(radii) - 1, 1e-7), at_most(
        "relative error of the formula", error, CANCELLATION * EPS
    )


@statement(
    "p1-gamma",
    "P1 (4.12)",
    "antisymmetric forward Euler is stable if and only if gamma >= h (gamma^2/4 + mu^2), at D = I",
)
def _gamma() -> tuple[Number, ...]:
    """500 random W, h, gamma; the eigenvalues of 1/2 (W - W^T - gamma I) are -gamma/2 +- i mu."""
    random = generator()
    origin, wrong, stable = torch.zeros(4), 0, 0
    for _ in range(500):
        h, gamma = torch.rand(2, generator=random).mul(torch.tensor([0.5, 2.0])).tolist()
        field = AntisymmetricField(4, 1, gamma=gamma, factor=0.5, init=Normal(), generator=random)
        mu = torch.linalg.matrix_norm(fill(field).theta().A[0], ord=2)
        excess = gamma - h * (gamma**2 / 4 + float(mu.detach()) ** 2)
        growth = float(radius(step_matrix(ForwardEuler(), field, origin, h))) - 1
        stable += growth <= 0
        wrong += (growth <= 0) != (excess >= 0)
    return at_most("disagreements among 500", wrong, 0), Number("stable among them", stable, 100, 400)


@statement(
    "p1-leapfrog-start",
    "P1 sec. 4.3",
    "leapfrog starts with y_1 = 2 y_0 + h^2 f(y_0)",
    correction="y_1 = y_0 + h^2/2 f(y_0) gives order 2, y_1 = y_0 + h^2 f(y_0) order 1",
)
def _leapfrog_start() -> Finding:
    y, T = torch.randn(5, 3, generator=generator(1)), 2.0

    def field(N: int, start: Literal["rest", "half"] = "rest") -> SecondOrderField:
        force = SemidefiniteField(3, N, shared=True, init=Normal(0.7), generator=generator())
        return SecondOrderField(force, start=start)

    exact = Flow(field(500), Yoshida4(), T)(y).detach()

    def error(start: Literal["rest", "half"], N: int) -> float:
        flow = Flow(field(N, start), SymplecticEuler(), T)
        return float((flow(y).detach() - exact).abs().max())

    def as_printed(N: int) -> float:
        """The velocity p_0 = y_0 / h gives q_1 = q_0 + h (p_0 + h f) = 2 q_0 + h^2 f."""
        scheme, h, f = SymplecticEuler(), T / N, field(N)
        theta_0, state = layer(f.theta(), 0), (y / h, y)
        for _ in range(N):
            state = scheme.step(f, state, theta_0, h)  # type: ignore[assignment]
        return float((state[1].detach() - exact).abs().max())

    return Finding(
        (
            near("order from y_0 + h^2/2 f", order(lambda N: error("half", N), 100), 2.0, 0.1),
            near("order from y_0 + h^2 f", order(lambda N: error("rest", N), 100), 1.0, 0.1),
        ),
        (at_least("order (-1: the error doubles with the layers)", order(as_printed, 100), 1.0),),
    )


@statement("p1-reverse", "P1 sec. 4.3", "the Verlet network run backwards returns its input, whatever the weights")
def _reverse() -> Number:
    flow = zoo.verlet(4, 200, 10.0, init=Normal(0.5), generator=generator())
    y = torch.randn(20, 4, generator=generator(1))
    state = flow.final_state(y)
    back = torch.cat(flow.inverse_state(state), -1)
    # the growth of the inverse, here below 1e4, amplifies the last rounding
    return at_most("error after 200 layers and back", (back - y).abs().max(), 1e4 * 200 * EPS)
