"""Networks on vectors from torch's own layers, as one would write them without this library.

An MLP is x -> sigma(W x + b), layer after layer. A ResNet is a linear lift, blocks x -> x + W' sigma(W x + b) + b' and
a linear head. Both train with `liouville.train.fit` like every module with scores as output.
"""

from __future__ import annotations

__all__ = ["Block", "deep_mlp", "mlp", "nearest_width", "parameters", "resnet"]

import itertools
from collections.abc import Callable

from torch import Tensor, nn

from liouville.randomness import seeded


class Block(nn.Module):
    """x -> x + W' sigma(W x + b) + b', sigma = ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(self.inner(x).relu())


def mlp(inputs: int, outputs: int, width: int, depth: int, seed: int) -> nn.Sequential:
    """``depth`` hidden layers with ReLU, initial weights as torch draws them.

    Examples:
        >>> parameters(mlp(2, 1, width=4, depth=2, seed=0))
        37
    """
    with seeded(seed):
        widths = itertools.pairwise([inputs, *(width,) * depth])
        hidden = [layer for i, o in widths for layer in (nn.Linear(i, o), nn.ReLU())]
        return nn.Sequential(*hidden, nn.Linear(width, outputs))


def resnet(inputs: int, outputs: int, width: int, depth: int, seed: int) -> nn.Sequential:
    """A linear lift, ``depth`` blocks and a linear head."""
    with seeded(seed):
        blocks = [Block(width) for _ in range(depth)]
        return nn.Sequential(nn.Linear(inputs, width), *blocks, nn.Linear(width, outputs))


def deep_mlp(inputs: int, outputs: int, width: int, depth: int, seed: int) -> nn.Sequential:
    """``depth`` hidden layers with tanh and Glorot's uniform weights, gain 5/3: what textbooks say of tanh."""
    with seeded(seed):
        hidden: list[nn.Module] = []
        for i, o in itertools.pairwise([inputs, *(width,) * depth]):
            linear = nn.Linear(i, o)
            nn.init.xavier_uniform_(linear.weight, gain=5 / 3)
            hidden += [linear, nn.Tanh()]
        return nn.Sequential(*hidden, nn.Linear(width, outputs))


def parameters(network: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(p.numel() for p in network.parameters())


def nearest_width(build: Callable[[int], nn.Module], number: int) -> int:
    """The width with which ``build(width)`` has a number of parameters nearest to ``number``.

    Examples:
        >>> nearest_width(lambda width: mlp(2, 1, width, depth=2, seed=0), 37)
        4
    """
    width = 1
    while parameters(build(width + 1)) <= number:
        width += 1
    return min((width, width + 1), key=lambda w: abs(parameters(build(w)) - number))
