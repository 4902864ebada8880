r"""Which pairs of scheme and field have a kernel, and their description for the kernel."""

from __future__ import annotations

__all__ = [
    "TANH",
    "EulerPlan",
    "NoKernelError",
    "ShearPlan",
    "activation_code",
    "kernel_for",
    "no_kernel",
    "require_computed",
    "require_dense",
    "supported",
]

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from liouville.activations import relu, tanh
from liouville.fields.activated import ActivatedField
from liouville.fields.antisymmetric import AntisymmetricField, AntisymmetricTheta
from liouville.fields.base import Theta, VectorField
from liouville.fields.hamiltonian import HamiltonianField, SeparableHamiltonianField
from liouville.fields.pair import PairField
from liouville.fields.residual import ResidualField
from liouville.fields.stochastic import original
from liouville.operators import Conv, Dense
from liouville.schemes import SPLITTINGS
from liouville.schemes.base import Scheme, SplittingScheme
from liouville.schemes.euler import ForwardEuler

TANH, RELU = 0, 1
GRADIENT, PLAIN, TRANSPOSED = 0, 1, 2
_COMPUTED = frozenset(("forward", "p_dot", "q_dot", "gradient"))  # methods of a field that a kernel replaces


class NoKernelError(ValueError):
    """There is no fused kernel for this scheme and field; the message lists the pairs that have one."""


class ShearPlan(NamedTuple):
    """A run of shears, as the kernel sees it; ``theta`` is the theta of the field, by position.

    velocities[k] = (kind, K, b) moves part k: which formula, and which entries of theta are its weights.
    stages = (part, c) in order: part += h c velocity.
    taps: numbers of K's stencil on images, 1 or 9; 0 where the state is vectors.
    """

    activation: int
    velocities: tuple[tuple[int, int, int], tuple[int, int, int]]
    stages: tuple[tuple[int, float], ...]
    taps: int = 0


class EulerPlan(NamedTuple):
    """A run of forward Euler, as the kernel sees it.

    weights(theta) = (K, b) for y' = sigma(K y + b), (K, b, G) for y' = G^T sigma(K y + b): stacks of all layers, made
    from theta by ordinary autograd.
    """

    activation: int
    weights: Callable[[Theta], tuple[Tensor, ...]]


def kernel_for(scheme: Scheme, field: VectorField, device: str | None) -> ShearPlan | EulerPlan:
    """The plan of a pair.

    Args:
        scheme, field: what runs.
        device: the kind of device that a kernel is to run on; None for the plan, whatever runs it.

    Raises:
        NoKernelError: if the pair, its operator or its activation has no kernel on this device.
    """
    field = original(field)
    make = _TABLE.get((type(scheme), type(field)))
    if make is None:
        raise no_kernel(f"{type(scheme).__name__} on {type(field).__name__}")
    if device is not None and device not in _DEVICES:
        raise no_kernel(f"{type(scheme).__name__} on {type(field).__name__} on {device}")
    require_computed(field)
    return make(scheme, field)


def supported() -> list[str]:
    """The pairs that have a kernel, as the error says them."""
    fields: dict[str, list[str]] = {}
    for scheme, field in _TABLE:
        fields.setdefault(field.__name__, []).append(scheme.__name__)
    return [f"{field} ({_CONDITIONS[field]}) with {' or '.join(schemes)}" for field, schemes in fields.items()]


def _separable(scheme: SplittingScheme, field: SeparableHamiltonianField) -> ShearPlan:
    """theta = (K_p, K_q, b_p, b_q); p' = -c K_q^T sigma(K_q q + b_q), q' = c K_p^T sigma(K_p p + b_p)."""
    if field.X is not None:
        raise no_kernel("SeparableHamiltonianField with a matrix X")
    velocities = (GRADIENT, 1, 3), (GRADIENT, 0, 2)
    return _plan(scheme.stages, activation_code(field), velocities, -field.sign, field.sign, _taps(field))


def _pair(scheme: SplittingScheme, field: PairField) -> ShearPlan:
    """theta = (K, b, c); p' = -sigma(K^T q + c), q' = sigma(K p + b)."""
    velocities = (TRANSPOSED, 0, 2), (PLAIN, 0, 1)
    return _plan(scheme.stages, activation_code(field), velocities, -1.0, 1.0, _taps(field))


def _hamiltonian(scheme: ForwardEuler, field: HamiltonianField) -> EulerPlan:
    """y' = J K^T sigma(K y + b): G = K J^T, for a J of any form, of one layer or all, trained or not."""
    require_dense(field)
    return EulerPlan(activation_code(field), lambda theta: (theta.K, theta.b, theta.K @ field.structure(theta).mT))


def _antisymmetric(scheme: ForwardEuler, field: AntisymmetricField) -> EulerPlan:
    """y' = sigma((A - factor gamma I) y + b)."""
    require_dense(field)

    def weights(theta: AntisymmetricTheta) -> tuple[Tensor, ...]:
        eye = torch.eye(field.features, dtype=theta.A.dtype, device=theta.A.device)
        return (torch.sub(theta.A, eye, alpha=field.factor * field.gamma) if field.gamma else theta.A), theta.b

    return EulerPlan(activation_code(field), weights)


def _residual(scheme: ForwardEuler, field: ResidualField) -> EulerPlan:
    """y' = sigma(K y + b)."""
    require_dense(field)
    return EulerPlan(activation_code(field), tuple)


def _plan(
    stages: tuple[tuple[str, float], ...],
    activation: int,
    velocities: tuple[tuple[int, int, int], tuple[int, int, int]],
    p_sign: float,
    q_sign: float,
    taps: int,
) -> ShearPlan:
    moves = {"p": (0, p_sign), "q": (1, q_sign)}
    made = tuple((moves[half][0], c * moves[half][1]) for half, c in stages)
    return ShearPlan(activation, velocities, made, taps)


def _taps(field: ActivatedField) -> int:
    match field.operator:
        case Dense():
            return 0
        case Conv(kernel=1):
            return 1
        case Conv(kernel=3, dims=2):
            return 9
    raise no_kernel(f"{type(field).__name__} with operator {field.operator}")


def require_dense(field: ActivatedField) -> None:
    """Raise where the matrices of a field are convolutions or masked."""
    if not isinstance(field.operator, Dense):
        raise no_kernel(f"{type(field).__name__} with operator {field.operator}")


def require_computed(field: VectorField) -> None:
    """Raise where a method that a kernel replaces was replaced by another."""
    for name in _COMPUTED & vars(field).keys():
        raise no_kernel(f"a {type(field).__name__} whose {name} was replaced")


def activation_code(field: ActivatedField) -> int:
    """The kernel's number of an activation: by its function, since another one may have the name."""
    for number, known in ((TANH, tanh), (RELU, relu)):
        if field.activation.function is known.function:
            return number
    other = "another function called" if field.activation.name in (tanh.name, relu.name) else "the activation"
    raise no_kernel(f"{type(field).__name__} with {other} {field.activation.name!r}")


def no_kernel(what: str) -> NoKernelError:
    """The error that names what exists."""
    return NoKernelError(
        f"there is no fused kernel for {what}; there is one on the CPU for fields with tanh or relu: "
        f"{'; '.join(supported())}. Use lv.Stored() or lv.Reversible()."
    )


_DEVICES = ("cpu",)  # that have a kernel for every pair
_Key = tuple[type[Scheme], type[VectorField]]
_TABLE: dict[_Key, Callable[..., ShearPlan | EulerPlan]] = {
    **{(scheme, SeparableHamiltonianField): _separable for scheme in SPLITTINGS},
    **{(scheme, PairField): _pair for scheme in SPLITTINGS},
    (ForwardEuler, HamiltonianField): _hamiltonian,
    (ForwardEuler, AntisymmetricField): _antisymmetric,
    (ForwardEuler, ResidualField): _residual,
}
_OPERATORS = "dense, Conv(1), Conv(3) on images"
_CONDITIONS = {
    "SeparableHamiltonianField": f"X None or a number; {_OPERATORS}",
    "PairField": f"any widths; {_OPERATORS}",
    "HamiltonianField": "dense, any J and hidden",
    "AntisymmetricField": "dense, any gamma, factor and bias",
    "ResidualField": "dense, vector or scalar bias",
}
