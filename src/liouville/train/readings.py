r"""What steps have to say, left on the device until the host reads many of them at once, and judged then."""

from __future__ import annotations

__all__ = ["READ_EVERY", "Readings"]

from collections.abc import Callable, Sequence

from torch import Tensor

from liouville.backprop.late import Checks

READ_EVERY = 50
"""Steps from one transfer to the next: a wait costs about what launching a step of 64 layers costs."""


class Readings:
    """Rows of numbers, a step each, and the checks of the engines; one transfer reads them all.

    Args:
        told: called with each row, in order, once it is read: its numbers, its samples, and which step it was.

    Examples:
        >>> import torch
        >>> rows = []
        >>> readings = Readings(lambda numbers, samples, step: rows.append((numbers, samples, step)))
        >>> readings.add(torch.ones(2), 10, "step 1")
        >>> rows
        []
        >>> readings.read()
        >>> rows
        [([1.0, 1.0], 10, 'step 1')]
    """

    def __init__(self, told: Callable[[Sequence[float], int, str], None]) -> None:
        self.told, self.checks, self.steps = told, Checks(), 0

    def add(self, row: Tensor, samples: int, step: str) -> None:
        """The numbers of one step, (k,)."""
        self.steps += 1
        self.checks.add(row, lambda numbers: self.told(numbers, samples, step))

    def due(self) -> bool:
        """Whether so many steps wait that they are read now."""
        return self.steps >= READ_EVERY

    def read(self, *more: Checks) -> None:
        """Read all that wait, those of ``more`` last."""
        self.steps = 0
        self.checks.read(*more)
