r"""P1 and P3, the learning problem: the classifier, and the penalty that makes layers a function of time."""

from __future__ import annotations

__all__: list[str] = []

import torch

from liouville import zoo
from liouville.flow import Flow
from liouville.testing.measure import CANCELLATION, EPS
from liouville.train import Task
from liouville.train.regularisers.depth import smoothness
from liouville.verify.measuring import generator
from liouville.verify.statements import Number, at_most, near, statement


@statement(
    "p1-hypothesis", "P1 (2.2), (2.3)", "the hypothesis is exp(x) / (1 + exp(x)), for more classes exp(X) / (exp(X) e)"
)
def _hypothesis() -> tuple[Number, ...]:
    one, three = torch.randn(20, 1, generator=generator()), torch.randn(20, 3, generator=generator(1))
    logistic = Task("logistic", 2).probabilities(one)[:, 1:] - one.exp() / (1 + one.exp())
    softmax = Task("softmax", 3).probabilities(three) - three.exp() / three.exp().sum(1, keepdim=True)
    tolerance = CANCELLATION * EPS
    return at_most("logistic", logistic.abs().max(), tolerance), at_most("softmax", softmax.abs().max(), tolerance)


@statement(
    "p1-smoothness",
    "P1, smoothness in time",
    "R(K) = 1/(2h) sum ||K_j - K_{j-1}||^2 has a limit in depth for smooth weights",
)
def _smoothness() -> Number:
    coarse, fine = (smoothness(_smooth(N)).detach() for N in (256, 512))
    return near("value at 512 layers over that at 256", fine / coarse, 1.0, 0.01)


@statement(
    "p3-13",
    "P3 (13)",
    "R_K = (h/2) sum ||K_j - K_{j-1}||^2 is h^2 times the first paper's, so it falls with the square of the step",
)
def _scaled() -> tuple[Number, ...]:
    coarse, fine = _smooth(256), _smooth(512)
    K, b = (w.detach() for w in coarse.field.theta())
    stated = 0.5 * coarse.h * (K.diff(dim=0).square().sum() + b.diff(dim=0).square().sum())
    value = smoothness(coarse, "hdnn").detach()
    return (
        at_most("relative difference of the penalty 'hdnn'", (value / stated - 1).abs(), CANCELLATION * 256 * EPS),
        near("value at 512 layers over that at 256", smoothness(fine, "hdnn").detach() / value, 0.25, 0.01),
    )


def _smooth(layers: int) -> Flow:
    return zoo.h1(4, layers, 2.0, generator=generator())
