r"""Recurrent networks that are compared: this library's, torch's, and two written after their equations.

coRNN (Rusch & Mishra 2021, 2010.00951, eq. (3)), explicit in the damping:

    z_t = z_{t-1} + dt (tanh(W y_{t-1} + V z_{t-1} + U u_t + b) - gamma y_{t-1} - epsilon z_{t-1})
    y_t = y_{t-1} + dt z_t

LinOSS-IM (Rusch & Rus 2024, 2410.03943), y'' = -A y + B u with A >= 0 diagonal, implicit in z:

    z_t = S (z_{t-1} - dt A y_{t-1} + dt B u_t),    y_t = y_{t-1} + dt z_t,    S = 1/(1 + dt^2 A)

which is linear, so all steps are found in log2 T passes (a scan); then a block GLU(GELU(C y + D u)) + u.
"""

from __future__ import annotations

__all__ = ["LEFT_OUT", "NETWORKS", "Classifier", "build"]

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import liouville as lv
from liouville.experiments.beyond.baselines import nearest_width
from liouville.experiments.beyond.sequence_data import Task
from liouville.randomness import seeded
from liouville.recurrent import AntisymmetricRNN, Cell, HamiltonianRNN, Recurrent, step_for


class Classifier(nn.Module):
    """x (B, T, inputs) -> scores, linear in the last state: ``last(x, lengths)`` is (B, width)."""

    def __init__(self, body: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(width, classes)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.head(self.body(x, lengths))


class Ours(nn.Module):
    """The last state of a recurrent layer of this library."""

    def __init__(self, rnn: Recurrent) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return self.rnn.final(x, lengths=lengths)[-1]


class Gates(nn.Module):
    """The last output of `torch.nn.LSTM` or `torch.nn.GRU`."""

    def __init__(self, rnn: nn.LSTM | nn.GRU) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return _at_the_end(self.rnn(x)[0], lengths)


class CoRNN(nn.Module):
    """The positions y of the module's text at the end; a loop over the steps."""

    def __init__(self, inputs: int, width: int, dt: float, gamma: float, epsilon: float) -> None:
        super().__init__()
        self.U, self.W = nn.Linear(inputs, width), nn.Linear(2 * width, width, bias=False)
        self.dt, self.gamma, self.epsilon = dt, gamma, epsilon

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        forced, states = self.U(x), []
        y = z = forced.new_zeros(forced[:, 0].shape)
        for u in forced.unbind(1):
            force = (self.W(torch.cat((y, z), -1)) + u).tanh()
            z = z + self.dt * (force - self.gamma * y - self.epsilon * z)
            y = y + self.dt * z
            states.append(y)
        return y if lengths is None else _at_the_end(torch.stack(states, 1), lengths)


class LinOSS(nn.Module):
    """Blocks of the module's text after a linear lift, the average over time at the end."""

    def __init__(self, inputs: int, width: int, blocks: int = 2) -> None:
        super().__init__()
        self.lift = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(Oscillators(width) for _ in range(blocks))

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        u = self.lift(x)
        for block in self.blocks:
            u = block(u)
        if lengths is None:
            return u.mean(1)
        known = torch.arange(u.shape[1]) < lengths[:, None]
        return (u * known[..., None]).sum(1) / lengths[:, None]


class Oscillators(nn.Module):
    """One LinOSS-IM block of as many oscillators as features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.A, self.dt = nn.Parameter(torch.rand(width)), nn.Parameter(torch.rand(width))
        self.B, self.C = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.D, self.gate = nn.Parameter(torch.randn(width)), nn.Linear(width, 2 * width)

    def forward(self, u: Tensor) -> Tensor:
        A, dt = self.A.relu(), self.dt.sigmoid()
        S = 1 / (1 + dt.square() * A)
        zz, zy, yz, yy = S, -dt * A * S, dt * S, S  # the matrix of a step, by its entries
        force = self.B(u)
        z, y = S * dt * force, dt.square() * S * force
        span = 1
        while span < u.shape[1]:  # after k passes each state is the sum over the last 2^k steps
            before_z, before_y = z[:, :-span], y[:, :-span]
            z, y = (
                torch.cat((z[:, :span], z[:, span:] + zz * before_z + zy * before_y), 1),
                torch.cat((y[:, :span], y[:, span:] + yz * before_z + yy * before_y), 1),
            )
            zz, zy, yz, yy = zz * zz + zy * yz, zy * (zz + yy), yz * (zz + yy), yz * zy + yy * yy
            span = 2 * span
        x = self.C(y) + self.D * u
        return nn.functional.glu(self.gate(nn.functional.gelu(x)), -1) + u


def _at_the_end(y: Tensor, lengths: Tensor | None) -> Tensor:
    return y[:, -1] if lengths is None else y[torch.arange(len(y)), lengths - 1]


def _second_order(inputs: int, width: int, length: int, action: float, input_scale: float) -> Recurrent:
    """q'' = sigma(-C^T C q + b + W u), composed: no class of its own."""
    field, scheme = lv.SecondOrderField(lv.SemidefiniteField(width, 1)), lv.SymplecticEuler()
    cell = Cell(inputs, field, scheme, step_for(field, scheme, length, action), input_scale=input_scale)
    return Recurrent(cell, batch_first=True)


Maker = Callable[[Task, int], tuple[nn.Module, int]]
"""(task, width) -> a body and the width of what it gives."""
NETWORKS: dict[str, Maker] = {
    "h2": lambda t, n: (Ours(HamiltonianRNN(t.inputs, 2 * n, batch_first=True, **_start(t))), 2 * n),
    "antisymmetric": lambda t, n: (Ours(AntisymmetricRNN(t.inputs, n, batch_first=True, **_start(t))), n),
    "second order": lambda t, n: (Ours(_second_order(t.inputs, n, **_start(t))), 2 * n),
    "LSTM": lambda t, n: (Gates(nn.LSTM(t.inputs, n, batch_first=True)), n),
    "GRU": lambda t, n: (Gates(nn.GRU(t.inputs, n, batch_first=True)), n),
    "coRNN": lambda t, n: (CoRNN(t.inputs, n, dt=math.sqrt(1.0 / t.steps), gamma=1.0, epsilon=1.0), n),
    "LinOSS": lambda t, n: (LinOSS(t.inputs, n), n),
}
LEFT_OUT = {
    "ACSF1": ("coRNN",),
    "OSULeaf": ("coRNN",),
    "permuted-mnist": ("second order", "LSTM", "GRU", "coRNN", "LinOSS", "antisymmetric"),
    "adding-1000": ("coRNN", "second order"),
    "adding-5000": ("coRNN", "second order", "GRU", "LinOSS"),
}
"""What a task does without: it would take this machine longer than all others together."""


def _start(task: Task) -> dict[str, Any]:
    return {"length": task.steps, "action": task.action, "input_scale": task.input_scale}


def build(name: str, task: Task, seed: int, width: int = 64) -> Classifier:
    """A network with about as many weights as the task says, or of the width if it says 0."""

    def of(n: int) -> Classifier:
        with seeded(seed):
            body, features = NETWORKS[name](task, n)
            return Classifier(body, features, task.classes)

    return of(nearest_width(of, task.weights) if task.weights else width)
