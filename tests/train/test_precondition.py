"""The preconditioner in depth: the inverse of the matrix that it states."""

from __future__ import annotations

import pytest
import torch

import liouville as lv
from liouville.train import Penalty
from liouville.train.flat import Weights
from liouville.train.precondition import DepthPreconditioner, cosines, stacks
from train.problems import network, randn

EPS = torch.finfo(torch.float64).eps


@pytest.mark.parametrize("N", [2, 3, 16, 65])
def test_cosines_diagonalise_the_differences(N: int) -> None:
    """C is orthogonal and C D^T D C^T = diag(2 - 2 cos(pi k / N)), to the rounding of sums of N terms."""
    C, D = cosines(N), torch.eye(N).double().diff(dim=0)
    eigenvalues = 2 - 2 * torch.cos(torch.pi * torch.arange(N).double() / N)
    assert float((C @ C.mT - torch.eye(N)).abs().max()) <= 10 * N * EPS
    assert float(((C @ D.mT @ D @ C.mT) - torch.diag(eigenvalues)).abs().max()) <= 100 * N * EPS


@pytest.mark.parametrize("scaling", ["depth", "hdnn", "sum"])
def test_inverts_the_curvature_of_the_penalty_and_the_ridge(scaling: str) -> None:
    """M (M^-1 r) = r with M v = R'' v + ridge h v on the flow's weights, where theta is the raw weights themselves."""
    net = network(model="h2", layers=6)
    penalty, ridge = Penalty(smoothness=0.3, decay=0.2, scaling=scaling), 0.7
    weights = Weights(net, [n for n, _ in net.named_parameters() if n.startswith("body")])
    solve = DepthPreconditioner(weights, stacks(net, weights, penalty, ridge), ridge)
    r = randn(weights.size)
    v = solve(r)
    back = weights.flat(penalty.curvature(net, weights.named(v))) + ridge * net.body.h * v
    assert float((back - r).abs().max()) <= 1e3 * EPS * float(v.abs().max())


def test_what_is_not_stacked_is_divided_by_the_ridge() -> None:
    net = network(lift="linear", layers=4)
    weights = Weights(net, [n for n, _ in net.named_parameters()])
    found = stacks(net, weights, Penalty(), 0.5)
    assert found and all(name.startswith("body.field.") for name in found)
    out = weights.named(DepthPreconditioner(weights, found, 0.5)(torch.ones(weights.size).double()))
    assert torch.equal(out["lift.weight"], torch.full((4, 2), 2.0).double())
    assert float(out["body.field.b_p"][0, 0]) == pytest.approx(1 / (0.5 * 1.5 / 4), rel=100 * EPS)


def test_shared_weights_are_not_stacked() -> None:
    net = lv.classifier("h2", 2, 2, 4, 4, 1.0).double()
    net.body = lv.zoo.h2(4, 4, 1.0, shared=True).double()
    weights = Weights(net, [n for n, _ in net.named_parameters()])
    assert stacks(net, weights, Penalty(smoothness=1.0), 0.1) == {}


def test_symmetric_and_positive() -> None:
    net = network(layers=5)
    weights = Weights(net, [n for n, _ in net.named_parameters()])
    solve = DepthPreconditioner(weights, stacks(net, weights, Penalty(smoothness=1e-2), 0.1), 0.1)
    M = torch.stack([solve(e) for e in torch.eye(weights.size).double()])
    assert float((M - M.mT).abs().max()) <= 100 * EPS * float(M.abs().max())
    assert float(torch.linalg.eigvalsh(M).min()) > 0
