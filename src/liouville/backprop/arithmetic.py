r"""Three ways to add a velocity to a part of the state, and to subtract it again.

| arithmetic | a part is kept as | undone |
|---|---|---|
| `Floating` | x | to a rounding of x per shear, which later layers amplify |
| `Compensated` | x + e, two floating-point numbers (Kahan) | to a rounding of e: eps^2, not eps |
| `Grid` | an integer, x = integer * spacing | to the last bit, whatever the depth |

A part is a tuple of tensors that the run owns and changes in place, so that the resident memory does not depend on
the depth; temporaries of a sum are freed at once.
"""

from __future__ import annotations

__all__ = ["Arithmetic", "Compensated", "Floating", "Grid", "Part", "sample"]

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from liouville.backprop.bits import pack, unpack
from liouville.backprop.range import Range, Reach
from liouville.compilers import advanced, advanced_
from liouville.schemes.base import State

Part = tuple[Tensor, ...]

_WIDE_BITS = 40


class Arithmetic(ABC):
    """How the parts of a state are stored, and moved by a velocity."""

    repeats: bool
    """Whether restoring the part requires the same bits of a velocity at each evaluation."""

    exact = False
    """Whether the part is restored to the last bit."""

    @abstractmethod
    def enter(self, x: Tensor) -> Part:
        """A new part with the value of x, in its layout."""

    @abstractmethod
    def value(self, part: Part) -> Tensor:
        """The argument of the other part's velocity."""

    @abstractmethod
    def move(self, part: Part, velocity: Tensor, step: float) -> Part:
        """The part moved by step * velocity; the same call with -step undoes it."""

    def drift(self, part: Part, other: Part, step: float) -> Part:
        """The part moved by step times another part."""
        return self.move(part, self.value(other), step)

    def damp(self, part: Part, halvings: int, sign: int) -> tuple[Part, Tensor | None]:
        """The part times sign * 2^-halvings, and the dropped bits that `restore` will need."""
        raise NotImplementedError

    def restore(self, part: Part, halvings: int, sign: int, kept: Tensor | None) -> Part:
        """The part before `damp`."""
        raise NotImplementedError

    def fingerprint(self, part: Part) -> Tensor:
        """Up to 512 entries of a part, evenly spread: they show whether it was rebuilt well."""
        return sample(part[0])

    def in_range(self, found: Callable[[], Reach]) -> bool:
        """Whether all numbers of the run so far stayed within the range of this arithmetic.

        If not, the range has been widened, and the run must be repeated.

        Args:
            found: gives the range of the run; called only if it is not known otherwise.

        Raises:
            ArithmeticError: if it cannot be widened further.
        """
        return True


class Floating(Arithmetic):
    """x += step * velocity."""

    repeats = False

    def enter(self, x: Tensor) -> Part:
        return (x.detach().clone(memory_format=torch.preserve_format),)

    def value(self, part: Part) -> Tensor:
        return part[0]

    def move(self, part: Part, velocity: Tensor, step: float) -> Part:
        return (_add(part[0], velocity, step),)


class Compensated(Arithmetic):
    """(x, e) with x + e the state: x takes the part of step * velocity + e that it can hold, and e keeps the rest."""

    repeats = True

    def enter(self, x: Tensor) -> Part:
        x = x.detach().clone(memory_format=torch.preserve_format)
        return x, torch.zeros_like(x)

    def value(self, part: Part) -> Tensor:
        return part[0]

    def move(self, part: Part, velocity: Tensor, step: float) -> Part:
        """Two exact sums (Knuth, Dekker): x + increment + e is rounded once, to the precision of the pair."""
        x, e = part
        increment = _times(velocity, step, torch.result_type(x, velocity))
        total = x + increment
        shadow = total - x
        e = e + ((x - (total - shadow)) + increment.sub_(shadow))
        x = total + e
        return x, e.sub_(shadow.copy_(x).sub_(total))


class Grid(Arithmetic):
    r"""Integers: x = integer * spacing, and integer += round(step * velocity / spacing), a bijection of the grid.

    The spacing is a power of two: 2^-27 of the largest input entry in 32-bit integers (float32 and lower), 2^-57 in 64
    bits (float64). For float32 and lower on 64 bits it is 2^-40: finer than their precision, and four million times the
    largest input still fits. A run whose state or velocity leaves the range (8, 32 or four million times the largest
    input) is repeated on a grid 8 times as coarse, at most twice. Then, if the biases carry it there and not growth, it
    is repeated on a grid as wide as the run; otherwise an `ArithmeticError` is raised. See `Range`.

    Args:
        state: the first state.
        wide: use 64 bits also for float32.
    """

    repeats = True
    exact = True

    def __init__(self, state: State, wide: bool) -> None:
        self.output = _dtype(state)
        self.dtype = torch.promote_types(self.output, torch.float64 if wide else torch.float32)
        self.integer = torch.int64 if self.dtype == torch.float64 else torch.int32
        self.range = Range(state, self.dtype, _WIDE_BITS if wide and self.output != torch.float64 else None)
        self.ends: dict[float, list[Tensor]] | None = {}  # the largest numbers, by unit; None once the range is known

    @property
    def spacing(self) -> float:
        """The spacing of the grid of the run."""
        return self.range.spacing

    def enter(self, x: Tensor) -> Part:
        return (self._rounded(x.detach(), 1.0 / self.spacing),)

    def value(self, part: Part) -> Tensor:
        x = part[0].to(self._working(self.spacing)).mul_(self.spacing)
        self._note(x, 1.0 / self.spacing)
        return x.to(self.output)

    def move(self, part: Part, velocity: Tensor, step: float) -> Part:
        return (part[0].add_(self._rounded(velocity, step / self.spacing)),)

    def drift(self, part: Part, other: Part, step: float) -> Part:
        if not step.is_integer():
            return super().drift(part, other, step)
        return (part[0].add_(other[0], alpha=int(step)),)

    def damp(self, part: Part, halvings: int, sign: int) -> tuple[Part, Tensor | None]:
        """A shift; the dropped bits are kept, 8 / halvings entries to a byte."""
        x = part[0]
        kept = pack(x, halvings) if halvings else None
        x.bitwise_right_shift_(halvings)
        return (x.neg_() if sign < 0 else x,), kept

    def restore(self, part: Part, halvings: int, sign: int, kept: Tensor | None) -> Part:
        x = part[0].neg_() if sign < 0 else part[0]
        if kept is not None:
            x.bitwise_left_shift_(halvings).bitwise_or_(unpack(kept, halvings, x.numel()).view(x.shape))
        return (x,)

    def fingerprint(self, part: Part) -> Tensor:
        """The sum of all integers, which a single differing bit changes."""
        return part[0].sum().reshape(1)

    def in_range(self, found: Callable[[], Reach]) -> bool:
        largest = [torch.stack(ends).abs().max().double() for ends in (self.ends or {}).values()]
        numbers = torch.stack(largest).tolist() if largest else []  # in one transfer from the device
        met = [unit * number for unit, number in zip(self.ends or {}, numbers, strict=True)]
        furthest = math.nan if any(map(math.isnan, met)) else max(met, default=0.0)
        before = self.spacing
        if furthest < self.range.limit:
            if self.ends is not None:
                self.range.settle(found)
            if self.spacing == before:
                self.ends = None  # the backward pass meets the same numbers
                return True
        else:
            self.range.widen(found, math.isfinite(furthest))
        self.ends = {}
        return False

    def _working(self, factor: float) -> torch.dtype:
        """The dtype for rounding to the grid: float32 if states are no finer and it holds the factor exactly."""
        mantissa, exponent = math.frexp(factor)
        short = abs(exponent) < 100 and (mantissa * 2**24).is_integer()
        return torch.promote_types(self.output, torch.float32) if short else self.dtype

    def _rounded(self, x: Tensor, factor: float) -> Tensor:
        scaled = _times(x, factor, self._working(factor))
        self._note(scaled, 1.0)
        return scaled.round_().to(self.integer)

    def _note(self, x: Tensor, unit: float) -> None:
        """Twice the limit would still fit into the integers: a sum of two numbers within it cannot wrap around."""
        if self.ends is not None and x.numel():
            self.ends.setdefault(unit, []).extend(torch.aminmax(x))


def sample(x: Tensor) -> Tensor:
    """Up to 512 entries of x, evenly spread."""
    if not x.is_contiguous():
        x = x.permute(sorted(range(x.dim()), key=x.stride, reverse=True))  # in memory order: no copy
    return x.flatten()[:: max(1, -(-x.numel() // 512))].clone()


def _add(x: Tensor, velocity: Tensor, step: float) -> Tensor:
    """x + step * velocity, in place unless the velocity has the wider dtype."""
    if torch.result_type(x, velocity) == x.dtype:
        return advanced_(x, velocity, step)
    return advanced(x, velocity, step)


def _times(x: Tensor, factor: float, dtype: torch.dtype) -> Tensor:
    """factor * x in ``dtype``, in new memory."""
    return x * factor if x.dtype == dtype else x.to(dtype).mul_(factor)


def _dtype(state: State) -> torch.dtype:
    dtype = state[0].dtype
    for x in state[1:]:
        dtype = torch.promote_types(dtype, x.dtype)
    return dtype
