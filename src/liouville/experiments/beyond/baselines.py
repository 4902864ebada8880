"""Networks on vectors from torch's layers, as written without this library.

An MLP is x -> sigma(W x + b), layer by layer. A ResNet is a linear lift, blocks x -> x + W' sigma(W x + b) + b' and
a linear head; the deep one has a normalisation or a scaled start, so that hundreds of blocks can be stacked. All are
trained with `liouville.train.fit`, like any module whose output is scores.
"""

from __future__ import annotations

__all__ = ["Block", "Blocks", "deep_mlp", "deep_resnet", "mlp", "nearest_width", "parameters", "resnet"]

import itertools
import math
from collections.abc import Callable

import torch
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
    """``depth`` hidden layers with ReLU and torch's initial weights.

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
    """``depth`` hidden layers with tanh and Glorot's uniform weights, gain 5/3: the textbook choice for tanh."""
    with seeded(seed):
        hidden: list[nn.Module] = []
        for i, o in itertools.pairwise([inputs, *(width,) * depth]):
            linear = nn.Linear(i, o)
            nn.init.xavier_uniform_(linear.weight, gain=5 / 3)
            hidden += [linear, nn.Tanh()]
        return nn.Sequential(*hidden, nn.Linear(width, outputs))


class Blocks(nn.Module):
    """Residual blocks of one width, each of two layers, with weights stacked on axis 0.

        "layer-norm"   x -> x + W' sigma(W LN(x) + b) + b', and LN once more after the last block
        "scaled"       x -> x + a (W' sigma(W x + b) + b'), a = 0 at the start

    sigma = ReLU, LN the layer normalisation with a gain and a bias for each feature, before the branch (pre-LN, Xiong
    et al., 2002.04745); a is one number for each block (SkipInit, De & Smith, 2002.10444). Initial weights are drawn
    like torch's linear layers.
    """

    def __init__(self, width: int, number: int, start: str) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width)
        self.W, self.W_out = (nn.Parameter(_uniform(bound, number, width, width)) for _ in range(2))
        self.b, self.b_out = (nn.Parameter(_uniform(bound, number, width)) for _ in range(2))
        self.width, self.normalised = width, start == "layer-norm"
        if self.normalised:
            self.gain = nn.Parameter(torch.ones(number + 1, width))
            self.shift = nn.Parameter(torch.zeros(number + 1, width))
        else:
            self.scale = nn.Parameter(torch.zeros(number))

    def forward(self, x: Tensor) -> Tensor:
        weights = zip(self.W.unbind(), self.b.unbind(), self.W_out.unbind(), self.b_out.unbind(), strict=True)
        branch, norm = nn.functional.linear, nn.functional.layer_norm
        if not self.normalised:
            for scale, (W, b, W_out, b_out) in zip(self.scale.unbind(), weights, strict=True):
                x = x + scale * branch(branch(x, W, b).relu(), W_out, b_out)
            return x
        *norms, last = zip(self.gain.unbind(), self.shift.unbind(), strict=True)
        for own, (W, b, W_out, b_out) in zip(norms, weights, strict=True):
            x = x + branch(branch(norm(x, (self.width,), *own), W, b).relu(), W_out, b_out)
        return norm(x, (self.width,), *last)


def _uniform(bound: float, *shape: int) -> Tensor:
    return torch.empty(shape).uniform_(-bound, bound)


def deep_resnet(inputs: int, outputs: int, width: int, depth: int, start: str, seed: int) -> nn.Sequential:
    """``depth`` linear layers in ``depth // 2`` residual blocks between a linear lift and a linear head.

    Args:
        inputs: number of inputs.
        outputs: number of scores.
        width: features of a block.
        depth: linear layers in the blocks, two in each.
        start: normalisation or start of a deep stack, ``"layer-norm"`` or ``"scaled"``; see `Blocks`.
        seed: seed of the initial weights.

    Examples:
        >>> parameters(deep_resnet(2, 1, width=4, depth=2, start="scaled", seed=0))
        58
    """
    with seeded(seed):
        return nn.Sequential(nn.Linear(inputs, width), Blocks(width, depth // 2, start), nn.Linear(width, outputs))


def parameters(network: nn.Module) -> int:
    """The number of learned parameters."""
    return sum(p.numel() for p in network.parameters())


def nearest_width(build: Callable[[int], nn.Module], number: int) -> int:
    """The width for which ``build(width)`` has the number of parameters nearest to ``number``.

    Examples:
        >>> nearest_width(lambda width: mlp(2, 1, width, depth=2, seed=0), 37)
        4
    """
    width = 1
    while parameters(build(width + 1)) <= number:
        width += 1
    return min((width, width + 1), key=lambda w: abs(parameters(build(w)) - number))
