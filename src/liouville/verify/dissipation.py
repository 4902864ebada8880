r"""Claims about fields that lose energy: passivity of every step, and the two sides of the norm of a sensitivity."""

from __future__ import annotations

__all__: list[str] = []

import torch
from torch import Tensor

from liouville.analysis import backward_sensitivity, log_lower_bound, log_upper_bound
from liouville.analysis.dissipation import log_layer_volumes
from liouville.analysis.jacobians import layer_jacobians
from liouville.backprop import slices
from liouville.fields import HamiltonianField, Normal, PerLayer, PortHamiltonianField
from liouville.flow import Flow
from liouville.schemes import RK4, DiscreteGradient, ForwardEuler, ImplicitMidpoint, Scheme
from liouville.testing.measure import CANCELLATION, EPS
from liouville.verify.measuring import generator
from liouville.verify.statements import Number, at_least, at_most, statement

_SCHEMES = (ImplicitMidpoint(), ForwardEuler(), DiscreteGradient())
_RESIDUAL = 1e3  # the layers' equations are solved to 10 eps of their size; <g, y' - y> has n terms


def _field(seed: int, layers: int = 8, **more: object) -> PortHamiltonianField:
    field = PortHamiltonianField(4, layers, init=Normal(0.8), generator=generator(seed), **more)  # type: ignore[arg-type]
    with torch.no_grad():
        field.L.add_(0.4 * torch.randn(field.L.shape, generator=generator(seed + 100)))
    return field


def _inputs(samples: int = 5) -> Tensor:
    return 2 * torch.randn(samples, 4, generator=generator(1))


@torch.no_grad()
def _supplied(flow: Flow, y: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """H(y_N) - H(y_0), the supply h sum u^T G^T g and the loss h sum |L^T g|^2, where one H serves all layers."""
    field, states = flow.field, flow.trajectory(y, u=PerLayer(u))
    assert isinstance(field, PortHamiltonianField)
    thetas = list(slices(field.theta(), flow.layers))
    supply = loss = torch.zeros(len(y))
    for before, after, theta_j, u_j in zip(states, states[1:], thetas, u, strict=False):
        g = field.mean_gradient(before, after, theta_j)
        supply = supply + flow.h * (u_j * (g @ theta_j.G)).sum(-1)
        loss = loss + flow.h * (g @ theta_j.L).square().sum(-1)
    return field.storage(states[-1], thetas[-1]) - field.storage(states[0], thetas[0]), supply, loss


@statement(
    "proved-passivity",
    "certificates",
    "a port-Hamiltonian flow by the discrete gradient is passive, H(y_N) - H(y_0) <= sum h u^T G^T g, at any step; the "
    "difference is the loss",
)
def _passivity() -> tuple[Number, ...]:
    most, off = -torch.inf, 0.0
    for seed, T, quadratic in ((0, 0.5, 0.7), (1, 4.0, 0.0), (2, 20.0, 0.7)):
        field = _field(seed, 8, shared=True, inputs=2, quadratic=quadratic)
        u = 3 * torch.randn(8, 3, 2, generator=generator(seed + 7))
        gained, supply, loss = _supplied(Flow(field, DiscreteGradient(), T), _inputs(3), u)
        size = 1 + gained.abs() + supply.abs() + loss
        most = max(most, float(((gained - supply) / size).max()))
        off = max(off, float(((gained - supply + loss) / size).abs().max()))
    rounding = 8 * _RESIDUAL * EPS
    return at_most("largest gain beyond the supply, relative", most, rounding), at_most(
        "error of the balance, relative", off, rounding
    )


@statement(
    "proved-lossless",
    "certificates",
    "with R = 0 and no input the discrete gradient keeps the energy of every layer and midpoint its volume; not both",
)
def _lossless() -> tuple[Number, ...]:
    field = HamiltonianField(4, 6, init=Normal(0.8), generator=generator(3))
    port = PortHamiltonianField(4, 6, damping=0.0)
    with torch.no_grad():
        port.K.copy_(field.K), port.b.copy_(field.b)
    y, kept, lost = _inputs(), 0.0, 0.0
    dets: dict[Scheme, float] = {}
    for scheme in (DiscreteGradient(), ImplicitMidpoint()):
        flow = Flow(port, scheme, 3.0)
        states = flow.trajectory(y)
        H = [port.storage(states[j : j + 2], t).detach() for j, t in enumerate(slices(port.theta(), 6))]
        off = max(float((after - before).abs().max()) for before, after in H)
        kept, lost = (off, lost) if isinstance(scheme, DiscreteGradient) else (kept, off)
        dets[scheme] = float(torch.linalg.det(layer_jacobians(flow, y)).log().abs().max())
    same = (Flow(field, DiscreteGradient(), 3.0)(y) - Flow(port, DiscreteGradient(), 3.0)(y)).abs().max()
    return (
        at_most("largest change of H, discrete gradient", kept, _RESIDUAL * EPS * 10),
        at_least("midpoint", lost, 1e-3),
        at_most("largest |log det|, midpoint", dets[ImplicitMidpoint()], CANCELLATION * 16 * EPS),
        at_least("discrete gradient", dets[DiscreteGradient()], 1e-3),
        at_most("distance from the Hamiltonian field", same, CANCELLATION * 16 * EPS * 10),
    )


@statement(
    "proved-damping",
    "certificates",
    "exp(-1/n sum of what the layers can lose) <= ||dy_N/dy_j|| <= U, with damping, by midpoint, Euler and the "
    "discrete gradient; no layer loses more volume than stated",
)
@torch.no_grad()
def _damping() -> tuple[Number, ...]:
    below = above = volume = -torch.inf
    for seed in range(2):
        for scheme in _SCHEMES:
            for T, quadratic in ((0.3, 0.0), (0.8, 0.4)):
                flow = Flow(_field(seed, quadratic=quadratic), scheme, T)
                norm = torch.linalg.matrix_norm(backward_sensitivity(flow, _inputs())[:-1], ord=2).log()
                below = max(below, float((log_lower_bound(flow) - norm).max()))
                above = max(above, float((norm - log_upper_bound(flow)).max()))
                log_det = torch.linalg.slogdet(layer_jacobians(flow, _inputs())).logabsdet
                volume = max(volume, float((log_layer_volumes(flow)[:, None] - log_det).max()))
    return (
        at_most("largest log c - log ||A||", below, 1e-12),
        at_most("largest log ||A|| - log U", above, 1e-12),
        at_most("largest bound - log |det| of a layer", volume, 1e-12),
    )


@statement(
    "proved-volume",
    "certificates",
    "a port-Hamiltonian flow has log det dy(T)/dy(0) = -int tr(R Hess H) dt, so that exp(-1/n int tr(R Hess H)) <= "
    "||dy(T)/dy(0)||",
)
def _volume() -> tuple[Number, ...]:
    """200 steps of RK4, Simpson's rule along the trajectory."""
    N, T, y = 200, 1.0, _inputs(3)
    field = _field(5, N, shared=True)
    flow = Flow(field, RK4(), T)
    A = backward_sensitivity(flow, y)[0]
    rates = field.jacobian(flow.trajectory(y), field.theta())
    assert rates is not None
    loss = -rates.detach().diagonal(dim1=-2, dim2=-1).sum(-1)
    weights = torch.tensor([1.0, *(4.0, 2.0) * (N // 2 - 1), 4.0, 1.0]) * T / (3 * N)
    integral = weights @ loss
    return (
        at_most("|log det + int tr(R Hess H)|", (torch.linalg.slogdet(A).logabsdet + integral).abs().max(), 1e-5),
        at_most("largest bound - log ||A||", (-integral / 4 - torch.linalg.matrix_norm(A, ord=2).log()).max(), 0.0),
    )
