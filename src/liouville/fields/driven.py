r"""A field that an input drives through its biases: y' = f(y; theta) with b + W u in place of every bias b.

One weight serves all of time, and the input u_t of each step is an argument of the run: `Cell` and `Recurrent` of
`liouville.recurrent` step through it. A step of another length than the run's h is the velocity times their ratio.
"""

from __future__ import annotations

__all__ = ["Drive", "DrivenField", "PartitionedDrivenField", "drive_of", "driven"]

import functools
import math
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from liouville.fields.base import Lipschitz, Theta, VectorField
from liouville.fields.bound import original
from liouville.fields.given import Given
from liouville.fields.partitioned import PartitionedField
from liouville.fields.stochastic import StochasticField
from liouville.fields.wrapped import Wrapped


def driven(
    field: VectorField, inputs: int, *, scale: float = 1.0, generator: torch.Generator | None = None
) -> DrivenField:
    """The field with an input; partitioned into (p, q) if ``field`` is.

    Args:
        field: a field of one layer that states its ``biases``, on vectors.
        inputs: the width of u.
        scale: W starts as N(0, scale^2 / inputs), so inputs of variance 1 move each bias by ``scale``.
        generator: random generator of the initial W; torch's default stream if None.

    Raises:
        ValueError: if the field has several layers, draws noise, states no biases, or is not on vectors, or the scale
            is not positive and finite.

    Examples:
        >>> from liouville.fields import SeparableHamiltonianField
        >>> driven(SeparableHamiltonianField(4, layers=1), inputs=3).theta()._fields
        ('K_p', 'K_q', 'b_p', 'b_q', 'W_b_q', 'W_b_p')
    """
    return (PartitionedDrivenField if isinstance(field, PartitionedField) else DrivenField)(
        field, inputs, scale=scale, generator=generator
    )


class DrivenField(Wrapped):
    r"""y' = tau f(y; theta_u), theta_u = theta with b + W u in place of every bias b; u and tau belong to the step.

    A run passes them as arguments: u (*batch, inputs) and, if given, tau, which broadcasts with y and is the ratio of
    this step's length to h. tau = 0 leaves the state of a one-step scheme as it is. The determinant, symplecticity and
    bounds of a step are those of ``f``, whose laws hold for every bias; with tau, those of the step tau h.

    Args:
        field, inputs, scale, generator: as for `driven`.
    """

    def __init__(
        self, field: VectorField, inputs: int, *, scale: float = 1.0, generator: torch.Generator | None = None
    ) -> None:
        _require_driveable(field, inputs)
        _require_scale(scale)
        super().__init__(field)
        self.inputs = inputs
        for name in self._names:
            width, like = getattr(field.theta(), name).shape[-1], next(field.parameters())
            W = scale * torch.randn(1, width, inputs, generator=generator) / math.sqrt(inputs)
            self.register_parameter(f"W_{name}", nn.Parameter(W.to(like)))

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(name for names in self.field.biases for name in names)

    @property
    def is_plain(self) -> bool:
        """False: the velocities depend on an input too."""
        return False

    def theta(self) -> Theta:
        """The weights of the inner field, then W for each of its biases."""
        own = self.field.theta()
        return _theta_type(own._fields, self._names)(*own, *(getattr(self, f"W_{name}") for name in self._names))

    def inner(self, theta: Theta) -> Theta:
        """The weights of the inner field among these."""
        return self._kind(*theta[: len(self._kind._fields)])

    def forward(self, y: Tensor, theta_j: Theta, *args: Any, **context: Any) -> Tensor:
        """tau f(y; theta_u), of the arguments u and tau."""
        return self._moved(self.field, self._names, y, theta_j, *args, **context)

    def p_dot(self, q: Tensor, theta_j: Theta, *args: Any, **context: Any) -> Tensor:
        """tau p_dot(q; theta_u)."""
        return self._moved(self.field.p_dot, self.field.biases[0], q, theta_j, *args, **context)

    def q_dot(self, p: Tensor, theta_j: Theta, *args: Any, **context: Any) -> Tensor:
        """tau q_dot(p; theta_u)."""
        return self._moved(self.field.q_dot, self.field.biases[1], p, theta_j, *args, **context)

    def mean_velocity(self, y: Tensor, z: Tensor, theta_j: Theta, *args: Any, **context: Any) -> Tensor:
        """tau times the mean velocity between y and z, of theta_u."""
        mean = self.field.mean_velocity
        return self._moved(lambda y, theta_u: mean(y, z, theta_u), self._names, y, theta_j, *args, **context)

    def _moved(
        self,
        velocity: Callable[..., Tensor],
        names: Sequence[str],
        x: Tensor,
        theta_j: Theta,
        u: Tensor,
        tau: Tensor | None = None,
    ) -> Tensor:
        forced = {name: F.linear(u, getattr(theta_j, f"W_{name}"), getattr(theta_j, name)) for name in names}
        v = velocity(x, self.inner(theta_j)._replace(**forced))
        return v if tau is None else tau * v

    @functools.cached_property
    def _kind(self) -> Any:
        """The type of the inner field's theta."""
        return type(self.field.theta())

    def rate(self, theta: Theta) -> Tensor:
        """As for the inner field, at tau = 1."""
        return self.field.rate(self.inner(theta))

    def lipschitz(self, theta: Theta) -> Lipschitz:
        """As for the inner field, at tau = 1."""
        return self.field.lipschitz(self.inner(theta))

    def check_arguments(self, args: Sequence[Any], context: Mapping[str, Any]) -> None:
        named = dict(zip(("u", "tau"), args, strict=False)) | dict(context)
        if len(args) > 2 or len(named) < len(args) + len(context) or named.keys() - {"u", "tau"} or "u" not in named:
            raise TypeError(
                f"{type(self).__name__} takes the input u of every step, and tau if the steps are unequal; give them "
                "per step, as in flow(y, lv.PerLayer(u))."
            )

    spectrum = Wrapped.spectrum  # for every input
    degrees = Wrapped.degrees

    def extra_repr(self) -> str:
        return f"inputs={self.inputs}"


class PartitionedDrivenField(DrivenField, PartitionedField):
    """p' = tau p_dot(q; theta_u), q' = tau q_dot(p; theta_u): shears, whatever the input."""


class Drive(NamedTuple):
    """What a run of a driven field is made of, for an engine that streams it; every first axis is N, or 1.

    theta: the inner field's weights, without the input.
    weights: W by the name of its bias, (1, m, inputs).
    u: (N, *batch, inputs).
    tau: (N, ...), broadcasts with a state after its first axis; None where all steps have length h.
    """

    theta: Theta
    weights: Mapping[str, Tensor]
    u: Tensor
    tau: Tensor | None


def drive_of(field: Any, theta: Theta) -> Drive | None:
    """The parts of a run whose field, as an engine gets it, is a driven one; None for any other run."""
    own = original(field)
    if not isinstance(field, Given) or not isinstance(own, DrivenField):
        return None
    stacked, args, context = field.call.at(theta, 0, field.kind)
    given = dict(zip(("u", "tau"), args, strict=False)) | dict(context)
    weights = {name: getattr(stacked, f"W_{name}") for name in own._names}
    return Drive(own.inner(stacked), weights, given["u"], given.get("tau"))


def _require_driveable(field: VectorField, inputs: int) -> None:
    name = type(field).__name__
    if isinstance(inputs, bool) or not isinstance(inputs, int) or inputs < 1:
        raise ValueError(f"inputs must be a whole number of at least 1, got {inputs!r}.")
    if isinstance(field, StochasticField):
        raise ValueError(
            f"an input drives a deterministic field, got {name}; let dropout take the driven field, or drop outputs of "
            "levels, dropout= of a recurrent layer."
        )
    if not any(field.biases):
        raise ValueError(
            f"{name} states no biases, through which an input could drive it; use one of the library's fields, or "
            "state biases, the entries of theta() that are added inside its activation."
        )
    if field.layers != 1:
        raise ValueError(f"one weight serves all of time: build {name} with layers=1, got {field.layers}.")
    if field.feature_axis != -1:
        raise ValueError(f"an input drives a field on vectors, got {name} with features on axis {field.feature_axis}.")


def _require_scale(scale: float) -> None:
    if isinstance(scale, bool) or not isinstance(scale, Real) or not 0 < scale < math.inf:
        raise ValueError(f"the scale of an input must be a positive, finite number, got {scale!r}.")


@functools.cache
def _theta_type(own: tuple[str, ...], biases: tuple[str, ...]) -> Any:
    return namedtuple("DrivenTheta", (*own, *(f"W_{name}" for name in biases)))
