"""The optimisers of `fit` against torch's own, bit by bit."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from liouville.train.optimizers import Adam, AdamW
from liouville.train.rates import Gradients
from liouville.train.schedules import epoch_count

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


def test_the_schedule_epoch_count_is_a_wrong_step_number() -> None:
    """The authors' script: before every step but the first, Adam's counter is set to the epoch, counted from 0."""
    steps, lr = 4, 0.05
    a, b = ([p.detach().double().requires_grad_() for p in parameters()] for _ in range(2))
    ours = Adam([{"params": a, "lr": lr}], (0.9, 0.999))
    schedule = torch.optim.lr_scheduler.LambdaLR(ours, epoch_count(steps, (0.9, 0.999)))
    theirs = torch.optim.Adam(b, lr=lr, betas=(0.9, 0.999))
    for k in range(5 * steps):
        generator = torch.Generator().manual_seed(k)
        for x, y in zip(a, b, strict=True):
            x.grad = 1 + torch.rand(x.shape, generator=generator).double()
            y.grad = x.grad.clone()
        for state in theirs.state.values():
            state["step"].fill_(k // steps)
        theirs.step()
        ours.step()
        schedule.step()
    bound = 4e-8 * lr * 5 * steps  # Adam's 1e-8 beside gradients of at least 1, in both, at rates below 2 lr
    for x, y in zip(a, b, strict=True):
        assert float((x - y).detach().abs().max()) <= bound


def test_a_training_run_does_not_import_torchs_compiler() -> None:
    """It takes a second, longer than many runs."""
    code = (
        "import sys, liouville as lv; from liouville.train import Settings, fit\n"
        "fit(lv.classifier('h2', 2, 2, 4, 2, 1.0), lv.data.load('double-moons', points=100), Settings(epochs=1))\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("dtypes", [(torch.float32,), (torch.float64,), (torch.float32, torch.float64, torch.bfloat16)])
def test_the_norm_of_the_gradient_is_that_of_torch(dtypes: tuple[torch.dtype, ...]) -> None:
    """Of the gradients that there are, by units, and to the bit: for one dtype as for several."""
    weights = [nn.Parameter(p.detach().to(dtypes[k % len(dtypes)])) for k, p in enumerate(parameters())]
    for p in weights[1:]:
        p.grad = 3 * p.detach() + 1
    found = Gradients([{"params": weights[:2], "unit": 0.25}, {"params": weights[2:]}])
    wide = [p.grad if p.dtype is not torch.bfloat16 else p.grad.float() for p in weights[1:]]
    expected = nn.utils.get_total_norm([0.25 * wide[0], *wide[1:]])
    assert torch.equal(found.norm(), expected) and [id(p.grad) for p in weights[1:]] == [id(g) for g in found.now()]
    for p in weights:
        p.grad = None
    assert found.now() == [] and found.norm() == 0
