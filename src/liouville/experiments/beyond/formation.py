r"""Twelve robots that balance and hold a ring: an unstable plant on the nodes of a graph, its cost and its loop.

Robot i stands at its target + d_i, in the plane, and leans: without control the lean grows as an inverted pendulum's.
Springs tie it to its two neighbours, and its motor has a limit:

    d_i' = v_i,        v_i' = beta sin(d_i) + kappa sum_{k ~ i} (d_k - d_i) - c v_i + u_max tanh(u_i / u_max).

The state is x = [d_1, v_1, d_2, v_2, ...], 48 numbers, and u has two for each robot. The loop is a flow in time whose
field contains the controller, and the controller may be a flow in depth: `Loop` gives its weights to the engine over
time as weights that all time steps share.
"""

from __future__ import annotations

__all__ = ["LINKS", "ROBOTS", "STATES", "WIDTH", "Loop", "cost", "gaps", "plant", "riccati", "scenarios", "targets"]

import functools
import math
from collections import namedtuple
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from liouville.fields import VectorField
from liouville.fields.base import Theta

ROBOTS, STATES = 12, 4
WIDTH = ROBOTS * STATES
LINKS = tuple((i, (i + 1) % ROBOTS) for i in range(ROBOTS))
BETA, KAPPA, FRICTION, LIMIT = 4.0, 2.0, 0.2, 8.0
WEIGHT_V, WEIGHT_U, WEIGHT_GAP = 0.1, 0.02, 40.0
NEAR = 0.7  # neighbours stand 1 apart in the formation; closer than this costs
COST_UNIT = 50.0  # keeps the cost within the range of the reversible engine's grid
RADIUS = 0.5 / math.sin(math.pi / ROBOTS)


def targets() -> Tensor:
    """Where the robots stand in the formation, (12, 2)."""
    angle = 2 * math.pi * torch.arange(ROBOTS) / ROBOTS
    return RADIUS * torch.stack((angle.cos(), angle.sin()), 1)


def scenarios(number: int, seed: int) -> Tensor:
    """Starts, (number, 48): of six pairs of neighbours about half have changed places, and nobody stands or moves
    exactly as meant (each d_i off by up to 0.3, each v_i normal of size 0.2).
    """
    g = torch.Generator().manual_seed(seed)
    r, angle = torch.rand(2, number, ROBOTS, generator=g)
    d = 0.3 * r.sqrt().unsqueeze(-1) * torch.stack(((2 * math.pi * angle).cos(), (2 * math.pi * angle).sin()), -1)
    v = 0.2 * torch.randn(number, ROBOTS, 2, generator=g)
    swapped = torch.rand(number, ROBOTS // 2, generator=g) < 0.5
    first = torch.randint(2, (number, 1), generator=g) + 2 * torch.arange(ROBOTS // 2)
    way = targets().roll(-1, 0) - targets()
    for who, sign, pair in ((first % ROBOTS, 1.0, first % ROBOTS), ((first + 1) % ROBOTS, -1.0, first % ROBOTS)):
        d.scatter_add_(1, who.unsqueeze(-1).expand(-1, -1, 2), sign * swapped.unsqueeze(-1) * way[pair])
    return torch.cat((d, v), -1).flatten(1)


def plant(x: Tensor, u: Tensor) -> Tensor:
    """x' of the robots under the inputs u, (batch, 24)."""
    d, v = x.unflatten(-1, (ROBOTS, STATES)).chunk(2, -1)
    springs = d.roll(1, -2) + d.roll(-1, -2) - 2 * d
    force = LIMIT * torch.tanh(u.unflatten(-1, (ROBOTS, 2)) / LIMIT)
    return torch.cat((v, BETA * d.sin() + KAPPA * springs - FRICTION * v + force), -1).flatten(-2)


def gaps(x: Tensor) -> Tensor:
    """The distances of neighbours, (..., 12)."""
    place = targets().to(x) + x.unflatten(-1, (ROBOTS, STATES))[..., :2]
    return (place - place.roll(-1, -2)).square().sum(-1).add(1e-12).sqrt()


def cost(x: Tensor, u: Tensor) -> Tensor:
    """What a moment costs, a robot: |d|^2 + 0.1 |v|^2 + 0.02 |u|^2, and 40 (0.7 - gap)^2 for neighbours too close."""
    d, v = x.unflatten(-1, (ROBOTS, STATES)).chunk(2, -1)
    quadratic = d.square().sum((-2, -1)) + WEIGHT_V * v.square().sum((-2, -1)) + WEIGHT_U * u.square().sum(-1)
    close = (NEAR - gaps(x)).clamp(min=0.0).square().sum(-1)
    return (quadratic + WEIGHT_GAP * close) / ROBOTS


def riccati(h: float) -> Tensor:
    """The gain F of u = F x that is optimal for the quadratic cost and the linear plant, in steps of h; (24, 48)."""
    from scipy.linalg import solve_discrete_are

    zero = torch.zeros(1, WIDTH, dtype=torch.float64)
    A, B = torch.autograd.functional.jacobian(lambda x, u: plant(x, u)[0], (zero, torch.zeros(1, 2 * ROBOTS).double()))
    A, B = torch.eye(WIDTH).double() + h * A[:, 0], h * B[:, 0]
    Q = torch.diag(torch.tensor([1.0, 1.0, WEIGHT_V, WEIGHT_V]).double().repeat(ROBOTS))
    R = WEIGHT_U * torch.eye(2 * ROBOTS).double()
    P = torch.from_numpy(solve_discrete_are(A.numpy(), B.numpy(), Q.numpy(), R.numpy()))
    return -torch.linalg.solve(R + B.mT @ P @ B, B.mT @ P @ A).float()


class Loop(VectorField):
    """x' = plant(x, u), s' = cost(x, u) / 50 with u = controller(x): the loop, and what it has cost so far.

    The controller's weights are theta: one for all time steps.

    Args:
        controller: (batch, 48) -> (batch, 24).
        steps: time steps of a roll-out.
    """

    sample_ndim = 1

    def __init__(self, controller: nn.Module, steps: int) -> None:
        super().__init__(WIDTH + 1, steps)
        self.controller = controller

    def theta(self) -> Theta:
        """The weights of the controller, each with an axis of time of length 1."""
        names = [name for name, w in self.controller.named_parameters()]
        return _theta(tuple(names))(*(w.unsqueeze(0) for w in self.controller.parameters()))

    def forward(self, y: Tensor, theta_j: Theta) -> Tensor:
        """(x, s)'."""
        x, names = y[..., :WIDTH], [name for name, _ in self.controller.named_parameters()]
        u = functional_call(self.controller, dict(zip(names, theta_j, strict=True)), (x,))
        return torch.cat((plant(x, u), cost(x, u).unsqueeze(-1) / COST_UNIT), -1)


@functools.cache
def _theta(names: tuple[str, ...]) -> Any:
    return namedtuple("ControllerTheta", ["w_" + name.replace(".", "__") for name in names])
