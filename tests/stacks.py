"""Blocks as users have them, and what the tests of `liouville.reversible` measure with."""

import torch
from torch import nn

from measure import randn


class Block(nn.Module):
    """Pre-norm attention and perceptron, with a mask, a bias of the scores, and dropout."""

    def __init__(self, width=8, wide=12, dropout=0.0, index=0):
        super().__init__()
        self.index = index
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attend = nn.MultiheadAttention(width, 2, batch_first=True, dropout=dropout)
        self.mlp = nn.Sequential(nn.Linear(width, wide), nn.GELU(), nn.Linear(wide, width), nn.Dropout(dropout))

    def forward(self, x, mask=None, shift=0.0):
        h = self.norms[0](x)
        x = x + self.attend(h, h, h, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp(self.norms[1](x) + shift)


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return x + self.f(x)


def _seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().double()


def transformer(layers=6, dropout=0.0):
    """Blocks of other widths and settings, the third being the first again, the second frozen."""

    def make():
        blocks = nn.ModuleList(Block(wide=8 + 4 * (j % 3), dropout=dropout, index=j) for j in range(layers))
        blocks[2] = blocks[0]
        blocks[1].requires_grad_(False)
        return blocks

    return _seeded(make)


def residual_mlp(layers=6):
    return _seeded(
        lambda: nn.Sequential(
            *(Residual(nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.Tanh())) for _ in range(layers))
        )
    )


def convolutions(layers=4):
    def make():
        f = (nn.Sequential(nn.GroupNorm(1, 2), nn.Conv2d(2, 2, 3, padding=1)) for _ in range(layers))
        return nn.ModuleList(map(Residual, f))

    return list(_seeded(make))


def tokens(batch=2, seed=1):
    return randn(batch, 5, 8, seed=seed)


STACKS = {
    "transformer": (transformer, tokens),
    "transformer-dropout": (lambda: transformer(dropout=0.2), tokens),
    "mlp": (residual_mlp, tokens),
    "convolutions": (convolutions, lambda: randn(2, 2, 4, 3)),
    "one-block": (lambda: transformer()[:1], tokens),
}
