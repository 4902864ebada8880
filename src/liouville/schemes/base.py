r"""Numerical flows Phi_h: one step of a scheme carries a state through one layer.

A scheme is a frozen dataclass of hyper-parameters; the state is a tuple of tensors, so that no layer concatenates
or splits. What a scheme *can do* is its type: `ReversibleScheme` inverts, `ShearScheme` is a sequence of shears of a
state of two parts, `SplittingScheme` states them as data, `SymmetricScheme` inverts by stepping with -h.
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
    """One step of a numerical integrator; ``order`` is what its order test measures, with weights constant in time.

    ``order_in_depth`` is the order where weights jump from layer to layer, as they do in a refined network: the same
    for a step that knows nothing of the layer before.

    ``stability_limit``: the h omega below which a mode of a frozen layer of y' = i omega y does not grow, to nine
    decimals: 0 for a scheme that makes every oscillation grow, infinite for one that makes none, NaN where that is not
    known. It is found by running the step on an oscillator, once for equal schemes, so a scheme of your own has one
    too. It is a fact about imaginary rates only.
    """

    order: ClassVar[int]
    carries: ClassVar[str] = ""
    """What the state is where it is more than y, whose parts, joined, it is otherwise: "(y, v)", say."""
    stability_limit: ClassVar[float] = StabilityLimit()  # type: ignore[assignment]

    @property
    def order_in_depth(self) -> int:
        """The order in h where every layer has a weight of its own."""
        return self.order

    def check(self, field: VectorField) -> None:
        """Raise a `ValueError` that says what to use instead where this scheme and ``field`` do not fit."""
        field.check_scheme(self)

    def init(self, field: VectorField, y: Tensor, theta_0: Theta, h: float) -> State:
        """y_0 -> the first state; ``field`` is layer 0's."""
        return (y,)

    @abstractmethod
    def step(self, field: VectorField, state: State, theta_j: Theta, h: float) -> State:
        """One layer."""

    def final(self, field: VectorField, state: State) -> Tensor:
        """State -> y."""
        return state[0]

    def entry(self, field: VectorField, lipschitz: Lipschitz, h: float) -> Tensor:
        """An upper bound of how much y_0 -> State_0 and then State_N -> y_N can lengthen a difference, together.

        ``lipschitz`` is that of layer 0. 1 where y_0 enters as it is and y_N is read as it is, or a part of it.
        """
        return torch.ones_like(lipschitz.one_sided)

    def log_growth(self, lipschitz: Lipschitz, h: float) -> Tensor:
        """An upper bound of log ||A_j||_2, A_j the Jacobian of one step of length h, at every state.

        Shaped like the constants in ``lipschitz`` and differentiable in them; the rows of `liouville.schemes.growth`.
        A scheme of your own states its own and gets upper bounds and budgets by it; `liouville.testing.check_scheme`
        compares it with the step.

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
            f"the stability region of {type(self).__name__} is not known; override amplification(z) to have one."
        )


@dataclass(frozen=True)
class ReversibleScheme(Scheme):
    """A scheme whose step is a bijection of the state, with the inverse in closed form or by the same solver."""

    @property
    def kept_bits(self) -> int:
        """How many bits of each entry a layer drops that its inverse needs: those of all halvings of its shears."""
        return 0

    @abstractmethod
    def inverse(self, field: VectorField, state: State, theta_j: Theta, h: float) -> State:
        """The state before one layer, from the state behind it."""

    def terminal(self, field: VectorField, y: Tensor) -> State:
        """The final state that y_N determines; raises a `ValueError` where y_N alone does not."""
        if self.carries:
            raise ValueError(
                f"{type(self).__name__} carries {self.carries}, and y_N alone does not determine y_0; use "
                "flow.final_state and flow.inverse_state."
            )
        return (y,)


class Shear(NamedTuple):
    """state[moved] += step * velocity(state[1 - moved]): one part of a state of two is moved by the other alone.

    ``velocity`` None stands for the other part itself. A shear of ``halvings`` k or a ``sign`` -1 first multiplies
    state[moved] by sign * 2^-k; what integers lose by that, an engine that inverts keeps.
    """

    moved: int
    velocity: Callable[[Tensor], Tensor] | None
    step: float
    halvings: int = 0
    sign: int = 1

    @property
    def damps(self) -> bool:
        """Whether the part that it moves is multiplied first."""
        return self.halvings > 0 or self.sign < 0


@dataclass(frozen=True)
class ShearScheme(ReversibleScheme):
    """A scheme whose step is a few shears of a state of two parts, which may then change places.

    The inverse is the same shears in the opposite order with the opposite sign. Since a shear leaves alone what its
    velocity was evaluated at, one evaluation serves both to undo it and to differentiate it, and a rounded velocity
    is undone as exactly as it was added: `liouville.Reversible` rests on these two facts.
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
    """Alternate shears of p and q: the stages are data, and everything else is written once.

    Each stage ("p", c) is p += c h p_dot(q), each stage ("q", c) is q += c h q_dot(p): determinant 1, explicit,
    invertible.
    """

    stages: ClassVar[tuple[tuple[str, float], ...]]

    def check(self, field: VectorField) -> None:
        if not isinstance(field, PartitionedField):
            raise ValueError(
                f"{type(self).__name__} needs a field that splits into (p, q), each moved by the other alone; "
                f"got {type(field).__name__}. Use ForwardEuler, LeapfrogMidpoint, RK4 or ImplicitMidpoint, or a "
                f"PartitionedField such as SeparableHamiltonianField."
            )
        super().check(field)

    def init(self, field: VectorField, y: Tensor, theta_0: Theta, h: float) -> State:
        return field.enter(y, lambda q: field.p_dot(q, theta_0), h)  # type: ignore[operator]

    def entry(self, field: VectorField, lipschitz: Lipschitz, h: float) -> Tensor:
        return field.entry(lipschitz, h)  # type: ignore[operator]

    def shears(self, field: VectorField, theta_j: Theta, h: float) -> tuple[Shear, ...]:
        velocity = {
            "p": lambda q: field.p_dot(q, theta_j),  # type: ignore[operator]
            "q": lambda p: field.q_dot(p, theta_j),  # type: ignore[operator]
        }
        return tuple(Shear("pq".index(half), velocity[half], c * h) for half, c in self.stages)

    def final(self, field: VectorField, state: State) -> Tensor:
        return field.leave(*state)  # type: ignore[operator]

    def terminal(self, field: VectorField, y: Tensor) -> State:
        return field.split(y)  # type: ignore[operator]

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
