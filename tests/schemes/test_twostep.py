"""The two-step midpoint scheme, and leapfrog as symplectic Euler on the second-order field."""

import pytest
import torch

import liouville as lv
import samples
from measure import EPS, at, far, jacobian, near, norm, randn, reference, rounding, slope, step_jacobian


def second_order(N, start, kind=lv.SymmetricField):
    """One weight for all layers, N of them."""
    force = kind(3, N, shared=True, init=samples.RANDOM, generator=torch.Generator().manual_seed(4)).double()
    return lv.SecondOrderField(force, start=start)


@pytest.mark.parametrize("kind", [lv.SymmetricField, lv.SemidefiniteField])
@pytest.mark.parametrize(
    "start, scheme, order",
    [("half", "SymplecticEuler", 2), ("rest", "SymplecticEuler", 1), ("rest", "Verlet", 2)],
)
@torch.no_grad()
def test_order_in_q_of_every_start(kind, start, scheme, order):
    y, theta = randn(4, 3), at(second_order(1, start, kind).theta())
    force = second_order(1, start, kind).force
    both = reference(lambda s: torch.cat((force(s[:, 3:], theta), s[:, :3]), 1), torch.cat((0 * y, y), 1), 1.0)
    errors = [
        float((lv.Flow(second_order(N, start, kind), samples.SCHEMES[scheme], T=1.0)(y) - both[:, 3:]).abs().max())
        for N in (64, 128)
    ]
    assert min(errors) > 1e-9
    assert abs(slope(errors) - order) < 0.1


@pytest.mark.parametrize("start, first", [("half", 0.5), ("rest", 1.0)])
@torch.no_grad()
def test_leapfrog_recursion_is_symplectic_euler(start, first):
    """q_{j+1} = 2 q_j - q_{j-1} + h^2 f(q_j), q_1 = q_0 + first h^2 f(q_0)."""
    N = 20
    field = lv.SecondOrderField(lv.SymmetricField(3, N, init=samples.RANDOM).double(), start=start)
    flow, y = lv.Flow(field, lv.SymplecticEuler(), T=2.0), randn(4, 3)
    q, h = flow.trajectory(y), flow.h
    theta = field.theta()
    near(q[0], y, 0.0)
    near(q[1], y + first * h * h * field.force(y, at(theta)), rounding(y))
    for j in range(1, N):
        # q_j carries a rounding of h p_j, and the recursion adds up three of them
        near(q[j + 1], 2 * q[j] - q[j - 1] + h * h * field.force(q[j], at(theta, j)), rounding(q))


@torch.no_grad()
def test_midpoint_recursion_and_first_step():
    field = samples.field("antisymmetric")
    flow, y = lv.Flow(field, lv.LeapfrogMidpoint(), T=0.9), randn(4, 4)
    u, h, theta = flow.trajectory(y), flow.h, field.theta()
    near(u[1], y + h * field(y, at(theta)), rounding(y, terms=3))
    for j in range(1, samples.N):
        near(u[j + 1], u[j - 1] + 2 * h * field(u[j], at(theta, j)), rounding(u))


def test_midpoint_needs_the_pair_state():
    """The chain of dy_{j+1}/dy_j is not dy_N/dy_0; the chain over pairs is."""
    N, h = 16, 0.2
    field = lv.AntisymmetricField(3, N, init=samples.RANDOM).double()
    flow, y = lv.Flow(field, lv.LeapfrogMidpoint(), T=N * h), randn(1, 3)
    whole = jacobian(lambda s: (flow(s[0]),), (y,))
    theta, states = field.theta(), list(flow.states(y))
    pair = jacobian(lambda s: flow.scheme.init(field, s[0], at(theta), h), (y,))
    single = torch.eye(3, dtype=torch.float64)
    for j in range(N):
        A = step_jacobian(flow.scheme, field, tuple(s.detach() for s in states[j]), h, j)
        pair = A @ pair
        single = A[3:, 3:] @ single  # d y_{j+1} / d y_j with y_{j-1} held fixed
    near(pair[3:], whole, 10 * N * 6 * EPS * norm(pair) ** 2)
    far(single, whole, 0.1 * norm(whole))


def test_midpoint_pair_determines_the_past_and_y_alone_does_not():
    flow = samples.flow("LeapfrogMidpoint", "antisymmetric")
    y = randn(4, 4)
    with torch.no_grad():
        back = flow.inverse_state(flow.final_state(y))
        # growth of the pair over three layers is below 10
        near(back[1], y, rounding(y, terms=samples.N * 4, factor=100))
    with pytest.raises(ValueError, match=r"does not determine y_0.*inverse_state"):
        flow.inverse(flow(y))
