r"""Many to one: a recurrent layer and what reads its last state, for classes or numbers of a whole sequence."""

from __future__ import annotations

__all__ = ["SequenceNetwork"]

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from liouville.answering import Answering
from liouville.backprop import Backprop
from liouville.recurrent.layer import Recurrent
from liouville.sequences import Lengths, Sequences


class SequenceNetwork(Answering):
    """Sequences -> scores: the last state of the last level, both directions side by side, read by a head.

    `liouville.train.fit` trains it on (samples, steps, inputs) like any network, or on `liouville.data.Sequences` of
    unequal lengths. Only last states are kept: with a reversible scheme, memory does not grow with the number of steps
    beyond the input. With ``facts`` of the data (``split.facts()``) it answers raw inputs: `transform`, `predict`.

    Args:
        rnn: a recurrent layer with ``batch_first=True``.
        head: reads (B, rnn.output_size), such as ``torch.nn.Linear``; one score for two classes, else one for each.

    Raises:
        ValueError: if the layer takes time first.

    Examples:
        >>> import liouville as lv
        >>> rnn = lv.recurrent.HamiltonianRNN(3, 8, batch_first=True, length=20)
        >>> SequenceNetwork(rnn, nn.Linear(rnn.output_size, 4))(torch.randn(5, 20, 3)).shape
        torch.Size([5, 4])
    """

    def __init__(self, rnn: Recurrent, head: nn.Module) -> None:
        super().__init__()
        if not rnn.batch_first:
            raise ValueError("samples come first in data to train on; build the recurrent layer with batch_first=True.")
        self.rnn, self.head = rnn, head

    def features(
        self, x: Tensor | PackedSequence | Sequences, *, lengths: Lengths = None, steps: Tensor | None = None
    ) -> Tensor:
        """What the head reads, (B, output_size)."""
        last = self.rnn.final(x, lengths=lengths, steps=steps)[-self.rnn.directions :]
        return torch.cat(last.unbind(0), -1)

    def forward(
        self, x: Tensor | PackedSequence | Sequences, *, lengths: Lengths = None, steps: Tensor | None = None
    ) -> Tensor:
        """The scores; ``lengths`` and ``steps`` are as for `Recurrent`."""
        return self.head(self.features(x, lengths=lengths, steps=steps))

    def with_backprop(self, engine: Backprop) -> SequenceNetwork:
        """The same network with another engine; it shares the weights."""
        twin = SequenceNetwork(self.rnn.with_backprop(engine), self.head).train(self.training)
        twin.facts = self.facts
        return twin
