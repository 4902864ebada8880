"""What `fit` should do, written out by hand: penalties, optimisers and runs, apart from the library."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import liouville as lv
from liouville.data import Split
from liouville.train import History, Penalty, Progress, Settings, fit

Rates = Callable[[int], tuple[float, float]]


def labels(x: Tensor) -> Tensor:
    """The class of a point: a function of the point, so that a batch in any order knows its targets."""
    return (x[:, 0] * x[:, 1] > 0).long()


def points(train: int = 25, test: int = 10) -> Split:
    """Points of the plane in float64; their class is the sign of x_0 x_1."""
    x = torch.randn(train + test, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Split(x[:train], labels(x[:train]), x[train:], labels(x[train:]), name="saddle", classes=2)


def network(model: str = "h2", layers: int = 4, **options: object) -> lv.Network:
    """A small network in float64, its weights as they are drawn: no unit stands between a rate and a weight."""
    build = functools.partial(lv.zoo.MODELS[model], init=lv.Smooth(action=None))
    return lv.classifier(build, 2, 2, 4, layers, 1.5, generator=torch.Generator().manual_seed(0), **options).double()


def weights(net: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights by name."""
    return {name: w.detach().clone() for name, w in net.named_parameters()}


def same(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Equal weights, name by name."""
    assert actual.keys() == expected.keys()
    for name, w in expected.items():
        worst = float((actual[name] - w).abs().max())
        assert worst <= tolerance, f"{name} differs by {worst:.3g}, tolerance {tolerance:.3g}"


def loss(scores: Tensor, x: Tensor) -> Tensor:
    """-mean log P(y | x) for the sigmoid of one score."""
    y = labels(x).to(scores.dtype)
    return -(y * F.logsigmoid(scores[:, 0]) + (1 - y) * F.logsigmoid(-scores[:, 0])).mean()


def penalty(net: nn.Module, p: Penalty) -> Tensor:
    """Every term once: smoothness 1/(2h), decay h/2 (or the scaling's factors), head 1/2."""
    total = torch.zeros((), dtype=torch.float64)
    for flow in net.flows():
        h = flow.T / flow.layers
        smooth, small = {"depth": (1 / h, h), "hdnn": (h, h), "sum": (1.0, 1.0)}[p.scaling]
        for w in flow.field.parameters():
            total = total + p.smoothness * smooth / 2 * (w[1:] - w[:-1]).square().sum()
            total = total + p.decay * small / 2 * w.square().sum()
    for w in net.head.parameters():
        total = total + p.head_decay / 2 * w.square().sum()
    return total


class Adam:
    """Kingma & Ba 2015, algorithm 1; with ``decay`` Loshchilov & Hutter's AdamW."""

    def __init__(self, beta2: float, decay: float = 0.0) -> None:
        self.beta2, self.decay, self.t = beta2, decay, 0
        self.m: dict[str, Tensor] = {}
        self.v: dict[str, Tensor] = {}

    def __call__(self, w: dict[str, Tensor], g: dict[str, Tensor], lr: dict[str, float]) -> None:
        self.t += 1
        for name in g:
            self.m[name] = 0.9 * self.m.get(name, 0.0) + 0.1 * g[name]
            self.v[name] = self.beta2 * self.v.get(name, 0.0) + (1 - self.beta2) * g[name] ** 2
            m, v = self.m[name] / (1 - 0.9**self.t), self.v[name] / (1 - self.beta2**self.t)
            w[name] -= lr[name] * self.decay * w[name]
            w[name] -= lr[name] * m / (v.sqrt() + 1e-8)


class Momentum:
    """v <- 0.9 v + g, w <- w - lr v."""

    def __init__(self) -> None:
        self.v: dict[str, Tensor] = {}

    def __call__(self, w: dict[str, Tensor], g: dict[str, Tensor], lr: dict[str, float]) -> None:
        for name in g:
            self.v[name] = 0.9 * self.v.get(name, 0.0) + g[name]
            w[name] -= lr[name] * self.v[name]


def follow(net: nn.Module, batches: list[Tensor], update: Adam | Momentum, rates: Rates, p: Penalty) -> None:
    """One update per batch, with rates(k) = (of the body, of the head) in step k = 0, 1, ..."""
    for k, x in enumerate(batches):
        body, head = rates(k)
        parameters = dict(net.named_parameters())
        gradients = torch.autograd.grad(loss(net(x), x) + penalty(net, p), list(parameters.values()))
        w = {name: value.data for name, value in parameters.items()}
        update(
            w,
            dict(zip(w, gradients, strict=True)),
            {name: head if name.startswith("head") else body for name in w},
        )


@dataclass
class Run:
    """A run of `fit` and what was seen of it: the batches, and the weights behind every optimiser step."""

    history: History
    batches: list[Tensor]
    behind: list[dict[str, Tensor]]


def watched(net: nn.Module, data: Split, settings: Settings) -> Run:
    """Run `fit` and write down every batch that the network saw in training, and every step's weights."""
    batches: list[Tensor] = []
    behind: list[dict[str, Tensor]] = []

    def see(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if module.training:
            batches.append(args[0].clone())

    class Steps(Progress):
        @contextmanager
        def run(self, epochs: int, steps: int, score_name: str) -> Iterator[Progress.Bar]:
            bar = Progress.Bar()
            bar.step = lambda _: behind.append(  # type: ignore[method-assign]
                {name: value.detach().clone() for name, value in net.state_dict().items()}
            )
            yield bar

    handle = (net.lift if isinstance(net, lv.Network) else net).register_forward_pre_hook(see)
    try:
        history = fit(net, data, settings, progress=Steps())
    finally:
        handle.remove()
    return Run(history, batches, behind)
