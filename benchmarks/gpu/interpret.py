"""The kernels under Triton's interpreter, on the CPU, against `lv.Stored` in float64; exit 1 where one is too far.

pip install --no-deps triton==3.7.1          (some 200 MB; a GPU is not needed)
PYTHONPATH=src python benchmarks/gpu/interpret.py
"""

import copy
import os
import sys
import time
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import torch
from engine import Prototype

import liouville as lv

torch.set_num_threads(1)
SINGLE, DOUBLE = torch.float32, torch.float64


def _generator(seed):
    return torch.Generator().manual_seed(seed)


def _h2(n, layers, scheme=None, **more):
    field = lv.SeparableHamiltonianField(n, layers, init=lv.Normal(0.7 / n**0.5), generator=_generator(0), **more)
    return lv.Flow(field, scheme or lv.SymplecticEuler(), T=0.1 * layers)


def _of(field, scheme):
    return lv.Flow(field, scheme, T=0.1 * field.layers)


def _pair(n, layers, scheme, **more):
    return _of(lv.PairField(n, layers, init=lv.Normal(0.3), generator=_generator(0), **more), scheme)


# what -> (flow, samples, dtype, settings of the launch, how far the worst gradient may be off in float64's norm)
CASES = {
    "h2 n=4 Euler": (_h2(4, 12), 37, DOUBLE, {"block": 16}, 1e-14),
    "h2 n=4 Verlet, three programs, chunks of one layer": (
        _h2(4, 5, lv.Verlet()), 37, DOUBLE, {"block": 8, "programs": 3, "slots": 400}, 1e-14,
    ),
    "h2 n=4 Yoshida 4": (_h2(4, 4, lv.Yoshida4()), 20, DOUBLE, {"block": 16}, 1e-14),
    "h2 n=4 relu, X = 2, shared": (_h2(4, 6, activation="relu", X=2.0, shared=True), 37, DOUBLE, {"block": 16}, 1e-14),
    "h2 n=32 dot": (_h2(32, 4), 20, DOUBLE, {"block": 16, "dot": 1}, 1e-14),
    "pair n=8 Euler": (_pair(8, 6, lv.SymplecticEuler()), 20, DOUBLE, {"block": 16}, 1e-14),
    "pair n=6, halves of 4 and 2, Verlet": (_pair(6, 5, lv.Verlet(), p_features=4), 20, DOUBLE, {"block": 16}, 1e-14),
    "pair n=4 Yoshida 4": (_pair(4, 3, lv.Yoshida4()), 20, DOUBLE, {"block": 16}, 1e-14),
    "h1 n=4 forward Euler, chunks": (
        _of(lv.HamiltonianField(4, 6, generator=_generator(0)), lv.ForwardEuler()), 20, DOUBLE,
        {"block": 8, "programs": 2, "slots": 900}, 1e-14,
    ),
    "antisymmetric n=8, gamma": (
        _of(lv.AntisymmetricField(8, 5, gamma=0.3, generator=_generator(0)), lv.ForwardEuler()), 20, DOUBLE,
        {"block": 16}, 1e-14,
    ),
    "residual n=4 relu": (
        _of(lv.ResidualField(4, 5, activation="relu", generator=_generator(0)), lv.ForwardEuler()), 20, DOUBLE,
        {"block": 16}, 1e-14,
    ),
    "h2 n=4, float32": (_h2(4, 12), 37, SINGLE, {"block": 16}, None),
    "h2 n=64 dot, float32": (_h2(64, 8), 32, SINGLE, {"block": 16, "dot": 1}, None),
    "h2 n=64 products of tf32, imitated": (_h2(64, 8), 64, SINGLE, {"block": 64, "dot": 11}, 2e-3),
    "h2 n=64 products of bf16, imitated": (_h2(64, 8), 64, SINGLE, {"block": 64, "dot": 12}, 3e-2),
}  # fmt: skip


def _step(flow, y, weight):
    y = y.clone().requires_grad_()
    value = flow(y)
    return [value.detach(), *torch.autograd.grad((value * weight).sum(), [y, *flow.parameters()])]


def _off(found, exact):
    """The value's error and the worst gradient's, relative to their norms."""
    errors = [float((a.double() - b).norm() / b.norm().clamp(min=1e-300)) for a, b in zip(found, exact, strict=True)]
    return errors[0], max(errors[1:])


def main():
    failed = 0
    for name, (flow, batch, dtype, how, bearable) in CASES.items():
        if sys.argv[1:] and not any(word in name for word in sys.argv[1:]):
            continue
        y = torch.randn(batch, flow.field.features, generator=_generator(1), dtype=DOUBLE)
        weight = torch.randn(batch, flow.field.features, generator=_generator(2), dtype=DOUBLE)
        exact = _step(copy.deepcopy(flow).double().with_backprop(lv.Stored()), y, weight)
        own = copy.deepcopy(flow).to(dtype)
        stored = _off(_step(own.with_backprop(lv.Stored()), y.to(dtype), weight.to(dtype)), exact)
        start = time.perf_counter()
        value, gradient = _off(_step(own.with_backprop(Prototype(**how)), y.to(dtype), weight.to(dtype)), exact)
        seconds = time.perf_counter() - start
        worst = 3 * max(stored) if bearable is None else bearable
        wrong = not max(value, gradient) <= worst
        failed += wrong
        said = "TOO FAR" if wrong else "ok"
        print(
            f"{name:52} value {value:.1e} gradient {gradient:.1e} (Stored {stored[0]:.1e} {stored[1]:.1e}) "
            f"{seconds:5.1f} s  {said}",
            flush=True,
        )
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
