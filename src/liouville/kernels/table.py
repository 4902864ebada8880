r"""Which pairs of scheme and field have a kernel, and what the kernel is told of them."""

from __future__ import annotations

__all__ = ["NoKernelError", "ShearPlan", "kernel_for", "supported"]

from collections.abc import Callable
from typing import NamedTuple

from liouville.fields.base import VectorField, original
from liouville.fields.hamiltonian import SeparableHamiltonianField
from liouville.fields.pair import PairField
from liouville.operators import Dense
from liouville.schemes.base import Scheme, SplittingScheme
from liouville.schemes.symplectic import SymplecticEuler, Verlet, Yoshida4

ACTIVATIONS = {"tanh": 0, "relu": 1}
GRADIENT, PLAIN, TRANSPOSED = 0, 1, 2


class NoKernelError(ValueError):
    """There is no fused kernel for this scheme and field; the message lists the pairs that have one."""


class ShearPlan(NamedTuple):
    """A run of shears, as the kernel sees it; ``theta`` is the field's, by position.

    velocities[k] = (kind, K, b) moves part k: which formula, and which entries of theta are its weights.
    stages = (part, c) in order: part += h c velocity.
    """

    activation: int
    velocities: tuple[tuple[int, int, int], tuple[int, int, int]]
    stages: tuple[tuple[int, float], ...]


def kernel_for(scheme: Scheme, field: VectorField, device: str = "cpu") -> ShearPlan:
    """The plan of a pair.

    Raises:
        NoKernelError: if the pair, its operator or its activation has no kernel on this device.
    """
    field = original(field)
    make = _TABLE.get((type(scheme), type(field), device))
    if make is None:
        raise _no_kernel(
            f"{type(scheme).__name__} on {type(field).__name__}" + ("" if device == "cpu" else f" on {device}")
        )
    return make(scheme, field)


def supported() -> list[str]:
    """The pairs that have a kernel, as the error says them."""
    fields: dict[str, list[str]] = {}
    for scheme, field, _ in _TABLE:
        fields.setdefault(field.__name__, []).append(scheme.__name__)
    return [f"{field} ({_CONDITIONS[field]}) with {' or '.join(schemes)}" for field, schemes in fields.items()]


def _separable(scheme: SplittingScheme, field: SeparableHamiltonianField) -> ShearPlan:
    """theta = (K_p, K_q, b_p, b_q); p' = -c K_q^T sigma(K_q q + b_q), q' = c K_p^T sigma(K_p p + b_p)."""
    _require(field)
    if field.X is not None:
        raise _no_kernel("SeparableHamiltonianField with a matrix X")
    return _plan(scheme, field, ((GRADIENT, 1, 3), (GRADIENT, 0, 2)), (-field.sign, field.sign))


def _pair(scheme: SplittingScheme, field: PairField) -> ShearPlan:
    """theta = (K, b, c); p' = -sigma(K^T q + c), q' = sigma(K p + b)."""
    _require(field)
    return _plan(scheme, field, ((TRANSPOSED, 0, 2), (PLAIN, 0, 1)), (-1.0, 1.0))


def _plan(
    scheme: SplittingScheme,
    field: SeparableHamiltonianField | PairField,
    velocities: tuple[tuple[int, int, int], tuple[int, int, int]],
    signs: tuple[float, float],
) -> ShearPlan:
    stages = tuple(("pq".index(half), c * signs["pq".index(half)]) for half, c in scheme.stages)
    return ShearPlan(ACTIVATIONS[field.activation.name], velocities, stages)


def _require(field: SeparableHamiltonianField | PairField) -> None:
    if not isinstance(field.operator, Dense):
        raise _no_kernel(f"{type(field).__name__} with operator {field.operator}")
    if field.activation.name not in ACTIVATIONS:
        raise _no_kernel(f"{type(field).__name__} with the activation {field.activation.name!r}")


def _no_kernel(what: str) -> NoKernelError:
    return NoKernelError(
        f"there is no fused kernel for {what}; there is one on the CPU for dense fields with tanh or relu: "
        f"{'; '.join(supported())}. Use lv.Stored() or lv.Reversible()."
    )


_Key = tuple[type[Scheme], type[VectorField], str]
# the third key is the kind of device: a GPU kernel is a line ("cuda") beside each of these
_TABLE: dict[_Key, Callable[..., ShearPlan]] = {
    **{(scheme, SeparableHamiltonianField, "cpu"): _separable for scheme in (SymplecticEuler, Verlet, Yoshida4)},
    **{(scheme, PairField, "cpu"): _pair for scheme in (SymplecticEuler, Verlet, Yoshida4)},
}
_CONDITIONS = {"SeparableHamiltonianField": "X None or a number", "PairField": "any widths"}
