"""Small learning problems in float64 for the second-order methods: one of every kind of loss, network and engine."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

import liouville as lv
from liouville.train import FullObjective, Penalty, ReducedObjective, Task

TASKS = {"logistic": Task("logistic", 2), "softmax": Task("softmax", 3), "least-squares": Task("least-squares", 0)}
OUTPUTS = {"logistic": 1, "softmax": 3, "least-squares": 2}
PENALTY = Penalty(smoothness=1e-2, decay=2e-2, head_decay=3e-2)
MODELS = ("h1", "h2", "ms1", "ms2", "ms3", "antisymmetric", "verlet", "leapfrog", "midpoint", "resnet")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def network(
    kind: str = "logistic", model: str = "h2", layers: int = 4, engine: lv.Backprop = lv.Stored(), **more: object
) -> lv.Network:
    """Four features from two inputs; every weight that the objective sees is random, and as it is drawn."""
    build = functools.partial(lv.zoo.MODELS[model], init=lv.Smooth(action=None))
    net = lv.regressor(build, 2, OUTPUTS[kind], 4, layers, 1.5, generator=generator(), backprop=engine, **more).double()
    with torch.no_grad():
        for k, w in enumerate(net.parameters()):
            w += 0.2 * randn(*w.shape, seed=k)
    return net


def data(kind: str, samples: int = 30) -> tuple[Tensor, Tensor]:
    x = randn(samples, 2, seed=7)
    if kind == "least-squares":
        return x, randn(samples, 2, seed=8)
    return x, torch.randint(TASKS[kind].classes, (samples,), generator=generator(9))


def full(kind: str = "logistic", net: nn.Module | None = None, **more: object) -> FullObjective:
    return FullObjective(network(kind) if net is None else net, *data(kind), TASKS[kind], PENALTY, **more)


def reduced(kind: str = "logistic", net: nn.Module | None = None, **more: object) -> ReducedObjective:
    return ReducedObjective(network(kind) if net is None else net, *data(kind), TASKS[kind], PENALTY, **more)


def objectives(kind: str = "logistic", net: nn.Module | None = None) -> dict[str, FullObjective | ReducedObjective]:
    """Every objective of one problem."""
    return {
        "full": full(kind, net),
        "reduced": reduced(kind, net),
        "reduced, head not differentiated": reduced(kind, net, full=False),
    }
