r"""Who trains: only this process, or several that share every batch.

Each process draws the whole batch from the same seed, computes the scores of its own rows, and receives those of the
others, so that loss, score and every decision that rests on them are the same everywhere, and those of one process.
"""

from __future__ import annotations

__all__ = ["Processes"]

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from liouville.sequences import Inputs


class Processes:
    """Only this process; `liouville.lightning.Parallel` is several.

    ``rank`` counts from 0, ``size`` is how many there are.

    Examples:
        >>> import torch
        >>> alone = Processes()
        >>> alone.size, alone.map(torch.neg, torch.ones(2))
        (1, tensor([-1., -1.]))
    """

    rank = 0
    size = 1

    def __repr__(self) -> str:
        return f"{type(self).__name__}()" if self.size == 1 else f"{type(self).__name__}({self.rank} of {self.size})"

    def wrapped(self, network: nn.Module) -> Any:
        """What a training step calls in place of ``network``: it has the same weights, and shares their gradients."""
        return network

    def map(self, f: Callable[[Any], Tensor], x: Inputs) -> Tensor:
        """f(x) for an ``f`` that treats every row by itself; each process computes its share of the rows.

        All processes get all rows; a gradient passes through those that the process computed.
        """
        return f(x)

    def backward(self, loss: Tensor, penalty: Tensor) -> None:
        """The gradient of loss + penalty, in every process: the loss is of what `map` gave, the penalty of weights."""
        (loss + penalty if penalty.requires_grad else loss).backward()

    def largest(self, number: int) -> int:
        """The largest of the numbers that the processes give."""
        return number

    def gathered(self, tensor: Tensor) -> list[Tensor]:
        """Every process's tensor, on the CPU and of the same type and shape in all, in the order of the ranks."""
        return [tensor]

    def from_first(self, content: bytes) -> bytes:
        """What the first process gives, in every process."""
        return content

    def seed(self, seed: int) -> int:
        """The seed of the stream that dropout draws from, of its own in each process, as its rows are."""
        return (seed + self.rank * 0x9E3779B1) % 2**63
