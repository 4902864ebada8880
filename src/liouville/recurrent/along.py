r"""One sequence as a network in depth: the flow whose layer t is step t, its biases b + W u_t.

All that is known of flows then holds over time: sensitivities, certificates, margins, Lyapunov exponents.
"""

from __future__ import annotations

__all__ = ["along", "flows_along"]

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from liouville.fields import SecondOrderField
from liouville.flow import Flow
from liouville.recurrent.calls import taken
from liouville.recurrent.cell import Cell
from liouville.recurrent.layer import Recurrent
from liouville.recurrent.network import SequenceNetwork
from liouville.sequences import Sequences, sequences_of


@torch.no_grad()
def along(cell: Cell, u: Tensor) -> Flow:
    """The flow of a cell along one sequence u, (T, input_size): the cell's own field with T layers, for analysis.

    It takes the state before the first step and does not share weights with the cell; layer t has the weights of the
    cell and the bias b + W u_t, and is one step of length h.

    Raises:
        ValueError: if u is not one sequence.
        NotImplementedError: for a field whose biases are not parameters of its own, such as one with a budget.

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
    names = [name for each in cell.field.biases for name in each]
    scalar = getattr(own, "scalar_bias", False)  # one number, from which theta() makes them all
    if not scalar and not own._parameters.keys() >= set(names):
        raise NotImplementedError(
            f"the biases of {type(own).__name__} are made in theta(), so it has no twin with others; analyse a field "
            "whose biases are its own parameters, such as the one inside a budget."
        )
    for part in {field, own}:
        part.layers = T
    for name, raw in list(own.named_parameters(recurse=False)):
        setattr(own, name, nn.Parameter(raw.detach().expand(T, *raw.shape[1:]), requires_grad=False))
    for name in names:
        W, b = getattr(theta, f"W_{name}"), getattr(theta, name)
        own.register_parameter(name, nn.Parameter(torch.nn.functional.linear(u, W[0], b[0]), requires_grad=False))
    if scalar:
        own.scalar_bias = False
    return Flow(field, cell.scheme, T=T * cell.h).train(cell.training)


@torch.no_grad()
def flows_along(
    rnn: Recurrent | Cell | SequenceNetwork, input: Tensor | PackedSequence | Sequences
) -> list[list[Flow]]:
    """For each sequence, the flow of each cell along its own inputs: for a level above others, the outputs below.

    Args:
        rnn: a cell, a recurrent layer, or a network with one.
        input: sequences in the form that the layer takes, time first for a cell. Packed ones and
            `liouville.data.Sequences` may have different lengths: each flow has as many layers as its sequence steps.

    Raises:
        ValueError: for steps of uneven lengths.

    Examples:
        >>> import liouville as lv
        >>> rnn = lv.recurrent.HamiltonianRNN(3, 8, num_layers=2, length=20)
        >>> [[flow.layers for flow in flows] for flows in flows_along(rnn, torch.randn(20, 5, 3))][0]
        [20, 20]
    """
    if isinstance(rnn, Cell):
        rnn = Recurrent(rnn)
    elif isinstance(rnn, SequenceNetwork):
        rnn = rnn.rnn
    if not isinstance(input, Tensor) and (unequal := sequences_of(input)) is not None:
        if unequal.steps is not None:
            raise ValueError("the analysis over time is of steps of length h; give Sequences without steps.")
        return [flows_along(rnn, unequal[b])[0] for b in range(len(unequal))]
    call = taken(input, rnn.batch_first, None, None)
    inputs = rnn.inputs(call)
    return [
        [along(cell, u[:, b]) for cell, u in zip(rnn.cells, inputs, strict=True)] for b in range(inputs[0].shape[1])
    ]
