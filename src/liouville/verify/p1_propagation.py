r"""P1, Haber & Ruthotto 2017 (1705.03341): well-posed forward propagation, and the schemes that keep it.

The paper asks of y' = sigma(K^T y + b) that neither small perturbations grow nor different inputs collapse, and judges
both by the eigenvalues of its Jacobian. Eigenvalues of frozen layers are necessary knowledge, not a proof: three
statements below need an assumption that the paper leaves to the context, and are shown with it.
"""

from __future__ import annotations

__all__: list[str] = []

import torch
from torch import Tensor

from liouville import zoo
from liouville.backprop import Stored
from liouville.fields import AntisymmetricField, Normal, PairField, ResidualField, SemidefiniteField
from liouville.flow import Flow
from liouville.schemes import RK4, ForwardEuler
from liouville.testing.measure import CANCELLATION, EPS
from liouville.verify.measuring import (
    LINEAR,
    field_matrix,
    fill,
    flow_matrix,
    generator,
    largest_real_part,
    order,
    step_matrix,
)
from liouville.verify.statements import Finding, Number, at_least, at_most, near, statement
from liouville.zoo.examples import EXAMPLE_1_INPUTS, example_1


@statement("p1-residual", "P1 (2.1)", "the residual network is y + h sigma(K y + b), b a number")
def _residual() -> Number:
    flow = zoo.resnet(4, 3, 0.6, scalar_bias=True, init=Normal(0.7), generator=generator(), backprop=Stored())
    y = torch.randn(5, 4, generator=generator(1))
    by_hand = y
    for K, b in zip(*flow.field.theta(), strict=True):
        by_hand = by_hand + flow.h * torch.tanh(by_hand @ K.T + b)
    return at_most("difference", (flow(y) - by_hand).abs().max(), CANCELLATION * 4 * EPS)


@statement("p1-limit", "P1 (3.5)", "the residual network tends to y' = sigma(K^T y + b) like h")
def _limit() -> Number:
    y = torch.randn(5, 4, generator=generator(1))

    def flow(N: int, scheme: RK4 | ForwardEuler) -> Tensor:
        field = ResidualField(4, N, shared=True, init=Normal(0.5), generator=generator())
        return Flow(field, scheme, T=1.0).requires_grad_(False)(y)

    exact = flow(200, RK4())
    return near("order", order(lambda N: float((flow(N, ForwardEuler()) - exact).abs().max()), 200), 1.0, 0.1)


@statement("p1-3.6", "P1 (3.6)", "Re lambda(J(t)) <= 0 makes y' = f stable where J changes slowly")
def _frozen() -> tuple[Number, ...]:
    """J(t) = R(w t) A R(-w t) has A's spectrum at all times and grows like A - w S, S the quarter turn."""

    def growth(w: float, N: int = 1000, T: float = 20.0) -> float:
        angle = w * (torch.arange(N) + 0.5) * T / N
        c, s = angle.cos(), angle.sin()
        R = torch.stack((torch.stack((c, -s), -1), torch.stack((s, c), -1)), -2)
        K = R @ torch.tensor([[-1.0, -10.0], [0.0, -1.0]]) @ R.mT
        flow = Flow(fill(ResidualField(2, N, activation=LINEAR), K=K), RK4(), T).requires_grad_(False)
        return float(torch.linalg.matrix_norm(flow(torch.eye(2)), ord=2).log() / T)

    return (
        at_most("growth exponent, spectrum {-1, -1}, turning at 0.05", growth(0.05), 0.0),
        at_least("the same turning at 5, not slow", growth(5.0), 1.0),
    )


@statement("p1-3.7", "P1 (3.7)", "the Jacobian is diag(sigma'(K^T y + b)) K^T")
def _jacobian() -> Number:
    field = ResidualField(4, 1, init=Normal(), generator=generator())
    y = torch.randn(4, generator=generator(1))
    A, b = field.K[0], field.b[0]  # A is the paper's K^T
    stated = torch.diag(1 - torch.tanh(A @ y + b) ** 2) @ A
    return at_most("difference from autograd", (field_matrix(field, y) - stated).abs().max(), CANCELLATION * 4 * EPS)


@statement(
    "p1-3.8",
    "P1 (3.6) => (3.8)",
    "for sigma' >= 0, Re lambda(K) <= 0 gives Re lambda(J) <= 0",
    correction="with K + K^T <= 0 it does, in 1000 random layers",
)
def _spectrum_of_K() -> Finding:
    A = torch.tensor([[1.0, -3.0], [3.0, -1.5]])  # its spectrum has the real part -1/4
    field = fill(ResidualField(2, 1), K=A, b=torch.tensor([0.0, 0.9**0.5]).atanh())  # D = diag(1, 0.1) at y = 0
    wrong = largest_real_part(field_matrix(field, torch.zeros(2)))
    B = torch.randn(1000, 4, 4, generator=generator())
    dissipative = B - B.mT - 0.1 * B @ B.mT
    D = torch.rand(1000, 4, 1, generator=generator(1))
    size = float(torch.linalg.matrix_norm(dissipative, ord=2).max())
    return Finding(
        (at_most("max Re lambda(D K^T)", largest_real_part(D * dissipative).max(), CANCELLATION * EPS * size),),
        (at_most(f"Re lambda(J) where Re lambda(K) = {float(largest_real_part(A)):.3g}", wrong, 0.0),),
    )


@statement(
    "p1-lemma-1",
    "P1 (3.9), Lemma 1",
    "forward Euler is stable if |1 + h lambda_i(J_j)| <= 1 for all i and j",
    correction="for equal layers the growth per layer is max |1 + h lambda_i|",
)
def _lemma_1() -> Finding:
    K = torch.tensor([[-0.5, 2.0], [0.0, -0.5]])
    field = fill(ResidualField(2, 20), K=torch.stack((K, K.T)).repeat(10, 1, 1))  # |1 + h lambda| = 1/2 in every layer
    alternating = torch.linalg.matrix_norm(flow_matrix(Flow(field, ForwardEuler(), T=20.0), torch.zeros(2)), ord=2)
    ratios = []
    for seed in range(20):
        field = fill(ResidualField(4, 1, init=Normal(), generator=generator(seed)))
        A = step_matrix(ForwardEuler(), field, torch.zeros(4), 0.3)
        rho = torch.linalg.eigvals(A).abs().max()
        grown = torch.linalg.matrix_norm(torch.linalg.matrix_power(A / rho, 1000), ord=2) ** 1e-3
        ratios.append(float(grown))
    return Finding(
        (
            Number("least", min(ratios), 0.99, 1.01),
            Number("largest (growth per layer) / max |1 + h lambda|", max(ratios), 0.99, 1.01),
        ),
        (at_most("||dy_20/dy_0|| of two layers in turn, each with |1 + h lambda| = 1/2", alternating, 1.0),),
    )


def _distances(name: str) -> Tensor:
    """The factor by which ten layers of Example 1 change the distance of each pair of inputs."""
    y = torch.tensor(EXAMPLE_1_INPUTS)
    return torch.pdist(example_1(name)(y)) / torch.pdist(y)


@statement("p1-example-1-spread", "P1 (3.10), Example 1", "K+ (lambda = 2, 2): features spread")
def _spread() -> Number:
    return at_least("least growth of a distance", _distances("spread").min(), 1.5)


@statement("p1-example-1-collapse", "P1 (3.10), Example 1", "K- (lambda = -2, -2): features collapse")
def _collapse() -> Number:
    return at_most("largest growth of a distance", _distances("collapse").max(), 0.5)


@statement("p1-example-1-rotation", "P1 (3.10), Example 1", "K0 (lambda = +-i): features turn and keep their size")
def _rotation() -> tuple[Number, ...]:
    """A layer rotates and scales by (1 + h^2)^(1/2); |<y, tanh(K0 y)>| <= |y|^4 / 12 adds at most |y|^2 h / 12."""
    y = torch.tensor(EXAMPLE_1_INPUTS)
    flow = example_1("rotation").requires_grad_(False)
    ratio = flow(y).norm(dim=-1) / y.norm(dim=-1)
    small = flow(1e-4 * y).norm(dim=-1) / (1e-4 * y).norm(dim=-1)
    most = (1.01 * (1 + 0.1 * 0.6**2 / 12) ** 2) ** 5
    return (
        Number("least", float(ratio.min()), 1 / most, most),
        Number("largest |y_10| / |y_0|", float(ratio.max()), 1 / most, most),
        near("of tiny inputs, (1 + h^2)^5", small.mean(), 1.01**5, 1e-7),
    )


@statement(
    "p1-3.11", "P1 (3.11)", "forward and inverse problem are well posed where Re lambda(K) ~ 0, only forward where << 0"
)
def _well_posed() -> tuple[Number, ...]:
    B = torch.randn(4, 4, generator=generator())
    skew = B - B.T

    def both(K: Tensor) -> tuple[Tensor, Tensor]:
        phi = torch.linalg.matrix_exp(10.0 * field_matrix(fill(ResidualField(4, 1), K=K), torch.zeros(4)))
        s = torch.linalg.svdvals(phi)
        return s[0], 1 / s[-1]

    forward, inverse = both(skew)
    lossy, lost = both(skew - 2 * torch.eye(4))
    return (
        near("Re lambda = 0: forward", forward, 1.0, 1e-9),
        near("inverse", inverse, 1.0, 1e-9),
        at_most("Re lambda = -2: forward", lossy, 1.0),
        at_least("inverse", lost, 1e8),
    )


@statement("p1-4.12", "P1 (4.12)", "the antisymmetric network is y + h sigma(1/2 (K - K^T - gamma I) y + b)")
def _antisymmetric() -> Number:
    flow = zoo.antisymmetric(4, 3, 0.6, gamma=0.3, init=Normal(0.7), generator=generator(), backprop=Stored())
    y = torch.randn(5, 4, generator=generator(1))
    by_hand = y
    for K, b in zip(flow.field.get_parameter("W"), flow.field.get_parameter("b"), strict=True):
        by_hand = by_hand + flow.h * torch.tanh(0.5 * by_hand @ (K - K.T - 0.3 * torch.eye(4)).T + b)
    return at_most("difference", (flow(y) - by_hand).abs().max(), CANCELLATION * 4 * EPS)


def _imaginary(fields: list[tuple[object, int]]) -> Number:
    """max |Re lambda| / ||J|| over random points."""
    worst = 0.0
    for i, (field, n) in enumerate(fields):
        J = field_matrix(field, torch.randn(n, generator=generator(i)))  # type: ignore[arg-type]
        worst = max(worst, float(torch.linalg.eigvals(J).real.abs().max() / torch.linalg.matrix_norm(J, ord=2)))
    return at_most("max |Re lambda| / ||J||", worst, CANCELLATION * 4 * EPS)


@statement(
    "p1-imaginary",
    "P1 (4.12), gamma = 0",
    "the Jacobian of the antisymmetric network has an imaginary spectrum for sigma' > 0",
)
def _antisymmetric_spectrum() -> Number:
    init = Normal(0.5)
    return _imaginary([(AntisymmetricField(4, 1, init=init, generator=generator(i)), 4) for i in range(100)])


@statement(
    "p1-augmented", "P1 sec. 4.2", "[0, K; -K^T, 0] has an imaginary spectrum for every K, rectangular ones included"
)
def _augmented() -> Number:
    init = Normal(0.5)
    return _imaginary([(PairField(5, 1, p_features=2, init=init, generator=generator(i)), 5) for i in range(100)])


@statement(
    "p1-semidefinite", "P1 sec. 4.2", "K(C) = -C^T C gives the second-order network a real, non-positive spectrum"
)
def _semidefinite() -> tuple[Number, ...]:
    imaginary, real = [], []
    for i in range(100):
        field = SemidefiniteField(4, 1, init=Normal(0.5), generator=generator(i))
        J = field_matrix(field, torch.randn(4, generator=generator(i)))
        values = torch.linalg.eigvals(J) / torch.linalg.matrix_norm(J, ord=2)
        imaginary.append(float(values.imag.abs().max()))
        real.append(float(values.real.max()))
    # the eigenbasis of D C^T C is D^(1/2) times an orthogonal one, of condition max(D / D')^(1/2) <= 1e3 here
    tolerance = 1e3 * CANCELLATION * EPS
    return at_most("max |Im lambda| / ||J||", max(imaginary), tolerance), at_most(
        "max Re lambda / ||J||", max(real), tolerance
    )
