"""The rounding proof takes no matrix for positive that is not, and loses next to nothing."""

import math
from fractions import Fraction

import pytest
import torch

import liouville as lv
from liouville.multipliers import proof
from liouville.multipliers.proof import is_positive, proved_log_bound
from liouville.multipliers.recursion import recursion, windows
from liouville.multipliers.search import search, start
from liouville.multipliers.sectors import sectors_of
from measure import generator, randn


def singular(n, seed, scale):
    """A positive semidefinite matrix of rank n - 1 and of very different rows."""
    X = randn(n, n - 1, seed=seed) * torch.logspace(0, scale, n, dtype=torch.float64)[:, None]
    return X @ X.mT


@pytest.mark.parametrize("scale", [0, 6])
@pytest.mark.parametrize("n", [2, 10, 100])
def test_a_matrix_with_an_eigenvalue_of_zero_is_not_known_to_be_positive(n, scale):
    for seed in range(5):
        M = singular(n, seed, scale)
        assert not is_positive(M, M.abs())
        lifted = M + 1e-6 * torch.diag(M.diagonal())
        assert is_positive(lifted, lifted.abs())
        assert not is_positive(M - 1e-6 * torch.diag(M.diagonal()), M.abs())


def test_larger_sizes_need_more():
    M = 1e-6 * torch.eye(5, dtype=torch.float64) + singular(5, 0, 0)
    assert is_positive(M, M.abs()) and not is_positive(M, 1e10 * M.abs())
    assert not is_positive(torch.full((2, 2), float("nan")).double(), 1.0)


def flow_of(model, dtype, **more):
    return (
        lv.zoo.MODELS[model](4, 6, 4.0, init=lv.Normal(1.2), generator=generator(), **more)
        .to(dtype)
        .requires_grad_(False)
    )


@pytest.mark.parametrize("model", ["h2", "ms1", "h1", "ms2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_proved_number_is_a_little_above_the_computed_one(model, dtype):
    flow = flow_of(model, dtype)
    sectors = sectors_of(flow.field, flow.scheme, flow.field.theta(), flow.h, sized=True)
    found = search(sectors, start(sectors).detach(), 30)
    computed = 0.5 * math.log(
        float(torch.linalg.eigvalsh(recursion(windows(sectors), found.multipliers, sectors.slope)[0])[-1])
    )
    proved = proved_log_bound(sectors, found.multipliers)
    assert computed < proved < computed + 1e-7


def test_it_holds_in_rational_arithmetic():
    """One layer: F >= 0 for the numbers themselves, all leading minors as fractions."""
    flow = lv.zoo.h2(2, 2, 2.0, init=lv.Normal(1.0), generator=generator()).requires_grad_(False)
    sectors = sectors_of(flow.field, flow.scheme, flow.field.theta(), flow.h, sized=True)
    lam = start(sectors).detach()
    log_u = proved_log_bound(sectors, lam)
    theta, h = flow.field.theta(), Fraction(flow.h)
    P = [[Fraction(int(i == j)) for j in range(2)] for i in range(2)]
    for j in (1, 0):
        for half, K in ((1, theta.K_p), (0, theta.K_q)):  # q is moved last, so it comes first
            k, other = Fraction(float(K[j, 0, 0])), 1 - half
            b = h * k * (1 if half else -1)
            m = Fraction(float(lam[2 * j + half]))
            V = [P[i][half] * b for i in range(2)]
            V[other] += k * m
            T = 2 * m - P[half][half] * b * b
            assert T > 0
            P = [[P[r][c] + V[r] * V[c] / T for c in range(2)] for r in range(2)]
    squared = Fraction(math.exp(2 * log_u))
    A, B, C = squared - P[0][0], P[0][1], squared - P[1][1]
    assert A > 0 and A * C - B * B >= 0


def test_a_defect_in_the_chain_is_refused(monkeypatch):
    flow = flow_of("h2", torch.float64)
    sectors = sectors_of(flow.field, flow.scheme, flow.field.theta(), flow.h, sized=True)
    lam = start(sectors).detach()
    assert proved_log_bound(sectors, lam) is not None
    assert proved_log_bound(sectors, -lam) is None
    monkeypatch.setattr(proof, "_ROOM", (-1e-6,))  # each P a little too small
    assert proved_log_bound(sectors, lam) is None
