r"""How much a network can amplify a difference whatever its messages do: a bound for lost, late and cut ones alike.

Let e_k be the largest difference of node k's features between two runs with the same failures, over all layers so far.
What a node hears of node k, however late, differs by at most e_k, and by 0 where it never heard. With the norms
|K_oi| of the blocks of K, a layer moves the difference at node i by at most

    h s_max ||J_ii|| sum_k N_ik e_k,        N_ik = sum_o |K_oi| |K_ok|,

so that e' <= (I + h s_max D N) e, entry by entry, and ||dy_N/dy_0|| <= ||product of these matrices||_2, if it exists;
else it bounds the quotient of the differences. Under owner-computes a late part of K^T sigma has the weights of the
layer that it was sent in, so N is the largest of all layers so far: N_ik = sum_o max_l |K_oi| |K_ok|.
A node that is down moves by 0, which is less. For halves (p, q) each stage is such a step of one half.
"""

from __future__ import annotations

__all__ = ["log_failing_bound"]

from typing import Any

import torch
from torch import Tensor

from liouville.agents.locality import require_local
from liouville.fields import HamiltonianField, SeparableHamiltonianField
from liouville.flow import Flow, require_flow
from liouville.names import lookup
from liouville.nodes import PROTOCOLS, Protocol
from liouville.operators import Graph
from liouville.schemes import SplittingScheme


@torch.no_grad()
def log_failing_bound(flow: Flow, protocol: Protocol = "owner-computes") -> float:
    r"""log C with |y_N - y_N'| <= C |y_0 - y_0'| for any two inputs and any failures that are the same for both.

    It holds for every loss, delay and outage of `liouville.agents.Failures`, so it is far above the bound without
    failures, `liouville.analysis.log_upper_bound`. No bound from below is known: a network that hears nothing may
    contract.

    Args:
        flow: the central one, on a `liouville.Graph`.
        protocol: as the nodes run.

    Raises:
        ValueError: for a flow that `liouville.agents.spread` refuses.

    Examples:
        >>> import liouville as lv
        >>> ring = lv.Graph([(0, 1), (1, 2), (2, 3), (3, 0)])
        >>> flow = lv.zoo.h2(8, 4, 1.0, operator=ring)
        >>> log_failing_bound(flow) >= float(lv.analysis.log_upper_bound(flow))
        True
    """
    flow = require_flow(flow)
    lookup(dict.fromkeys(PROTOCOLS), protocol, "protocol")
    field: Any = flow.field
    if not isinstance(getattr(field, "operator", None), Graph):
        raise ValueError(f"this is defined for a flow on a Graph, got {getattr(field, 'operator', None)}.")
    require_local(torch.ones(field.operator.nodes, field.operator.nodes), flow, protocol)
    graph: Any = field.operator
    theta = type(field.theta())(*(w.detach().double() for w in field.theta()))
    s, M = field.activation.lipschitz * flow.h, graph.nodes
    if isinstance(field, SeparableHamiltonianField) and isinstance(flow.scheme, SplittingScheme):
        J = field.structure(field.theta()).detach().double()
        X = _blocks(graph, J[None, field.p_features :, : field.p_features])[0].diagonal()
        N = {name: _spread(graph, getattr(theta, f"K_{name}"), flow.layers, protocol) for name in "qp"}
        return _product(flow.layers, 2 * M, lambda j: _stages(flow.scheme, s, X, N, j, M))
    assert isinstance(field, HamiltonianField)
    D = _blocks(graph, field.structure(field.theta()).detach().double()[None])[0].diagonal()
    N_all = _spread(graph, theta.K, flow.layers, protocol)
    return _product(flow.layers, M, lambda j: [s * D[:, None] * N_all[j]])


def _stages(scheme: Any, s: float, X: Tensor, N: dict[str, Tensor], j: int, M: int) -> list[Tensor]:
    """Each stage as a matrix over (p, q): p moves by what is heard of q, through K_q."""
    steps = []
    for half, c in scheme.stages:
        step = X.new_zeros(2, M, 2, M)
        moved = "pq".index(half)
        step[moved, :, 1 - moved] = abs(c) * s * X[:, None] * N["qp"[moved]][j]
        steps.append(step.reshape(2 * M, 2 * M))
    return steps


def _product(layers: int, size: int, steps: Any) -> float:
    """log of the norm of the product of I + each step; scaled on the way, so that it does not overflow."""
    total, log_scale = torch.eye(size, dtype=torch.float64), 0.0
    for j in range(layers):
        for step in steps(j):
            total = total + step @ total
        largest = float(total.max())
        total, log_scale = total / largest, log_scale + float(torch.tensor(largest).double().log())
    return float(torch.linalg.matrix_norm(total, ord=2).log()) + log_scale


def _spread(graph: Graph, K: Tensor, layers: int, protocol: Protocol) -> Tensor:
    """N of every layer, (N, M, M)."""
    size = _blocks(graph, K)
    products = size.mT.unsqueeze(-1) * size.unsqueeze(-3)  # [j, i, o, k] = |K_oi| |K_ok|
    if protocol == "owner-computes":
        products = products.cummax(0).values
    return products.sum(-2).expand(layers, -1, -1)


def _blocks(graph: Graph, matrix: Tensor) -> Tensor:
    """The norms of the blocks of matrices (L, m, n): (L, M, M)."""
    rows, columns = graph.owners(matrix.shape[-2]), graph.owners(matrix.shape[-1])
    out = matrix.new_zeros(len(matrix), graph.nodes, graph.nodes)
    for o in range(graph.nodes):
        for i in range(graph.nodes):
            out[:, o, i] = torch.linalg.matrix_norm(matrix[:, rows == o][:, :, columns == i], ord=2)
    return out
