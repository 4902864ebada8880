r"""Numerical flows Phi_h: one step of a scheme carries a state through one layer.

A scheme is a frozen dataclass of hyper-parameters; the state is a tuple of tensors, so that no layer concatenates
or splits. The type of a scheme states its abilities: `ReversibleScheme` inverts, `ShearScheme` is a sequence of shears
of a state of two parts, `SplittingScheme` states them as data, `SymmetricScheme` inverts by stepping with -h.
"""

from __future__ import annotations

__all__ = ["ReversibleScheme", "Scheme", "Shear", "ShearScheme", "SplittingScheme", "State", "SymmetricScheme"]

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from liouville.compilers import advanced
from liouville.fields.base import Lipschitz, Theta, VectorField
from liouville.fields.partitioned import PartitionedField
from liouville.schemes.growth import of_shears
from liouville.schemes.limits import StabilityLimit, carried

State = tuple[Tensor, ...]


@dataclass(frozen=True)
class Scheme(ABC):
    """One step of a numerical integrator; ``order`` is its measured order, with weights constant in time.

    ``order_in_depth`` is the order where weights jump from layer to layer, as in a refined network: the same for a step
    that does not read the layer before.

    ``stability_limit``: the h omega below which a mode of a frozen layer of y' = i omega y does not grow, to nine
    decimals: 0 for a scheme that amplifies every oscillation, infinite for one that amplifies none, NaN if unknown.
    It is found by running the step on an oscillator, once for equal schemes, so a scheme of your own has one too.
    It concerns only imaginary rates.
    """

    order: ClassVar[int]
    carries: ClassVar[str] = ""
    """A description of a state that is more than y, such as "(y, v)"; else the parts of the state, joined, are y."""
    stability_limit: ClassVar[float] = StabilityLimit()  # type: ignore[assignment]

    @property
    def order_in_depth(self) -> int:
        """The order in h where every layer has its own weight."""
        return self.order

    def check(self, field: VectorField) -> None:
        """Raise a `ValueError`, with an alternative, where this scheme and ``field`` do not fit."""
        field.check_scheme(self)

    def init(self, field: VectorField, y: Tensor, theta_0: Theta, h: float) -> State:
        """y_0 -> the first state; ``field`` is the field at layer 0."""
        return (y,)

    @abstractmethod
    def step(self, field: VectorField, state: State, theta_j: Theta, h: float) -> State:
        """One layer."""

    def final(self, field: VectorField, state: State) -> Tensor:
        """State -> y."""
        return state[0]

    def entry(self, field: VectorField, lipschitz: Lipschitz, h: float) -> Tensor:
        """An upper bound of the factor by which y_0 -> State_0 and State_N -> y_N together amplify a difference.

        ``lipschitz`` holds the constants of layer 0. It is 1 if State_0 is y_0 and y_N is State_N or a part of it.
        """
        return torch.ones_like(lipschitz.one_sided)

    def log_growth(self, lipschitz: Lipschitz, h: float) -> Tensor:
        """An upper bound of log ||A_j||_2, A_j the Jacobian of one step of length h, at every state.

        Shaped like the constants in ``lipschitz`` and differentiable in them; the rows of `liouville.schemes.growth`.
        A scheme of your own overrides it to get upper bounds and budgets; `liouville.testing.check_scheme` compares it
        with the step.

        Raises:
            NotImplementedError: if the scheme states none.
        """
        raise NotImplementedError(
            f"no upper bound is known for {type(self).__name__}; override log_growth(lipschitz, h) to get upper bounds "
            "and budgets."
        )

    def carried(self, layers: int) -> float:
        """The largest T x rate of an oscillation that N steps follow: what a start of such a network may ask for.

        A choice, not a bound: h x rate is at most 0.6 of the ``stability_limit``, and at most 1.2; where the scheme
        makes every oscillation grow, N steps may make it grow `liouville.schemes.limits.GROWTH`-fold.
        """
        return carried(self, layers)

    def amplification(self, z: Tensor) -> Tensor:
        """The largest |r(z)| over the eigenvalues r of one step on y' = lambda y, z = h lambda complex, elementwise.

        For a state (p, q), whose halves are moved in turn, the equation is p' = lambda q, q' = lambda p.

        Raises:
            NotImplementedError: if the scheme states none.
        """
        raise NotImplementedError(
            f"the stability region of {type(self).__name__} is not known; override amplification(z) to state it."
        )


@dataclass(frozen=True)
class ReversibleScheme(Scheme):
    """A scheme whose step is a bijection of the state, with the inverse in closed form or by the same solver."""

    @property
    def kept_bits(self) -> int:
        """How many bits of each entry a layer drops that its inverse needs: the sum of the halvings of its shears."""
        return 0

    @abstractmethod
    def inverse(self, field: VectorField, state: State, theta_j: Theta, h: float) -> State:
        """The state before one layer, from the state after it."""

    def terminal(self, field: VectorField, y: Tensor) -> State:
        """The final state that y_N determines; raises a `ValueError` where y_N is not enough."""
        if self.carries:
            raise ValueError(
                f"{type(self).__name__} carries {self.carries}, so y_N does not determine y_0; use "
                "flow.final_state and flow.inverse_state."
            )
        return (y,)


class Shear(NamedTuple):
    """state[moved] += step * velocity(state[1 - moved]): one of two parts moves by a function of only the other.

    ``velocity`` None stands for the other part itself. A shear of ``halvings`` k or a ``sign`` -1 first multiplies
    state[moved] by sign * 2^-k; an engine that inverts keeps the bits that integers lose by this.
    """

    moved: int
    velocity: Callable[[Tensor], Tensor] | None
    step: float
    halvings: int = 0
    sign: int = 1

    @property
    def damps(self) -> bool:
        """Whether the moved part is multiplied first."""
        return self.halvings > 0 or self.sign < 0


@dataclass(frozen=True)
class ShearScheme(ReversibleScheme):
    """A scheme whose step is a few shears of a state of two parts, which may then be swapped.

    The inverse is the same shears in the opposite order with the opposite sign. A shear does not change the part that
    its velocity reads. So one evaluation serves both to undo it and to differentiate it, and a rounded velocity
    is undone as exactly as it was added. `liouville.Reversible` rests on these two facts.
    """

    swaps: ClassVar[bool] = False

    @abstractmethod
    def shears(self, field: VectorField, theta_j: Theta, h: float) -> tuple[Shear, ...]:
        """The shears of one layer, in the order in which they are applied."""

    def step(self, field: VectorField, state: State, theta_j: Theta, h: float) -> State:
        parts = list(state)
        for shear in self.shears(field, theta_j, h):
            moved, velocity, step = shear[:3]
            part, other = parts[moved], parts[1 - moved]
            if shear.damps:
                part = part * (shear.sign * 2.0**-shear.halvings)
            parts[moved] = advanced(part, other if velocity is None else velocity(other), step)
        return tuple(parts[::-1] if self.swaps else parts)

    def inverse(self, field: VectorField, state: State, theta_j: Theta, h: float) -> State:
        parts = list(state[::-1] if self.swaps else state)
        for shear in reversed(self.shears(field, theta_j, h)):
            moved, velocity, step = shear[:3]
            other = parts[1 - moved]
            part = advanced(parts[moved], other if velocity is None else velocity(other), -step)
            parts[moved] = part * (shear.sign * 2.0**shear.halvings) if shear.damps else part
        return tuple(parts)


@dataclass(frozen=True)
class SplittingScheme(ShearScheme):
    """Alternate shears of p and q: the stages are data, and all else follows from them.

    Each stage ("p", c) is p += c h p_dot(q), each stage ("q", c) is q += c h q_dot(p): determinant 1, explicit,
    invertible.
    """

    stages: ClassVar[tuple[tuple[str, float], ...]]

    def check(self, field: VectorField) -> None:
        if not isinstance(field, PartitionedField):
            raise ValueError(
                f"{type(self).__name__} needs a field that splits into (p, q), each moved only by the other; "
                f"got {type(field).__name__}. Use ForwardEuler, LeapfrogMidpoint, RK4 or ImplicitMidpoint, or a "
                f"PartitionedField such as SeparableHamiltonianField."
            )
        super().check(field)

    def init(self, field: VectorField, y: Tensor, theta_0: Theta, h: float) -> State:
        halves = _halves(field)
        return halves.enter(y, lambda q: halves.p_dot(q, theta_0), h)

    def entry(self, field: VectorField, lipschitz: Lipschitz, h: float) -> Tensor:
        return _halves(field).entry(lipschitz, h)

    def shears(self, field: VectorField, theta_j: Theta, h: float) -> tuple[Shear, ...]:
        halves = _halves(field)
        velocity = {"p": lambda q: halves.p_dot(q, theta_j), "q": lambda p: halves.q_dot(p, theta_j)}
        return tuple(Shear("pq".index(half), velocity[half], c * h) for half, c in self.stages)

    def final(self, field: VectorField, state: State) -> Tensor:
        return _halves(field).leave(*state)

    def terminal(self, field: VectorField, y: Tensor) -> State:
        return _halves(field).split(y)

    def log_growth(self, lipschitz: Lipschitz, h: float) -> Tensor:
        """The product of the norms of the shears."""
        return of_shears((("pq".index(half), c) for half, c in self.stages), lipschitz.parts, h)

    def amplification(self, z: Tensor) -> Tensor:
        """The roots of r^2 - tr(z) r + 1 = 0, tr the trace of the product of the shears [[1, c z], [0, 1]] of p and
        [[1, 0], [c z, 1]] of q.
        """
        one, zero = torch.ones_like(z), torch.zeros_like(z)
        rows = [[one, zero], [zero, one]]
        for half, c in self.stages:
            moved = "pq".index(half)
            rows[moved] = [x + c * z * y for x, y in zip(rows[moved], rows[1 - moved], strict=True)]
        trace = 0.5 * (rows[0][0] + rows[1][1])
        return larger_root(trace, (trace.square() - 1).sqrt())


@dataclass(frozen=True)
class SymmetricScheme(ReversibleScheme):
    """A one-step scheme with Phi_{-h} Phi_h = identity."""

    def inverse(self, field: VectorField, state: State, theta_j: Theta, h: float) -> State:
        return self.step(field, state, theta_j, -h)


def larger_root(a: Tensor, root: Tensor) -> Tensor:
    """The larger of |a + root| and |a - root|."""
    return torch.maximum((a + root).abs(), (a - root).abs())


def _halves(field: VectorField) -> PartitionedField:
    """The field, as `SplittingScheme.check` let it through; in a run, what has its methods and stands in its place."""
    return field  # type: ignore[return-value]
