r"""Which pairs of scheme and field have a kernel over time, and their description for it."""

from __future__ import annotations

__all__ = ["SequencePlan", "Velocity", "plan_for", "planned"]

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from liouville.fields.activated import ActivatedField
from liouville.fields.base import Theta, VectorField
from liouville.fields.bound import original
from liouville.fields.driven import DrivenField
from liouville.fields.hamiltonian import HamiltonianField
from liouville.fields.residual import ResidualField, SemidefiniteField, SymmetricField
from liouville.fields.secondorder import SecondOrderField
from liouville.kernels.table import (
    GRADIENT,
    PLAIN,
    EulerPlan,
    ShearPlan,
    activation_code,
    kernel_for,
    no_kernel,
    require_computed,
    require_dense,
)
from liouville.schemes import SPLITTINGS
from liouville.schemes.base import Scheme, SplittingScheme

TURNED, DRIFT = 3, 4
NONE = -1


class Velocity(NamedTuple):
    """One velocity: its formula, and the places of its weights among the tensors of the plan; -1 where it has none."""

    kind: int
    K: int = NONE
    b: int = NONE
    G: int = NONE


class SequencePlan(NamedTuple):
    """A run over time, as the kernel sees it.

    velocities[k] moves part k of the state; stages = (part, c) in order: part += h tau c velocity.
    weights(theta) gives the tensors that the velocities name, (1, ...), made from theta by ordinary autograd.
    """

    activation: int
    velocities: tuple[Velocity, ...]
    stages: tuple[tuple[int, float], ...]
    weights: Callable[[Theta], Sequence[Tensor]]

    @property
    def inverts(self) -> bool:
        """Whether the steps are shears, which the backward pass can undo."""
        return len(self.velocities) == 2


def planned(scheme: Scheme, field: VectorField, device: str | None) -> ShearPlan | EulerPlan | SequencePlan:
    """The plan of a pair in depth, or in time where an input drives the field; as `kernel_for`."""
    own = original(field)
    if not isinstance(own, DrivenField):
        return kernel_for(scheme, field, device)
    if device not in (None, "cpu"):
        raise no_kernel(f"{type(scheme).__name__} on a {type(own.field).__name__} that an input drives on {device}")
    return plan_for(scheme, own.field)


def plan_for(scheme: Scheme, field: VectorField) -> SequencePlan:
    """The plan of a pair; ``field`` is the field without its input.

    Raises:
        NoKernelError: if the pair, its operator or its activation has no kernel.
    """
    if isinstance(field, SecondOrderField) and isinstance(scheme, SplittingScheme) and type(scheme) in SPLITTINGS:
        return _second_order(scheme, field)
    plan = kernel_for(scheme, field, None)
    if isinstance(plan, EulerPlan):
        turned = isinstance(field, HamiltonianField)
        velocity = Velocity(TURNED, 0, 1, 2) if turned else Velocity(PLAIN, 0, 1)
        return SequencePlan(plan.activation, (velocity,), ((0, 1.0),), plan.weights)
    return SequencePlan(plan.activation, tuple(Velocity(*v) for v in plan.velocities), plan.stages, tuple)


def _second_order(scheme: SplittingScheme, field: SecondOrderField) -> SequencePlan:
    """p' = f(q), q' = p."""
    force = field.force
    if type(force) not in _FORCES or not isinstance(force, ActivatedField):
        raise no_kernel(f"{type(scheme).__name__} on SecondOrderField of {type(force).__name__}")
    require_computed(field)
    require_computed(force)
    require_dense(force)
    kind, sign, weights = _FORCES[type(force)]
    moves = {"p": (0, sign), "q": (1, 1.0)}
    stages = tuple((moves[half][0], c * moves[half][1]) for half, c in scheme.stages)
    return SequencePlan(activation_code(force), (Velocity(kind, 0, 1), Velocity(DRIFT)), stages, weights)


def _semidefinite(theta: Theta) -> tuple[Tensor, ...]:
    """sigma(-C^T C q + b) is sigma(K q + b) with K = -C^T C."""
    C, b = theta
    return -(C.mT @ C), b


_FORCES: dict[type[VectorField], tuple[int, float, Callable[[Theta], Sequence[Tensor]]]] = {
    SymmetricField: (GRADIENT, -1.0, tuple),
    ResidualField: (PLAIN, 1.0, tuple),
    SemidefiniteField: (PLAIN, 1.0, _semidefinite),
}
