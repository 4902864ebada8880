r"""P2 and P3: the networks written as Hamiltonian systems, and the number of parameters of their layers.

Every older network is y' = J K^T sigma(K y + b) for some J and K. The embeddings are checked by comparing the general
field with these matrices with each network's own update.
"""

from __future__ import annotations

__all__: list[str] = []

import torch
from torch import Tensor

from liouville import zoo
from liouville.backprop import Stored, layer
from liouville.fields import HamiltonianField, Normal, VectorField
from liouville.flow import Flow
from liouville.schemes import ForwardEuler
from liouville.testing.measure import CANCELLATION, EPS
from liouville.verify.measuring import generator
from liouville.verify.statements import Number, at_most, statement

_N, _n, _h = 3, 4, 0.2


def _general(K: Tensor, b: Tensor, J: Tensor) -> HamiltonianField:
    """y' = J K^T sigma(K y + b) with these matrices, (N, n, n), (N, n) and J (n, n) or (N, n, n)."""
    field = HamiltonianField(K.shape[-1], len(K), J=0.5 * (J - J.mT))
    with torch.no_grad():
        field.K.copy_(K)
        field.b.copy_(b)
    return field


def _blocks(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    return torch.cat((torch.cat((a, b), -1), torch.cat((c, d), -1)), -2)


@torch.no_grad()
def _staggered(field: VectorField, y: Tensor) -> Tensor:
    """y + h J K^T sigma(K (p_{j+1}, q_j) + b), layer by layer: the update of q reads the new p."""
    p, q = y.chunk(2, dim=-1)
    for j in range(field.layers):
        theta_j = layer(field.theta(), j)
        p = p + _h * field(torch.cat((p, q), -1), theta_j).chunk(2, dim=-1)[0]
        q = q + _h * field(torch.cat((p, q), -1), theta_j).chunk(2, dim=-1)[1]
    return torch.cat((p, q), -1)


def _difference(flow: Flow, other: Tensor, y: Tensor, condition: Tensor | float = 1.0) -> Number:
    """Rounding, amplified by the inverse in J K^T = I."""
    return at_most("difference", (flow(y) - other).abs().max(), CANCELLATION * _n * _N * EPS * float(condition))


def _inputs() -> Tensor:
    return torch.randn(5, _n, generator=generator(1))


@statement("p2-h1", "P2, H1-DNN; P3 (11)", "H1 is y + h J K^T sigma(K y + b), J constant")
def _h1() -> Number:
    flow = zoo.h1(_n, _N, _N * _h, J="full", init=Normal(0.7), generator=generator(), backprop=Stored())
    by_hand, J = _inputs(), torch.ones(_n, _n).triu(1) - torch.ones(_n, _n).tril(-1)
    for K, b in zip(*flow.field.theta(), strict=True):
        by_hand = by_hand + _h * torch.tanh(by_hand @ K.T + b) @ K @ J.T
    return _difference(flow, by_hand, _inputs())


@statement(
    "p2-h2",
    "P2, H2-DNN",
    "H2 is y + h J K^T sigma(K (p_{j+1}, q_j) + b) with J = [0, -X^T; X, 0] and K = blkdiag(K_p, K_q)",
)
def _h2() -> Number:
    X = torch.randn(2, 2, generator=generator(2))
    flow = zoo.h2(_n, _N, _N * _h, X=X, init=Normal(0.7), generator=generator(), backprop=Stored())
    w, zero = flow.field.theta(), torch.zeros(_N, 2, 2)
    K, b = _blocks(w.K_p, zero, zero, w.K_q), torch.cat((w.b_p, w.b_q), -1)
    field = _general(K, b, _blocks(zero[0], -X.mT, X, zero[0]))
    return _difference(flow, _staggered(field, _inputs()), _inputs())


@statement("p2-ms1", "P3 MS1, embedding; P2", "MS1 is J K^T sigma(K y + b) with K = [0, K0; -K0^T, 0] and J K^T = I")
def _ms1() -> Number:
    flow = zoo.ms1(_n, _N, _N * _h, init=Normal(0.7), generator=generator(), backprop=Stored())
    w, zero = flow.field.theta(), torch.zeros(_N, 2, 2)
    K = _blocks(zero, -w.K.mT, w.K, zero)  # in the order (z, y)
    field = _general(K, torch.cat((-w.c, w.b), -1), torch.linalg.inv(K.mT))
    return _difference(flow, _staggered(field, _inputs()), _inputs(), torch.linalg.cond(K).max().detach())


@statement("p2-ms2", "P3 MS2, embedding; P2", "MS2 is J K^T sigma(K y + b) with K = -K^T and J K^T = I")
def _ms2() -> Number:
    flow = zoo.ms2(_n, _N, _N * _h, init=Normal(0.7), generator=generator(), backprop=Stored())
    K, b = flow.field.theta()
    field = _general(K, b, torch.linalg.inv(K.mT).detach())
    other = Flow(field, ForwardEuler(), _N * _h)
    return _difference(flow, other(_inputs()), _inputs(), torch.linalg.cond(K).max().detach())


@statement(
    "p2-ms3", "P3 MS3, embedding; P2", "MS3 is J K^T sigma(K y + b) with K = [0, K1; K2, 0] and J = [0, I; -I, 0]"
)
def _ms3() -> Number:
    flow = zoo.ms3(_n, _N, _N * _h, init=Normal(0.7), generator=generator(), backprop=Stored())
    w, zero, eye = flow.field.theta(), torch.zeros(_N, 2, 2), torch.eye(2)
    K = _blocks(zero, w.K_q, w.K_p, zero)
    field = _general(K, torch.cat((w.b_q, w.b_p), -1), _blocks(zero[0], eye, -eye, zero[0]))
    return _difference(flow, _staggered(field, _inputs()), _inputs())


def _free(flow: Flow) -> int:
    """The number of free parameters of one layer: the rank of d theta / d raw parameters."""
    raw = list(flow.field.parameters())
    rows = []
    for entry in torch.cat([w.reshape(-1) for w in flow.field.theta()]):
        grads = torch.autograd.grad(entry, raw, retain_graph=True, allow_unused=True, materialize_grads=True)
        rows.append(torch.cat([g.reshape(-1) for g in grads]))
    return int(torch.linalg.matrix_rank(torch.stack(rows)))


@statement(
    "p1-parameters",
    "P1 (2.1), (4.12), sec. 4.2",
    "a layer has n^2 + 1 (residual), n (n - 1)/2 + 1 (antisymmetric), n_y n_z + 1 (Verlet) parameters",
)
def _p1_parameters() -> Number:
    wrong = 0
    for n in (2, 4, 6):
        wrong += _free(zoo.resnet(n, 1, 1.0, scalar_bias=True)) != n * n + 1
        wrong += _free(zoo.antisymmetric(n, 1, 1.0)) != n * (n - 1) // 2 + 1
        wrong += _free(zoo.verlet(n, 1, 1.0)) != (n // 2) ** 2 + 1
    return at_most("wrong counts among 9", wrong, 0)


@statement(
    "p3-parameters",
    "P3, parameters per layer",
    "MS1 n^2/4 + n, MS2 (n^2 + n)/2, MS3 n^2/2 + n, H1 and H2 (its J2) n^2 + n",
)
def _p3_parameters() -> tuple[Number, ...]:
    counts = {4: (8, 10, 12, 20, 20)}  # the paper's row
    for n in (2, 6):
        counts[n] = (n * n // 4 + n, (n * n + n) // 2, n * n // 2 + n, n * n + n, n * n + n)
    wrong = 0
    for n, stated in counts.items():
        flows = [f(n, 1, 1.0) for f in (zoo.ms1, zoo.ms2, zoo.ms3, zoo.h1)] + [zoo.h1(n, 1, 1.0, J="full")]
        wrong += sum(_free(flow) != count for flow, count in zip(flows, stated, strict=True))
    return (at_most("wrong counts among 15", wrong, 0),)


@statement("p2-parameters", "P2, H2-DNN", "a layer of H2 with square halves has n^2/2 + n parameters")
def _p2_parameters() -> Number:
    return at_most("wrong counts among 3", sum(_free(zoo.h2(n, 1, 1.0)) != n * n // 2 + n for n in (2, 4, 6)), 0)
