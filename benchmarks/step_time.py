"""How long is a training step (forward, backward, gradients of K and b) in the fused kernel, and elsewhere?

All run in turn in one process on the same weights; figures are medians, and ratios are over the frozen hand-written
loop of ``reference_loop.py``: 2 is twice as fast. GFLOP/s count what inversion really does, 8 B n^2 per layer
(`docs/theory/kernel.md`), beside this machine's own float32 matrix product; tanh is counted twice per feature, beside
the kernel's own tanh on numbers in the first-level cache. A second table is a whole step: lift, head, loss, Adam.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"  # before torch: a compilation is to be timed, not remembered

import torch
import torch.nn.functional as F

import contestants
import liouville as lv
import tables
from liouville.kernels.library import isa, library
from liouville.train.optimizers import Adam
from reference_loop import forward

SIZES = (
    (4, 125, 16),
    (4, 125, 64),
    (4, 125, 1024),
    (4, 4000, 64),
    (16, 256, 64),
    (16, 1024, 64),
    (64, 256, 64),
    (64, 1024, 64),
    (128, 1024, 16),
    (512, 1024, 16),
)
ALL = tuple((n, B, N) for n in (4, 16, 64, 128, 512) for B in (125, 1024, 4000) for N in (16, 64, 256, 1024))
SLOW = 30.0  # seconds of one step beyond which a contestant is not tried again
COMPILE_LIMIT = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--all", action="store_true", help="every width, batch and depth (hours)")
    parser.add_argument("--compile", action="store_true", help="also torch.compile of the reference loop")
    parser.add_argument("--size", type=_size, action="append", help="features,batch,layers; may be given again")
    parser.add_argument("--page", type=Path, help="write the tables between their marks in this page")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    peak, tanhs = gemm_rate(), tanh_rate() * arguments.threads
    missing = contestants.absent()
    note = (
        f"torch {torch.__version__}, {platform.machine()} ({isa()}), {arguments.threads} threads, medians of "
        f"{arguments.repeats}; float32 matrix product {peak:.0f} GFLOP/s, tanh {tanhs:.1f} billion a second"
        + (f"; not installed: {', '.join(missing)}" if missing else "")
    )
    print(note, "\n", flush=True)
    speed: list[list[str]] = []
    ratios: list[list[str]] = []
    names: list[str] = []
    said: list[str] = []
    for size in arguments.size or (ALL if arguments.all else SIZES):
        seconds, remarks = measure(*size, arguments.repeats, arguments.compile)
        speed.append(_speed(size, seconds, peak, tanhs))
        said += [f"- {', '.join(map(str, size))}: {remark}." for remark in remarks]
        names += [name for name in seconds if name not in names]
        ratios.append([*map(str, size), *(_ratio(seconds, name) for name in names)])
        print(tables.plain(SPEED, speed[-1:]), "\n", tables.plain([*HEAD, *names], ratios[-1:]), *remarks, sep="\n")
    ratios = [row + ["-"] * (len(HEAD) + len(names) - len(row)) for row in ratios]
    whole = [whole_step(layers, arguments.repeats) for layers in (8, 64, 1024)]
    print("\n", tables.plain(WHOLE, whole), sep="")
    if arguments.page:
        turned = [list(column) for column in zip(*([*HEAD, *names], *ratios), strict=True)]
        sizes = [f"{n}, {B}, {N}" for n, B, N in zip(*(column[1:] for column in turned[:3]), strict=True)]
        peers = tables.markdown(["features, batch, layers", *sizes], turned[3:])
        text = "\n\n".join([note, tables.markdown(SPEED, speed), peers, "\n".join(said), tables.markdown(WHOLE, whole)])
        tables.write(arguments.page, "step", text)


HEAD = ["features", "batch", "layers"]
SPEED = [*HEAD, "reference, us", "`Fused()`, us", "ratio", "ns per layer and sample", "GFLOP/s", "of GEMM", "of tanh"]
WHOLE = ["layers", "loop and torch's Adam, us", "`Fused()` and `fit`'s Adam, us", "ratio"]


def _speed(size: tuple[int, int, int], seconds: dict[str, float], peak: float, tanhs: float) -> list[str]:
    n, B, N = size
    fused = seconds["Fused()"]
    gflops, rate = 8e-9 * B * n**2 * N / fused, 2e-9 * B * n * N / fused
    figures = [f"{1e6 * seconds['reference']:.0f}", f"{1e6 * fused:.0f}", _ratio(seconds, "Fused()")]
    shares = [_short(1e9 * fused / (B * N)), f"{gflops:.0f}", f"{gflops / peak:.0%}", f"{rate / tanhs:.0%}"]
    return [*map(str, size), *figures, *shares]


def _short(x: float) -> str:
    """Two digits, and all in front of the point."""
    return f"{x:.2g}" if x < 100 else f"{x:.0f}"


def _ratio(seconds: dict[str, float], name: str) -> str:
    return _short(seconds["reference"] / seconds[name]) if name in seconds else "-"


def measure(n: int, batch: int, layers: int, repeats: int, compiled: bool) -> tuple[dict[str, float], list[str]]:
    """Interleaved medians of seconds per step, and remarks; a step that is short is run several times."""
    flow = lv.zoo.h2(n, layers, T=1.0, generator=torch.Generator().manual_seed(0))
    y = torch.randn(batch, n, generator=torch.Generator().manual_seed(1))
    found, remarks = contestants.contestants(flow, y), []
    if "torchdiffeq" in found:
        remarks.append(f"gradients of torchdiffeq's adjoint are off by {contestants.adjoint_error(found):.1%}")
    if compiled:
        remarks.append(_compile(flow, y, found))
    often = {}
    for name, one in list(found.items()):
        first = min(timed(one.step, 1) for _ in range(2))
        often[name] = max(1, int(0.01 / first))
        if first > SLOW:
            del found[name]
    times: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(repeats):
        for name, one in found.items():
            times[name].append(timed(one.step, often[name]))
    return {name: statistics.median(t) for name, t in times.items()}, remarks


def _compile(flow: lv.Flow, y: torch.Tensor, found: dict[str, contestants.Contestant]) -> str:
    """Adds torch.compile of the reference, which unrolls the loop: its time grows with the layers."""
    if flow.layers * 0.35 > COMPILE_LIMIT:
        return f"torch.compile was left out: about a third of a second per layer, {flow.layers} layers"
    loop, weights = torch.compile(forward), found["reference"].weights
    found["torch.compile"] = contestants.Contestant(lambda: loop(y, *weights, flow.h), weights)
    return f"torch.compile took {timed(found['torch.compile'].step, 1):.0f} s"


def whole_step(layers: int, repeats: int) -> list[str]:
    """A step of the planar classifier, batch 125: lift, flow, head, loss, Adam; by hand, and as `fit` takes it."""
    x = torch.randn(125, 2)
    labels = (x[:, 0] > 0).float()
    by_hand, ours = (lv.classifier("h2", inputs=2, classes=2, features=4, layers=layers, T=1.0) for _ in range(2))
    ours.body.backprop = lv.Fused()
    field, h = by_hand.body.field, by_hand.body.h

    def step(scores: Callable[[], torch.Tensor], optimizer: torch.optim.Optimizer) -> None:
        for p in optimizer.param_groups[0]["params"]:
            p.grad = None
        F.binary_cross_entropy_with_logits(scores().squeeze(-1), labels).backward()
        optimizer.step()

    def loop() -> torch.Tensor:
        return by_hand.head(forward(by_hand.lift(x), field.K_p, field.K_q, field.b_p, field.b_q, h))

    slow, fast = torch.optim.Adam(by_hand.parameters()), Adam([{"params": list(ours.parameters()), "lr": 1e-3}])
    both = (lambda: step(loop, slow)), (lambda: step(lambda: ours(x), fast))
    often = [max(1, int(0.05 / min(timed(one, 1) for _ in range(3)))) for one in both]
    times = [[timed(one, k) for one, k in zip(both, often, strict=True)] for _ in range(repeats)]
    a, b = (statistics.median(column) for column in zip(*times, strict=True))
    return [str(layers), f"{1e6 * a:.0f}", f"{1e6 * b:.0f}", _short(a / b)]


def timed(step: Callable[[], None], often: int) -> float:
    """Seconds of one step, averaged over ``often``."""
    start = time.perf_counter()
    for _ in range(often):
        step()
    return (time.perf_counter() - start) / often


def gemm_rate(n: int = 1536) -> float:
    """GFLOP/s of torch's own matrix product, the best of thirty."""
    a, b = torch.randn(n, n), torch.randn(n, n)
    return 2e-9 * n**3 / min(timed(lambda: a @ b, 1) for _ in range(30))


def tanh_rate(count: int = 4096) -> float:
    """Billions of the kernel's tanh a second on one thread, the best of thirty."""
    x, out = torch.randn(count), torch.empty(count)
    run = library().lv_activation
    return 1e-9 * count / min(timed(lambda: run(0, 0, count, x.data_ptr(), out.data_ptr()), 1000) for _ in range(30))


def _size(text: str) -> tuple[int, int, int]:
    try:
        n, B, N = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"a size is features,batch,layers, for example 4,125,64; got {text!r}"
        ) from None
    return n, B, N


if __name__ == "__main__":
    main()
