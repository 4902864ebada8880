r"""The right-hand side of y' = f(y; theta_j): what every field is, and the three kinds that schemes tell apart.

A field keeps *raw* parameters whose axis 0 counts the layers (or has length 1, when all layers share one weight).
`VectorField.theta` applies every constraint once, vectorised over layers, by ordinary autograd; below it all
schemes and engines see plain stacked tensors. That split is why a penalty in depth is one ``diff(dim=0)`` and why
any engine is one function of a state and a few tensors.
"""

from __future__ import annotations

__all__ = ["ActivatedField", "Lipschitz", "PartitionedField", "Spectrum", "StochasticField", "Theta", "VectorField"]

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from liouville.activations import Activation, activation
from liouville.compilers import is_recorded
from liouville.fields.initial import Initial
from liouville.operators import Dense, Operator

if TYPE_CHECKING:
    from liouville.schemes.base import Scheme

Spectrum = Literal["imaginary", "damped", "any"]
Theta = Any  # a NamedTuple of tensors; each field declares its own


class Lipschitz(NamedTuple):
    """How fast the velocities of each layer can change with the state, whatever the state; tensors (N,) or (1,).

    parts: upper bounds of ||d p_dot / dq|| and ||d q_dot / dp||, or of ||f'|| alone.
    one_sided: an upper bound of the largest eigenvalue of (f' + f'^T) / 2, how fast two states can part.
    """

    parts: tuple[Tensor, ...]
    one_sided: Tensor


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
    sends = False  # whether evaluating it sends messages, so that nobody may evaluate it only to look
    sample_ndim: int | None = None
    """How many trailing axes of a state are one sample: 1 for vectors, 1 + dims for signals and images, 2 for sequences
    (tokens, features). None where nobody has said so: then one leading axis is a batch, and several are not known to
    be. A field may treat more axes alike than it states, but none that it states as a batch may be coupled."""

    def __init__(self, features: int, layers: int) -> None:
        super().__init__()
        for name, value in (("features", features), ("layers", layers)):
            if not isinstance(value, Integral) or isinstance(value, bool):
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}.")
        if features < 1:
            raise ValueError(f"features must be at least 1, got {features}.")
        if layers < 1:
            raise ValueError(f"layers must be at least 1, got {layers}; a network of no layers is its head alone.")
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
        general; ``"any"``: nothing is known. A field of one's own states its own.
        """
        return "any"

    def batch_shape(self, y: Tensor) -> torch.Size:
        """The axes of ``y`` in front of those of one sample: what an answer per sample has one entry for.

        Raises:
            ValueError: if ``y`` has fewer axes than a sample, or more than one in front and no `sample_ndim` is stated.
        """
        own = -self.feature_axis if self.sample_ndim is None else self.sample_ndim
        if y.dim() < own:
            raise ValueError(f"one sample of this field has {own} axes, got an input of shape {tuple(y.shape)}.")
        if self.sample_ndim is None and y.dim() > own + 1:
            raise ValueError(
                f"{type(self).__name__} does not say which axes of {tuple(y.shape)} are one sample, and the answer is "
                f"one per sample; state sample_ndim, as in ShearField(..., sample_ndim={own + 1}): the number of "
                f"trailing axes that belong together, {own} where every position is a sample of its own."
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

    def jacobian(self, y: Tensor, theta: Theta) -> Tensor | None:
        """df/dy in closed form, (..., B, n, n), at y (..., B, n), weights of one layer or stacked; None without one.

        A class that changes what ``forward`` computes gives its own, or returns None: `liouville.analysis` then
        differentiates ``forward``.
        """
        return None

    def check_scheme(self, scheme: Scheme) -> None:
        """Raise a `ValueError` that says what to use instead where ``scheme`` does not fit this field.

        `Scheme.check` asks it; a field that fits every scheme for its kind leaves it as it is.
        """

    def check_writes(self, buffers: Sequence[str]) -> None:
        """Raise a `ValueError` if a run must not change one of these, which its layers were seen to change."""

    def plain_state(self) -> dict[str, Any]:
        """What the layers may keep beside parameters and buffers; nothing, for a field that is a function."""
        return {}

    def in_run(self, seed: int | None = None) -> VectorField:
        """The field of one run, its noise fixed by ``seed``, or by one number of torch's global stream if None.

        Only a `StochasticField` in training has noise; any other field is returned as it is, and nothing is drawn.
        """
        return self

    def at_layer(self, j: int) -> VectorField:
        """The deterministic field of layer j, for a field that a run has fixed; only a `StochasticField` reads j."""
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
        """Double what counts the layers beside parameters."""

    def extra_repr(self) -> str:
        return f"features={self.features}, layers={self.layers}"


class ActivatedField(VectorField):
    """A field made of one linear map family and one activation: what the papers' fields have in common.

    Args:
        features: n.
        layers: N.
        operator: which linear maps; `Dense` for vectors, `Conv` for signals and images.
        activation: sigma, by name or as an `Activation`.
        shared: one weight for all layers (the papers' time-invariant networks).
        init: how initial weights are drawn.
    """

    def __init__(
        self,
        features: int,
        layers: int,
        operator: Operator,
        activation_: str | Activation,
        shared: bool,
        init: Initial,
    ) -> None:
        super().__init__(features, layers)
        self.operator = operator
        self.activation = activation(activation_)
        self.shared = shared
        self.init = init

    @property
    def feature_axis(self) -> int:  # type: ignore[override]
        return self.operator.feature_axis

    def _where_monotone(self, spectrum: Spectrum) -> Spectrum:
        """What D A has for every D = diag(sigma') >= 0, and only then."""
        return spectrum if self.activation.monotone else "any"

    @property
    def sample_ndim(self) -> int:  # type: ignore[override]
        """1 for vectors, 1 + dims for signals, images and volumes: the operator knows."""
        return -self.feature_axis

    def energy_density(self, x: Tensor) -> Tensor:
        """1^T sigma_int(x), summed over features and positions: one number per sample."""
        return self.activation.primitive(x).sum(tuple(range(-self.sample_ndim, 0)))

    def skewed(self, size: Tensor) -> Tensor:
        """A bound of ||D A - A^T D|| / 2 for 0 <= D <= sigma' and ||s_max A|| <= size: centred at s_max/2, half of it.

        Without sigma' >= 0 there is no such centre, and the bound is ``size`` itself.
        """
        return 0.5 * size if self.activation.monotone else size

    def slope(self, K: Tensor, y: Tensor, b: Tensor) -> Tensor:
        """sigma'(K y + b), (..., B, m), at y (..., B, n), for matrices K (..., m, n)."""
        return self.activation.derivative(y @ K.mT + b.unsqueeze(-2))

    def _weight(self, outputs: int, inputs: int, generator: torch.Generator | None) -> nn.Parameter:
        shape = self.operator.weight_shape(outputs, inputs)
        layers = 1 if self.shared else self.layers
        self.init.require_memory(layers, shape)
        return nn.Parameter(self._constrained(self.init.weight(layers, shape, self._mean(outputs, inputs), generator)))

    def _constrained(self, raw: Tensor) -> Tensor:
        """The operator's constraint, for ``theta()``: a raw entry outside a mask is zero and has no gradient."""
        return self.operator.constrain(raw)

    def _mean(self, outputs: int, inputs: int) -> Tensor | None:
        """The matrix that initial weights lie around; see `Smooth`."""
        return torch.eye(outputs, inputs)

    def _bias(self, outputs: int, generator: torch.Generator | None) -> nn.Parameter:
        layers = 1 if self.shared else self.layers
        self.init.require_memory(layers, (outputs,))
        return nn.Parameter(self.init.bias(layers, (outputs,), generator))

    def extra_repr(self) -> str:
        parts = [super().extra_repr()]
        if self.operator != Dense():
            parts.append(f"operator={self.operator}")
        if self.activation.name != "tanh":
            parts.append(f"activation={self.activation.name!r}")
        if self.shared:
            parts.append("shared=True")
        return ", ".join(parts)


class PartitionedField(VectorField):
    """y = (p, q) with p' = p_dot(q) and q' = q_dot(p): each half moves by the other alone, so every step is a shear.

    Shears have determinant 1 and invert exactly, whatever the weights: the splitting schemes need no more than this.

    Args:
        features: n = n_p + n_q.
        layers: N.
        p_features: n_p; half of the features by default.
    """

    def __init__(self, features: int, layers: int, p_features: int | None = None) -> None:
        super().__init__(features, layers)
        self._set_partition(p_features)

    def _set_partition(self, p_features: int | None) -> None:
        if p_features is None and self.features % 2:
            raise ValueError(
                f"features must be even to split y into (p, q), got {self.features}; add a zero feature with "
                f"Lift({self.features + 1}), give p_features, or use AntisymmetricField."
            )
        self.p_features = self.features // 2 if p_features is None else p_features
        if not 0 < self.p_features < self.features:
            raise ValueError(f"p_features must lie in 1 ... {self.features - 1}, got {self.p_features}.")

    @abstractmethod
    def p_dot(self, q: Tensor, theta_j: Theta) -> Tensor:
        """p', a function of q alone."""

    @abstractmethod
    def q_dot(self, p: Tensor, theta_j: Theta) -> Tensor:
        """q', a function of p alone."""

    def p_jacobian(self, q: Tensor, theta: Theta) -> Tensor | None:
        """d p_dot / dq in closed form, like `VectorField.jacobian`."""
        return None

    def q_jacobian(self, p: Tensor, theta: Theta) -> Tensor | None:
        """d q_dot / dp in closed form, like `VectorField.jacobian`."""
        return None

    def jacobian(self, y: Tensor, theta: Theta) -> Tensor | None:
        """[[0, d p_dot / dq], [d q_dot / dp, 0]], from the halves."""
        p, q = self.split(y)
        upper, lower = self.p_jacobian(q, theta), self.q_jacobian(p, theta)
        if upper is None or lower is None:
            return None
        return torch.cat((F.pad(upper, (p.shape[-1], 0)), F.pad(lower, (0, q.shape[-1]))), -2)

    def split(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """y -> (p, q)."""
        sizes = [self.p_features, self.features - self.p_features]
        p, q = torch.split(y, sizes, dim=self.feature_axis)
        if y.dim() == 4 and self.feature_axis == -3:
            layout = torch.channels_last if _is_channels_last(y) else torch.contiguous_format
            p, q = p.contiguous(memory_format=layout), q.contiguous(memory_format=layout)
        return p, q

    def join(self, p: Tensor, q: Tensor) -> Tensor:
        """(p, q) -> y."""
        return torch.cat((p, q), dim=self.feature_axis)

    def enter(self, y: Tensor, p_dot: Callable[[Tensor], Tensor], h: float) -> tuple[Tensor, Tensor]:
        """The initial (p, q) of an input y; ``p_dot`` is layer 0's, noise and all, a function of q."""
        return self.split(y)

    def leave(self, p: Tensor, q: Tensor) -> Tensor:
        """What the network reads of the final (p, q)."""
        return self.join(p, q)

    def forward(self, y: Tensor, theta_j: Theta) -> Tensor:
        """(p_dot(q), q_dot(p))."""
        p, q = self.split(y)
        return self.join(self.p_dot(q, theta_j), self.q_dot(p, theta_j))


class StochasticField(VectorField):
    """A field that draws random numbers from the generator it is handed: dropout and the like.

    A run draws one seed from torch's global stream; layer j draws from (seed, j), and from nothing else. So noise is
    frozen over a layer: every evaluation of layer j in one run, at the start, first, repeated or backward, sees the
    same draw. The run fixes the field once, ``run = field.in_run()``, and asks it for ``run.at_layer(j)``. In
    ``eval()`` the generator is None and the field is deterministic. A partitioned field takes the generator in
    ``p_dot`` and ``q_dot`` too.
    """

    @abstractmethod
    def forward(self, y: Tensor, theta_j: Theta, generator: torch.Generator | None = None) -> Tensor:
        """f(y; theta_j, noise), the noise drawn from ``generator``; no noise where it is None."""

    def in_run(self, seed: int | None = None) -> VectorField:
        if not self.training:
            return _Drawn(self, None)  # type: ignore[return-value]
        if seed is None and is_recorded():
            raise NotImplementedError(
                f"{type(self).__name__} draws new noise in every run, and a recording would repeat that of its example "
                "for ever; call network.eval() first."
            )
        return _Drawn(self, int(torch.randint(2**31, ())) if seed is None else seed)  # type: ignore[return-value]

    def at_layer(self, j: int) -> VectorField:
        if self.training:
            raise RuntimeError("a field that draws noise needs a run to draw for; use field.in_run(seed).at_layer(j).")
        return self


class _Drawn:
    """A stochastic field in one run, at one of its layers: the field with its generator given, or without noise."""

    def __init__(self, field: StochasticField, seed: int | None, j: int = 0) -> None:
        self.original = field
        self._run = seed
        self._seed = 0 if seed is None else (seed << 24) + 4 * j

    def at_layer(self, j: int) -> _Drawn:
        return _Drawn(self.original, self._run, j)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)

    def __call__(self, y: Tensor, theta_j: Theta) -> Tensor:
        return self.original(y, theta_j, self._generator(y, 0))

    def p_dot(self, q: Tensor, theta_j: Theta) -> Tensor:
        return self.original.p_dot(  # type: ignore[operator]
            q, theta_j, self._generator(q, 1)
        )

    def q_dot(self, p: Tensor, theta_j: Theta) -> Tensor:
        return self.original.q_dot(  # type: ignore[operator]
            p, theta_j, self._generator(p, 2)
        )

    def _generator(self, like: Tensor, stream: int) -> torch.Generator | None:
        return None if self._run is None else torch.Generator(like.device).manual_seed(_scrambled(self._seed + stream))


def _scrambled(x: int) -> int:
    """SplitMix64: torch's CPU generator reads only the low 32 bits of a seed, so every bit must reach them."""
    x = (x + 0x9E3779B97F4A7C15) & _64_BITS
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _64_BITS
    return x ^ (x >> 31)


_64_BITS = (1 << 64) - 1


def weighted(left: Tensor, slope: Tensor, right: Tensor) -> Tensor:
    """left diag(slope) right of every sample, (..., B, l, r), from (..., l, m), (..., B, m) and (..., m, r)."""
    rows = (left.unsqueeze(-3) * slope.unsqueeze(-2)).flatten(-3, -2)  # one product per layer, not one per sample
    return (rows @ right).unflatten(-2, (slope.shape[-2], left.shape[-2]))


def is_closed(field: VectorField, name: str) -> bool:
    """Whether no subclass has changed what the field computes since its Jacobian was written down."""
    for cls in type(field).__mro__:
        if name in vars(cls):
            return True
        if vars(cls).keys() & {"forward", "p_dot", "q_dot", "gradient"}:
            return False
    return False


def spectrum_of(field: VectorField) -> Spectrum:
    """What the field states, unless a subclass has changed what it computes since that was stated."""
    return field.spectrum if is_closed(field, "spectrum") else "any"


def require_sample_ndim(value: Any, feature_axis: int) -> int | None:
    """``value`` itself, known to count the features' axis in."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Integral) or value < -feature_axis:
        raise ValueError(
            f"sample_ndim must be a whole number of at least {-feature_axis}, the axes that the features' one "
            f"({feature_axis}) is the first of, got {value!r}; 2 is for (tokens, features)."
        )
    return int(value)


def original(field: VectorField) -> VectorField:
    """The field that a run has fixed, or the field itself."""
    return field.original if isinstance(field, _Drawn) else field


def _is_channels_last(y: Tensor) -> bool:
    return y.is_contiguous(memory_format=torch.channels_last) and not y.is_contiguous()


def prolongation(how: str) -> Callable[[Tensor], Tensor]:
    """(N, ...) -> (2N, ...), as `liouville.Flow.refined` describes it."""
    if how not in _PROLONGATIONS:
        raise ValueError(f"how must be one of {', '.join(map(repr, _PROLONGATIONS))}, got {how!r}.")
    return _PROLONGATIONS[how]


def _constant(theta: Tensor) -> Tensor:
    return theta.repeat_interleave(2, dim=0)


def _linear(theta: Tensor) -> Tensor:
    """theta at t_j -+ h/4, between the layer mid-points t_j; constant beyond the first and last of them."""
    before = torch.cat((theta[:1], theta[:-1]))
    after = torch.cat((theta[1:], theta[-1:]))
    fine = torch.stack((0.75 * theta + 0.25 * before, 0.75 * theta + 0.25 * after), dim=1)
    return fine.flatten(0, 1)


def _linear_left(theta: Tensor) -> Tensor:
    """Nodes at the left ends: theta_j, then the mean of theta_j and theta_{j+1}; the last one is repeated."""
    after = torch.cat((theta[1:], theta[-1:]))
    return torch.stack((theta, 0.5 * (theta + after)), dim=1).flatten(0, 1)


_PROLONGATIONS = {"constant": _constant, "linear": _linear, "linear-left": _linear_left}
