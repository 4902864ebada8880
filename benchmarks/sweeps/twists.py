"""Networks that are not what they seem: each twist changes one, or gives another back."""

from __future__ import annotations

__all__ = ["TWISTS"]

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import liouville as lv
from liouville.fields import SecondOrderField
from liouville.fields.base import Lipschitz
from liouville.fields.wrapped import unwrapped

Twist = Callable[[lv.Network, random.Random], Any]


def _field(net: Any) -> Any:
    """The field that computes the velocities."""
    field = unwrapped(net.body.field)
    return field.force if isinstance(field, SecondOrderField) else field


def _computes(change: Callable[[Tensor], Tensor]) -> Twist:
    """A subclass whose velocities are changed: of a partitioned field those of q, of any other all."""

    def twist(net: lv.Network, g: random.Random) -> None:
        field = _field(net)
        name = "q_dot" if isinstance(field, lv.PartitionedField) else "forward"
        kind = type(field)
        field.__class__ = type(
            f"Own{kind.__name__}",
            (kind,),
            {
                name: lambda self, y, t: (
                    getattr(kind, name)(self, y, t) + change(y).narrow(self.feature_axis, 0, _width(self, name))
                )
            },
        )

    return twist


def _width(field: Any, name: str) -> int:
    return field.features - field.p_features if name == "q_dot" else field.features


def _replaced_on_the_object(net: lv.Network, g: random.Random) -> None:
    field = _field(net)
    name = "p_dot" if isinstance(field, lv.PartitionedField) else "forward"
    original = getattr(field, name)
    setattr(field, name, lambda *args: 3 * original(*args))


def _constants(factor: float) -> Twist:
    def twist(net: lv.Network, g: random.Random) -> None:
        field, kind = _field(net), type(_field(net))

        def lipschitz(self: Any, theta: Any) -> Lipschitz:
            parts, one_sided = kind.lipschitz(self, theta)
            return Lipschitz(tuple(factor * L for L in parts), factor * one_sided)

        field.__class__ = type(f"Liar{kind.__name__}", (kind,), {"lipschitz": lipschitz})

    return twist


def _wide_theta(net: lv.Network, g: random.Random) -> None:
    """Its theta() is another function of the parameters: nothing to object to."""
    field, kind = _field(net), type(_field(net))
    field.__class__ = type(
        f"Wide{kind.__name__}",
        (kind,),
        {"theta": lambda self: (t := kind.theta(self))._replace(**{t._fields[0]: 3 * t[0]})},
    )


def _scheme(**methods: Any) -> Twist:
    def twist(net: lv.Network, g: random.Random) -> None:
        kind = type(net.body.scheme)
        own = {name: (lambda make: make(kind))(value) if callable(value) else value for name, value in methods.items()}
        net.body.scheme = type(f"Own{kind.__name__}", (kind,), own)()

    return twist


def _kick(far: float) -> Any:
    def make(kind: Any) -> Any:
        def step(self: Any, field: Any, state: Any, t: Any, h: float) -> Any:
            *rest, last = kind.step(self, field, state, t, h)
            moved = torch.where(last.abs() > far, 2 * torch.tanh(last), 0.0)
            return (*rest, last + moved)

        return step

    return make


def _scaled_step(factor: float) -> Any:
    return lambda kind: lambda self, *args: tuple(factor * p for p in kind.step(self, *args))


def _stages(net: lv.Network, g: random.Random) -> None:
    if isinstance(net.body.scheme, lv.SplittingScheme) and not isinstance(net.body.field, SecondOrderField):
        stages = g.choice(((("p", 3.0), ("q", 3.0)), (("q", 1.0), ("p", 1.0)), (("p", 0.5), ("q", -1.0), ("p", 2.0))))
        net.body.scheme = type("Own", (type(net.body.scheme),), {"stages": stages})()


def _operator(name: str, change: Callable[..., Any]) -> Twist:
    def twist(net: lv.Network, g: random.Random) -> None:
        field = _field(net)
        if getattr(field, "operator", None) is None:
            return
        kind = type(field.operator)
        own = type(f"Own{kind.__name__}", (kind,), {name: change(getattr(kind, name))})
        field.operator = own(*(getattr(field.operator, k) for k in field.operator.__dataclass_fields__))

    return twist


def _activation(name: str, f: Any, derivative: Any, lipschitz: float, monotone: bool) -> Twist:
    def twist(net: lv.Network, g: random.Random) -> None:
        if hasattr(_field(net), "activation"):
            _field(net).activation = lv.Activation(name, f, lambda x: 0.5 * x * x, derivative, lipschitz, monotone)

    return twist


def _tanh_slope(x: Tensor) -> Tensor:
    return 1 - torch.tanh(x).square()


class Equal(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, 30 * self.weight, self.bias)


class LowRank(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 50 * x.sum(-1, keepdim=True)


class Standard(lv.Network):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x / x.std())


class Skip(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 20 * x)


class Louder(lv.Flow):
    def forward(self, y: Tensor) -> Tensor:
        return 40 * super().forward(y)


class Doubling(lv.Stored):
    def run(self, scheme: Any, field: Any, state: Any, theta: Any, h: float) -> Any:
        return super().run(scheme, field, state, theta, 2 * h)


def _last(net: lv.Network) -> tuple[nn.Module, str]:
    """The module that holds the last linear map, and its name there."""
    return (net.head, str(len(net.head) - 1)) if isinstance(net.head, nn.Sequential) else (net, "head")


def _another_head(kind: type[nn.Linear]) -> Twist:
    def twist(net: lv.Network, g: random.Random) -> None:
        holder, name = _last(net)
        getattr(holder, name).__class__ = kind

    return twist


def _another_class(which: str, kind: type) -> Twist:
    def twist(net: lv.Network, g: random.Random) -> None:
        part = net if which == "network" else getattr(net, which)
        if issubclass(kind, type(part)):
            part.__class__ = kind

    return twist


def _hooked(which: str) -> Twist:
    def twist(net: lv.Network, g: random.Random) -> None:
        getattr(net, which).register_forward_hook(lambda _, args, out: 25 * out)

    return twist


def _pre_hooked(net: lv.Network, g: random.Random) -> None:
    net.head.register_forward_pre_hook(lambda _, args: (30 * args[0],))


def _poisoned(net: lv.Network, g: random.Random) -> None:
    holder, name = _last(net)
    with torch.no_grad():
        getattr(holder, name).bias[0] = g.choice((float("nan"), float("inf"), -float("inf")))


def _buffer(net: lv.Network, g: random.Random) -> None:
    net.head.register_buffer("kept", torch.tensor([float("nan")]))


def _dropped(net: lv.Network, g: random.Random) -> None:
    net.head = nn.Sequential(nn.Dropout(0.5), net.head)
    net.train()


def _normalised(net: lv.Network, g: random.Random) -> None:
    if not isinstance(net.head, nn.Sequential):
        net.head = nn.Sequential(nn.LayerNorm(4).to(next(net.parameters()).dtype), net.head)


def _dilated(net: lv.Network, g: random.Random) -> None:
    if net.body.field.feature_axis == -3:
        net.head = nn.Sequential(nn.MaxPool2d(2, dilation=2), nn.Flatten(), nn.LazyLinear(3))
        net.to(next(net.body.parameters()).dtype)
        with torch.no_grad():
            net(torch.zeros(1, 1, 4, 4, dtype=next(net.body.parameters()).dtype))


def _two_flows(net: lv.Network, g: random.Random) -> None:
    if net.body.field.feature_axis == -1:
        second = lv.zoo.ms1(4, 2, 0.5).to(next(net.parameters()).dtype)
        net.head = nn.Sequential(second, net.head)


def _scheme_swapped(net: lv.Network, g: random.Random) -> None:
    """A budget, or a start, made for another step."""
    net.body.T = 3 * net.body.T


TWISTS: dict[str, Twist] = {
    "velocity scaled": _computes(lambda y: 2 * y),
    "velocity far away": _computes(lambda y: torch.where(y.abs() > 8, 3 * y, 0.0)),
    "velocity very far away": _computes(lambda y: torch.where(y.abs() > 250, 9 * y, 0.0)),
    "velocity unchanged": _computes(torch.zeros_like),
    "replaced on the object": _replaced_on_the_object,
    "constants 100 times too small": _constants(0.01),
    "constants a little too small": _constants(0.7),
    "theta of its own": _wide_theta,
    "a kick": _scheme(step=_kick(0.0)),
    "a kick far away": _scheme(step=_kick(20.0)),
    "a damped step": _scheme(step=_scaled_step(0.9)),
    "a stretched step": _scheme(step=_scaled_step(1.5)),
    "no inverse": _scheme(inverse=lambda kind: lambda self, field, state, t, h: state),
    "half an inverse": _scheme(
        inverse=lambda kind: lambda self, field, state, t, h: kind.inverse(self, field, state, t, h / 2)
    ),
    "growth denied": _scheme(log_growth=lambda kind: lambda self, lipschitz, h: 0.0 * lipschitz.parts[0]),
    "a limit of its own": _scheme(stability_limit=50.0),
    "stages of its own": _stages,
    "an operator three times larger": _operator("apply", lambda f: lambda self, w, y, b=None: f(self, 3 * w, y, b)),
    "an operator that squares": _operator("apply", lambda f: lambda self, w, y, b=None: f(self, w, y * y, b)),
    "an operator that clips far away": _operator(
        "apply", lambda f: lambda self, w, y, b=None: f(self, w, y.clamp(-9, 9), b)
    ),
    "a norm 100 times too small": _operator("norm", lambda f: lambda self, w: 0.01 * f(self, w)),
    "another transpose": _operator("apply_transpose", lambda f: lambda self, w, z: f(self, 1.1 * w, z)),
    "a lying derivative": _activation("lie", torch.tanh, lambda x: 0.1 * _tanh_slope(x), 1.0, True),
    "a lying constant": _activation("steep", lambda x: torch.tanh(4 * x), lambda x: 4 * _tanh_slope(4 * x), 1.0, True),
    "steps": _activation("steps", lambda x: torch.round(2 * torch.tanh(x)) / 2, torch.zeros_like, 1.0, True),
    "fine steps": _activation("fine", lambda x: torch.round(1e5 * torch.tanh(x)) / 1e5, torch.zeros_like, 1.0, True),
    "steep beyond 24": _activation(
        "late",
        lambda x: torch.tanh(x) + 5 * torch.tanh(x - 24),
        lambda x: _tanh_slope(x) + 5 * _tanh_slope(x - 24),
        1.0,
        True,
    ),
    "a needle": _activation(
        "needle", lambda x: torch.tanh(x) + 1e-3 * torch.tanh(1e5 * (x - 0.12345)), lambda x: _tanh_slope(x), 1.0, True
    ),
    "falling": _activation("falling", lambda x: torch.sin(3 * x) / 3, lambda x: torch.cos(3 * x), 1.0, True),
    "not elementwise": _activation("sum", lambda x: torch.tanh(x + x.sum(-1, keepdim=True)), _tanh_slope, 1.0, True),
    "sine, honest": _activation("sine", torch.sin, torch.cos, 1.0, False),
    "straight through": _activation(
        "through",
        lambda x: torch.tanh(x) + (torch.round(torch.tanh(x)) - torch.tanh(x)).detach(),
        _tanh_slope,
        1.0,
        True,
    ),
    "another lift": _another_class("lift", Equal),
    "another head": _another_head(Equal),
    "a head of low rank": _another_head(LowRank),
    "a network of its own": _another_class("network", Standard),
    "a flow of its own": _another_class("body", Louder),
    "a head that skips": lambda net, g: setattr(net, "head", Skip(net.head)),
    "an engine of its own": lambda net, g: setattr(net.body, "backprop", Doubling()),
    "a hook on the lift": _hooked("lift"),
    "a hook on the body": _hooked("body"),
    "a hook on the head": _hooked("head"),
    "a hook in front of the head": _pre_hooked,
    "a head that is not finite": _poisoned,
    "a buffer that is not finite": _buffer,
    "dropout in training mode": _dropped,
    "a normalised head": _normalised,
    "dilated pooling": _dilated,
    "a flow in the head": _two_flows,
    "another T": _scheme_swapped,
}
