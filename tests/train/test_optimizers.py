"""The optimisers of `fit` against torch's own, bit by bit."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from liouville.train.optimizers import Adam, AdamW

PAIRS = {
    "adam": (Adam, torch.optim.Adam, 0.0),
    "decay": (Adam, torch.optim.Adam, 0.1),
    "adamw": (AdamW, torch.optim.AdamW, 0.1),
}


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(*shape, generator=generator)) for shape in ((7, 3), (5,), (2, 2), (1,))]


@pytest.mark.parametrize("name", PAIRS)
def test_every_bit_and_the_state_are_those_of_torch(name: str) -> None:
    ours, theirs, decay = PAIRS[name]
    a, b = parameters(), parameters()
    groups = [[{"params": w[:2], "lr": 0.1}, {"params": w[2:], "lr": 0.01}] for w in (a, b)]
    first = ours(groups[0], (0.9, 0.95), decay)
    second = theirs(groups[1], betas=(0.9, 0.95), weight_decay=decay, fused=True)
    for step in range(5):
        generator = torch.Generator().manual_seed(step)
        for x, y in zip(a, b, strict=True):
            x.grad = torch.randn(x.shape, generator=generator)
            y.grad = x.grad.clone()
        if step == 2:
            a[3].grad = b[3].grad = None
        if step == 3:
            first.param_groups[0]["lr"] = second.param_groups[0]["lr"] = 0.5
        first.step()
        second.step()
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    for x, y in zip(a, b, strict=True):
        mine, its = first.state[x], second.state[y]
        assert mine.keys() == its.keys()
        assert all(torch.equal(mine[key], its[key]) and mine[key].dtype == its[key].dtype for key in its)


def test_a_training_run_does_not_import_torchs_compiler() -> None:
    """It takes a second, longer than many runs."""
    code = (
        "import sys, liouville as lv; from liouville.train import Settings, fit\n"
        "fit(lv.classifier('h2', 2, 2, 4, 2, 1.0), lv.data.load('double-moons', points=100), Settings(epochs=1))\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
