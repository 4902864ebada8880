r"""The calling forms of `torch.nn.GRU`: batched or not, batch first or not, packed or padded, and back again."""

from __future__ import annotations

__all__ = ["Call", "taken"]

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from liouville.flow import require_tensor
from liouville.sequences import Lengths, Sequences, counted, durations


@dataclass(frozen=True)
class Call:
    """One call of a recurrent layer: its inputs (T, B, inputs), the lengths of its steps, and how to answer.

    Args:
        u: the inputs, time first.
        tau: lengths of the steps in units of h, (T, 1 or B, 1); None where all are 1.
        batched: whether the caller gave a batch.
        batch_first: whether the batch comes first in the answer.
        packed: what the caller gave, if it was packed.
        lengths: of packed sequences, in the order of the batch.
    """

    u: Tensor
    tau: Tensor | None
    batched: bool
    batch_first: bool
    packed: PackedSequence | None = None
    lengths: Tensor | None = None

    def output(self, y: Tensor) -> Tensor | PackedSequence:
        """(T, B, width) in the form of the input."""
        if self.packed is not None:
            return _packed_like(self.packed, y, self.lengths)
        if not self.batched:
            return y[:, 0]
        return y.transpose(0, 1) if self.batch_first else y

    def state(self, hx: Tensor | None, number: int) -> Sequence[Tensor | None]:
        """The first states of the ``number`` cells, each (B, hidden_size), or None."""
        if hx is None:
            return [None] * number
        if not isinstance(hx, Tensor):
            raise ValueError(
                f"the state is one tensor, (number of cells, B, hidden_size) as for nn.GRU, got {type(hx).__name__}."
            )
        axes = 3 if self.batched else 2
        if hx.dim() != axes or len(hx) != number:
            shape = f"({number}, {f'{self.u.shape[1]}, ' if self.batched else ''}hidden_size)"
            raise ValueError(f"the state must have shape {shape} here, got {tuple(hx.shape)}.")
        return list((hx if self.batched else hx[:, None]).unbind(0))

    def last(self, states: Sequence[Tensor]) -> Tensor:
        """The last states of the cells, stacked, in the form of the input."""
        stacked = torch.stack(list(states))
        return stacked if self.batched else stacked[:, 0]


def taken(
    input: Tensor | PackedSequence | Sequences, batch_first: bool, lengths: Lengths, steps: Tensor | None
) -> Call:
    """The call of a layer, after a check of its shapes.

    Args:
        input: (T, B, inputs), (B, T, inputs) if ``batch_first``, (T, inputs), packed, or `Sequences`, which are
            answered like the padded tensor that they have.
        batch_first: as above.
        lengths: the number of steps of each padded sequence.
        steps: the length of each step in units of h: (T,), or shaped like the input without its last axis.

    Raises:
        ValueError: with what does not fit.
    """
    if isinstance(input, PackedSequence):
        if lengths is not None:
            raise ValueError("a PackedSequence has its lengths; give lengths only with padded sequences.")
        u, known = pad_packed_sequence(input)
        tau = _durations(steps, u, batch_first, True, known)
        return Call(u, _ended(tau, known, u), True, batch_first, input, known)
    if isinstance(input, Sequences):
        if lengths is not None or steps is not None:
            raise ValueError("Sequences have their lengths and steps; give them only with padded tensors.")
        u = input.x.transpose(0, 1)
        tau = None if input.steps is None else input.steps.mT[..., None]
        return Call(u, tau if tau is not None else _ended(None, input.lengths, u), True, batch_first)
    require_tensor(input)
    if input.dim() not in (2, 3):
        form = "(B, T, inputs)" if batch_first else "(T, B, inputs)"
        raise ValueError(f"expected sequences {form}, or one sequence (T, inputs), got shape {tuple(input.shape)}.")
    batched = input.dim() == 3
    u = input[:, None] if not batched else input.transpose(0, 1) if batch_first else input
    if not len(u):
        raise ValueError(f"a sequence needs at least one step, got an input of shape {tuple(input.shape)}.")
    counts = None if lengths is None else counted(lengths, *u.shape[:2])
    tau = _durations(steps, u, batch_first, batched, counts)
    if counts is not None:
        tau = _ended(tau, counts, u)
    u = u if tau is None else u.where(tau != 0, 0.0)  # padding may be NaN or infinite, and 0 times that is no number
    return Call(u, tau, batched, batch_first)


def _durations(
    steps: Tensor | None, u: Tensor, batch_first: bool, batched: bool, lengths: Tensor | None
) -> Tensor | None:
    if steps is None:
        return None
    T, B = u.shape[:2]
    return durations(steps, T, B if batched else None, batch_first, u.device, lengths).to(u.dtype)


def _ended(tau: Tensor | None, lengths: Tensor, u: Tensor) -> Tensor | None:
    """The steps with length 0 from the end of each sequence on; unchanged where all are equally long."""
    T = len(u)
    if bool((lengths == T).all()):
        return tau
    runs = torch.arange(T, device=u.device)[:, None] < lengths.to(u.device)
    own = runs[..., None].to(u.dtype)
    return own if tau is None else tau * own


def _packed_like(packed: PackedSequence, y: Tensor, lengths: Tensor | None) -> PackedSequence:
    """(T, B, width), in the order of the batch, packed as the input was."""
    order = packed.sorted_indices
    assert lengths is not None
    rows, counts = (y, lengths) if order is None else (y.index_select(1, order), lengths[order.to(lengths.device)])
    data = pack_padded_sequence(rows, counts).data
    return PackedSequence(data, packed.batch_sizes, order, packed.unsorted_indices)
