r"""A field around another: it changes one property, and takes all others from the inner field.

Dropout changes the velocities in training; a budget changes the weights. Facts of the inner field (`energy`,
`structure`, `jacobian`) hold for this one wherever both velocities are the same function of y and theta.
"""

from __future__ import annotations

__all__ = ["Wrapped", "product_of", "unwrapped", "wrapping"]

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from liouville.devices import Product
from liouville.fields.base import Degrees, Lipschitz, Spectrum, Theta, VectorField, degrees_of, spectrum_of
from liouville.fields.bound import original
from liouville.fields.partitioned import PartitionedField
from liouville.operators import Conv, Operator


class Wrapped(VectorField):
    """y' = f(y; theta_j) with f and theta of the inner field ``field``, except where a subclass changes them.

    A subclass may change `theta`, and the velocities in ``_velocity``, which serves f and the halves p_dot and q_dot.
    Around a `PartitionedField` it must be one too, by ``class MyHalves(Mine, PartitionedField)`` without a body:
    schemes and engines check this type.

    Args:
        field: the inner field.
    """

    field: Any

    def __init__(self, field: VectorField) -> None:
        VectorField.__init__(self, field.features, field.layers)
        self.field = field
        self.has_effects = field.has_effects
        if isinstance(field, PartitionedField):
            self.p_features = field.p_features

    @property
    def is_plain(self) -> bool:
        """Whether the velocities now equal the velocities of the inner field, as functions of y and theta."""
        return True

    def _velocity(self, inner: Callable[..., Tensor], x: Tensor, theta_j: Theta, *args: Any, **context: Any) -> Tensor:
        return inner(x, theta_j, *args, **context)

    def theta(self) -> Theta:
        """The weights of the inner field."""
        return self.field.theta()

    def forward(self, y: Tensor, theta_j: Theta, *args: Any, **context: Any) -> Tensor:
        """f(y; theta_j)."""
        return self._velocity(self.field, y, theta_j, *args, **context)

    def p_dot(self, q: Tensor, theta_j: Theta, *args: Any, **context: Any) -> Tensor:
        """p', for a partitioned field."""
        return self._velocity(self.field.p_dot, q, theta_j, *args, **context)

    def q_dot(self, p: Tensor, theta_j: Theta, *args: Any, **context: Any) -> Tensor:
        """q', for a partitioned field."""
        return self._velocity(self.field.q_dot, p, theta_j, *args, **context)

    def mean_velocity(self, y: Tensor, z: Tensor, theta_j: Theta, *args: Any, **context: Any) -> Tensor:
        """The mean between y and z; what this field changes is the same in all of a layer."""

        def inner(y: Tensor, theta_j: Theta, *args: Any, **context: Any) -> Tensor:
            return self.field.mean_velocity(y, z, theta_j, *args, **context)

        return self._velocity(inner, y, theta_j, *args, **context)

    def jacobian(self, y: Tensor, theta: Theta) -> Tensor | None:
        """As for the inner field, if the velocities are equal."""
        return self.field.jacobian(y, theta) if self.is_plain else None

    def p_jacobian(self, q: Tensor, theta: Theta) -> Tensor | None:
        """As for the inner field, if the velocities are equal."""
        return self.field.p_jacobian(q, theta) if self.is_plain else None

    def q_jacobian(self, p: Tensor, theta: Theta) -> Tensor | None:
        """As for the inner field, if the velocities are equal."""
        return self.field.q_jacobian(p, theta) if self.is_plain else None

    def structure(self, theta: Theta) -> Tensor | None:
        """As for the inner field, if the velocities are equal."""
        return self.field.structure(theta) if self.is_plain else None

    def energy(self, state: Tensor | tuple[Tensor, ...], theta_j: Theta) -> Tensor:
        """As for the inner field, if the velocities are equal."""
        return self.field.energy(state, theta_j) if self.is_plain else super().energy(state, theta_j)

    @property
    def spectrum(self) -> Spectrum:
        """As for the inner field."""
        return spectrum_of(self.field)

    def rate(self, theta: Theta) -> Tensor:
        return self.field.rate(theta)

    def lipschitz(self, theta: Theta) -> Lipschitz:
        return self.field.lipschitz(theta)

    @property
    def degrees(self) -> Degrees | None:  # type: ignore[override]
        """The field's own."""
        return degrees_of(self.field)

    @property
    def biases(self) -> tuple[tuple[str, ...], ...]:  # type: ignore[override]
        """The field's own."""
        return self.field.biases

    @property
    def weight_unit(self) -> float:  # type: ignore[override]
        """The field's own."""
        return self.field.weight_unit

    @property
    def state_unit(self) -> float:
        """The field's own."""
        return self.field.state_unit

    def matrices(self) -> list[Tensor]:
        """The field's own."""
        return self.field.matrices()

    @property
    def feature_axis(self) -> int:  # type: ignore[override]
        return self.field.feature_axis

    @property
    def sample_ndim(self) -> int | None:  # type: ignore[override]
        """As for the inner field."""
        return self.field.sample_ndim

    @property
    def constants(self) -> Collection[str]:  # type: ignore[override]
        return self.field.constants

    def split(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """As for the inner field."""
        return self.field.split(y)

    def join(self, p: Tensor, q: Tensor) -> Tensor:
        """As for the inner field."""
        return self.field.join(p, q)

    def enter(self, y: Tensor, p_dot: Callable[[Tensor], Tensor], h: float) -> tuple[Tensor, Tensor]:
        """As for the inner field."""
        return self.field.enter(y, p_dot, h)

    def entry(self, lipschitz: Lipschitz, h: float) -> Tensor:
        """As for the inner field."""
        return self.field.entry(lipschitz, h)

    def leave(self, p: Tensor, q: Tensor) -> Tensor:
        """As for the inner field."""
        return self.field.leave(p, q)

    def check_scheme(self, scheme: Any) -> None:
        self.field.check_scheme(scheme)

    def check_arguments(self, args: Sequence[Any], context: Mapping[str, Any]) -> None:
        self.field.check_arguments(args, context)

    def check_writes(self, buffers: Sequence[str]) -> None:
        self.field.check_writes([name.removeprefix("field.") for name in buffers])

    def plain_state(self) -> dict[str, Any]:
        return self.field.plain_state()


def wrapping(field: VectorField) -> Iterator[VectorField]:
    """The field, the field inside it, and so on; the last computes the velocities."""
    yield field
    while isinstance(field, Wrapped):
        field = field.field
        yield field


def unwrapped(field: VectorField) -> VectorField:
    """The field inside budgets and dropout: it computes the velocities in evaluation mode.

    Examples:
        >>> from liouville.fields import PairField, dropout
        >>> type(unwrapped(dropout(PairField(4, layers=2), 0.1))).__name__
        'PairField'
    """
    *_, inner = wrapping(field)
    return inner


def product_of(field: VectorField) -> Product:
    """The kind of product that the velocities are made of, "any" where modules of a user's compute them.

    Examples:
        >>> from liouville.fields import PairField
        >>> product_of(PairField(4, layers=2)), product_of(PairField(4, layers=2, operator=Conv(3)))
        ('matrix', 'convolution')
    """
    operator = getattr(unwrapped(original(field)), "operator", None)
    if isinstance(operator, Conv):
        return "convolution"
    return "matrix" if isinstance(operator, Operator) else "any"
