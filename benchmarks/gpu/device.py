"""One run on a GPU: what it is, correctness, then times. Writes a line of JSON for every figure, and shows them.

    PYTHONPATH=src python benchmarks/gpu/device.py --seconds 330 --out gpu.jsonl
    TRITON_INTERPRET=1 PYTHONPATH=src python benchmarks/gpu/device.py --device cpu --small     # the script itself

Each part is guarded: what fails is written down, and the next begins. `--only kernels,times` takes some parts.
"""

import argparse
import contextlib
import copy
import json
import statistics
import sys
import time
import traceback
import warnings
from pathlib import Path

import torch

import liouville as lv
from liouville.train import Settings, fit

sys.path.insert(0, str(Path(__file__).parent))

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--device", default="cuda")
parser.add_argument("--seconds", type=float, default=330.0)
parser.add_argument("--small", action="store_true")
parser.add_argument("--only", default="")
parser.add_argument("--out", default="gpu.jsonl")
ASKED = parser.parse_args()
DEVICE = torch.device(ASKED.device)
GPU = DEVICE.type == "cuda"
START = time.monotonic()
FILE = Path(ASKED.out).open("w")  # noqa: SIM115 (open until the end)
ENGINES = (
    lv.Stored(),
    lv.Checkpointed(),
    lv.Reversible(),
    lv.Reversible(compensated=True),
    lv.Reversible(exact=True),
    lv.BatchLast(),
)


def note(part, name, **values):
    FILE.write(json.dumps({"part": part, "name": name, **values}) + "\n")
    FILE.flush()
    shown = "  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
    print(f"{time.monotonic() - START:6.1f} s  {part:8} {name:50} {shown}", flush=True)


@contextlib.contextmanager
def guarded(part, name):
    """Write down what the block puts into the dictionary, what it warned of, and how it failed."""
    found = {}
    if time.monotonic() - START > ASKED.seconds:
        note(part, name, skipped="no time left")
        found = None
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            yield found
        said = sorted({type(w.message).__name__ for w in told if isinstance(w.message, lv.DriftWarning)})
        if found is not None:
            note(part, name, **found, **({"warned": said} if said else {}))
    except Exception as error:
        note(part, name, FAILED=f"{type(error).__name__}: {str(error)[:200]}")
        FILE.write(json.dumps({"traceback": traceback.format_exc()}) + "\n")
    finally:
        if GPU:
            torch.cuda.synchronize()


def milliseconds(f, seconds=0.4):
    """The median over calls, after two that warm up."""
    f()
    f()
    times, end = [], time.monotonic() + (seconds if GPU else 0.0)
    while len(times) < 3 or (time.monotonic() < end and len(times) < 200):
        if GPU:
            a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            a.record()
            f()
            b.record()
            b.synchronize()
            times.append(a.elapsed_time(b))
        else:
            start = time.perf_counter()
            f()
            times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def graphed(f):
    """f recorded once, which raises where it waits for the device or copies from the host."""
    from liouville.train.capture import record

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            f()
    torch.cuda.current_stream().wait_stream(side)
    return record(f)


def dense(n, layers, engine=lv.Stored(), T=4.0, **more):
    return lv.zoo.h2(n, layers=layers, T=T, generator=torch.Generator().manual_seed(0), backprop=engine, **more)


def inputs(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def step_of(flow, y):
    """A step whose gradients stay where they are."""
    weights, x = list(flow.parameters()), y.clone().requires_grad_()
    places = [x, *weights]
    for p in places:
        p.grad = torch.zeros_like(p)

    def step():
        for p in places:
            p.grad.zero_()
        flow(x).square().sum().backward()

    return step


def gradients(flow, y):
    x = y.clone().requires_grad_()
    value = flow(x)
    return [value.detach(), *torch.autograd.grad(value.square().sum(), [x, *flow.parameters()])]


def off(flow, y, exact):
    """Errors of value and worst gradient, and whether two steps give the same bits."""
    found, again = gradients(flow, y), gradients(flow, y)
    errors = [
        float((a.cpu().double() - e).norm() / e.norm().clamp(min=1e-300)) for a, e in zip(found, exact, strict=True)
    ]
    same = all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    return {"value": errors[0], "gradients": max(errors[1:]), "same bits twice": same}


def machine():
    with guarded("machine", "") as found:
        found |= {"torch": torch.__version__, "device": torch.cuda.get_device_name(DEVICE) if GPU else "cpu"}
        found |= {"convolutions in TF32": torch.backends.cudnn.allow_tf32}
    size = 2**28 if GPU else 2**20
    a, b = torch.randn(size, device=DEVICE), torch.empty(size, device=DEVICE)
    small = torch.zeros(1000, device=DEVICE)

    def chain():
        for _ in range(1000):
            small.add_(1.0)

    with guarded("machine", "limits") as found:
        found["copy GB/s"] = 8e-6 * size / milliseconds(lambda: b.copy_(a))
        found["tanh G/s"] = 1e-6 * size / milliseconds(lambda: torch.tanh(a, out=b))
        found["eager us an operation"] = milliseconds(chain)  # a thousand: milliseconds are microseconds each
        if GPU:
            found["graph us an operation"] = milliseconds(graphed(chain))


@contextlib.contextmanager
def products(precision):
    torch.set_float32_matmul_precision(precision)
    with torch.backends.cudnn.flags(allow_tf32=precision == "high"):
        yield
    torch.set_float32_matmul_precision("highest")


def engines():
    """Every engine in float32 and with fast products, against the plain loop of the CPU in float64."""
    batch = 8 if ASKED.small else 256
    cases = {
        "dense n=4 N=64": (dense(4, 64), inputs(batch, 4)),
        "dense n=64 N=64": (dense(64, 16 if ASKED.small else 64), inputs(batch, 64)),
        "images n=8 N=8": (dense(8, 8, operator=lv.Conv(3), T=0.8), inputs(4, 8, 12, 12)),
    }
    for name, (flow, y) in cases.items():
        exact = gradients(copy.deepcopy(flow).double(), y.double())
        for precision in ("highest", "high"):
            for engine in ENGINES:
                if isinstance(engine, lv.BatchLast) and y.dim() == 4:
                    continue
                there = copy.deepcopy(flow).to(DEVICE).with_backprop(engine)
                with guarded("engines", f"{name} {engine!r} {precision}") as found, products(precision):
                    if found is not None:
                        found |= off(there, y.to(DEVICE), exact)


def training():
    """`fit`, recorded and not; what a set of images takes."""
    split = lv.data.load("double-moons", points=400)
    x = inputs(640 if ASKED.small else 10_000, 1, 28, 28)
    labels = torch.arange(len(x)) % 10
    noise = lv.data.Split(name="noise", x_train=x, y_train=labels, x_test=x[:500], y_test=labels[:500], classes=10)

    def planar(**more):
        return lv.classifier("h2", inputs=2, classes=2, features=4, layers=64, T=4.0, **more).to(DEVICE)

    def pictured():
        return lv.classifier("h2", (1, 28, 28), 10, (8, 16), (4, 4), 0.4, conv=lv.zoo.Images()).to(DEVICE)

    for name, make, data, batch in (("plane", planar, split, 45), ("images", pictured, noise, 500)):
        ways = ({}, {"bfloat16": True}, {"capture": True}, {"capture": True, "bfloat16": True})
        for more in ways if GPU else ways[:2]:
            with guarded("training", f"{name} {more}") as found:
                if found is None:
                    continue
                torch.manual_seed(0)
                epochs = 1 if ASKED.small else 5
                network = make()
                settings = Settings(epochs=epochs, batch_size=min(batch, len(data.x_train) // 4), **more)
                history = fit(network, data, settings)
                found |= {"loss": history.epochs[-1].loss, "s an epoch": history.epochs[-1].seconds}


def kernels():
    """The prototype: correct first, then by size, with its precision and launch."""
    import engine

    cases = [(4, 64, 1000, {"block": 32, "warps": 1}), (4, 64, 1000, {"block": 128, "warps": 4})]
    cases += [(64, 64, 1000, {"block": 64, "dot": 1, "prec": "tf32"})]
    cases += [(64, 64, 1000, {"block": 32, "dot": 1, "prec": "tf32x3"}), (64, 64, 1000, {"block": 64, "dot": 2})]
    if not GPU:
        cases = [(4, 3, 20, {"block": 16})]
    for n, layers, batch, how in cases:
        flow, y = dense(n, layers, T=min(4.0, layers / 16)), inputs(batch, n)
        exact = gradients(copy.deepcopy(flow).double(), y.double())
        with guarded("kernels", f"n={n} N={layers} B={batch} {how}") as found:
            if found is not None:
                found |= off(flow.to(DEVICE).with_backprop(engine.Prototype(**how)), y.to(DEVICE), exact)
    sizes = ((4, 64, 1024), (4, 1024, 1024), (4, 64, 65536), (16, 64, 65536), (64, 64, 1024), (64, 64, 65536))
    for n, layers, batch in (*sizes, (64, 1024, 1024), (128, 64, 8192)) if GPU else ():
        hows = [{"block": 32, "warps": 1}, {"block": 128, "warps": 4}] if n < 32 else []
        hows += [{"block": 64, "dot": 1, "prec": "tf32"}, {"block": 64, "dot": 2}] if n >= 32 else []
        hows += [{"block": 32, "dot": 1, "prec": "tf32x3"}] if n == 64 else []
        for how in hows:
            with guarded("kernels", f"time n={n} N={layers} B={batch} {how}") as found:
                if found is None:
                    continue
                step = step_of(
                    dense(n, layers).to(DEVICE).with_backprop(engine.Prototype(**how)), inputs(batch, n).to(DEVICE)
                )
                found |= {"ms": milliseconds(step)}


def times():
    """The engines, and the plain loop as a graph: what the prototype has to beat."""
    sizes = [(4, 64, 125), (4, 64, 65536), (4, 1024, 1024), (16, 64, 65536), (64, 64, 1024), (64, 64, 65536)]
    sizes += [(64, 1024, 1024), (128, 64, 8192)]
    for n, layers, batch in [(4, 8, 16)] if ASKED.small else sizes:
        flow, y = dense(n, layers).to(DEVICE), inputs(batch, n).to(DEVICE)
        for engine in ENGINES if layers < 1000 else ENGINES[:1]:
            with guarded("times", f"n={n} N={layers} B={batch} {engine!r}") as found:
                if found is not None:
                    found |= {"ms": milliseconds(step_of(flow.with_backprop(engine), y))}
        for precision in ("highest", "high") if GPU else ():
            with guarded("times", f"n={n} N={layers} B={batch} Stored() graphed {precision}") as found:
                if found is not None:
                    with products(precision):
                        found |= {"ms": milliseconds(graphed(step_of(flow, y)))}


PARTS = {"machine": machine, "engines": engines, "kernels": kernels, "times": times, "training": training}
for part, run in PARTS.items():
    if not ASKED.only or part in ASKED.only.split(","):
        with guarded(part, "whole") as whole:
            run()
