"""Line search and trust region: what a step may do, on objectives where the answer is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from liouville.train import Penalty, Task
from liouville.train.descent import LineSearch, TrustRegion
from liouville.train.objective import Expansion, Objective
from train.problems import full, randn

EPS = torch.finfo(torch.float64).eps


class Made(Objective):
    """F given by a function, its product by a matrix."""

    def __init__(self, F: Callable[[Tensor], Tensor], H: Tensor) -> None:
        x = torch.zeros(1, 1)
        super().__init__(nn.Linear(1, 1), x, x, Task("least-squares", 0), Penalty(), ["weight"])
        self.F, self.H, self.seen = F, H, []

    def assign(self, w: Tensor) -> None:
        raise AssertionError("a step assigns nothing")

    def value(self, w: Tensor) -> float:
        self.seen.append(w)
        return float(self.F(w))

    def expand(self, w: Tensor) -> Expansion:
        leaf = w.detach().requires_grad_()
        value = self.F(leaf)
        return Expansion(float(value), torch.autograd.grad(value, leaf)[0], lambda v: self.H @ v)


def quadratic(n: int = 5) -> Made:
    H = torch.diag(torch.linspace(1, 3, n).double())
    return Made(lambda w: 0.5 * w @ H @ w, H)


def search(**more: float) -> LineSearch:
    return LineSearch(**{"products": 20, "tolerance": 1e-12, "decrease": 1e-3, "tries": 10, "max_step": 1e3, **more})


def region(**more: float) -> TrustRegion:
    return TrustRegion(**{"products": 20, "tolerance": 1e-12, "decrease": 1e-3, "tries": 10, **more})


def take(safe: LineSearch | TrustRegion, objective: Objective, w: Tensor):
    return safe.step(objective, w, objective.expand(w), lambda r: r)


@pytest.mark.parametrize("safe", [search(), region()])
def test_one_step_solves_a_quadratic(safe: LineSearch | TrustRegion) -> None:
    step = take(safe, quadratic(), randn(5))
    assert float(step.w.norm()) <= 1e3 * EPS and step.length == 1.0
    assert step.value <= 1e3 * EPS**2 and step.products <= 7


def test_no_entry_exceeds_the_largest_step() -> None:
    w = 10 * torch.ones(5).double()
    step = take(search(max_step=0.5), quadratic(), w)
    assert float((step.w - w).abs().max()) == pytest.approx(0.5, rel=1e-12)


def test_halves_on_while_that_lowers_the_objective() -> None:
    """The model is three times too flat: a third of its step is the best, and of its halves a quarter is."""
    objective = Made(lambda w: 1.5 * w @ w, torch.eye(2).double())
    safe, w = search(), torch.ones(2).double()
    step = take(safe, objective, w)
    assert step.length == 0.25 and torch.allclose(step.w, 0.25 * w) and step.value == float(objective.F(step.w))
    assert safe.first == 0.5 and step.tries == len(objective.seen)
    again = take(safe, objective, step.w)
    assert torch.equal(objective.seen[step.tries], step.w - 0.5 * 3 * step.w) and again.value < step.value


@pytest.mark.parametrize("make", [search, region])
def test_what_is_no_number_is_no_decrease(make: Callable[..., LineSearch | TrustRegion]) -> None:
    """F is a quadratic near w and nothing beyond: the step stays where F is a number."""
    H = torch.eye(3).double()

    def F(w: Tensor) -> Tensor:
        far = float((w - 2).abs().max()) > 0.6
        if far and float(w[0]) < 1.0:
            raise ArithmeticError("no solution")
        return w.new_tensor(math.nan) if far else 0.5 * w @ w

    step = take(make(), Made(F, H), torch.full((3,), 2.0).double())
    assert 0 < float((step.w - 2).abs().max()) <= 0.6 and step.value < 6.0


def test_no_step_where_nothing_lowers_the_objective() -> None:
    """The gradient lies: it points uphill."""
    objective, w = quadratic(), randn(5)
    at = objective.expand(w)
    for safe in (search(), region()):
        step = safe.step(objective, w, Expansion(at.value, -at.gradient, at.product), lambda r: r)
        assert step.length == 0.0 and torch.equal(step.w, w) and step.value == at.value and step.tries == 10


def test_radius_follows_the_model() -> None:
    """Rosenbrock's valley, Gauss-Newton: every step lowers F, the radius shrinks and grows, and the end is (1, 1)."""
    w, radii, values = torch.tensor([-1.2, 1.0]).double(), [], []
    safe = region()
    for _ in range(60):
        J = torch.stack((torch.stack((-20 * w[0], w.new_tensor(10.0))), torch.tensor([-1.0, 0.0]).double()))
        objective = Made(lambda w: 50 * (w[1] - w[0] ** 2) ** 2 + 0.5 * (1 - w[0]) ** 2, J.mT @ J)
        step = take(safe, objective, w)
        w = step.w
        radii.append(safe.radius)
        values.append(step.value)
    assert values == sorted(values, reverse=True) and float((w - 1).abs().max()) < 1e-6
    assert min(radii) < math.inf and any(before < after < math.inf for before, after in itertools.pairwise(radii))


def test_noise_does_not_shrink_the_region() -> None:
    """Where both decreases are below what rounding can hide, the step counts as achieved."""
    H = torch.eye(2).double()
    objective = Made(lambda w: 1.0 + 1e-40 * w @ w, 1e-40 * H)
    safe = region(tolerance=0.1)
    step = take(safe, objective, 1e-3 * torch.ones(2).double())
    assert step.length == 1.0 and safe.radius == math.inf


def test_steps_lower_a_real_objective() -> None:
    objective = full()
    w = objective.vector()
    for safe in (search(tolerance=0.01), region(tolerance=0.01)):
        before, now = objective.value(w), w
        for _ in range(4):
            step = take(safe, objective, now)
            assert step.value == pytest.approx(objective.value(step.w), rel=1e-14) and step.value < before
            before, now = step.value, step.w
