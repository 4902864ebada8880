r"""Controllers for the robots of `formation`: a network on the ring of robots, linear feedback, and an MLP.

All that are trained start from one decentralised gain, each robot's own block of the Riccati solution, so none of them
has to find out first how a robot balances.
"""

from __future__ import annotations

__all__ = ["CONTROLLERS", "Linear", "blocks", "decentralised", "made", "weights"]

import torch
from torch import Tensor, nn

from liouville import zoo
from liouville.backprop import Backprop, Reversible
from liouville.experiments.beyond.formation import LINKS, ROBOTS, WIDTH, riccati
from liouville.fields import Normal
from liouville.network import Lift, Network
from liouville.nodes import NodeHead
from liouville.operators import Graph

CONTROLLERS = {
    "h2": "h2 on the ring, trained",
    "linear": "linear on the ring, trained",
    "mlp": "MLP of as many weights, trained",
    "lqr": "Riccati, every robot knows all",
    "lqr-ring": "Riccati, zero beyond the ring",
}
STEP = 0.1  # of the controller's clock
LAYERS, TIME, START = 4, 2.0, 0.05
HIDDEN = 67  # 72 weights each: as many as the h2 network has, within 1 %
_SLOPE = 0.3  # an MLP's tanh units carry the starting gain in their linear range


class Linear(nn.Module):
    """u = F x, F zero outside a mask."""

    mask: Tensor

    def __init__(self, gain: Tensor, mask: Tensor) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.where(mask, gain, 0.0))
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        """x -> u."""
        return x @ torch.where(self.mask, self.gain, 0.0).mT


def blocks(links: bool) -> Tensor:
    """Which entries of F belong to a robot itself, and with ``links`` to its neighbours, (24, 48) booleans."""
    near = torch.eye(ROBOTS, dtype=torch.bool)
    for i, k in LINKS if links else ():
        near[i, k] = near[k, i] = True
    return near.repeat_interleave(2, 0).repeat_interleave(WIDTH // ROBOTS, 1)


def decentralised() -> Tensor:
    """The own blocks of the Riccati solution."""
    return torch.where(blocks(False), riccati(STEP), 0.0)


def made(name: str, engine: Backprop = Reversible()) -> nn.Module:
    """A controller before its training; random parts come from torch's stream."""
    if name == "h2":
        return _network(engine)
    if name == "mlp":
        return _perceptron()
    gain = decentralised() if name == "linear" else riccati(STEP)
    everywhere = torch.ones(2 * ROBOTS, WIDTH, dtype=torch.bool)
    return Linear(gain, everywhere if name == "lqr" else blocks(True))


def _network(engine: Backprop) -> Network:
    """x enters as q, p = 0; u_i = W_i y_i reads robot i's own features. Without biases u(0) = 0."""
    ring, features = Graph(LINKS, WIDTH // ROBOTS), 2 * WIDTH
    flow = zoo.h2(features, LAYERS, TIME, operator=ring, init=Normal(START), backprop=engine)
    for b in (flow.field.get_parameter("b_p"), flow.field.get_parameter("b_q")):
        b.requires_grad_(False).zero_()
    head = NodeHead(ring, features, [i // 2 for i in range(2 * ROBOTS)], bias=False)
    with torch.no_grad():
        head.weight[:, :WIDTH], head.weight[:, WIDTH:] = 0.0, decentralised()
    return Network(Lift(features, WIDTH, place=tuple(range(WIDTH, features))), flow, head)


def _perceptron() -> nn.Module:
    first, last = nn.Linear(WIDTH, HIDDEN, bias=False), nn.Linear(HIDDEN, 2 * ROBOTS, bias=False)
    with torch.no_grad():
        first.weight[:WIDTH] = _SLOPE * torch.eye(WIDTH)
        last.weight.mul_(0.1)
        last.weight[:, :WIDTH] += decentralised() / _SLOPE
    return nn.Sequential(first, nn.Tanh(), last)


@torch.no_grad()
def weights(controller: nn.Module) -> int:
    """How many weights can differ from 0."""
    count = 0
    for module in controller.modules():
        if isinstance(module, Linear | NodeHead):
            count += int(module.mask.sum())
        elif isinstance(module, nn.Linear):
            count += module.weight.numel()
    for flow in controller.flows() if isinstance(controller, Network) else ():
        field = flow.field
        for name in ("K_p", "K_q"):
            K = field.get_parameter(name)
            count += int(field.operator.constrain(torch.ones_like(K)).sum())  # type: ignore[union-attr, operator]
    return count
