r"""P2, wider than printed: the determinant route to the lower bound, rigorous upper bounds, and their limits.

Layers with |det| >= 1 give a product with spectral radius at least 1, and so with every sub-multiplicative norm at
least 1. That covers forward Euler, J that varies by layer, and the pair field, which no constant J makes symplectic.
"""

from __future__ import annotations

__all__: list[str] = []

import torch
from torch import Tensor

from liouville import zoo
from liouville.activations import Activation
from liouville.analysis import backward_sensitivity, layer_jacobians
from liouville.fields import HamiltonianField, Normal, SeparableHamiltonianField
from liouville.flow import Flow
from liouville.schemes import RK4, ForwardEuler
from liouville.testing.measure import CANCELLATION, EPS
from liouville.verify.measuring import fill, four_norms, generator
from liouville.verify.statements import Number, at_least, at_most, near, statement

_BOUND = 1 - 1e-9
_SINE = Activation(
    "sine", lambda x: torch.sin(3 * x), lambda x: -torch.cos(3 * x) / 3, lambda x: 3 * torch.cos(3 * x), 3.0, False
)


def _inputs(samples: int = 10) -> Tensor:
    return torch.randn(samples, 4, generator=generator(1))


def _skew(*shape: int, seed: int = 0) -> Tensor:
    B = torch.randn(*shape, generator=generator(seed))
    return B - B.mT


def _networks(N: int, T: float, std: float, seed: int) -> dict[str, Flow]:
    """The networks that the determinant route covers."""
    init, random = Normal(std), generator(seed)
    return {
        "h1": zoo.h1(4, N, T, init=init, generator=random),
        "h1, J by layer": zoo.h1(4, N, T, J=_skew(N, 4, 4, seed=seed), init=init, generator=random),
        "h2": zoo.h2(4, N, T, init=init, generator=random),
        "ms1": zoo.ms1(4, N, T, init=init, generator=random),
        "ms2": zoo.ms2(4, N, T, init=init, generator=random),
        "ms3": zoo.ms3(4, N, T, init=init, generator=random),
    }


@statement("p2-det-one", "P2, wider", "layers of H2, MS1, MS3, Verlet and leapfrog have determinant 1")
def _det_one() -> Number:
    worst = 0.0
    for seed in range(10):
        flows = _networks(10, 3.0, 1.0, seed)
        chosen = [flows["h2"], flows["ms1"], flows["ms3"], zoo.leapfrog(4, 10, 3.0, generator=generator(seed))]
        for flow in chosen:
            A = layer_jacobians(flow, _inputs())
            error = (torch.linalg.det(A) - 1).abs() / torch.linalg.matrix_norm(A, ord=2) ** len(A[0, 0])
            worst = max(worst, float(error.max()))
    return at_most("|det - 1| / ||A||^n, 4000 layers", worst, CANCELLATION * 16 * EPS)


@statement(
    "p2-det-euler",
    "P2, wider",
    "a layer of H1 or MS2 by forward Euler has det = prod(1 + h^2 mu_k^2) >= 1 for sigma' >= 0, gamma = 0",
)
def _det_euler() -> tuple[Number, ...]:
    least, worst = torch.inf, 0.0
    for seed in range(20):
        flows = _networks(10, 2.0, 0.7, seed)
        for flow in (flows["h1"], flows["h1, J by layer"], flows["ms2"]):
            A = layer_jacobians(flow, _inputs())
            mu = torch.linalg.eigvals((A - torch.eye(4)) / flow.h).imag  # eigenvalues come in pairs +-mu
            stated = (1 + (flow.h * mu) ** 2).prod(-1).sqrt()
            det = torch.linalg.det(A)
            least, worst = min(least, float(det.min())), max(worst, float((det / stated - 1).abs().max()))
    return at_least("least det, 6000 layers", least, 1 - CANCELLATION * 16 * EPS), at_most(
        "error of the formula", worst, 1e-9
    )


@statement(
    "p2-lower-bound",
    "P2, wider",
    "H1, H2, MS1, MS2 and MS3 all have ||dy_N/dy_j|| >= 1, at any depth, J varying with the layer included",
)
def _lower_bound() -> tuple[Number, ...]:
    least: dict[str, float] = {}
    for N, T, std in ((4, 1.0, 1.0), (64, 4.0, 0.5), (1024, 4.0, 0.3)):
        for name, flow in _networks(N, T, std, seed=N).items():
            norm = float(four_norms(backward_sensitivity(flow, _inputs(5))[:-1]).min())
            least[name] = min(least.get(name, torch.inf), norm)
    return tuple(at_least(f"least norm, {name}", norm, _BOUND) for name, norm in least.items())


@statement(
    "p2-assumptions",
    "P2, wider",
    "without its assumptions the determinant falls below 1: sigma not monotone, gamma > 0, RK4",
)
def _assumptions() -> tuple[Number, ...]:
    def least(flow: Flow) -> Tensor:
        return torch.linalg.det(layer_jacobians(flow, _inputs(50))).min()

    init = Normal(0.7)
    sine = HamiltonianField(4, 20, activation=_SINE, init=init, generator=generator())
    h1 = HamiltonianField(4, 20, init=Normal(1.0), generator=generator())
    return (
        at_most("forward Euler with sin 3x", least(Flow(sine, ForwardEuler(), 6.0)), 0.9),
        at_most("MS2 with gamma = 0.5", least(zoo.ms2(4, 20, 2.0, gamma=0.5, init=init, generator=generator())), 0.99),
        at_most("H1's field by RK4", least(Flow(h1, RK4(), 10.0)), 0.99),
    )


@statement(
    "p2-ms1-not-symplectic", "P2, wider", "MS1 keeps volume, but no J: its own would be K^-1 and change with the layer"
)
def _ms1() -> tuple[Number, ...]:
    """J of layer 0 as the candidate: layer 0 conserves it, layer 1 does not."""
    flow = zoo.ms1(4, 2, 0.6, init=Normal(0.7), generator=generator())
    A, K0 = layer_jacobians(flow, _inputs()), flow.field.get_parameter("K")[0].detach()
    zero = torch.zeros(2, 2)
    K = torch.cat((torch.cat((zero, -K0.T), 1), torch.cat((K0, zero), 1)))
    J = torch.linalg.inv(K.T)
    defect = torch.linalg.matrix_norm(A @ J @ A.mT - J, ord=2).amax(1) / torch.linalg.matrix_norm(J, ord=2)
    return at_most("layer 0", defect[0], CANCELLATION * 4 * EPS * float(torch.linalg.cond(K))), at_least(
        "layer 1", defect[1], 0.01
    )


@statement(
    "p2-pairs",
    "P2, wider",
    "a norm >= 1 does not mean that no direction shrinks: with X = I singular values come as (s, 1/s)",
)
def _pairs() -> tuple[Number, ...]:
    s = torch.linalg.svdvals(
        backward_sensitivity(zoo.h2(4, 16, 4.0, init=Normal(0.5), generator=generator()), _inputs())
    )
    return near("largest s_i s_(n+1-i)", (s * s.flip(-1)).max(), 1.0, 1e-9), at_most(
        "least singular value", s.min(), 0.9
    )


@statement(
    "p2-full-state", "P2, wider", "the bound holds for the full state: for the classified half the norm may be near 0"
)
def _full_state() -> tuple[Number, ...]:
    """A quarter turn moves q into p."""
    field = fill(SeparableHamiltonianField(2, 100, shared=True), K_p=1.0, K_q=1.0)
    A = backward_sensitivity(Flow(field, zoo.verlet(2, 1, 1.0).scheme, torch.pi / 2), torch.zeros(1, 2))[0, 0]
    return at_least("norm for the full state", torch.linalg.matrix_norm(A, ord=2), _BOUND), at_most(
        "for q only", A[1, 1].abs(), 0.02
    )


def _largest_ratio(flow: Flow, growth: Tensor) -> float:
    """The maximum over j and samples of ||dy_N/dy_j|| over the product of the layers' bounds from j on."""
    norms = torch.linalg.matrix_norm(backward_sensitivity(flow, _inputs(4))[:-1], ord=2)
    bound = growth.flip(0).cumprod(0).flip(0)
    return float((norms / bound[:, None]).max())


@statement(
    "p2-upper-bound",
    "P2, upper bound, constants derived here",
    "||dy_N/dy_j|| <= exp(S sum h ||J|| ||K||^2) for H1, exp(S sum h ||X|| (||K_p||^2 + ||K_q||^2)) for H2",
)
def _upper_bound() -> tuple[Number, ...]:
    """200 random networks each, of random depth, step and scale; S = 1 for tanh."""
    h1 = h2 = 0.0
    random = generator()
    for seed in range(200):
        N = int(torch.randint(1, 40, (), generator=random))
        T, std = (torch.rand(2, generator=random) * torch.tensor([4.0, 1.0]) + 0.1).tolist()
        init, own = Normal(std), generator(seed)
        flow = zoo.h1(4, N, T, J=_skew(4, 4, seed=seed), init=init, generator=own)
        J = torch.linalg.matrix_norm(flow.field.get_buffer("J"), ord=2)
        K = torch.linalg.matrix_norm(flow.field.get_parameter("K").detach(), ord=2)
        h1 = max(h1, _largest_ratio(flow, torch.exp(flow.h * J * K**2)))
        flow = zoo.h2(4, N, T, X=torch.randn(2, 2, generator=own), init=init, generator=own)
        X = torch.linalg.matrix_norm(flow.field.get_buffer("X"), ord=2)
        squares = sum(torch.linalg.matrix_norm(w.detach(), ord=2) ** 2 for w in flow.field.theta()[:2])
        h2 = max(h2, _largest_ratio(flow, torch.exp(flow.h * X * squares)))
    return at_most("largest norm / bound, H1", h1, 1 + 1e-12), at_most("H2", h2, 1 + 1e-12)
