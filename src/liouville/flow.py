r"""Flow: N steps of a scheme through a field, on the time interval [0, T]."""

from __future__ import annotations

__all__ = ["Flow", "flows_of", "require_flow", "require_tensor", "require_untraced"]

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from liouville.backprop import Backprop, Stored, slices
from liouville.backprop.contract import is_autocast
from liouville.backprop.gate import admit
from liouville.compilers import is_hollow, is_recorded
from liouville.fields.base import Theta, VectorField
from liouville.fields.given import bind
from liouville.fields.once import theta_of
from liouville.fields.stochastic import StochasticField
from liouville.precision import FLOATS, require_autocast
from liouville.schemes import named
from liouville.schemes.base import ReversibleScheme, Scheme, State

_LONGEST = torch.finfo(torch.float32).max


class Flow(nn.Module):
    r"""y_0 -> y_N by N steps of length h = T/N of ``scheme`` through ``field``.

    Args:
        field: the ordinary differential equation, y' = f(y; theta_j).
        scheme: the discretisation.
        T: the final time, > 0; h = T / field.layers.
        backprop: the engine that runs and differentiates the layers; it never changes the result.

    Shapes: dense fields take (*batch, features), fields on images (B, features, H, W), your modules any shape that they
    accept; the output has the same shape. `VectorField.sample_ndim` states the axes of one sample.

    Arguments: ``flow(y, mask, table=table)`` passes them to every layer of a field that takes some, such as
    `ShearField` of modules that do, or a field of your own; `liouville.PerLayer` is an argument with a value for each
    layer. Tensors among them get their gradients from every engine, and may be inside tuples, lists and dicts.

    Raises:
        ValueError: if T <= 0, the scheme does not fit the field, the engine does not fit them, or an input has the
            wrong width or dtype.
        TypeError: for arguments that the field does not take, or a missing one that it needs.

    Examples:
        >>> import liouville as lv
        >>> field = lv.SeparableHamiltonianField(4, layers=64)
        >>> flow = lv.Flow(field, lv.SymplecticEuler(), T=6.4)
        >>> y = torch.randn(10, 4)
        >>> flow(y).shape, flow.h
        (torch.Size([10, 4]), 0.1)
        >>> bool(torch.allclose(flow.inverse(flow(y)), y, atol=1e-4))
        True
    """

    def __init__(self, field: VectorField, scheme: Scheme, T: float, backprop: Backprop = Stored()) -> None:
        super().__init__()
        _require_time(T)
        scheme.check(field)
        backprop.check(scheme, field)
        self.field = field
        self.scheme = scheme
        self.T = float(T)
        self.backprop = dataclasses.replace(backprop)  # its own: `Auto` keeps what it chose, for the repr

    @property
    def layers(self) -> int:
        """N."""
        return self.field.layers

    @property
    def h(self) -> float:
        """The step T / N."""
        return self.T / self.field.layers

    def forward(self, y: Tensor, *args: Any, **context: Any) -> Tensor:
        """y_0 -> y_N; further arguments are passed to every layer."""
        require_untraced(y)
        return self.scheme.final(self.field, self.final_state(y, *args, **context))

    def final_state(self, y: Tensor, *args: Any, **context: Any) -> State:
        """y_0 -> the state after the last layer: (p, q), (y_{N-1}, y_N) or (y_N,), depending on the scheme."""
        run, state, theta = self._started(y, args, context)
        return self._engine(y).run(self.scheme, run, state, theta, self.T / run.layers)

    def _engine(self, y: Tensor) -> Backprop:
        """Recorders, and runs that need only shapes, get the plain loop."""
        if is_recorded():
            return self.backprop.recorded()
        return Stored() if is_hollow(y) else self.backprop

    def trajectory(self, y: Tensor, *args: Any, **context: Any) -> Tensor:
        """y_0 ... y_N, stacked: (N + 1, *y.shape)."""
        return torch.stack([self.scheme.final(self.field, state) for state in self.states(y, *args, **context)])

    def states(self, y: Tensor, *args: Any, **context: Any) -> Iterator[State]:
        """The N + 1 states one after the other, by the plain loop."""
        run, state, theta = self._started(y, args, context)
        yield state
        for j, theta_j in enumerate(slices(theta, self.layers)):
            state = self.scheme.step(run.at_layer(j), state, theta_j, self.h)
            yield state

    def inverse_state(self, state: State, *args: Any, **context: Any) -> State:
        """The state before the first layer, from the state after the last; only for reversible schemes."""
        scheme = self._reversible()
        field, theta = self._bound(self.field, self.field.theta(), args, context)
        found = admit(field, scheme.final(self.field, state), type(theta)(*(w[0] for w in theta)))
        if found.draws or found.writes or not found.repeats:
            raise ValueError(
                "the layers draw random numbers or change buffers, so their inverse would not undo the forward pass; "
                "invert a flow whose layers are functions of input and weights, if need be after flow.eval()."
            )
        for j, theta_j in reversed(list(enumerate(slices(theta, self.layers)))):
            state = scheme.inverse(field.at_layer(j), state, theta_j, self.h)
        return state

    def inverse(self, y: Tensor, *args: Any, **context: Any) -> Tensor:
        """y_N -> y_0; raises where y_N does not determine y_0 (two-step and second-order networks)."""
        scheme = self._reversible()
        self._check(y)
        return scheme.final(self.field, self.inverse_state(scheme.terminal(self.field, y), *args, **context))

    def refined(self, how: str = "constant") -> Flow:
        """The flow with 2N layers, the same T and refined weights; the original is unchanged.

        Args:
            how: ``"constant"``: every weight twice, the same ordinary differential equation with half the step;
                ``"linear"``: linear interpolation between the layer mid-points; ``"linear-left"``: the rule of the
                first paper, with weights at the left ends, which shifts them by a quarter of a layer.
        """
        return Flow(self.field.refined(how), self.scheme, self.T, self.backprop)

    def with_backprop(self, engine: Backprop) -> Flow:
        """The same flow with another engine; it shares the field, and so the weights."""
        flow = Flow(self.field, self.scheme, self.T, engine)
        flow.training = self.training
        return flow

    def __prepare_scriptable__(self) -> Flow:
        """The attribute that torch.jit.script reads first."""
        raise NotImplementedError(
            "torch.jit.script compiles source text and cannot compile a Flow; use torch.jit.trace, torch.export or "
            "torch.onnx.export, which record a run."
        )

    def extra_repr(self) -> str:
        return f"scheme={self.scheme}, T={self.T:g}, h={self.h:.4g}, backprop={self.backprop}"

    def start(self, y: Tensor, theta: Theta) -> tuple[VectorField, State]:
        """The field of a new run, which draws its seed only here, and the first state."""
        return self._started(y, (), {}, theta)[:2]

    def _started(
        self, y: Tensor, args: Sequence[Any], context: Mapping[str, Any], theta: Theta = None
    ) -> tuple[VectorField, State, Theta]:
        """The same with arguments, and theta with the tensors among them."""
        theta = theta_of(self.field) if theta is None else theta
        _require_theta(theta, self.field)
        self._check(y, theta)
        run = self.field.in_run()
        if args or context:
            run, theta = self._bound(run, theta, args, context)
        theta_0 = type(theta)(*(w[0] for w in theta))
        admit(run, y, theta_0)
        return run, self.scheme.init(run.at_layer(0), y, theta_0, self.h), theta

    def _bound(self, run: Any, theta: Theta, args: Sequence[Any], context: Mapping[str, Any]) -> tuple[Any, Theta]:
        if not args and not context:
            return run, theta
        self.field.check_arguments(args, context)
        return bind(run, theta, args, context, self.layers)

    def _check(self, y: Tensor, theta: Theta = ()) -> None:
        require_tensor(y)
        axis = self.field.feature_axis
        own = self.field.sample_ndim or -axis
        if y.dim() < own or y.shape[axis] != self.field.features:
            axes = f"{own} axes or more, with " if own > -axis else ""
            raise ValueError(
                f"expected {axes}{self.field.features} features on axis {axis}, got an input of shape "
                f"{tuple(y.shape)}; {_advice(y, self.field)}."
            )
        if y.dtype not in FLOATS:
            cure = "take its real part" if y.dtype.is_complex else "convert it with .float()"
            raise ValueError(f"expected a floating-point input of 16, 32 or 64 bits, got {y.dtype}; {cure}.")
        weight = next((w for w in theta or self.field.parameters() if w.is_floating_point()), y)
        if is_autocast(y.device.type):
            require_autocast((y.dtype, weight.dtype), y.device.type)
        elif weight.dtype != y.dtype:
            raise ValueError(f"the weights are {weight.dtype} and the input is {y.dtype}; convert one with .to(dtype).")

    def _reversible(self) -> ReversibleScheme:
        if not isinstance(self.scheme, ReversibleScheme):
            raise ValueError(
                f"{type(self.scheme).__name__} has no inverse; use a reversible scheme: {named(ReversibleScheme)}."
            )
        if isinstance(self.field, StochasticField) and self.field.training:
            raise ValueError("a flow in training mode draws new noise in every run; call flow.eval() to invert it.")
        return self.scheme


def _require_theta(theta: Theta, field: VectorField) -> None:
    named = isinstance(theta, tuple) and (not theta or hasattr(theta, "_fields"))
    if not named or not all(isinstance(w, Tensor) and w.dim() for w in theta):
        raise TypeError(
            f"theta() of {type(field).__name__} must be a NamedTuple of tensors whose axis 0 counts the layers, got "
            f"{[type(w).__name__ for w in theta] if named else type(theta).__name__}; class Theta(NamedTuple) names "
            "them."
        )


def _advice(y: Tensor, field: VectorField) -> str:
    """Advice for an input that does not fit: its features may be on the axis of another kind of field."""
    for dims, what in enumerate(("vectors", "signals", "images", "volumes")):
        if dims + 1 != -field.feature_axis and y.dim() == dims + 2 and y.shape[-1 - dims] == field.features:
            operator = f"an operator of that kind, lv.Conv(..., dims={dims})," if dims else "lv.Dense()"
            return f"for {what} build the field with {operator} or, of modules, with feature_axis={-1 - dims}"
    if y.dim() >= -field.feature_axis and y.shape[field.feature_axis] == field.features:
        return "a batch of one is y[None]"
    return f"lift it first, for example with Lift({field.features})"


def _require_time(T: Any) -> None:
    if isinstance(T, bool) or not (isinstance(T, Real) and 0 < T <= _LONGEST):  # type: ignore[operator]
        got = repr(T)[:40]
        raise ValueError(f"T must be a positive, finite time of at most {_LONGEST:.2g}, got {got}.")


def require_flow(value: object) -> Flow:
    """``value``, after a check that it is a `Flow`.

    Raises:
        ValueError: for anything else.

    Examples:
        >>> import liouville as lv
        >>> require_flow(lv.zoo.h2(4, layers=8, T=1.0)).layers
        8
    """
    if not isinstance(value, Flow):
        raise ValueError(
            f"this is defined for a Flow, got {type(value).__name__}; of a Network take network.body, or one of "
            "network.flows()."
        )
    return value


def flows_of(module: nn.Module) -> list[Flow]:
    """Every flow in ``module``, including ``module``, in the order of its modules, without duplicates.

    Examples:
        >>> import liouville as lv
        >>> [flow.layers for flow in flows_of(nn.Sequential(lv.zoo.h2(4, layers=8, T=1.0), nn.Linear(4, 2)))]
        [8]
    """
    return [part for part in module.modules() if isinstance(part, Flow)]


def require_untraced(value: Any) -> None:
    """Raise a `TypeError` for the proxy that torch.fx.symbolic_trace uses as a tensor."""
    if isinstance(value, torch.fx.Proxy):
        raise TypeError(
            "torch.fx.symbolic_trace runs a network without shapes, but a Flow checks them; use torch.export, or "
            "make_fx of torch.fx.experimental.proxy_tensor, on an example."
        )


def require_tensor(value: Any) -> None:
    """``value``, after a check that it is a dense tensor.

    Raises:
        TypeError: for anything else.
    """
    require_untraced(value)
    if not isinstance(value, Tensor):
        raise TypeError(f"expected a torch.Tensor, got {type(value).__name__}; convert it with torch.as_tensor.")
    if value.layout != torch.strided or value.is_nested:
        kind = "nested" if value.is_nested else str(value.layout).removeprefix("torch.")
        cure = "to_padded_tensor(0.0)" if value.is_nested else "to_dense()"
        raise ValueError(f"expected a dense tensor, got a {kind} one; convert it with .{cure}.")
