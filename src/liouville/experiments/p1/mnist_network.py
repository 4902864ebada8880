"""Networks for MNIST as in P1's section 6.4, with our sizes: a convolution to six channels, a flow of 3 x 3 stencils, a
linear head.

All have full resolution, tanh and T = 6; the head reads every pixel of every channel.
"""

from __future__ import annotations

__all__ = ["CHANNELS", "T", "network_of"]

from torch import nn

from liouville.fields import Smooth
from liouville.kernels import Auto
from liouville.network import ChannelsLast, Half, Lift, Network
from liouville.operators import Conv
from liouville.randomness import seeded
from liouville.zoo import MODELS

CHANNELS, T = 6, 6.0


def network_of(model: str, layers: int, seed: int) -> Network:
    """Convolution, flow, head, with the same theta(t) at every depth; Verlet's auxiliary channels are 0 and not read.

    Examples:
        >>> network_of("verlet", layers=4, seed=0).head
        Sequential(
          (0): Half()
          (1): Flatten(start_dim=1, end_dim=-1)
          (2): Linear(in_features=4704, out_features=10, bias=True)
        )
    """
    two = model == "verlet"
    with seeded(seed):
        opening: list[nn.Module] = [nn.Conv2d(1, CHANNELS, 3, padding=1), nn.Tanh()]
        opening += [Lift(2 * CHANNELS, CHANNELS, place="q", axis=-3)] if two else []
        init = Smooth(scale=0.2, mean=0.0)  # with 4 layers margins are below 2, so that the level is not left out
        flow = MODELS[model](CHANNELS * (1 + two), layers, T, operator=Conv(3), init=init, backprop=Auto())
        head: list[nn.Module] = [Half("q", axis=-3)] if two else []
        head += [nn.Flatten(), nn.Linear(CHANNELS * 28**2, 10)]
    return Network(nn.Sequential(*opening, ChannelsLast()), flow, nn.Sequential(*head))
