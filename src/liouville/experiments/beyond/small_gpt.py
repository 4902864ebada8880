"""A small GPT on the bytes of Python's standard library, and the ways to run its blocks."""

from __future__ import annotations

__all__ = [
    "BATCH",
    "CHECKPOINT",
    "DEPTHS",
    "EXACT",
    "GPT",
    "HELD",
    "MAPS",
    "MEASURED",
    "ROOM",
    "SCHEMES",
    "TOKENS",
    "WAYS",
    "WIDTH",
    "Block",
    "Run",
    "causal",
    "checkpointed",
    "plain",
    "text",
    "ways",
    "windows",
]

import functools
import sysconfig
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from liouville.backprop import Backprop, Reversible
from liouville.stack import reversible
from liouville.train import linear_cross_entropy

BYTES = 256
EXACT = Reversible(exact=True, compensated=True)  # the argument of `reversible`
SCHEMES = ("momentum", "bdia", "midpoint", "leapfrog", "coupled")
CHECKPOINT = "checkpoint"
WAYS = ("plain", CHECKPOINT, *SCHEMES)
"""The plain loop, torch's checkpoint of every block, and `liouville.reversible` with each of its schemes."""

MAPS = ("plain", *SCHEMES)
"""The different networks: checkpointing is the plain one."""

DEPTHS, WIDTH, TOKENS = (6, 24, 96), 32, 64
BATCH, MEASURED, HELD = 2, 4, 32  # sequences of a training step, of a measured step, and held out
ROOM = 8_000_000  # bytes, for the largest batch

Run = Callable[[Tensor, Tensor], Tensor]


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.behind = nn.LayerNorm(width), nn.LayerNorm(width)
        self.read, self.write = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x: (batch, tokens, width); mask: (tokens, tokens), true where a token attends to another."""
        q, k, v = self.read(self.before(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.write(seen.transpose(1, 2).flatten(2))
        return x + self.mlp(self.behind(x))


class GPT(nn.Module):
    """Embedding, blocks, norm, and the embedding again as the head.

    Initial weights are torch's, except that the embedding has standard deviation width^(-1/2), and weights that write
    into the residual stream are divided by sqrt(2 depth), as in GPT-2.
    """

    def __init__(self, width: int, depth: int, tokens: int) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(BYTES, width), nn.Embedding(tokens, width)
        self.blocks, self.norm = nn.ModuleList(Block(width) for _ in range(depth)), nn.LayerNorm(width)
        for table in (self.embed, self.place):
            nn.init.normal_(table.weight, std=width**-0.5)
        with torch.no_grad():
            for name, parameter in self.blocks.named_parameters():
                if name.endswith(("write.weight", "mlp.2.weight")):
                    parameter.div_((2 * depth) ** 0.5)

    def loss(self, ids: Tensor, run: Run) -> Tensor:
        """Mean cross-entropy of the next byte, in nats, in chunks.

        Args:
            ids: (batch, tokens + 1).
            run: the blocks, in one of their `ways`.
        """
        x, targets = ids[:, :-1], ids[:, 1:]
        hidden = run(self.embed(x) + self.place.weight[: x.shape[1]], causal(x.shape[1]))
        return linear_cross_entropy(self.norm(hidden), self.embed.weight, targets)


def ways(blocks: nn.ModuleList, backprop: Backprop = EXACT) -> dict[str, Run]:
    """The functions that run the blocks, by the names of `WAYS`; the reversible ones use an engine."""
    by_hand: dict[str, Run] = {
        "plain": functools.partial(plain, blocks),
        CHECKPOINT: functools.partial(checkpointed, blocks),
    }
    return by_hand | {name: reversible(blocks, name, backprop=backprop) for name in SCHEMES}


def plain(blocks: nn.ModuleList, x: Tensor, mask: Tensor) -> Tensor:
    """One block after the other."""
    for block in blocks:
        x = block(x, mask)
    return x


def checkpointed(blocks: nn.ModuleList, x: Tensor, mask: Tensor, every: int = 1) -> Tensor:
    """The same by torch's checkpoint, which keeps the input of every block, or of every few blocks."""
    for first in range(0, len(blocks), every):
        x = checkpoint(plain, blocks[first : first + every], x, mask, use_reentrant=False)
    return x


def causal(tokens: int) -> Tensor:
    """The causal mask: a token attends to itself and earlier tokens."""
    return torch.ones(tokens, tokens, dtype=torch.bool).tril()


@functools.cache
def text() -> dict[str, Tensor]:
    """The modules of Python's standard library as bytes: parts for training, validation and test, file by file."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    parts: dict[str, bytearray] = {"train": bytearray(), "validation": bytearray(), "test": bytearray()}
    for k, file in enumerate(files):
        parts[{8: "validation", 9: "test"}.get(k % 10, "train")] += file.read_bytes()
    return {name: torch.frombuffer(part, dtype=torch.uint8) for name, part in parts.items()}


def windows(part: Tensor, batch: int, tokens: int, generator: torch.Generator) -> Tensor:
    """Pieces of ``tokens + 1`` bytes from anywhere in a text, (batch, tokens + 1)."""
    starts = torch.randint(len(part) - tokens, (batch, 1), generator=generator)
    return part[starts + torch.arange(tokens + 1)].long()
