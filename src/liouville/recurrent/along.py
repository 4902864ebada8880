r"""One sequence as a network in depth: the flow whose layer t is step t, its biases b + W u_t.

All that is known of flows then holds over time: sensitivities, certificates, margins, Lyapunov exponents.
"""

from __future__ import annotations

__all__ = ["along", "flows_along"]

import copy
from typing import Any

import torch
from torch import Tensor, nn

from liouville.fields import SecondOrderField
from liouville.flow import Flow
from liouville.recurrent.calls import taken
from liouville.recurrent.cell import Cell
from liouville.recurrent.layer import Recurrent


@torch.no_grad()
def along(cell: Cell, u: Tensor) -> Flow:
    """The flow of a cell along one sequence u, (T, input_size): the cell's own field with T layers, for analysis.

    It takes the state before the first step and does not share weights with the cell; layer t has the weights of the
    cell and the bias b + W u_t, and is one step of length h.

    Raises:
        ValueError: if u is not one sequence, or for a second-order field's start "half", which a cell does not use.

    Examples:
        >>> import liouville as lv
        >>> cell = lv.recurrent.HamiltonianRNNCell(3, 8, length=20)
        >>> u = torch.randn(20, 3)
        >>> flow, (last,) = along(cell, u), lv.recurrent.Recurrent(cell).final(u)
        >>> flow.layers, bool(torch.allclose(flow(torch.zeros(8)), last, atol=1e-6))
        (20, True)
    """
    if u.dim() != 2:
        raise ValueError(f"expected one sequence, (T, {cell.input_size}), got shape {tuple(u.shape)}.")
    cell.require_fits(u)
    theta, field, T = cell.driven.theta(), copy.deepcopy(cell.field), len(u)
    own: Any = field.force if isinstance(field, SecondOrderField) else field
    for part in {field, own}:
        part.layers = T
    for name, raw in list(own.named_parameters(recurse=False)):
        setattr(own, name, nn.Parameter(raw.detach().expand(T, *raw.shape[1:]), requires_grad=False))
    for name in (name for names in cell.field.biases for name in names):
        W, b = getattr(theta, f"W_{name}"), getattr(theta, name)
        own.register_parameter(name, nn.Parameter(torch.nn.functional.linear(u, W[0], b[0]), requires_grad=False))
    if getattr(own, "scalar_bias", False):
        own.scalar_bias = False
    return Flow(field, cell.scheme, T=T * cell.h).train(cell.training)


@torch.no_grad()
def flows_along(rnn: Recurrent | Cell, input: Tensor) -> list[list[Flow]]:
    """For each sequence, the flow of each cell along its own inputs: for a level above others, the outputs below.

    Args:
        rnn: a cell, or a recurrent layer.
        input: sequences in the form that the layer takes; time first for a cell.

    Examples:
        >>> import liouville as lv
        >>> rnn = lv.recurrent.HamiltonianRNN(3, 8, num_layers=2, length=20)
        >>> [[flow.layers for flow in flows] for flows in flows_along(rnn, torch.randn(20, 5, 3))][0]
        [20, 20]
    """
    if isinstance(rnn, Cell):
        rnn = Recurrent(rnn)
    inputs = rnn.inputs(taken(input, rnn.batch_first, None, None))
    return [
        [along(cell, u[:, b]) for cell, u in zip(rnn.cells, inputs, strict=True)] for b in range(inputs[0].shape[1])
    ]
