"""How does the memory of a training step grow with depth? Peak resident memory of a fresh process for each figure.

Each figure is the highest resident memory during one step (forward, backward, gradients of all weights) over what the
process held before it, less the bytes of the gradients: what is left is states, temporaries, and what the allocator
did not give back. That last part varies from process to process (a matrix product of 512 features takes 16 MB at once,
and glibc leaves such holes behind now and then), so the least of three processes is taken for the engines whose slope
is judged, one process for the others, whose slopes are far above that. The slope is taken between the shallowest and
the deepest network, by layer, also as a share of what `Stored` keeps of a layer. The reversible packages of PyPI run
the same updates, where they are installed (``pip install revlib memcnn momentumnet revtorch``). Linux only.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

import tables
from liouville.experiments.beyond.resident import growth


class Size(NamedTuple):
    """A network and a batch: n features, images of ``side`` pixels squared or vectors."""

    features: int
    batch: int
    side: int = 0


SIZES = {
    "n = 64, batch 1024": Size(64, 1024),
    "n = 512, batch 1024": Size(512, 1024),
    "3x3 convolution, 8 x 28 x 28, batch 100": Size(8, 100, 28),
}
DEPTHS = (64, 256, 1024)
JUDGED = ("Reversible", "Fused")  # engines whose memory must not grow


def engines() -> dict[str, object]:
    import liouville as lv

    return {
        "Stored": lv.Stored(),
        "Checkpointed": lv.Checkpointed(),
        "Reversible": lv.Reversible(),
        "Reversible(compensated=True)": lv.Reversible(compensated=True),
        "Reversible(exact=True)": lv.Reversible(exact=True),
        "Reversible(anchors=64)": lv.Reversible(anchors=64),
        "Fused()": lv.Fused(),
    }


PEERS = ("torch.utils.checkpoint", "revlib", "memcnn", "momentumnet", "revtorch")


def ours(name: str, size: Size, layers: int) -> nn.Module:
    import liouville as lv

    operator = lv.Conv(3) if size.side else lv.Dense()
    return lv.zoo.h2(size.features, layers, T=1.0, operator=operator, init=lv.Normal(0.1), backprop=engines()[name])


class Half(nn.Module):
    """x -> -h K^T tanh(K x + b): one half-layer of H2 as a module of its own, as these packages want it."""

    def __init__(self, features: int, side: int, h: float) -> None:
        super().__init__()
        self.h, self.side = h, side
        self.K = nn.Parameter(0.1 * torch.randn(features, features, *(3, 3)[: 2 * bool(side)]))
        self.b = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        if not self.side:
            return -self.h * (torch.tanh(nn.functional.linear(x, self.K, self.b)) @ self.K)
        z = torch.tanh(nn.functional.conv2d(x, self.K, self.b, padding=1))
        return -self.h * nn.functional.conv_transpose2d(z, self.K, padding=1)


class Segments(nn.Module):
    """torch.utils.checkpoint over sqrt(N) segments, by hand."""

    def __init__(self, halves: list[Half]) -> None:
        super().__init__()
        self.halves = nn.ModuleList(halves)

    def forward(self, y: Tensor) -> Tensor:
        from torch.utils.checkpoint import checkpoint

        p, q = y.chunk(2, dim=1)
        every = 2 * round((len(self.halves) / 2) ** 0.5)

        def segment(first: int, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
            for i in range(first, min(first + every, len(self.halves)), 2):
                p = p + self.halves[i](q)
                q = q + self.halves[i + 1](p)
            return p, q

        for first in range(0, len(self.halves), every):
            p, q = checkpoint(segment, first, p, q, use_reentrant=False)
        return torch.cat((p, q), 1)


def peer(name: str, size: Size, layers: int) -> nn.Module:
    h, half = 1.0 / layers, size.features // 2
    if name == "momentumnet":
        from momentumnet import MomentumNet

        blocks = [Half(size.features, size.side, h) for _ in range(layers)]
        return MomentumNet(blocks, gamma=0.9, use_backprop=False)
    halves = [Half(half, size.side, h) for _ in range(2 * layers)]
    if name == "torch.utils.checkpoint":
        return Segments(halves)
    if name == "revlib":
        import revlib

        return revlib.ReversibleSequential(*halves)
    if name == "memcnn":
        import memcnn

        pairs = zip(halves[::2], halves[1::2], strict=True)
        wrap = memcnn.InvertibleModuleWrapper
        return nn.Sequential(*(wrap(memcnn.AdditiveCoupling(Fm=F, Gm=G)) for F, G in pairs))
    import revtorch

    pairs = zip(halves[::2], halves[1::2], strict=True)
    return revtorch.ReversibleSequence(nn.ModuleList([revtorch.ReversibleBlock(F, G) for F, G in pairs]))


def measure(name: str, size: Size, layers: int) -> float:
    """Bytes, in this process, which must be fresh."""
    torch.manual_seed(0)
    build: Callable[[str, Size, int], nn.Module] = ours if name in engines() else peer
    inputs = torch.randn(size.batch, size.features, *(size.side,) * (2 * bool(size.side)))
    build(name, size, 2)(inputs.clone().requires_grad_(name not in engines())).sum().backward()  # libraries and threads
    network = build(name, size, layers)
    x = inputs.clone().requires_grad_(name not in engines())  # revlib and memcnn need an input that wants a gradient
    bytes_ = growth(lambda: gradients(network, x))
    if bytes_ is None:
        raise SystemExit("this benchmark reads /proc/self/status, which this system does not have.")
    return float(bytes_)


def gradients(network: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    network(x).sum().backward()
    return [p.grad for p in network.parameters() if p.grad is not None]


def in_a_process(name: str, size: Size, layers: int) -> float | None:
    command = [sys.executable, __file__, "--one", name, json.dumps(size), str(layers)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    if done.returncode:
        print(f"{name} at {layers} layers failed: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return float(done.stdout.split()[-1])


def grown(name: str, size: Size, limit: float) -> dict[int, float]:
    """Bytes by depth; a depth is left out where the one before suggests that it would exceed the limit."""
    found: dict[int, float] = {}
    judged = name.startswith(JUDGED)
    for layers in DEPTHS:
        if found and not judged and max(found.values()) * layers / max(found) > limit * 2**30:
            break
        values = [in_a_process(name, size, layers) for _ in range(3 if judged else 1)]
        if None in values:
            break
        found[layers] = min(v for v in values if v is not None)
    return found


def slope(found: dict[int, float]) -> float:
    """Bytes by layer between the shallowest and the deepest network."""
    a, b = min(found, default=0), max(found, default=0)
    return (found[b] - found[a]) / (b - a) if a < b else float("nan")


def cells(name: str, found: dict[int, float], one_layer: float) -> list[str]:
    sizes = [f"{found[n] / 1e6:.1f}" if n in found else "-" for n in DEPTHS]
    by_layer = slope(found)
    ends = ["-", "-"] if math.isnan(by_layer) else [f"{by_layer / 1e3:.2f}", f"{100 * by_layer / one_layer:.2f} %"]
    return [name, *sizes, *ends]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=2.0, help="GiB beyond which an engine is not tried")
    parser.add_argument("--json", type=Path, help="write the records here")
    parser.add_argument("--page", type=Path, help="write the tables into this page")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, size, layers = arguments.one
        print(measure(name, Size(*json.loads(size)), int(layers)))
        return 0
    peers = [p for p in PEERS if p.startswith("torch") or importlib.util.find_spec(p)]
    records, pages, failed = [], [], False
    for title, size in SIZES.items():
        head = [title, *(f"{n} layers" for n in DEPTHS), "kB per layer", "of a layer stored"]
        names = [name for name in (*engines(), *peers) if not (name == "Fused()" and size.side)]  # no convolution
        found = {name: grown(name, size, arguments.limit) for name in names}
        one_layer = slope(found["Stored"])
        lines = [cells(name, f, one_layer) for name, f in found.items()]
        constant = [n for n in found if n.startswith(JUDGED) and "anchors" not in n]
        failed |= not all(slope(found[name]) < 0.01 * one_layer for name in constant)
        records += [{"size": title, "engine": n, "bytes": f, "per_layer": slope(f)} for n, f in found.items()]
        print(tables.plain(head, lines), "\n", flush=True)
        pages.append(tables.markdown(head, lines))
    note = (
        f"MB; torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} threads, glibc's own malloc."
    )
    print(note)
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=1))
    if arguments.page:
        tables.write(arguments.page, "memory", "\n\n".join([note, *pages]))
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
