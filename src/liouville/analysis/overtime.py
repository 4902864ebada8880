r"""Analysis of recurrent layers: each sequence is a flow in depth of its own (`liouville.recurrent.along`)."""

from __future__ import annotations

__all__ = ["certified_sequences", "gradient_norms_over_time", "sequence_sensitivity"]

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from liouville.backprop import slices
from liouville.fields import PerLayer
from liouville.fields.given import bind
from liouville.flow import Flow
from liouville.recurrent import Cell, Recurrent, SequenceNetwork, flows_along
from liouville.sequences import Inputs

_SEQUENCES, _STATES = 4, 8  # of a certificate: how many sequences, and first states of each


def sequence_sensitivity(
    rnn: Recurrent | Cell | SequenceNetwork, input: Inputs | PackedSequence, one: Any
) -> Tensor | list[Tensor]:
    """What ``one`` gives for dState_T / dState_t of every sequence, (T + 1, B, ...); for several cells one such tensor
    for each.

    ``one`` gives it of a flow at the state before the first step, which is 0 here.

    Raises:
        ValueError: if the lengths differ.
    """
    along = flows_along(rnn, input)
    if not along:
        raise ValueError("expected at least one sequence, got none.")
    if len({flows[0].layers for flows in along}) > 1:
        raise ValueError("the sequences must be equally long to be analysed together; give them one at a time.")
    found = [[_at_rest(flow, one) for flow in flows] for flows in along]
    cells = [torch.cat(column, 1) for column in zip(*found, strict=True)]
    return cells[0] if len(cells) == 1 else cells


def _at_rest(flow: Flow, one: Any) -> Tensor:
    like = next(flow.parameters())
    found: Tensor = one(flow, like.new_zeros(1, flow.field.features))
    return found


def certified_sequences(
    rnn: Recurrent | Cell | SequenceNetwork, input: Inputs | PackedSequence
) -> Iterator[tuple[Flow, Tensor]]:
    """Flows to certify, and first states of each to measure at: 0, and some normally distributed."""
    for flows in flows_along(rnn, input)[:_SEQUENCES]:
        for flow in flows:
            like = next(flow.parameters())
            generator = torch.Generator().manual_seed(0)
            states = torch.randn(_STATES, flow.field.features, generator=generator).to(like)
            states[0] = 0.0
            yield flow, states


def gradient_norms_over_time(
    cell: Cell, u: Tensor, state: Tensor, tau: Tensor | None, end: Tensor | None, along: Tensor | None
) -> Tensor:
    """||dL/dState_t|| of every sequence for t = 0 ... T, (T + 1, B), by one backward pass through the plain loop.

    Args:
        cell, u, state, tau: a run of a cell, as `Cell.run` takes it.
        end: dL/dState_T, (B, n), beside what comes through the outputs; None for 0.
        along: dL/d outputs, (T, B, n); None for 0.
    """
    with torch.enable_grad():
        theta = cell.driven.theta()
        theta = type(theta)(*(w.detach() for w in theta))
        given = (PerLayer(u.detach()),) if tau is None else (PerLayer(u.detach()), PerLayer(tau))
        run: Any
        run, theta = bind(cell.driven.in_run(0), theta, given, {}, len(u))
        x = state.detach().requires_grad_()
        states = [x]
        for j, theta_j in enumerate(slices(theta, len(u))):
            parts = tuple(x.split(cell.sizes, -1))
            x = torch.cat(cell.scheme.step(run.at_layer(j), parts, theta_j, cell.h), -1)
            states.append(x)
        outputs, gradients = [states[-1]], [torch.zeros_like(x) if end is None else end]
        if along is not None:
            outputs += states[1:]
            gradients += along.unbind(0)
    found = torch.autograd.grad(outputs, states, gradients)
    return torch.stack([g.norm(dim=-1) for g in found])
