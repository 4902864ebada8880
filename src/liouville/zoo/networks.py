r"""Networks around the papers' flows: a lift before, a linear head after, connectors between flows on images."""

from __future__ import annotations

__all__ = ["Images", "classifier", "regressor"]

import contextlib
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

import torch
from torch import nn

from liouville.activations import Activation
from liouville.backprop import Backprop, Stored
from liouville.budget import budgeted
from liouville.fields import Initial, dropout
from liouville.flow import Flow
from liouville.kernels import Auto
from liouville.names import lookup
from liouville.network import ChannelsLast, Connector, Half, Lift, Network, Place
from liouville.operators import Conv, Dense
from liouville.randomness import seeded
from liouville.schemes import Scheme
from liouville.task import scores_for
from liouville.units import count_in
from liouville.zoo.papers import MODELS, Builder, ms1, verlet
from liouville.zoo.start import scaled_start

LiftChoice = Place | Literal["linear"] | None


@dataclass(frozen=True)
class Images:
    """Settings of a network on images, signals or volumes, with pixels along two, one or three axes.

    Args:
        kernel: width of K's stencil; 1 is the papers' pixelwise network.
        lift: width of the stencil of the learned linear lift, from the input's channels to the features.
        connector: width of the stencil between two flows.
        pool: max pooling over pool x pool pixels after the lift; 1 keeps the resolution (the papers).
        connector_pool: the same between two flows.
        head_pool: the same before the head.
        dropout: fraction of the features that the head does not see during training.
    """

    kernel: int = 3
    lift: int = 3
    connector: int = 3
    pool: int = 2
    connector_pool: int = 2
    head_pool: int = 1
    dropout: float = 0.0


def classifier(
    model: str | Builder,
    inputs: int | tuple[int, ...],
    classes: int,
    features: int | Sequence[int],
    layers: int | Sequence[int],
    T: float,
    *,
    scheme: Scheme | None = None,
    lift: LiftChoice = None,
    conv: Images | None = None,
    activation: str | Activation | None = None,
    init: Initial | None = None,
    input_dropout: float = 0.0,
    dropout_rate: float = 0.0,
    budget: float | None = None,
    generator: torch.Generator | None = None,
    backprop: Backprop = Auto(),
) -> Network:
    """A classification network: lift, the model's flow, a linear head.

    Its initial weights are such that the final time does not matter, as `liouville.zoo.scaled_start` says: with
    ``init=Smooth(action=None)``, `Normal` or an `Initial` of your own they are as drawn, and it does.

    Args:
        model: a name of `MODELS`, or a function like them (``functools.partial(zoo.h1, J="full")``).
        inputs: width of x; for images (channels, height, width), for signals (channels, length), for volumes (channels,
            depth, height, width).
        classes: K; two classes get one score (logistic), more get K scores (softmax).
        features: n; for signals, images and volumes, several numbers give several flows with `Connector`s between.
        layers: N, or one number per flow.
        T: final time of each flow.
        scheme: replaces the model's scheme, for example by ``liouville.RK4()``.
        lift: for vectors: where `Lift` puts the data (``"ends"`` by default; ``"q"`` for `verlet` and `ms1`), or
            ``"linear"``, a learned map.
        conv: for signals, images and volumes: `Images()` or another choice; required there, refused for vectors.
        activation: of the flows; the model's own if None.
        init: initial weights of the flows; the model's own if None.
        input_dropout: share of the inputs that the lift does not see during training.
        dropout_rate: dropout of every layer's velocity during training.
        budget: C > 1: every flow keeps ||dy_N/dy_j|| <= C by `liouville.budgeted`; not available with dropout.
        generator: random generator of all initial weights; torch's default stream if None.
        backprop: engine of the flows.

    Raises:
        ValueError: for an unknown name (the nearest one is suggested), or arguments that do not fit each other.

    Examples:
        >>> classifier("h2", inputs=2, classes=2, features=4, layers=64, T=6.4).head
        Linear(in_features=4, out_features=1, bias=True)
    """
    if classes < 2:
        raise ValueError(f"classes must be at least 2, got {classes}; use regressor for real-valued targets.")
    around = scheme, lift, conv, input_dropout, dropout_rate, budget, generator, backprop
    return _network(_with(model, activation, init), inputs, scores_for(classes), features, layers, T, *around)


def regressor(
    model: str | Builder,
    inputs: int | tuple[int, ...],
    outputs: int,
    features: int | Sequence[int],
    layers: int | Sequence[int],
    T: float,
    *,
    scheme: Scheme | None = None,
    lift: LiftChoice = None,
    conv: Images | None = None,
    activation: str | Activation | None = None,
    init: Initial | None = None,
    input_dropout: float = 0.0,
    dropout_rate: float = 0.0,
    budget: float | None = None,
    generator: torch.Generator | None = None,
    backprop: Backprop = Auto(),
) -> Network:
    """A network for ``outputs`` real-valued targets; everything else as for `classifier`.

    Examples:
        >>> regressor("ms2", inputs=10, outputs=1, features=16, layers=8, T=1.0)(torch.randn(5, 10)).shape
        torch.Size([5, 1])
    """
    around = (scheme, lift, conv, input_dropout, dropout_rate, budget, generator, backprop)
    return _network(_with(model, activation, init), inputs, outputs, features, layers, T, *around)


def _with(model: str | Builder, activation: str | Activation | None, init: Initial | None) -> Builder:
    """The model by its name, and with what is asked for in place of its own."""
    build = lookup(MODELS, model, "model") if isinstance(model, str) else model
    own = {name: value for name, value in (("activation", activation), ("init", init)) if value is not None}
    return functools.partial(build, **own) if own else build


def _network(
    build: Builder,
    inputs: int | tuple[int, ...],
    outputs: int,
    features: int | Sequence[int],
    layers: int | Sequence[int],
    T: float,
    scheme: Scheme | None,
    lift: LiftChoice,
    conv: Images | None,
    input_dropout: float,
    dropout_rate: float,
    budget: float | None,
    generator: torch.Generator | None,
    backprop: Backprop,
) -> Network:
    if not 0 <= input_dropout < 1:
        raise ValueError(f"input_dropout must lie in [0, 1), got {input_dropout}.")
    widths = list(features) if isinstance(features, Sequence) else [features]
    depths = list(layers) if isinstance(layers, Sequence) else [layers] * len(widths)
    if len(depths) != len(widths):
        raise ValueError(f"features and layers must name equally many flows, got {len(widths)} and {len(depths)}.")
    # torch's layers draw only from the global stream, so a generator given here seeds it temporarily
    seed = None if generator is None else int(torch.randint(2**62, (), generator=generator))
    with contextlib.nullcontext() if seed is None else seeded(seed):
        operator = Dense() if conv is None else Conv(conv.kernel, _dims(inputs, conv))
        own = backprop if scheme is None else Stored()  # it runs every scheme
        flows = [build(n, N, T, operator=operator, backprop=own) for n, N in zip(widths, depths, strict=True)]
        if scheme is not None:
            flows = [Flow(f.field, scheme, f.T, backprop) for f in flows]
        for flow in flows:
            if (action := _action(flow)) is not None:
                scaled_start(flow, action)
        if budget is not None and dropout_rate:
            raise ValueError("a budget bounds the velocities without dropout; give one of the two.")
        if budget is not None:
            flows = [budgeted(flow, budget) for flow in flows]
        if dropout_rate:
            flows = [Flow(dropout(f.field, dropout_rate), f.scheme, f.T, f.backprop) for f in flows]
        if isinstance(inputs, int) and conv is None:
            return _dropping(count_in(_dense(_function(build), inputs, outputs, flows, lift)), input_dropout)
        if not isinstance(inputs, int) and conv is not None:
            if _function(build) is verlet:
                raise ValueError("verlet, whose data lies only in q, is for vectors here; use ms1 for images.")
            return _dropping(count_in(_images(inputs, outputs, flows, conv)), input_dropout)
    raise _misfit(inputs, conv)


def _dropping(network: Network, rate: float) -> Network:
    if rate:
        network.lift = nn.Sequential(nn.Dropout(rate), network.lift)
    return network


def _action(flow: Flow) -> float | None:
    """What the initial weights ask for, of a field that knows how they were drawn."""
    init = getattr(getattr(flow.field, "force", flow.field), "init", None)
    return init.action if isinstance(init, Initial) else None


def _dense(build: Any, inputs: int, outputs: int, flows: list[Flow], lift: LiftChoice) -> Network:
    if len(flows) > 1:
        raise ValueError(f"several flows need images (conv=Images()), got features for {len(flows)} of them.")
    n = flows[0].field.features
    if build is verlet and lift == "linear":
        raise ValueError(
            "verlet starts with p = 0 and the data in q, which a learned lift would overwrite; use lift='q' or ms1."
        )
    place = lift or ("q" if build in (ms1, verlet) else "ends")
    first = nn.Linear(inputs, n) if place == "linear" else Lift(n, inputs, place=place, scale=flows[0].field.state_unit)
    if build is verlet:
        return Network(first, flows[0], nn.Sequential(Half("q"), nn.Linear(n - n // 2, outputs)))
    return Network(first, flows[0], nn.Linear(n, outputs))


def _images(inputs: tuple[int, ...], outputs: int, flows: list[Flow], conv: Images) -> Network:
    channels, *size = inputs
    dims = len(size)
    convolution, pool = _AROUND[dims]
    widths = [flow.field.features for flow in flows]
    lift: list[nn.Module] = [ChannelsLast()] if dims == 2 else []
    lift.append(convolution(channels, widths[0], conv.lift, padding=conv.lift // 2))
    if dims == 2 and channels == 1:  # the weight lies so already; its gradient's strides are compared with its own
        lift[-1].to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if conv.pool > 1:
        lift.append(pool(conv.pool))
        size = [s // conv.pool for s in size]
    body: list[nn.Module] = [flows[0]]
    for i, flow in enumerate(flows[1:]):
        body.append(
            Connector(
                widths[i], widths[i + 1], pool=conv.connector_pool, kernel=conv.connector, average=False, dims=dims
            )
        )
        body.append(flow)
        size = [s // conv.connector_pool for s in size]
    size = [s // conv.head_pool for s in size]
    if min(size) < 1:
        what, pixels = ("signals", "images", "volumes")[dims - 1], " x ".join(map(str, inputs[1:]))
        raise ValueError(f"{what} of {pixels} pixels are pooled away by {conv}.")
    pooled: list[nn.Module] = [pool(conv.head_pool)] if conv.head_pool > 1 else []
    head = [*pooled, nn.Flatten(), nn.Dropout(conv.dropout), nn.Linear(widths[-1] * math.prod(size), outputs)]
    return Network(nn.Sequential(*lift), nn.Sequential(*body), nn.Sequential(*head))


_AROUND: dict[int, tuple[Any, Any]] = {
    1: (nn.Conv1d, nn.MaxPool1d),
    2: (nn.Conv2d, nn.MaxPool2d),
    3: (nn.Conv3d, nn.MaxPool3d),
}


def _dims(inputs: Any, conv: Images) -> int:
    """The number of pixel axes: 1 for signals, 2 for images, 3 for volumes."""
    if isinstance(inputs, Sequence) and len(inputs) - 1 in _AROUND and all(_counts(k) for k in inputs):
        return len(inputs) - 1
    raise _misfit(inputs, conv)


def _misfit(inputs: Any, conv: Images | None) -> ValueError:
    return ValueError(
        f"inputs={inputs!r} and conv={conv!r} do not fit: vectors have one width and no conv; signals (channels, "
        "length), images (channels, height, width) and volumes (channels, depth, height, width) have conv=Images()."
    )


def _counts(k: Any) -> bool:
    return isinstance(k, Integral) and not isinstance(k, bool) and int(k) > 0


def _function(build: Builder) -> Any:
    return _function(build.func) if isinstance(build, functools.partial) else build
