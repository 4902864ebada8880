r"""Claims of certificates beyond the papers: bounds of steps, radii, and none for unknown classes."""

from __future__ import annotations

__all__: list[str] = []

import torch
from torch import Tensor, nn

from liouville import analysis, zoo
from liouville.activations import Activation, tanh
from liouville.analysis import amplification, certified_radius, certify
from liouville.analysis.attack import attacked
from liouville.budget import budgeted
from liouville.fields import AntisymmetricField, HamiltonianField, Normal, SeparableHamiltonianField, VectorField
from liouville.flow import Flow
from liouville.network import Lift, Network
from liouville.operators import Dense
from liouville.schemes import (
    RK4,
    ForwardEuler,
    ImplicitMidpoint,
    LeapfrogMidpoint,
    Scheme,
    SplittingScheme,
    State,
    SymplecticEuler,
    Verlet,
    Yoshida4,
)
from liouville.schemes.growth import log_growth
from liouville.verify.measuring import fill, generator, radius, step_matrix
from liouville.verify.statements import Number, at_least, at_most, statement


def _pairs() -> list[tuple[Scheme, VectorField]]:
    """Every scheme that states its growth, on fields of random weights."""
    found: list[tuple[Scheme, VectorField]] = []
    for seed in range(4):
        init, g = Normal(1.5), generator(seed)
        separable = SeparableHamiltonianField(4, 1, init=init, generator=g)
        general = HamiltonianField(4, 1, init=init, generator=g)
        skew = AntisymmetricField(4, 1, init=init, generator=g)
        found += [(scheme, separable) for scheme in (SymplecticEuler(), Verlet(), Yoshida4())]
        found += [(scheme, general) for scheme in (ForwardEuler(), RK4(), ImplicitMidpoint())]
        found.append((LeapfrogMidpoint(), skew))
    return found


@statement("proved-growth", "certificates", "no step grows by more than its scheme states, at any state")
def _growth() -> Number:
    worst = -torch.inf
    for scheme, field in _pairs():
        fill(field)
        for h in (0.05, 0.2, 0.5):
            bound = float(log_growth(scheme, field.lipschitz(field.theta()), h).detach())
            for y in (torch.zeros(4), 0.3 * torch.randn(4, generator=generator(1))):
                norm = torch.linalg.matrix_norm(step_matrix(scheme, field, y, h), ord=2)
                worst = max(worst, float(norm.log()) - bound)
    return at_most("largest log ||A|| - bound", worst, 1e-10)


@statement("proved-amplification", "certificates", "a step multiplies the modes of a linear field by r(h lambda)")
def _amplification() -> Number:
    worst = 0.0
    for scheme in (
        SymplecticEuler(),
        Verlet(),
        Yoshida4(),
        LeapfrogMidpoint(),
        RK4(),
        ForwardEuler(),
        ImplicitMidpoint(),
    ):
        for omega in (0.3, 0.8, 1.9):
            A = step_matrix(scheme, _oscillator(scheme, omega), torch.ones(2), 1.0)
            stated = amplification(scheme, torch.tensor(1j * omega, dtype=torch.complex128))
            worst = max(worst, float((radius(A) - stated).abs()))
    return at_most("largest | |r| - stated |", worst, 1e-6)


def _oscillator(scheme: Scheme, omega: float) -> VectorField:
    """A separable or an antisymmetric field that is y' = i omega y at D = I."""
    linear = Activation("linear", lambda x: x, lambda x: 0.5 * x.square(), torch.ones_like, 1.0, True)
    if isinstance(scheme, SplittingScheme):
        return fill(SeparableHamiltonianField(2, 1, activation=linear), K_p=omega**0.5, K_q=omega**0.5)
    return fill(AntisymmetricField(2, 1, activation=linear), W=torch.tensor([[0.0, omega], [0.0, 0.0]]))


@statement("proved-radius", "certificates", "no attack within its radius changes a prediction, and radii are useful")
def _radius() -> tuple[Number, Number]:
    within, beyond = 0, []
    flows = (zoo.h2(4, 4, 1.0, generator=generator(0)), zoo.ms1(4, 4, 1.0, generator=generator(1)))
    for seed, flow in enumerate(flows):
        head = nn.utils.skip_init(nn.Linear, 4, 3)  # this draws nothing from the global stream
        with torch.no_grad():
            head.weight.copy_(torch.randn(3, 4, generator=generator(seed)))
            head.bias.zero_()
        network = Network(Lift(4, 2), flow, head).eval()
        x = torch.randn(16, 2, generator=generator(seed))
        found = certified_radius(network, x)
        within += attacked(network, x, found).flips
        beyond.append(attacked(network, x, 10 * found).flips)
    return at_most("changed predictions within it", within, 0.0), at_least("within ten times it", min(beyond), 1.0)


class _Scaled(SeparableHamiltonianField):
    def q_dot(self, p: Tensor, theta_j: object) -> Tensor:
        return 10 * super().q_dot(p, theta_j)  # type: ignore[arg-type]


class _Kicked(SymplecticEuler):
    def step(self, field: VectorField, state: State, theta_j: object, h: float) -> State:
        p, q = super().step(field, state, theta_j, h)
        return p, q + 2 * torch.tanh(q)


class _Larger(Dense):
    def apply(self, weight: Tensor, y: Tensor, bias: Tensor | None = None) -> Tensor:
        return super().apply(3 * weight, y, bias)


def _unknown() -> list[Flow]:
    """Flows that compute something else than their base classes."""
    late = Activation("late", lambda x: torch.tanh(x - 40) + x.tanh(), tanh.primitive, tanh.derivative, 1.0, True)
    known = zoo.h2(4, 4, 1.0, generator=generator())
    hooked = zoo.h2(4, 4, 1.0, generator=generator())
    hooked.register_forward_hook(lambda _, args, out: 9 * out)
    return [
        Flow(_Scaled(4, 4), SymplecticEuler(), 1.0),
        Flow(known.field, _Kicked(), 1.0),
        zoo.h2(4, 4, 1.0, operator=_Larger()),
        zoo.h2(4, 4, 1.0, activation=late),
        hooked,
    ]


@statement("proved-unknown", "certificates", "no upper bound of an unknown flow passes, all of known flows do")
def _of_unknown() -> tuple[Number, Number]:
    passed = [_passes(flow) for flow in _unknown()]
    known = [_passes(flow) for flow in (zoo.h2(4, 4, 1.0), budgeted(zoo.ms1(4, 4, 1.0), 5.0), zoo.h1(4, 4, 1.0))]
    return at_most("passed bounds of unknown flows", sum(passed), 0.0), at_least("of known ones", sum(known), 3.0)


def _passes(flow: Flow) -> bool:
    claims = certify(flow, torch.randn(8, 4, generator=generator(2))).claims
    return any(claim.name == "upper bound" and claim.status == "pass" for claim in claims)


@statement("proved-derivative", "certificates", "Jacobians that do not belong to the actual steps are detected")
def _of_derivatives() -> Number:
    lie = Activation("lie", torch.tanh, tanh.primitive, lambda x: 0.1 * tanh.derivative(x), 1.0, True)
    flows = [model(4, 4, 1.0, activation=lie) for model in (zoo.h2, zoo.h1)] + [zoo.h2(4, 4, 1.0, operator=_Larger())]
    y = torch.randn(8, 4, generator=generator(2))
    return at_least("certificates that break, of three", sum(not analysis.certify(f, y).holds for f in flows), 3.0)
