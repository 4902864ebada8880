r"""A recurrent layer: cells over time, in one or both directions, level above level; called like `torch.nn.GRU`."""

from __future__ import annotations

__all__ = ["Recurrent"]

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from liouville.backprop import Backprop
from liouville.kernels import Auto
from liouville.recurrent.calls import Call, taken
from liouville.recurrent.cell import Cell
from liouville.sequences import Lengths, Sequences


class Recurrent(nn.Module):
    r"""(input, state) -> (output, state) over whole sequences, by cells of any field and scheme.

    The output has the state of the last level after every step, both directions side by side; the state has that of
    every cell after its last step. Padding is a step of length 0, so a sequence's state stays what it is at its end.

    Args:
        cells: one `Cell`, or one for each level and direction: level 0 forwards, level 0 backwards, level 1 ...
        num_layers: the number of levels.
        batch_first: whether the input and the output are (B, T, ...) instead of (T, B, ...).
        dropout: the share of each level's output, but the last one's, that is set to 0 during training.
        bidirectional: whether each level also runs over the reversed sequence.
        backprop: the engine that runs the steps; `Auto` if None, which takes the native kernel where there is one, and
            never stores the steps of a reversible scheme: memory then does not grow with their number, beyond input
            and output.

    Shapes: as for `torch.nn.GRU`: the state is one tensor, (num_layers * directions, B, hidden_size).

    Raises:
        ValueError: if the number of cells or their widths do not fit.

    Examples:
        >>> import liouville as lv
        >>> cell = Cell(3, lv.PairField(8, layers=1), lv.SymplecticEuler(), h=0.1)
        >>> output, state = Recurrent(cell, batch_first=True)(torch.randn(5, 20, 3))
        >>> output.shape, state.shape
        (torch.Size([5, 20, 8]), torch.Size([1, 5, 8]))
    """

    cells: Sequence[Cell]

    def __init__(
        self,
        cells: Cell | Sequence[Cell],
        *,
        num_layers: int = 1,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        backprop: Backprop | None = None,
    ) -> None:
        super().__init__()
        backprop = Auto() if backprop is None else backprop  # one of its own: the repr shows its choice
        given = list(cells) if isinstance(cells, Iterable) else [cells]
        self.num_layers, self.batch_first, self.bidirectional = num_layers, bool(batch_first), bool(bidirectional)
        self.dropout, self.backprop = float(dropout), backprop
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {dropout}.")
        _require_levels(given, num_layers, self.directions)
        self.cells = nn.ModuleList(given)  # type: ignore[assignment]
        for cell in self.cells:
            backprop.check(cell.scheme, cell.driven)

    @property
    def directions(self) -> int:
        """2 if bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    @property
    def input_size(self) -> int:
        """The width of the input."""
        return self.cells[0].input_size

    @property
    def hidden_size(self) -> int:
        """The width of the state of a cell."""
        return self.cells[0].hidden_size

    @property
    def output_size(self) -> int:
        """The width of the output: hidden_size times directions."""
        return self.hidden_size * self.directions

    def forward(
        self,
        input: Tensor | PackedSequence | Sequences,
        hx: Tensor | None = None,
        *,
        lengths: Lengths = None,
        steps: Tensor | None = None,
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        """The output after every step and the last states.

        Args:
            input: (T, B, input_size), (B, T, input_size) if ``batch_first``, (T, input_size), a PackedSequence,
                or `liouville.data.Sequences`.
            hx: the first states, zeros by default.
            lengths: the number of steps of each padded sequence; all are whole by default.
            steps: the length of each step in units of h, (T,), (T, B) or (B, T) like the input: for times that are not
                evenly spaced, their differences over the usual one.
        """
        call = taken(input, self.batch_first, lengths, steps)
        y, states = self._run(call, hx, traces=True)
        assert y is not None
        return call.output(y), call.last(states)

    def final(
        self,
        input: Tensor | PackedSequence | Sequences,
        hx: Tensor | None = None,
        *,
        lengths: Lengths = None,
        steps: Tensor | None = None,
    ) -> Tensor:
        """Only the last states, (num_layers * directions, B, hidden_size): the last level's outputs are not made."""
        call = taken(input, self.batch_first, lengths, steps)
        return call.last(self._run(call, hx, traces=False)[1])

    def with_backprop(self, engine: Backprop) -> Recurrent:
        """The same layer with another engine; it shares the cells, and so the weights."""
        other = Recurrent(
            [*self.cells],
            num_layers=self.num_layers,
            batch_first=self.batch_first,
            dropout=self.dropout,
            bidirectional=self.bidirectional,
            backprop=engine,
        )
        return other.train(self.training)

    @torch.no_grad()
    def inputs(self, call: Call) -> list[Tensor]:
        """The inputs of every cell, (T, B, inputs), in the order in which it takes them."""
        seen: list[Tensor] = []
        self._run(call, None, False, seen)
        return seen

    def _run(
        self, call: Call, hx: Tensor | None, traces: bool, seen: list[Tensor] | None = None
    ) -> tuple[Tensor | None, list[Tensor]]:
        first = call.state(hx, len(self.cells))
        self._require_equal_steps(call.tau)
        u, states = call.u, []
        for level in range(self.num_layers):
            if level and self.dropout and self.training:
                u = F.dropout(u, self.dropout)
            wanted = traces or level < self.num_layers - 1
            outputs: list[Tensor] = []
            for back in range(self.directions):
                cell = self.cells[level * self.directions + back]
                cell.require_fits(u)
                start = cell.state(first[level * self.directions + back], u)
                along, tau = (u.flip(0), _reversed(call.tau)) if back else (u, call.tau)
                if seen is not None:
                    seen.append(along)
                end, y = cell.run(along, start, tau, self.backprop, traces=wanted)
                states.append(end)
                if y is not None:
                    outputs.append(y.flip(0) if back else y)
            if wanted:
                u = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
        return (u if traces else None), states

    def _require_equal_steps(self, tau: Tensor | None) -> None:
        for cell in self.cells:
            if tau is not None and not cell.holds:
                raise ValueError(
                    f"{type(cell.scheme).__name__} carries more than one state, so that a step cannot have another "
                    "length, or be left out at the end of a shorter sequence; use a one-step scheme, such as "
                    "SymplecticEuler, or sequences of one length."
                )

    def extra_repr(self) -> str:
        parts = [f"{self.input_size}", f"{self.hidden_size}"]
        given = {"num_layers": 1, "batch_first": False, "dropout": 0.0, "bidirectional": False}
        parts += [f"{k}={getattr(self, k)}" for k, usual in given.items() if getattr(self, k) != usual]
        return ", ".join((*parts, f"backprop={self.backprop}"))


def _reversed(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.flip(0)


def _require_levels(cells: Sequence[Cell], levels: int, directions: int) -> None:
    if isinstance(levels, bool) or not isinstance(levels, int) or levels < 1:
        raise ValueError(f"num_layers must be a whole number of at least 1, got {levels!r}.")
    if len(cells) != levels * directions:
        raise ValueError(
            f"{levels} layers in {directions} directions have {levels * directions} cells, got {len(cells)}; give them "
            "in the order: level 0 forwards, level 0 backwards, level 1 forwards ..."
        )
    for k, cell in enumerate(cells):
        if not isinstance(cell, Cell):
            raise TypeError(f"a recurrent layer is made of Cells, got {type(cell).__name__}.")
        expected = cells[0].input_size if k < directions else directions * cells[0].hidden_size
        if cell.hidden_size != cells[0].hidden_size or cell.input_size != expected:
            raise ValueError(
                f"cell {k} must take {expected} inputs and have a state of {cells[0].hidden_size}, got "
                f"{cell.input_size} and {cell.hidden_size}."
            )
