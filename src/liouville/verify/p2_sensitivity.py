r"""P2, Galimberti et al. 2023 (2105.13205): gradients of Hamiltonian networks do not vanish, and may explode.

By the theorems the backward sensitivity matrix dy_N/dy_j of the full state, for each sample, has a norm of at least 1.
The papers prove it by symplecticity, A J A^T = J in numerator layout. A determinant of at least 1 in every layer gives
the same bound in any sub-multiplicative norm, for more networks; statements about it go beyond the papers.
"""

from __future__ import annotations

__all__ = ["log_log_slope"]

import torch
from torch import Tensor

from liouville import zoo
from liouville.analysis import backward_sensitivity, layer_jacobians
from liouville.fields import HamiltonianField, Normal
from liouville.fields.hamiltonian import GeneralTheta, GeneralThetaJ
from liouville.flow import Flow
from liouville.schemes import RK4, ImplicitMidpoint
from liouville.testing.measure import CANCELLATION, EPS
from liouville.verify.measuring import four_norms, generator
from liouville.verify.statements import Number, at_least, at_most, statement
from liouville.zoo.examples import appendix_iii

_BOUND = 1 - 1e-9  # the lower bound 1, less the rounding of a product of up to 1024 layers
_DEPTHS = (4, 64, 1024)


def _inputs(n: int = 4, samples: int = 10) -> Tensor:
    return torch.randn(samples, n, generator=generator(1))


def _skew(n: int, seed: int = 0) -> Tensor:
    B = torch.randn(n, n, generator=generator(seed))
    return B - B.T


def _least(flow: Flow, y: Tensor) -> float:
    """The smallest of the four norms over all samples and all j < N; at j = N it is the norm of the identity."""
    return float(four_norms(backward_sensitivity(flow, y)[:-1]).min())


def _h2(layers: int, T: float, std: float = 0.5, seed: int = 0, general: bool = True) -> Flow:
    X = torch.randn(2, 2, generator=generator(seed + 100)) if general else None
    return zoo.h2(4, layers, T, X=X, init=Normal(std), generator=generator(seed))


@statement(
    "p2-lemma-symplectic",
    "P2, semi-implicit Euler is symplectic",
    "a layer of H2 has M^T J M = J in the papers' layout, which is A J A^T = J in autograd's",
)
def _symplectic() -> tuple[Number, ...]:
    worst, other = 0.0, 0.0
    for seed in range(30):
        flow = _h2(10, 3.0, std=1.0, seed=seed)
        A, J = layer_jacobians(flow, _inputs()), flow.field.structure(flow.field.theta())
        assert J is not None
        scale = torch.linalg.matrix_norm(A, ord=2) ** 2 * torch.linalg.matrix_norm(J, ord=2)
        worst = max(worst, float((torch.linalg.matrix_norm(A @ J @ A.mT - J, ord=2) / scale).max()))
        other = max(other, float((torch.linalg.matrix_norm(A.mT @ J @ A - J, ord=2) / scale).max()))
    return (
        at_most("||A J A^T - J|| / (||A||^2 ||J||), 3000 layers", worst, CANCELLATION * 4 * EPS),
        at_least("the same of A^T J A, which is not the law", other, 1e-2),
    )


@statement(
    "p2-lemma-flow",
    "P2, the continuous sensitivity is symplectic",
    "dy(T)/dy(T - t) preserves J, K(t) and b(t) varying",
)
def _flow_symplectic() -> tuple[Number, ...]:
    """The defect of RK4 falls with the step by its order: the limit is symplectic."""
    J = _skew(4)

    def defect(N: int) -> float:
        flow = Flow(HamiltonianField(4, N, J=J, generator=generator()), RK4(), T=1.0)
        A = backward_sensitivity(flow, _inputs())
        return float(torch.linalg.matrix_norm(A @ J @ A.mT - J, ord=2).max())

    coarse, fine = defect(200), defect(400)
    return at_most("||A J A^T - J||, 400 steps", fine, 1e-5), at_least(
        "times smaller than with 200", coarse / fine, 12.0
    )


@statement(
    "p2-theorem-1",
    "P2, Theorem 1",
    "for constant skew J != 0, ||dy(T)/dy(T - t)|| >= 1 for all t, in the 1, 2, infinity and Frobenius norms",
)
def _theorem_1() -> Number:
    """By the implicit midpoint rule, which keeps J for every constant J."""
    least = min(_least(_midpoint(4, seed), _inputs()) for seed in range(10))
    return at_least("least norm, 10 random J and K(t)", least, _BOUND)


def _midpoint(n: int, seed: int, J: Tensor | None = None) -> Flow:
    J = _skew(n, seed) if J is None else J
    field = HamiltonianField(n, 50, J=J, init=Normal(0.5), generator=generator(seed))
    return Flow(field, ImplicitMidpoint(), T=5.0)


@statement("p2-theorem-1-any-J", "P2, Theorem 1", "it holds for odd n and for singular J")
def _any_J() -> tuple[Number, ...]:
    singular = torch.zeros(4, 4)
    singular[0, 1], singular[1, 0] = -1.0, 1.0
    odd = min(_least(_midpoint(n, n), _inputs(n)) for n in (3, 5, 7))
    rank_2 = min(_least(_midpoint(4, seed, singular), _inputs()) for seed in range(5))
    return at_least("least norm, n = 3, 5, 7", odd, _BOUND), at_least("J of rank 2, n = 4", rank_2, _BOUND)


class _Dissipative(HamiltonianField):
    """y' = (J - r I) grad H: a damped Hamiltonian field."""

    r = 0.5

    def forward(self, y: Tensor, theta_j: GeneralTheta | GeneralThetaJ) -> Tensor:
        gradient = self.gradient(y, theta_j)
        return self.operator.mix(self.J, gradient) - self.r * gradient


@statement(
    "p2-theorem-1-dissipation", "P2, Theorem 1, assumption", "with dissipation, y' = (J - r I) dH/dy, the bound is lost"
)
def _dissipation() -> Number:
    field = _Dissipative(4, 50, J=_skew(4), init=Normal(0.5), generator=generator())
    norms = four_norms(backward_sensitivity(Flow(field, ImplicitMidpoint(), T=5.0), _inputs()))
    return at_most("least norm, r = 0.5", norms.min(), 0.9)


@statement(
    "p2-theorem-2",
    "P2, Theorem 2",
    "H2 has ||dy_N/dy_j|| >= 1 for all j, any depth, weights and step, in the 1, 2, infinity and Frobenius norms",
)
def _theorem_2() -> tuple[Number, ...]:
    return tuple(
        at_least(
            f"least norm, {N} layers",
            min(_least(_h2(N, T, std), _inputs()) for T, std in ((1.0, 1.0), (8.0, 0.4))),
            _BOUND,
        )
        for N in _DEPTHS
    )


@statement(
    "p2-batch-mean",
    "P2, figures of sensitivities",
    "the bound holds for each sample: the mean Jacobian of a batch may be smaller than 1",
)
def _batch_mean() -> tuple[Number, ...]:
    """At the origin a half turn gives A = -I; far out tanh is saturated and A = I: the two cancel."""
    A = backward_sensitivity(appendix_iii(T=torch.pi)[0], torch.tensor([[0.0, 0.0], [100.0, 100.0]]))[0]
    norms, mean = torch.linalg.matrix_norm(A, ord=2), torch.linalg.matrix_norm(A.mean(0), ord=2)
    return at_least("least norm of a sample", norms.min(), _BOUND), at_most("norm of the mean", mean, 0.1)


def log_log_slope(times: Tensor, norms: Tensor) -> float:
    """The slope of log norm over log t for t >= 10, where the growth has set in.

    Examples:
        >>> t = torch.arange(1.0, 100.0)
        >>> round(log_log_slope(t, 3 * t), 4)
        1.0
    """
    late = times >= 10
    x, z = times[late].log(), norms[late].log()
    return float(((x - x.mean()) * (z - z.mean())).sum() / (x - x.mean()).square().sum())


@statement(
    "p2-appendix-iii",
    "P2, Appendix III",
    "y' = eps J tanh(y): ||dy(T)/dy(T - t)|| grows linearly, however slowly y moves",
)
def _counterexample() -> tuple[Number, ...]:
    flow, y = appendix_iii()
    norms = torch.linalg.matrix_norm(backward_sensitivity(flow, y)[:-1, 0], ord=2).flip(0)
    slope = log_log_slope(flow.h * torch.arange(1, flow.layers + 1), norms)
    return Number("log-log slope, t in [10, 200]", slope, 0.9, 1.1), at_least("norm at t = 200", norms[-1], 10.0)


@statement("p2-appendix-iii-det", "P2, Appendix III", "it explodes at determinant 1")
def _counterexample_det() -> Number:
    A = layer_jacobians(*appendix_iii())
    return at_most("|sum of the layers' log det|", torch.linalg.det(A).log().sum().abs(), 4000 * 4 * EPS)


@statement(
    "p2-appendix-iii-scaling", "P2, Appendix III", "BSM(t; eps) = BSM(eps t; 1): slow motion only postpones the growth"
)
def _counterexample_scaling() -> Number:
    """4000 layers of h = 0.5 at eps = 1/10 against 4000 of h = 0.05 at eps = 1."""
    slow, fast = (backward_sensitivity(*appendix_iii(eps, T)) for eps, T in ((0.1, 2000.0), (1.0, 200.0)))
    size = float(torch.linalg.matrix_norm(fast, ord=2).max())
    return at_most("relative difference up to t = 2000", (slow - fast).abs().max() / size, CANCELLATION * 4000 * EPS)
