r"""Sequences of unequal lengths as one batch: padded to the longest, with the length of each.

A padded step is a step of length 0, which changes no state. So a recurrent layer makes of a sequence here what it makes
of it outside of the batch.
"""

from __future__ import annotations

__all__ = ["Inputs", "Lengths", "Read", "Sequences", "counted", "durations", "numbers", "sequences_of", "tensors"]

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence, pad_sequence
from torch.utils.data import default_collate

Lengths = Tensor | Sequence[int] | None


class Sequences:
    """A batch of sequences, each with its own number of steps; samples come first, and rows are taken as of a tensor.

    `liouville.recurrent` takes it in place of a tensor, and so do `liouville.data.Split` and `liouville.train.fit`.
    Padding is set to 0 and never read, and a batch is as long as its longest sequence.

    Args:
        x: (B, T, inputs), padded at the end; what the padding holds does not count, NaN included.
        lengths: (B,), the number of steps of each, 1 ... T.
        steps: the length of each step in units of the layer's h, (T,) or (B, T), for times that are not even.

    Raises:
        TypeError: if x is no tensor.
        ValueError: for shapes or lengths that do not fit.

    Examples:
        >>> batch = Sequences(torch.ones(3, 5, 2), [5, 2, 4])
        >>> batch[[1, 2]].shape, batch[1].shape
        (torch.Size([2, 4, 2]), torch.Size([2, 2]))
    """

    def __init__(self, x: Tensor, lengths: Tensor | Sequence[int], steps: Tensor | None = None) -> None:
        if not isinstance(x, Tensor):
            raise TypeError(f"sequences must be a torch.Tensor (B, T, inputs), got {type(x).__name__}.")
        if x.dim() != 3 or not x.is_floating_point() or not x.shape[1]:
            raise ValueError(
                f"sequences must be floating-point numbers (B, T, inputs) with at least one step, got {tuple(x.shape)} "
                f"of {x.dtype}."
            )
        B, T = x.shape[:2]
        lengths = counted(lengths, T, B)
        if steps is not None:
            steps = torch.as_tensor(steps, device=x.device, dtype=x.dtype)
            steps = durations(steps, T, B, True, x.device, lengths).expand(T, B, 1)[..., 0].mT
        self._fill(x, lengths, steps)

    def _fill(self, x: Tensor, lengths: Tensor, steps: Tensor | None) -> Self:
        """Cut to the longest; 0 where nothing is read."""
        T = int(lengths.max()) if len(lengths) else x.shape[1]
        runs = _runs(lengths, T, x.device)
        self.lengths = lengths
        self.steps = None if steps is None else steps[:, :T].where(runs, 0.0)
        self.x = x[:, :T].where((runs if self.steps is None else self.steps != 0)[..., None], 0.0)
        return self

    @classmethod
    def of(cls, sequences: Sequence[Tensor], steps: Sequence[Tensor] | None = None) -> Sequences:
        """From single sequences, each (T_b, inputs); ``steps`` has T_b lengths for each.

        Examples:
            >>> Sequences.of([torch.zeros(4, 2), torch.zeros(1, 2)]).lengths.tolist()
            [4, 1]
        """
        found = [torch.as_tensor(x) for x in sequences]
        if not found or any(x.dim() != 2 or x.shape[1:] != found[0].shape[1:] for x in found):
            shapes = ", ".join(str(tuple(x.shape)) for x in found[:4]) or "none"
            raise ValueError(f"each sequence must be (its steps, inputs) with equally many inputs, got {shapes}.")
        lengths = [len(x) for x in found]
        if steps is None:
            return cls(pad_sequence(found, batch_first=True), lengths)
        taus = [torch.as_tensor(tau, dtype=found[0].dtype) for tau in steps]
        if [tuple(tau.shape) for tau in taus] != [(n,) for n in lengths]:
            raise ValueError(f"steps must be one length for each step of each sequence, {lengths} of them.")
        return cls(pad_sequence(found, batch_first=True), lengths, pad_sequence(taus, batch_first=True))

    @staticmethod
    def collate(samples: Sequence[Any]) -> Any:
        """The ``collate_fn`` of a ``DataLoader`` whose samples are (sequence, target) or (sequence, target, weight).

        Examples:
            >>> from torch.utils.data import DataLoader
            >>> data = [(torch.zeros(n, 2), n % 2) for n in (3, 1, 4)]
            >>> x, y = next(iter(DataLoader(data, batch_size=3, collate_fn=Sequences.collate)))
            >>> x.lengths, y
            (tensor([3, 1, 4]), tensor([1, 1, 0]))
        """
        rest = default_collate([tuple(sample[1:]) for sample in samples])
        return [Sequences.of([sample[0] for sample in samples]), *rest]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Any) -> Any:
        """Some of the sequences; for a number the sequence itself, (its steps, inputs)."""
        if isinstance(rows, int):
            return self.x[rows, : int(self.lengths[rows])]
        own = rows.cpu() if isinstance(rows, Tensor) else rows
        return self._made(self.x[rows], self.lengths[own], None if self.steps is None else self.steps[rows])

    def split(self, size: int) -> list[Sequences]:
        """In parts of so many sequences."""
        return [self[k : k + size] for k in range(0, len(self), size)]

    def to(self, *args: Any, **more: Any) -> Sequences:
        """As a tensor's ``to``; lengths stay on the CPU."""
        return self.map(lambda x: x.to(*args, **more))

    def pin_memory(self) -> Sequences:
        """For a ``DataLoader`` that pins."""
        return self.map(lambda x: x.pin_memory())

    def map(self, f: Callable[[Tensor], Tensor]) -> Sequences:
        """f of the inputs, without an effect on padding; the steps follow in dtype and device."""
        x = f(self.x)
        return self._made(x, self.lengths, None if self.steps is None else self.steps.to(x))

    def longest(self) -> Sequences:
        """One of the longest, as a batch of one."""
        return self[self.lengths.argmax()[None]]

    @classmethod
    def _made(cls, x: Tensor, lengths: Tensor, steps: Tensor | None) -> Sequences:
        return cls.__new__(cls)._fill(x, lengths, steps)

    @property
    def shape(self) -> torch.Size:
        """(B, steps of the longest, inputs)."""
        return self.x.shape

    @property
    def ndim(self) -> int:
        """3."""
        return self.x.ndim

    @property
    def dtype(self) -> torch.dtype:
        """Of the inputs."""
        return self.x.dtype

    @property
    def device(self) -> torch.device:
        """Of the inputs."""
        return self.x.device

    @property
    def requires_grad(self) -> bool:
        """Whether the inputs require a gradient."""
        return self.x.requires_grad

    def is_floating_point(self) -> bool:
        """True."""
        return True

    def __repr__(self) -> str:
        low, high = (int(bound) for bound in self.lengths.aminmax()) if len(self) else (0, 0)
        steps = "" if self.steps is None else ", uneven times"
        return f"Sequences({len(self)} of {low} to {high} steps of {self.shape[2]} inputs{steps})"


Inputs = Tensor | Sequences
Read = Tensor | Any  # inputs that nearly every reader knows to be a tensor; a checker lets it be taken for one


def numbers(x: Inputs) -> Tensor:
    """The inputs as a tensor; padding is 0.

    Examples:
        >>> numbers(Sequences(torch.full((1, 2, 1), torch.inf), [1])).isfinite().all()
        tensor(False)
    """
    return x.x if isinstance(x, Sequences) else x


def tensors(*parts: Inputs | None) -> list[Tensor]:
    """The tensors that all numbers are in.

    Examples:
        >>> [t.tolist() for t in tensors(torch.ones(1), None, Sequences(torch.zeros(1, 1, 1), [1]))]
        [[1.0], [[[0.0]]], [1]]
    """
    found: list[Tensor | None] = []
    for part in parts:
        found += [part.x, part.lengths, part.steps] if isinstance(part, Sequences) else [part]
    return [t for t in found if t is not None]


def sequences_of(value: Any) -> Sequences | None:
    """What a data loader may give in place of `Sequences`: a ``PackedSequence``, or (x, lengths) or (x, lengths,
    steps), batch first; None for anything else.

    Examples:
        >>> sequences_of((torch.zeros(2, 4, 3), [4, 2])), sequences_of(torch.zeros(2, 4, 3))
        (Sequences(2 of 2 to 4 steps of 3 inputs), None)
    """
    if isinstance(value, Sequences):
        return value
    if isinstance(value, PackedSequence):
        return Sequences(*pad_packed_sequence(value, batch_first=True))
    if isinstance(value, list | tuple) and len(value) in (2, 3) and getattr(value[0], "ndim", 0) == 3:
        return Sequences(torch.as_tensor(value[0]), *value[1:])
    return None


def counted(lengths: Tensor | Sequence[int], T: int, B: int) -> Tensor:
    """Lengths of B sequences of at most T steps, on the CPU, after a check.

    Raises:
        ValueError: with what does not fit.
    """
    try:
        found = torch.as_tensor(lengths)
    except (TypeError, ValueError, RuntimeError):  # words, None, numbers of more than 64 bits
        found = torch.empty(0, 0)
    whole = not (found.is_floating_point() or found.is_complex() or found.dtype == torch.bool)
    if found.shape != (B,) or not (whole or not B):  # torch takes an empty list for floating-point numbers
        raise ValueError(f"lengths must be {B} whole numbers, one for each sequence, got {_short(lengths)}.")
    found = found.cpu().long()
    if not bool(((found >= 1) & (found <= T)).all()):
        wrong = int(((found < 1) | (found > T)).nonzero()[0])
        raise ValueError(f"lengths must lie in 1 ... {T}, the steps of the input, got {int(found[wrong])} at {wrong}.")
    return found


def durations(
    steps: Any, T: int, B: int | None, batch_first: bool, device: torch.device, lengths: Tensor | None = None
) -> Tensor:
    """The lengths of steps, (T, 1 or B, 1), after a check.

    Args:
        steps: (T,), or (B, T) if ``batch_first``, else (T, B).
        T, B: the steps and sequences that there are; B is None for one sequence without an axis of its own.
        batch_first: see above.
        device: where they are wanted.
        lengths: the number of steps of each sequence; those after its end become 0, whatever they were.

    Raises:
        ValueError: with what does not fit.
    """
    steps = torch.as_tensor(steps, device=device)
    whole = () if B is None else (B, T) if batch_first else (T, B)
    if steps.shape == (T,):
        tau = steps[:, None, None]
    elif B is not None and steps.shape == whole:
        tau = (steps.mT if batch_first else steps)[..., None]
    else:
        shapes = f"({T},)" + (f" or {whole}" if whole else "")
        raise ValueError(f"steps must have the shape {shapes}, one length for each step, got {tuple(steps.shape)}.")
    if lengths is not None and bool((lengths < T).any()):
        tau = tau.where(_runs(lengths, T, device).mT[..., None], 0.0)
    if not bool(((tau >= 0) & tau.isfinite()).all()):
        raise ValueError("steps must be lengths of at least 0 and finite, in units of h.")
    return tau


def _runs(lengths: Tensor, T: int, device: torch.device) -> Tensor:
    """(B, T): whether a sequence has that step."""
    return torch.arange(T, device=device) < lengths.to(device)[:, None]


def _short(value: Any) -> str:
    return f"a tensor {tuple(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else f"{value!r}"
