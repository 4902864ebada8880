r"""The right-hand side of y' = f(y; theta_j): the base class of every field.

A field keeps *raw* parameters whose axis 0 counts the layers (or has length 1, when all layers share one weight).
`VectorField.theta` applies every constraint once, vectorised over layers, by ordinary autograd; below it all
schemes and engines see plain stacked tensors. That split is why a penalty in depth is one ``diff(dim=0)`` and why
any engine is one function of a state and a few tensors.
"""

from __future__ import annotations

__all__ = [
    "Degrees",
    "Factors",
    "Lipschitz",
    "Scaling",
    "Spectrum",
    "Theta",
    "VectorField",
    "degrees_of",
    "is_closed",
    "require_sample_ndim",
    "spectrum_of",
]

import copy
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from numbers import Integral
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from liouville.fields.prolongation import prolongation
from liouville.fields.signatures import Signature, named

Spectrum = Literal["imaginary", "damped", "any"]
Theta = Any  # a NamedTuple of tensors; each field declares its own


class Lipschitz(NamedTuple):
    """How fast the velocities of each layer can change with the state, whatever the state; tensors (N,) or (1,).

    parts: upper bounds of ||d p_dot / dq|| and ||d q_dot / dp||, or only of ||f'||.
    one_sided: an upper bound of the largest eigenvalue of (f' + f'^T) / 2, the rate at which two states can separate.
    """

    parts: tuple[Tensor, ...]
    one_sided: Tensor

    @property
    def whole(self) -> Tensor:
        """L, a bound of ||f'||; with two halves, the larger of their bounds."""
        return functools.reduce(torch.maximum, self.parts)


class Factors(NamedTuple):
    """The factors of a velocity left_1 left_2 ... sigma(R y + b) in all layers: stacks (N or 1, ...) of matrices and b.

    R_size: for each entry of R, the sum of the absolute values of the terms it is computed from; None where R is a
    weight, whose sum is |R|.
    """

    left: tuple[Tensor, ...]
    R: Tensor
    b: Tensor
    R_size: Tensor | None = None


class Scaling(NamedTuple):
    """Scaling the entries ``weights`` of theta by t^(1/power) scales the Lipschitz constants by t."""

    weights: tuple[str, ...]
    power: int


class Degrees(NamedTuple):
    """How a field grows with its matrices K, all else fixed: what makes the final time a unit (`VectorField.degrees`).

    weights: the entries of theta that are the matrices.
    rate: r; the rate of t K is t^r times that of K.
    argument: a; so is the linear part of sigma's argument, t^a.
    raw: the parameters that the matrices are made of, linearly; those of the same names if None.
    """

    weights: tuple[str, ...]
    rate: int
    argument: int = 1
    raw: tuple[str, ...] | None = None


class VectorField(nn.Module, ABC):
    """y' = f(y; theta_j), one frozen weight theta_j per layer.

    Args:
        features: n, the width of the state along ``feature_axis``.
        layers: N.

    Subclasses give `theta` and `forward`; `liouville.testing.check_field` then proves the contract: ``forward`` is
    deterministic, reads nothing but its arguments and constant buffers, and every parameter reaches it through
    ``theta()``.
    """

    features: int
    layers: int
    feature_axis: int = -1
    constants: Collection[str] = ()  # the entries of theta() that are buffers, and no weights
    has_effects: bool = False  # whether a velocity has side effects, such as sending messages
    scaling: Scaling | None = None  # which weights a budget rescales; None: see `scaled`
    degrees: Degrees | None = None
    """Of a field whose time is a unit: T, K and y_0 give the network, step by step, that t^r T, K/t and t^a y_0 give,
    for every t > 0, with everything else as it is. None where no power of K does that, as beside diffusion."""
    biases: tuple[tuple[str, ...], ...] = ((),)
    """The entries of theta() that are added inside the activation, for each velocity: of forward, or of p_dot and
    q_dot. An input drives a field through them (`DrivenField`); a velocity reads no other bias than its own."""
    weight_unit: float = 1.0
    """What its matrices are counted in by `liouville.train.Settings` with ``rates="scaled"``: the factor of
    `liouville.zoo.scaled_start`. 1 for a field that nobody has scaled."""
    sample_ndim: int | None = None
    """How many trailing axes of a state are one sample: 1 for vectors, 1 + dims for signals and images, 2 for sequences
    (tokens, features). None if unstated: then one leading axis is the batch, and more than one are ambiguous.
    Samples along batch axes must not be coupled; sample axes may be."""

    def __init__(self, features: int, layers: int) -> None:
        super().__init__()
        for name, value in (("features", features), ("layers", layers)):
            if not isinstance(value, Integral) or isinstance(value, bool):
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}.")
        if features < 1:
            raise ValueError(f"features must be at least 1, got {features}.")
        if layers < 1:
            raise ValueError(f"layers must be at least 1, got {layers}; a network without layers is only its head.")
        self.features = int(features)
        self.layers = int(layers)

    @abstractmethod
    def theta(self) -> Theta:
        """The constrained weights of all layers: a NamedTuple of tensors (N, ...), or (1, ...) when shared."""

    @abstractmethod
    def forward(self, y: Tensor, theta_j: Theta) -> Tensor:
        """f(y; theta_j) for one layer, shaped like y."""

    @property
    def spectrum(self) -> Spectrum:
        """Where the eigenvalues of f' lie at every state, for all weights that the field can have.

        ``"imaginary"``: on the imaginary axis, so that the equation turns and neither damps nor grows, and a scheme's
        ``stability_limit`` decides about its step; ``"damped"``: never to the right of it, and to the left of it in
        general; ``"any"``: nothing is known. A user-defined field overrides it.
        """
        return "any"

    def batch_shape(self, y: Tensor) -> torch.Size:
        """The batch shape of ``y``: its axes before those of one sample. A result per sample has one entry for each.

        Raises:
            ValueError: if ``y`` has fewer axes than a sample, or several batch axes and no `sample_ndim` is stated.
        """
        own = -self.feature_axis if self.sample_ndim is None else self.sample_ndim
        if y.dim() < own:
            raise ValueError(f"one sample of this field has {own} axes, got an input of shape {tuple(y.shape)}.")
        if self.sample_ndim is None and y.dim() > own + 1:
            raise ValueError(
                f"{type(self).__name__} does not state which axes of {tuple(y.shape)} are one sample, and the result "
                f"has one entry per sample; state sample_ndim, as in ShearField(..., sample_ndim={own + 1}): the "
                f"number of trailing axes that form one sample, {own} where every position is a sample of its own."
            )
        return y.shape[: y.dim() - own]

    def sample_shape(self, size: int = 5) -> tuple[int, ...]:
        """One sample's shape, with ``size`` tokens or pixels along every axis that is not the features'."""
        pixels = -1 - self.feature_axis
        tokens = 0 if self.sample_ndim is None else self.sample_ndim + self.feature_axis
        return (*(size,) * tokens, self.features, *(size,) * pixels)

    def rate(self, theta: Theta) -> Tensor:
        """A bound of the fastest rate of each frozen, linearised layer, (N,); h times it is the step-size margin."""
        raise NotImplementedError(
            f"{type(self).__name__} states no rate; override rate(theta) to get a step-size margin."
        )

    def lipschitz(self, theta: Theta) -> Lipschitz:
        """Bounds of the Jacobian of each layer over all states, differentiable in theta."""
        raise NotImplementedError(
            f"{type(self).__name__} states no Lipschitz constants; override lipschitz(theta) to get upper bounds."
        )

    def scaled(self, theta: Theta, factor: Tensor) -> Theta:
        """Rescaled weights, with Lipschitz constants at most ``factor`` times the Lipschitz constants of ``theta``;
        differentiable in both, ``factor`` in (0, 1]. A user-defined field needs it and `lipschitz` for a budget.
        """
        if self.scaling is None:
            raise NotImplementedError(
                f"{type(self).__name__} states no rescaling of its weights; override scaled(theta, factor) to get "
                "budgets."
            )
        root = factor ** (1 / self.scaling.power)
        return theta._replace(**{name: root.to(w) * w for name in self.scaling.weights for w in [getattr(theta, name)]})

    @property
    def state_unit(self) -> float:
        """What y is counted in where the matrices are counted in `weight_unit`: its power -a."""
        degrees = degrees_of(self)
        return 1.0 if degrees is None else self.weight_unit**-degrees.argument

    def matrices(self) -> list[Tensor]:
        """The parameters that `degrees` counts."""
        degrees = degrees_of(self)
        return [] if degrees is None else [getattr(self, name) for name in degrees.raw or degrees.weights]

    def structure(self, theta: Theta) -> Tensor | None:
        """The skew matrix J of f = J grad H, H the `energy`; None where the field states no J or no H.

        Its shape is (n, n) where all layers share one J, else (N, n, n), stacked as in ``theta``, and (n, n) for one
        layer. n is the number of features at one position, p before q.
        """
        return None

    def energy(self, state: Tensor | tuple[Tensor, ...], theta_j: Theta) -> Tensor:
        """H(state; theta_j), conserved by a frozen layer, <grad H, f> = 0: one number per sample, in the batch's shape.

        Args:
            state: y, (*batch, n, ...), or the halves (p, q) of a `PartitionedField`, as splitting schemes carry them.
            theta_j: the weights of one layer.

        Raises:
            NotImplementedError: if the field states none.
        """
        raise NotImplementedError(
            f"{type(self).__name__} states no energy; override energy(state, theta_j), or use a Hamiltonian field or a "
            "second-order field whose force is the gradient of a potential (SymmetricField)."
        )

    def mean_velocity(self, y: Tensor, z: Tensor, theta_j: Theta) -> Tensor:
        """int_0^1 f((1 - s) y + s z; theta_j) ds in closed form, shaped like y; `DiscreteGradient` steps with it.

        Arguments of a run follow, as for ``forward``. A subclass that changes ``forward`` overrides this too.

        Raises:
            NotImplementedError: if the field states none.
        """
        raise NotImplementedError(
            f"{type(self).__name__} states no mean of its velocity between two states; override "
            "mean_velocity(y, z, theta_j), or use HamiltonianField or PortHamiltonianField."
        )

    def factors(self, theta: Theta) -> tuple[Factors, ...] | None:
        """The velocities (p_dot and q_dot, or one y_dot) as matrices around sigma; None where they have another form.

        ``theta`` may have any dtype; the result has the same. Only dense weights and graphs, and only the library's own
        classes, are read: a proof concerns code that is known to run (`liouville.multipliers.steps`).
        """
        return None

    def jacobian(self, y: Tensor, theta: Theta) -> Tensor | None:
        """df/dy in closed form, (..., B, n, n), at y (..., B, n), weights of one layer or stacked; None without one.

        A subclass that changes ``forward`` overrides this too, or returns None: `liouville.analysis` then
        differentiates ``forward``.
        """
        return None

    def check_scheme(self, scheme: Any) -> None:
        """Raise a `ValueError`, with an alternative, where a `liouville.Scheme` does not fit this field.

        `Scheme.check` calls it; a field that fits every scheme of its kind does not override it.
        """

    def check_arguments(self, args: Sequence[Any], context: Mapping[str, Any]) -> None:
        """Raise a `TypeError` unless the velocities take these arguments of a run in addition to y and theta_j.

        A user-defined field takes them as parameters: ``forward(self, y, theta_j, mask=None)``, or ``p_dot`` and
        ``q_dot``, which both get all of them; ``flow(y, mask=mask)`` then passes them to every layer.
        """
        own = [Signature.of(velocity, self._taken_first) for velocity in self._velocities()]
        if not all(each.takes(args, context) for each in own):
            raise TypeError(
                f"{type(self).__name__} takes {_said(own)} beside its input, got {named(args, context)}; a field of "
                "your own takes the arguments that its velocities have parameters for, after y and theta_j."
            )
        missing = [name for each in own for name in each.missing(args, context)]
        if missing:
            raise TypeError(
                f"{type(self).__name__} needs the argument {missing[0]} beside its input; give it to the run, as in "
                f"flow(y, {missing[0]}={missing[0]})."
            )

    _taken_first = 2  # parameters of a velocity that are no arguments of a run: y and theta_j

    def _velocities(self) -> tuple[Callable[..., Tensor], ...]:
        """The velocities that engines evaluate."""
        return (self.forward,)

    def check_writes(self, buffers: Sequence[str]) -> None:
        """Raise a `ValueError` if the layers of a run were seen to change a tensor that they must not change."""

    def plain_state(self) -> dict[str, Any]:
        """State that the layers may keep beside parameters and buffers; empty for a field that is a pure function."""
        return {}

    def in_run(self, seed: int | None = None) -> VectorField:
        """The field of one run, its noise fixed by ``seed``, or by one number of torch's global stream if None.

        Only a `StochasticField` in training has noise; any other field is returned as it is, and nothing is drawn.
        """
        return self

    def at_layer(self, j: int) -> VectorField:
        """The deterministic field of layer j, once a run has fixed the field; only a `StochasticField` reads j."""
        return self

    def refined(self, how: str = "constant") -> Self:
        """The same field with 2N layers; ``how`` is described at `liouville.Flow.refined`."""
        field = copy.deepcopy(self)
        field._double(how)
        return field

    def _double(self, how: str) -> None:
        N, prolong = self.layers, prolongation(how)
        for module in self.modules():
            for name, raw in module.named_parameters(recurse=False):
                one = N == 1 and getattr(module, "shared", False)
                if raw.dim() and len(raw) == N and not one and name not in getattr(module, "constant", ()):
                    fine = prolong(raw.detach())
                    setattr(module, name, nn.Parameter(fine, requires_grad=raw.requires_grad))
            if isinstance(module, VectorField):
                module._prolong(how)
                module.layers *= 2

    def _prolong(self, how: str) -> None:
        """Double every count of layers that is not a parameter."""

    def extra_repr(self) -> str:
        return f"features={self.features}, layers={self.layers}"


def _said(signatures: Sequence[Signature]) -> str:
    names = [name for each in signatures for name in each.order + tuple(sorted(each.names.difference(each.order)))]
    return " and ".join(dict.fromkeys(names)) or "no arguments"


_VELOCITIES = ("forward", "p_dot", "q_dot", "gradient", "_velocity")


def is_closed(thing: object, name: str, changed_by: Collection[str] = _VELOCITIES) -> bool:
    """Whether ``thing`` still computes what its fact ``name`` describes: no subclass has overridden the computation."""
    for cls in type(thing).__mro__:
        if name in vars(cls):
            return True
        if not vars(cls).keys().isdisjoint(changed_by):
            return False
    return False


def spectrum_of(field: VectorField) -> Spectrum:
    """The field's stated spectrum, unless a subclass has changed the computation that it describes."""
    return field.spectrum if is_closed(field, "spectrum") else "any"


def degrees_of(field: VectorField) -> Degrees | None:
    """What the field states, unless a subclass has changed what it computes since that was stated."""
    return field.degrees if is_closed(field, "degrees", (*_VELOCITIES, "theta")) else None


def require_sample_ndim(value: Any, feature_axis: int) -> int | None:
    """``value``, after a check that it includes the feature axis."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Integral) or value < -feature_axis:
        raise ValueError(
            f"sample_ndim must be a whole number of at least {-feature_axis}, to include the feature axis "
            f"({feature_axis}), got {value!r}; 2 is for (tokens, features)."
        )
    return int(value)
