r"""The steps of a scheme through a field, where they are known to be

    y[to] += length left_1 left_2 ... sigma(R y[of] + b),

one part after the other in every layer. A field states its matrices (`VectorField.factors`) and a splitting scheme its
stages; both bounds, by multipliers and by enclosure, read them here.
"""

from __future__ import annotations

__all__ = ["FIELDS", "Part", "Steps", "steps_of"]

from typing import Any, NamedTuple

from liouville import fields
from liouville.fields import VectorField
from liouville.fields.base import Factors, Theta
from liouville.operators import Dense, Graph
from liouville.schemes import SPLITTINGS, ForwardEuler, Scheme

FIELDS: tuple[type[VectorField], ...] = tuple(
    kind
    for kind in vars(fields).values()
    if isinstance(kind, type) and issubclass(kind, VectorField) and kind is not VectorField and "factors" in vars(kind)
)
"""The fields whose steps are known, by exact type."""


class Part(NamedTuple):
    """y[to] += length left_1 left_2 ... sigma(R y[of] + b), the matrices of all layers stacked."""

    to: slice
    of: slice
    length: float
    factors: Factors


class Steps(NamedTuple):
    """The parts of every layer, in order; ``at_once``: all of them read the state before the layer."""

    parts: tuple[Part, ...]
    at_once: bool


def steps_of(field: VectorField, scheme: Scheme, theta: Theta, h: float) -> Steps:
    """The steps of ``scheme`` through ``field`` with the weights ``theta``, of length h, differentiable in them.

    Raises:
        NotImplementedError: unless the classes of the field, its operator and the scheme are exactly known ones.

    Examples:
        >>> from liouville.schemes import Verlet
        >>> field = fields.SeparableHamiltonianField(4, layers=3)
        >>> [(part.to.start, part.of.start) for part in steps_of(field, Verlet(), field.theta(), 0.1).parts]
        [(0, 2), (2, 0), (0, 2)]
    """
    known: Any = field
    simple = type(field) in FIELDS and type(known.operator) in (Dense, Graph)
    velocities = known.factors(theta) if simple else None
    if velocities is None:
        raise NotImplementedError(f"the steps of {type(field).__name__}{_operator(field)} are not known.")
    n = field.features
    if len(velocities) == 1:
        halves = {"y": (slice(0, n), slice(0, n), velocities[0])}
    else:
        p, q = slice(0, known.p_features), slice(known.p_features, n)
        halves = {"p": (p, q, velocities[0]), "q": (q, p, velocities[1])}
    stages: Any = scheme
    if type(scheme) in SPLITTINGS and len(velocities) == 2:
        taken = [(half, c * h) for half, c in stages.stages]
    elif type(scheme) is ForwardEuler:
        taken = [(half, h) for half in halves]
    else:
        raise NotImplementedError(f"the steps of {type(scheme).__name__} through {type(field).__name__} are not known.")
    parts = [Part(*halves[half][:2], length, halves[half][2]) for half, length in taken]
    return Steps(tuple(parts), at_once=type(scheme) is ForwardEuler)


def _operator(field: VectorField) -> str:
    operator = getattr(field, "operator", None)
    return "" if operator is None or type(operator) in (Dense, Graph) else f" with {operator!r}"
