"""What does a reversible stack cost and save, beside the plain one and beside checkpointing?

A transformer of pre-norm blocks (width 64, 4 heads, 64 tokens, batch 4, a causal mask as an argument, float32), one
training step with gradients that exist already. Memory: the largest number of bytes alive at once that came up in the
step, counted by storages, at two depths; so no allocator is measured. With revlib installed, it is in the table,
without its errors. Time: CPU seconds of a step over those of torch's
checkpoint of every block, all in turn in one process, medians. Errors: of the gradient of all weights against the same
scheme under `Stored` in float64, and how far output and gradient are from the plain stack's.

Exit code 1 if a bound fails: the slope of memory over depth is at most 10 % of that of torch's checkpoint for schemes
without bits, and 5 % plus the bits' own share with; the float32 error of exact engines is at most 1.15 times that of
`Stored`.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

import liouville as lv
import tables
from liouville.experiments.beyond.small_gpt import Block, causal, checkpointed, plain
from liouville.experiments.beyond.step_costs import Step, peak, timed

WIDTH, HEADS, TOKENS, BATCH, DEPTHS = 64, 4, 64, 4, (12, 24)
EXACT, FLOATING = lv.Reversible(exact=True, compensated=True), lv.Reversible()
ARMS: dict[str, tuple[str | lv.Scheme, lv.Backprop]] = {
    "momentum, 4 bits": ("momentum", EXACT),
    "momentum, 8 bits": (lv.Momentum(8), EXACT),
    "bdia, 4 bits": ("bdia", EXACT),
    "midpoint, exact": ("midpoint", EXACT),
    "midpoint": ("midpoint", FLOATING),
    "leapfrog": ("leapfrog", FLOATING),
    "coupled": ("coupled", FLOATING),
    "Checkpointed() of the plain map": (lv.ForwardEuler(), lv.Checkpointed()),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--page", type=Path, help="write the table into this page")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    memory = [{name: peak(step) for name, step in steps(depth).items()} for depth in DEPTHS]
    seconds = timed(steps(DEPTHS[0]), arguments.repeats)
    found = errors(DEPTHS[0])
    gap, base = DEPTHS[1] - DEPTHS[0], "torch checkpoint of every block"
    slopes = {name: (memory[1][name] - memory[0][name]) / gap for name in memory[0]}
    head = ["", *(f"{d} blocks, MB" for d in DEPTHS), "kB per block", "of checkpoint's", "time over checkpoint's"]
    head += ["gradient error", "of Stored", "output off plain", "gradient off plain"]
    rows = []
    for name in slopes:
        sizes = [f"{m[name] / 1e6:.1f}" for m in memory]
        rest = [f"{v:.1e}" for v in found.get(name, ())] or [""] * 4
        share = f"{slopes[name] / slopes[base]:.1%}"
        rows.append([name, *sizes, f"{slopes[name] / 1e3:.1f}", share, f"{seconds[name] / seconds[base]:.2f}", *rest])
    text = tables.markdown(head, rows)
    print(text)
    if arguments.page:
        tables.write(arguments.page, "stacks", text)
    broken = []
    for name, (_, engine) in ARMS.items():
        bits = next((b for b in (4, 8) if f"{b} bits" in name), 0)
        bar = (0.05 + bits / 32) if bits else 0.10
        if isinstance(engine, lv.Reversible) and slopes[name] > bar * slopes[base]:
            broken.append(f"{name}: slope {slopes[name] / slopes[base]:.1%} of checkpoint's, at most {bar:.1%}")
        if engine == EXACT and found[name][0] > 1.15 * found[name][1]:
            broken.append(f"{name}: gradient error {found[name][0]:.2g}, stored {found[name][1]:.2g}")
    if broken:
        raise SystemExit("\n".join(broken))


def steps(depth: int) -> dict[str, Step]:
    """One training step of each contestant, on one model."""
    blocks, x, mask = model(depth), torch.randn(BATCH, TOKENS, WIDTH), causal(TOKENS)
    arms: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: plain(blocks, x, mask),
        "torch checkpoint of every block": lambda: checkpointed(blocks, x, mask, 1),
        "torch checkpoint of every 4th block": lambda: checkpointed(blocks, x, mask, 4),
    }
    if find_spec("revlib"):
        arms["revlib, two streams"] = two_streams(blocks, x, mask)
    for name, (scheme, engine) in ARMS.items():
        stack = lv.reversible(blocks, scheme, backprop=engine)
        arms[name] = lambda stack=stack: stack(x, mask)

    def step(arm: Callable[[], Tensor]) -> None:
        arm().square().mean().backward()

    for arm in arms.values():  # warm up, and make the gradients
        step(arm)
    return {name: lambda arm=arm: step(arm) for name, arm in arms.items()}


class Increment(nn.Module):
    """f(x) = block(x) - x, with its mask: the form in which revlib takes a residual block."""

    def __init__(self, block: nn.Module, mask: Tensor) -> None:
        super().__init__()
        self.block, self.mask = block, mask

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x, self.mask)
        return out - x


def two_streams(blocks: nn.ModuleList, x: Tensor, mask: Tensor) -> Callable[[], Tensor]:
    """The stack of revlib for the same blocks; both streams begin at x, as in `coupled`; their mean is the end."""
    import revlib

    stack = revlib.ReversibleSequential(*(Increment(block, mask) for block in blocks), split_dim=-1)
    wide = torch.cat((x, x), -1).requires_grad_()  # revlib needs an input that wants a gradient

    def run() -> Tensor:
        out: Tensor = stack(wide)
        return out.unflatten(-1, (2, WIDTH)).mean(-2)

    return run


def model(depth: int) -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList(Block(WIDTH, HEADS) for _ in range(depth))


def errors(depth: int) -> dict[str, tuple[float, ...]]:
    """Of the float32 gradient against float64, its own and that of `Stored`; then output and gradient off plain."""
    single = model(depth)
    double, x, mask = copy.deepcopy(single).double(), torch.randn(BATCH, TOKENS, WIDTH), causal(TOKENS)
    out, truth = gradient(lambda: plain(double, x.double(), mask), double)
    found = {}
    for name, (scheme, engine) in ARMS.items():
        right = gradient(lambda s=scheme: lv.reversible(double, s, backprop=lv.Stored())(x.double(), mask), double)
        own = [
            gradient(lambda s=scheme, e=e: lv.reversible(single, s, backprop=e)(x, mask), single)[1]
            for e in (engine, lv.Stored())
        ]
        found[name] = (*(off(g, right[1]) for g in own), off(right[0], out), off(right[1], truth))
    return found


def gradient(run: Callable[[], Tensor], blocks: nn.ModuleList) -> tuple[Tensor, Tensor]:
    out = run()
    grads = torch.autograd.grad(out.square().mean(), list(blocks.parameters()))
    return out.detach(), torch.cat([g.flatten() for g in grads])


def off(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


if __name__ == "__main__":
    main()
