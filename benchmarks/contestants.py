"""A training step of the same H2 network, forward and backward, by liouville's engines and by what else there is.

Every contestant is a pair: the weights whose gradients it makes, and one forward pass. Packages that are not installed
are left out, and named (``pip install torchdiffeq revlib memcnn momentumnet revtorch``).
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import liouville as lv
import memory_vs_depth
from reference_loop import forward

PACKAGES = ("torchdiffeq", "revlib", "memcnn", "momentumnet", "revtorch")


class Contestant(NamedTuple):
    """``run()`` is a forward pass; backward fills the gradients of ``weights``."""

    run: Callable[[], Tensor]
    weights: Sequence[Tensor]

    def step(self) -> None:
        """Forward, backward, gradients of all weights."""
        for w in self.weights:
            w.grad = None
        self.run().sum().backward()


def absent() -> list[str]:
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def contestants(flow: lv.Flow, y: Tensor) -> dict[str, Contestant]:
    """By name; the first is the reference."""
    weights = list(flow.field.theta())
    found = {"reference": Contestant(lambda: forward(y, *weights, flow.h), weights)}
    engines = (lv.Fused(), lv.Fused(exact=True), lv.BatchLast(), lv.Stored(), lv.Reversible())
    for engine in engines:
        run = flow.with_backprop(engine)
        found[repr(engine)] = Contestant(lambda run=run: run(y), weights)
    found["torch.utils.checkpoint"] = Contestant(lambda: _checkpointed(flow, y, weights), weights)
    found |= _baselines(flow, y)
    if "torchdiffeq" not in absent():
        found |= {name: _differential(flow, y, name) for name in ("torchdiffeq", "torchdiffeq, adjoint")}
    size = memory_vs_depth.Size(flow.field.features, len(y))
    for name in PACKAGES[1:]:
        if name not in absent():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                network = memory_vs_depth.peer(name, size, flow.layers)
            x = y.clone().requires_grad_()  # revlib and memcnn need an input that wants a gradient
            found[name] = Contestant(lambda network=network, x=x: network(x), [x, *network.parameters()])
    return found


def _checkpointed(flow: lv.Flow, y: Tensor, weights: list[Tensor]) -> Tensor:
    every = max(1, round(flow.layers**0.5))
    for part in zip(*(w.split(every) for w in weights), strict=True):
        y = checkpoint(forward, y, *part, flow.h, use_reentrant=False)
    return y


def _baselines(flow: lv.Flow, y: Tensor) -> dict[str, Contestant]:
    """Ordinary networks of the same width and depth: one full matrix a layer."""
    n, layers = flow.field.features, flow.layers
    K, b = (0.1 * torch.randn(layers, n, n)).requires_grad_(), torch.zeros(layers, n, requires_grad=True)

    def run(residual: bool) -> Tensor:
        x = y
        for Kj, bj in zip(K.unbind(0), b.unbind(0), strict=True):
            z = torch.tanh(nn.functional.linear(x, Kj, bj))
            x = x + flow.h * z if residual else z
        return x

    return {"tanh ResNet": Contestant(lambda: run(True), [K, b]), "tanh MLP": Contestant(lambda: run(False), [K, b])}


class Equation(nn.Module):
    """The field as torchdiffeq wants it: (t, y) -> y', with the weight of the layer that t lies in."""

    def __init__(self, flow: lv.Flow) -> None:
        super().__init__()
        self.field, self.h, self.layers = flow.field, flow.h, flow.layers
        self.slices: list[tuple[Tensor, ...]] = []

    def begin(self) -> None:
        self.slices = list(zip(*(w.unbind(0) for w in self.field.theta()), strict=True))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        j = min(self.layers - 1, int(t / self.h + 1e-3))
        return self.field(y, type(self.field.theta())(*self.slices[j]))


def _differential(flow: lv.Flow, y: Tensor, name: str) -> Contestant:
    import torchdiffeq

    equation = Equation(flow)
    solve = torchdiffeq.odeint_adjoint if "adjoint" in name else torchdiffeq.odeint
    times = torch.tensor([0.0, flow.T])

    def run() -> Tensor:
        equation.begin()
        return solve(equation, y, times, method="euler", options={"step_size": flow.h})[-1]

    return Contestant(run, list(equation.parameters()))


def adjoint_error(found: dict[str, Contestant]) -> float:
    """How far the gradients of torchdiffeq's adjoint are from those of the network that it computed, relative.

    Its Euler step back through a layer begins at the layer's other end, with the state and the weight found there.
    """
    gradients = []
    for name in ("torchdiffeq", "torchdiffeq, adjoint"):
        found[name].step()
        gradients.append(torch.cat([w.grad.flatten() for w in found[name].weights if w.grad is not None]))
    exact, adjoint = gradients
    return float((adjoint - exact).norm() / exact.norm())
