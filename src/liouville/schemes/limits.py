r"""The fastest oscillation that a step keeps stable, measured on the scheme's step, so that it serves any scheme.

A step of length h multiplies the modes of y' = i omega y by the eigenvalues of a matrix that depends only on h omega.
The limit is the first h omega at which one of them leaves the unit circle. It says no more: where the rates of a layer
have real parts, or change from layer to layer, another number decides (`liouville.analysis.step_margin`).
"""

from __future__ import annotations

__all__ = ["GROWTH", "StabilityLimit", "StabilityWarning", "carried", "warn"]

import functools
import math
import sys
import warnings
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from liouville.fields.base import Spectrum
from liouville.fields.partitioned import PartitionedField

if TYPE_CHECKING:
    from liouville.schemes.base import Scheme

_NEAR = (0.025, 0.05, 0.1)  # a scheme that amplifies all three has no stable step; power laws are far above rounding
_ROUNDING = 1e-12  # tolerance of a growth factor there
_GROWS = 1e-11  # tolerance of a growth factor beyond 1 elsewhere; two roots that meet leave the circle much faster
_DIGITS = 9
GROWTH = 20.0
"""What N steps may multiply an oscillation by that the equation keeps, in `carried`."""
_SHARE, _LONGEST = 0.6, 1.2  # of the stability limit; of h omega


class StabilityWarning(UserWarning):
    """A scheme amplifies modes that the field damps."""


def warn(text: str) -> None:
    """Give a `StabilityWarning` at the calling line outside this library."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "liouville":
        frame, level = frame.f_back, level + 1
    warnings.warn(text, StabilityWarning, stacklevel=level)


class StabilityLimit:
    """The attribute `Scheme.stability_limit`, of a scheme or of a class without required settings; computed once."""

    def __get__(self, scheme: Scheme | None, kind: type[Scheme]) -> float:
        if scheme is None:
            try:
                scheme = kind()
            except TypeError:
                raise AttributeError(f"ask an instance of {kind.__name__} for its stability_limit.") from None
        try:
            return _kept(scheme)
        except TypeError:  # a scheme that cannot be hashed
            return _limit(scheme)


def carried(scheme: Scheme, layers: int) -> float:
    """The largest T omega that N steps follow: h omega <= 1.2 and <= 0.6 of the limit, growth <= `GROWTH`.

    Examples:
        >>> import liouville as lv
        >>> [round(carried(scheme, 16), 1) for scheme in (lv.SymplecticEuler(), lv.ForwardEuler())]
        [19.2, 10.8]
    """
    try:
        return _carried_once(scheme, layers)
    except TypeError:  # a scheme that cannot be hashed
        return _carried(scheme, layers)


def _carried(scheme: Scheme, layers: int) -> float:
    limit = scheme.stability_limit
    if math.isnan(limit):
        return _SHARE * layers
    longest = min(_LONGEST, _SHARE * limit) if limit > 0 else _LONGEST
    if limit > 0 or _grows_by(scheme, longest, layers) <= GROWTH:
        return longest * layers
    low, high = 0.0, longest
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _grows_by(scheme, middle, layers) <= GROWTH else (low, middle)
    return low * layers


_carried_once = functools.cache(_carried)


@torch.no_grad()
def _grows_by(scheme: Scheme, frequency: float, layers: int) -> float:
    """What N steps at h omega multiply an oscillation by."""
    return float(_growth(scheme, torch.tensor([frequency], dtype=torch.float64)) ** layers)


@torch.no_grad()
def _limit(scheme: Scheme) -> float:
    try:
        return _first_unstable(scheme)
    except Exception:  # a user's step may not be made for this field: then nothing is known
        return math.nan


_kept = functools.cache(_limit)


def _first_unstable(scheme: Scheme) -> float:
    if bool((_growth(scheme, torch.tensor(_NEAR, dtype=torch.float64)) > 1 + _ROUNDING).all()):
        return 0.0
    near, far = torch.linspace(_NEAR[0], 8, 7976, dtype=torch.float64), torch.logspace(math.log10(8), 4, 600)
    grid = torch.cat((near, far.double()))
    unstable = _growth(scheme, grid) > 1 + _GROWS
    if not unstable.any():
        return math.inf
    first = int(unstable.int().argmax())
    low, high = float(grid[max(0, first - 1)]), float(grid[first])
    while high - low > 1e-12 * high:
        points = torch.linspace(low, high, 64, dtype=torch.float64)
        k = max(1, int((_growth(scheme, points) > 1 + _GROWS).int().argmax()))
        low, high = float(points[k - 1]), float(points[k])
    return round(high, _DIGITS)


def _growth(scheme: Scheme, frequency: Tensor) -> Tensor:
    """The largest |eigenvalue| of one step at each h omega; infinite where the step is not finite."""
    A = _step_matrices(scheme, frequency)
    finite = A.isfinite().flatten(1).all(1)
    growth = torch.full_like(frequency, torch.inf)
    growth[finite] = torch.linalg.eigvals(A[finite]).abs().amax(-1)
    return growth


def _step_matrices(scheme: Scheme, frequency: Tensor) -> Tensor:
    """The step of length 1 at every frequency, (G, n, n), n numbers in the scheme's state."""
    field, one = _Oscillator(), torch.ones(1, 1, dtype=torch.float64)
    scheme.check(field)
    state = scheme.init(field, torch.zeros(1, 2, dtype=torch.float64), _Frequency(one), 1.0)
    sizes = [part.numel() for part in state]
    n = sum(sizes)
    mixed = torch.arange(1, n + 1, dtype=torch.float64).cos()  # a combination of all tests that the step is linear
    vectors = torch.cat((torch.zeros(1, n, dtype=mixed.dtype), torch.eye(n, dtype=mixed.dtype), mixed[None]))
    rows = vectors.repeat(len(frequency), 1)
    parts = tuple(x.reshape(len(rows), *part.shape[1:]) for x, part in zip(rows.split(sizes, 1), state, strict=True))
    after = scheme.step(field, parts, _Frequency(frequency.repeat_interleave(n + 2)[:, None]), 1.0)
    moved = torch.cat([part.flatten(1) for part in after], 1).reshape(len(frequency), n + 2, n)
    origin, images, image = moved[:, :1], moved[:, 1:-1], moved[:, -1]
    A = (images - origin).mT
    off, size = (A @ mixed - (image - origin[:, 0])).abs().amax(-1), A.abs().amax((-2, -1))
    if not bool((off <= 1e-8 * (1 + size))[moved.abs().amax((1, 2)) < math.inf].all()) or moved[0].isnan().any():
        raise ValueError("the step is not linear on a linear field.")
    return A


class _Frequency(NamedTuple):
    omega: Tensor


class _Oscillator(PartitionedField):
    """p' = -omega q, q' = omega p: y' = i omega y, for every kind of scheme."""

    @property
    def spectrum(self) -> Spectrum:
        return "imaginary"

    def __init__(self) -> None:
        super().__init__(2, 1)

    def theta(self) -> _Frequency:
        return _Frequency(torch.ones(1, 1, dtype=torch.float64))

    def p_dot(self, q: Tensor, theta_j: _Frequency) -> Tensor:
        return -theta_j.omega * q

    def q_dot(self, p: Tensor, theta_j: _Frequency) -> Tensor:
        return theta_j.omega * p
