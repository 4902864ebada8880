r"""P3, Galimberti, Xu & Ferrari-Trecate 2021 (2104.13166): the dynamics of the gradient, and its frozen spectrum.

The papers write Jacobians in denominator layout, the transpose of autograd's: their dy(T)/dy(T - t) is the transpose of
`liouville.analysis.backward_sensitivity`, and their df/dy = K^T D K J^T the transpose of J K^T D K.
"""

from __future__ import annotations

__all__: list[str] = []

import torch
from torch import Tensor

from liouville import zoo
from liouville.analysis import backward_sensitivity
from liouville.backprop import Stored, layer
from liouville.fields import HamiltonianField, Normal
from liouville.flow import Flow
from liouville.schemes import RK4
from liouville.testing.measure import CANCELLATION, EPS
from liouville.verify.measuring import field_matrix, fill, flow_matrix, generator, step_matrix
from liouville.verify.statements import Finding, Number, at_least, at_most, statement


def _skew(n: int, seed: int) -> Tensor:
    B = torch.randn(n, n, generator=generator(seed))
    return B - B.T


def _field(seed: int = 0, layers: int = 1, n: int = 4, std: float = 0.7, shared: bool = False) -> HamiltonianField:
    J = _skew(n, seed)
    return HamiltonianField(n, layers, J=J, shared=shared, init=Normal(std), generator=generator(seed))


@statement("p3-energy", "P3 (1), (7)", "along y' = J dH/dy with J skew the energy does not change")
def _energy() -> tuple[Number, ...]:
    field, y = _field(layers=400, shared=True), torch.randn(20, 4, generator=generator(1))
    theta_0 = layer(field.theta(), 0)
    with torch.no_grad():
        rate = (field.gradient(y, theta_0) * field(y, theta_0)).sum(-1).abs().max()
        end = Flow(field, RK4(), T=1.0)(y)
        drift = (field.energy(end, theta_0) - field.energy(y, theta_0)).abs().max()
    return at_most("|<dH/dy, y'>|", rate, CANCELLATION * 16 * EPS), at_most(
        "change of H over T = 1, by RK4", drift, 1e-8
    )


@statement(
    "p3-gradient",
    "P3 (8), (9), (10)",
    "H = 1^T log cosh(K y + b) has dH/dy = K^T tanh(K y + b), and y' = J K^T tanh(K y + b)",
)
def _gradient() -> tuple[Number, ...]:
    field, y = _field(), torch.randn(20, 4, generator=generator(1)).requires_grad_()
    theta_0 = layer(field.theta(), 0)
    K, b = (w.detach() for w in theta_0)
    H = torch.log(torch.cosh(y @ K.T + b)).sum()
    stated = torch.tanh(y @ K.T + b) @ K
    (by_autograd,) = torch.autograd.grad(H, y, retain_graph=True)
    tolerance = CANCELLATION * 16 * EPS
    return (
        at_most("gradient", (by_autograd - stated).abs().max(), tolerance),
        at_most("field", (field(y, theta_0) - stated @ field.J.T).abs().max(), tolerance),
        at_most("energy", (field.energy(y, theta_0).sum() - H).abs(), tolerance * 20),
    )


@statement("p3-16", "P3 (16)", "df/dy = K^T D(y) K J^T, D = diag(tanh'(K y + b)), gradients as columns")
def _jacobian() -> Number:
    field, y = _field(), torch.randn(4, generator=generator(1))
    K, b = (w[0].detach() for w in field.theta())
    stated = K.T @ torch.diag(1 - torch.tanh(K @ y + b) ** 2) @ K @ field.J.T
    return at_most("difference from autograd", (field_matrix(field, y) - stated.T).abs().max(), CANCELLATION * 16 * EPS)


@statement("p3-5", "P3 (5)", "dL/dtheta_j = (dy_{j+1}/dtheta_j) (dy_N/dy_{j+1}) dL/dy_N")
def _chain() -> Number:
    flow = zoo.h1(4, 6, 1.2, init=Normal(0.7), generator=generator(), backprop=Stored())
    y = torch.randn(1, 4, generator=generator(1))
    (b_gradient,) = torch.autograd.grad(flow(y).cos().sum(), flow.field.get_parameter("b"))
    J = flow.field.get_buffer("J")
    after = flow.trajectory(y).detach()
    g = -after[-1, 0].sin()
    worst = 0.0
    sensitivity = backward_sensitivity(flow, y)[:, 0]
    for j in range(6):
        K, b = (w[j].detach() for w in flow.field.theta())
        D = torch.diag(1 - torch.tanh(K @ after[j, 0] + b) ** 2)
        stated = (flow.h * J @ K.T @ D).T @ sensitivity[j + 1].T @ g
        worst = max(worst, float((b_gradient[j] - stated).abs().max()))
    return at_most(
        "difference from backpropagation", worst, CANCELLATION * 4 * 6 * EPS * float(sensitivity.abs().max())
    )


@statement("p3-14", "P3 (14)", "the product of dy_{l+1}/dy_l over l = j + 1 ... N - 1 is dy_N/dy_{j+1}")
def _product() -> Number:
    flow = zoo.h1(4, 6, 1.2, init=Normal(0.7), generator=generator(), backprop=Stored())
    y = torch.randn(4, generator=generator(1))
    states = flow.trajectory(y[None]).detach()[:, 0]
    product = torch.eye(4)
    for j in range(6):
        product = step_matrix(flow.scheme, flow.field, states[j], flow.h, j) @ product
    end = flow_matrix(flow, y)
    return at_most(
        "difference from autograd through all layers",
        (product - end).abs().max() / end.abs().max(),
        CANCELLATION * 4 * 6 * EPS,
    )


@statement(
    "p3-lemma-2",
    "P3, Lemma 2",
    "d/dt phi = (df/dy at y(T - t)) phi, phi(T, T) = I, gives phi(T, T - t) = dy(T)/dy(T - t)",
)
def _lemma_2() -> tuple[Number, ...]:
    """RK4 along the stored trajectory, its mid-points every second state, against autograd through all layers."""

    def worst(N: int) -> float:
        flow = Flow(_field(layers=N, shared=True), RK4(), T=1.0)
        y = torch.randn(4, generator=generator(1))
        states = flow.trajectory(y[None]).detach()[:, 0]
        F = [field_matrix(flow.field, s).T for s in reversed(states)]  # denominator layout
        phi, step = torch.eye(4), 2 * flow.h
        for k in range(0, N, 2):
            k1 = F[k] @ phi
            k2 = F[k + 1] @ (phi + 0.5 * step * k1)
            k3 = F[k + 1] @ (phi + 0.5 * step * k2)
            k4 = F[k + 2] @ (phi + step * k3)
            phi = phi + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return float((phi - flow_matrix(flow, y).T).abs().max())

    coarse, fine = worst(100), worst(200)
    return at_most("difference, 200 steps", fine, 1e-5), at_least(
        "times smaller than with 100, order 4", coarse / fine, 12.0
    )


@statement("p3-lemma-3", "P3, Lemma 3", "the eigenvalues of K^T D K J^T are purely imaginary, D >= 0")
def _lemma_3() -> Number:
    """P J^T is similar to P^(1/2) J^T P^(1/2), which is normal: eigenvalues err by eps times cond(P)^(1/2)."""
    worst = 0.0
    for seed in range(100):
        M = field_matrix(_field(seed, std=0.5), torch.randn(4, generator=generator(seed)))
        values, vectors = torch.linalg.eig(M)
        error = EPS * torch.linalg.matrix_norm(M, ord=2) * torch.linalg.cond(vectors)
        worst = max(worst, float(values.real.abs().max() / error))
    return at_most("max |Re lambda| / (eps ||M|| cond(V))", worst, CANCELLATION)


def _rank(M: Tensor) -> int:
    return int(torch.linalg.matrix_rank(M))


@statement(
    "p3-lemma-4",
    "P3, Lemma 4",
    "the eigenvalues of K^T D K J^T have equal algebraic and geometric multiplicity",
    correction="for invertible K and D > 0 they have",
)
def _lemma_4() -> Finding:
    quarter = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    singular = fill(HamiltonianField(2, 1, J=quarter), K=torch.diag(torch.tensor([1.0, 0.0])))
    M = field_matrix(singular, torch.zeros(2)).T  # nilpotent, with the double eigenvalue 0
    K = torch.kron(torch.eye(3), torch.tensor([[1.0, 0.5], [-0.3, 0.8]]))
    threefold = fill(HamiltonianField(6, 1, J=torch.kron(torch.eye(3), quarter)), K=K)
    W = field_matrix(threefold, torch.zeros(6)).T.to(torch.complex128)
    mu = torch.linalg.eigvals(W).imag.max()
    return Finding(
        (Number("geometric multiplicity of a threefold eigenvalue", 6 - _rank(W - 1j * mu * torch.eye(6)), 3, 3),),
        (Number("geometric multiplicity of a double eigenvalue, K = diag(1, 0)", 2 - _rank(M), 2, 2),),
    )


@statement(
    "p3-marginal",
    "P3 (6) and the consequence of Lemma 4",
    "with D constant phi neither grows nor vanishes, for all J, K, b, T",
    correction="for invertible K, 1/c <= s_min(phi) and ||phi|| <= c with c = cond(K^T D K)^(1/2)",
)
def _marginal() -> Finding:
    """D is constant at the origin of a layer without bias."""
    t = torch.linspace(0.0, 1000.0, 501)
    quarter = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    singular = fill(HamiltonianField(2, 1, J=quarter), K=torch.diag(torch.tensor([1.0, 0.0])))
    grown = torch.linalg.matrix_norm(torch.linalg.matrix_exp(1000.0 * field_matrix(singular, torch.zeros(2))), ord=2)
    largest, smallest = 0.0, torch.inf
    for seed in range(10):
        field = fill(_field(seed))
        M, K = field_matrix(field, torch.zeros(4)), field.get_parameter("K")[0].detach()
        phi = torch.linalg.matrix_exp(t[:, None, None] * M)
        s, c = torch.linalg.svdvals(phi), torch.linalg.cond(K.T @ K) ** 0.5
        largest = max(largest, float(s[:, 0].max() / c))
        smallest = min(smallest, float(s[:, -1].min() * c))
    return Finding(
        (
            at_most("largest ||phi|| / c up to T = 1000", largest, 1.0 + 1e-9),
            at_least("least c s_min(phi)", smallest, 1.0 - 1e-9),
        ),
        (at_most("||phi|| at T = 1000, K = diag(1, 0)", grown, 10.0),),
    )
