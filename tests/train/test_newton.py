"""Conjugate gradients, line search, and Newton's method for the convex head."""

from __future__ import annotations

import math

import pytest
import scipy.sparse.linalg
import torch
from torch import Tensor

from liouville.train import Head, Task
from liouville.train.newton import armijo, steihaug
from train.problems import OUTPUTS, TASKS, data, randn

EPS = torch.finfo(torch.float64).eps
KINDS = tuple(TASKS)


def positive(n: int, seed: int = 0) -> Tensor:
    """Eigenvalues 1 ... 10."""
    Q, _ = torch.linalg.qr(randn(n, n, seed=seed))
    return Q * torch.linspace(1, 10, n, dtype=torch.float64) @ Q.mT


def test_solves_a_quadratic_in_n_steps() -> None:
    H, g = positive(8), randn(8, seed=1)
    p, products, norm = steihaug(lambda v: H @ v, g, tolerance=1e-12, iterations=8)
    assert float((H @ p + g).norm()) <= 1e-12 * float(g.norm()) + 100 * EPS * 10
    assert products <= 8 and norm == pytest.approx(float(p.norm()), rel=1e-12)


@pytest.mark.parametrize("iterations", [1, 3, 6])
def test_agrees_with_scipy(iterations: int) -> None:
    """The same iterates as scipy's preconditioned cg, to rounding times the condition number."""
    H, M, g = positive(12), positive(12, seed=3), randn(12, seed=1)
    p = steihaug(lambda v: H @ v, g, lambda r: torch.linalg.solve(M, r), tolerance=0.0, iterations=iterations).p
    expected, _ = scipy.sparse.linalg.cg(
        H.numpy(), -g.numpy(), rtol=0.0, maxiter=iterations, M=torch.linalg.inv(M).numpy()
    )
    assert float((p - torch.from_numpy(expected)).abs().max()) <= 1e3 * EPS * float(p.norm())


@pytest.mark.parametrize("radius", [0.05, 0.2, 1.0, 3.0])
def test_stays_in_the_trust_region_and_ends_on_its_boundary(radius: float) -> None:
    """In the norm of M; inside it is the unconstrained solution, and the model never rises with the radius."""
    H, M, g = positive(6), positive(6, seed=2), randn(6, seed=1)
    free = torch.linalg.solve(H, -g)
    p, _, norm = steihaug(lambda v: H @ v, g, lambda r: torch.linalg.solve(M, r), tolerance=1e-12, radius=radius)
    length = float((p @ M @ p).sqrt())
    assert norm == pytest.approx(length, rel=1e-10)
    if float((free @ M @ free).sqrt()) <= radius:
        assert torch.allclose(p, free, rtol=1e-9)
    else:
        assert length == pytest.approx(radius, rel=1e-10)
    cauchy = steihaug(lambda v: H @ v, g, lambda r: torch.linalg.solve(M, r), iterations=1, radius=radius).p
    assert float(g @ p + p @ H @ p / 2) <= float(g @ cauchy + cauchy @ H @ cauchy / 2) <= 0


def test_follows_negative_curvature_to_the_boundary() -> None:
    H, g = torch.diag(torch.tensor([1.0, -3.0]).double()), torch.tensor([0.1, 0.1]).double()
    p = steihaug(lambda v: H @ v, g, tolerance=1e-12, radius=2.0).p
    assert float(p.norm()) == pytest.approx(2.0, rel=1e-12)
    assert float(g @ p + p @ H @ p / 2) < -1.0
    assert torch.equal(steihaug(lambda v: -v, g).p, -g)  # without a boundary: downhill


def test_no_gradient_no_step() -> None:
    p, products, norm = steihaug(lambda v: v, torch.zeros(3))
    assert torch.equal(p, torch.zeros(3)) and products == 0 and norm == 0.0


def test_armijo_takes_the_first_step_that_falls_enough() -> None:
    seen: list[float] = []

    def value(t: float) -> float:
        seen.append(t)
        return {1.0: math.nan, 0.5: math.inf, 0.25: 0.9999}.get(t, 0.9)

    assert armijo(value, 1.0, -1.0, decrease=1e-3, tries=10) == (0.125, 0.9, 4)
    assert seen == [1.0, 0.5, 0.25, 0.125]
    assert armijo(lambda t: 1.0, 1.0, -1.0, decrease=0.0, tries=3) is None


def head(kind: str, alpha: float = 1e-3, bias: bool = True) -> tuple[Head, Tensor]:
    """The problem with weight decay, and W = 0."""
    _, y = data(kind)
    z = randn(30, 5, seed=2) * torch.tensor([1.0, 3.0, 0.1, 1.0, 10.0]).double()
    problem = Head(z, y, TASKS[kind], lambda W: alpha / 2 * W.square().sum(), lambda V: alpha * V, bias)
    return problem, torch.zeros(OUTPUTS[kind], 5 + bias, dtype=torch.float64)


@pytest.fixture(params=["formed", "blocks"])
def preconditioner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The small head's, or that of a large one."""
    if request.param == "blocks":
        monkeypatch.setattr("liouville.train.newton._FORMED", 0)
    return request.param


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_vanishes_at_the_solution(kind: str, bias: bool, preconditioner: str) -> None:
    problem, W = head(kind, bias=bias)
    solution = problem.solve(W)
    assert float(problem.gradient(solution.W).norm()) <= 2**10 * EPS * float(problem.gradient(W).norm())
    assert solution.value == pytest.approx(problem.value(solution.W), rel=10 * EPS)
    for seed in range(5):
        away = solution.W + 1e-3 * randn(*W.shape, seed=seed)
        assert problem.value(away) > solution.value


@pytest.mark.parametrize("kind", ["logistic", "softmax"])
def test_convergence_is_quadratic(kind: str) -> None:
    """Once below 1e-2 of the first, each gradient norm is less than a multiple of the square of the one before."""
    problem, W = head(kind)
    norms = problem.solve(W).gradients
    relative = [n / norms[0] for n in norms]
    close = [k for k, n in enumerate(relative[:-1]) if n < 1e-2]
    assert len(close) >= 2
    for k in close:
        order = math.log(relative[k + 1]) / math.log(relative[k]) if relative[k + 1] > 2**10 * EPS else 2.0
        assert order > 1.6, relative
    assert len(norms) <= 12


def test_squared_error_takes_one_step() -> None:
    """The problem is quadratic: what is left after one step is what the conjugate gradients leave, a tenth."""
    problem, W = head("least-squares")
    first, second, *_ = problem.solve(W).gradients
    assert second <= 0.1 * first
    exact = torch.linalg.solve(
        problem.Z.mT @ problem.Z / 30 + 1e-3 * torch.eye(6).double(), problem.Z.mT @ data("least-squares")[1] / 30
    ).mT
    assert torch.allclose(problem.solve(W).W, exact, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_preconditioner_is_worth_its_price(kind: str, preconditioner: str) -> None:
    """Badly scaled features: it is the Hessian itself, in blocks at W = 0, so that one product is enough, or two by
    rounding."""
    problem, W = head(kind)
    W = randn(*W.shape, seed=4) if preconditioner == "formed" else W
    counts = {}
    for name in ("with", "without"):
        calls = 0
        original = problem._curvature

        def counting(V: Tensor, original=original) -> Tensor:
            nonlocal calls
            calls += 1
            return original(V)

        problem._curvature = counting
        if name == "without":
            problem._preconditioner = lambda S, W: lambda r: r  # type: ignore[method-assign]
        problem.inverse(W, tolerance=1e-10, iterations=1000)(randn(*W.shape, seed=6))
        problem._curvature = original
        counts[name] = calls
    assert counts["with"] <= 2 + 1 < counts["without"], counts  # one more call to measure the decay


def test_inverse_is_the_inverse_of_the_hessian() -> None:
    problem, W = head("softmax")
    W = randn(*W.shape, seed=4)
    G = problem.inverse(W, tolerance=1e-14, iterations=1000)(V := randn(*W.shape, seed=5))
    t = 1e-5
    change = (problem.gradient(W + t * G) - problem.gradient(W - t * G)) / (2 * t)
    assert float((change - V).abs().max()) <= 1e-6 * float(G.norm())


def test_separable_classes_have_a_solution_with_decay() -> None:
    z = torch.tensor([[-1.0], [1.0]]).double()
    problem = Head(z, torch.tensor([0, 1]), Task("logistic", 2), lambda W: 5e-9 * W.square().sum(), lambda V: 1e-8 * V)
    solution = problem.solve(torch.zeros(1, 2).double())
    assert solution.gradients[-1] <= 2**10 * EPS * solution.gradients[0]
    assert float(solution.W[0, 0]) > 5
