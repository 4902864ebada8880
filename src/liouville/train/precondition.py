r"""A preconditioner for weights that are functions of time: smooth changes in depth are cheap, rough ones dear."""

from __future__ import annotations

__all__ = ["DepthPreconditioner", "Stack", "stacks"]

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from liouville.flow import Flow
from liouville.train.flat import Weights
from liouville.train.regularisers import Penalty


class Stack(NamedTuple):
    """What bends along the N layers of a flow's weights: jump ||D theta||^2 / 2 + level ||theta||^2 / 2."""

    N: int
    jump: float
    level: float


class DepthPreconditioner:
    r"""(jump D^T D + level I)^-1 along the layers of every stacked weight, D the difference of neighbouring layers.

    With smoothness alpha/(2h) sum ||theta_{j+1} - theta_j||^2, jump = alpha/h, its exact curvature; level is that of
    the decay plus ridge h, which stands for the loss: one layer's share of it is proportional to h. D^T D has the
    eigenvectors of the cosine transform and the eigenvalues 2 - 2 cos(pi k / N), so that the inverse is a product with
    two N x N matrices. What is not stacked is divided by ``ridge``.

    Args:
        weights: the flat vector's layout.
        stacks: by name, for every weight whose axis 0 counts layers.
        ridge: > 0.

    Reference: Meganet.m's Swiss-roll drivers solve (alpha^2 L + 0.1 h I), L = D^T D / h^2, by the same transform; the
    curvature of its penalty is h alpha L.

    Examples:
        >>> weights = Weights(nn.Linear(1, 2, bias=False), ["weight"])
        >>> DepthPreconditioner(weights, {"weight": Stack(2, jump=1.0, level=1.0)}, 0.1)(torch.tensor([1.0, -1.0]))
        tensor([ 0.3333, -0.3333])
    """

    def __init__(self, weights: Weights, stacks: dict[str, Stack], ridge: float) -> None:
        self.weights, self.ridge = weights, ridge
        self._solvers: dict[str, tuple[Tensor, Tensor]] = {}
        bases = {N: cosines(N) for N, _, _ in stacks.values()}
        for name, (N, jump, level) in stacks.items():
            like = weights.parameters[name]
            eigenvalues = 2 - 2 * torch.cos(math.pi * torch.arange(N, dtype=torch.float64) / N)
            self._solvers[name] = bases[N].to(like), (jump * eigenvalues + level)[:, None].to(like)

    def __call__(self, r: Tensor) -> Tensor:
        """M^-1 r."""
        out = {}
        for name, part in self.weights.named(r).items():
            if name in self._solvers:
                C, divisor = self._solvers[name]
                out[name] = (C.mT @ (C @ part.reshape(len(part), -1) / divisor)).view_as(part)
            else:
                out[name] = part / self.ridge
        return self.weights.flat(out)


def stacks(network: nn.Module, weights: Weights, penalty: Penalty, ridge: float) -> dict[str, Stack]:
    """The stacked weights of the network's flows, with the curvature of the penalty, and ``ridge`` h for the loss."""
    found = {}
    for place, flow in network.named_modules():
        if not isinstance(flow, Flow):
            continue
        N, h = flow.layers, flow.h
        jump = penalty.smoothness * {"depth": 1 / h, "hdnn": h, "sum": 1.0}[penalty.scaling]
        level = penalty.decay * {"depth": h, "hdnn": h, "sum": 1.0}[penalty.scaling] + ridge * h
        for name, w in weights.parameters.items():
            if name.startswith(f"{place}." if place else "") and w.dim() and len(w) == N > 1:
                found[name] = Stack(N, jump, level)
    return found


def cosines(N: int) -> Tensor:
    """The orthogonal matrix of the cosine transform (DCT-II), row k sampling cos(pi k t) at the layer mid-points."""
    k, t = torch.arange(N, dtype=torch.float64), (torch.arange(N, dtype=torch.float64) + 0.5) / N
    C = math.sqrt(2 / N) * torch.cos(math.pi * k[:, None] * t)
    C[0] /= math.sqrt(2)
    return C
