"""How large is a certified radius beside the distance to the nearest input of another class, and what does it cost?

Trains networks by the library's recipes and compares, on held-out inputs in float64, the local and the global radius
with the nearest flip that a search found: rays in the plane refined by bisection, else steps towards the boundary from
several starts. Gradient steps try to break every radius. With --write the table goes into docs/certificates.md.
"""

from __future__ import annotations

import argparse
import functools
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

import liouville as lv
from liouville.analysis import certified_radius
from liouville.analysis.attack import attacked, classes_of
from liouville.recipes import recipe
from tables import markdown, plain, write

PAGE = Path(__file__).parent.parent / "docs" / "certificates.md"
# data, model, features, layers, T, lift, budget, activation, seed
CASES = {
    "default Swiss roll": ("swiss-roll", "h2", 4, 64, 4.0, None, None, "tanh", 0),
    "the same, seed 1": ("swiss-roll", "h2", 4, 64, 4.0, None, None, "tanh", 1),
    "relu": ("swiss-roll", "h2", 4, 64, 4.0, None, None, "relu", 0),
    "forward Euler, h1": ("swiss-roll", "h1", 4, 64, 4.0, None, None, "tanh", 0),
    "ms1, 8 features": ("swiss-roll", "ms1", 8, 64, 4.0, None, None, "tanh", 0),
    "32 features": ("swiss-roll", "h2", 32, 64, 4.0, "linear", None, "tanh", 0),
    "8 features, 16 layers, budget 20": ("swiss-roll", "h2", 8, 16, 4.0, "linear", 20.0, "tanh", 0),
    "peaks, 5 classes": ("peaks", "h2", 8, 64, 3.0, None, None, "tanh", 0),
    "digits, 10 classes": ("digits", "h2", 64, 8, 1.0, None, None, "tanh", 0),
}
HEAD = [
    "network",
    "global",
    "local",
    "nearest flip",
    "local / flip: median, least, most",
    "inputs, changed",
    "a second",
]


def trained(case: tuple) -> tuple[lv.Network, lv.data.Split]:
    data, model, n, layers, T, lift, budget, activation, seed = case
    split = lv.data.load(data, seed=seed)
    builder = functools.partial(getattr(lv.zoo, model), activation=activation)
    g = torch.Generator().manual_seed(seed)
    network = lv.classifier(
        builder, split.x_train.shape[1], split.classes, n, layers, T, lift=lift, budget=budget, generator=g,
        backprop=lv.Auto(),
    )  # fmt: skip
    lv.train.fit(network, split, replace(recipe(data).settings, seed=seed), test=False)
    for flow in network.flows():
        flow.backprop = lv.Stored()
    return network.double().eval().requires_grad_(False), split


def on_rays(network: nn.Module, x: Tensor, furthest: Tensor, rays: int = 180, steps: int = 40) -> Tensor:
    """The distance of the nearest flip in the plane, (B,); inf where no ray met one."""
    angle = 2 * torch.pi * torch.arange(rays, dtype=x.dtype) / rays
    ray = torch.stack((angle.cos(), angle.sin()), 1)
    own, found = classes_of(network(x)), torch.full((len(x),), torch.inf, dtype=x.dtype)
    shares = torch.logspace(-2.5, 0, steps, dtype=x.dtype)
    for i in range(len(x)):
        far = furthest[i] * shares
        points = (x[i] + far[:, None, None] * ray).reshape(-1, 2)
        flips = (classes_of(network(points)) != own[i]).view(steps, rays)
        if not flips.any():
            continue
        k = int(flips.any(1).float().argmax())
        rays_there = ray[flips[k]]
        low = torch.full((len(rays_there),), float(far[k - 1]) if k else 0.0, dtype=x.dtype)
        high = torch.full_like(low, float(far[k]))
        for _ in range(24):
            middle = 0.5 * (low + high)
            other = classes_of(network(x[i] + middle[:, None] * rays_there)) != own[i]
            low, high = torch.where(other, low, middle), torch.where(other, middle, high)
        found[i] = high.min()
    return found


def by_steps(network: nn.Module, x: Tensor, scale: Tensor, starts: int = 5, steps: int = 40) -> Tensor:
    """The distance of the nearest flip found by steps onto the linearised boundary, drawn back to x; (B,)."""
    own, found = classes_of(network(x)), torch.full((len(x),), torch.inf, dtype=x.dtype)
    generator = torch.Generator().manual_seed(0)
    for start in range(starts):
        away = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        z = x + start / starts * scale[:, None] * away / away.norm(dim=1, keepdim=True)
        for _ in range(steps):
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                scores = network(z)
                mine = scores.gather(1, own[:, None])[:, 0]
                ahead = mine - scores.scatter(1, own[:, None], -torch.inf).amax(1)
                (slope,) = torch.autograd.grad(ahead.sum(), z)
            z = z.detach()
            flipped, size = classes_of(scores) != own, slope.square().sum(1).clamp(min=1e-30)
            found = torch.where(flipped, torch.minimum(found, (z - x).norm(dim=1)), found)
            onto = z - (1.02 * ahead.detach() / size)[:, None] * slope
            direct = x - (1.02 * (ahead.detach() + (slope * (x - z)).sum(1)) / size)[:, None] * slope
            z = torch.where(flipped[:, None], x + 0.9 * (z - x), 0.7 * onto + 0.3 * direct)
    return found


def row(name: str, count: int) -> list[str]:
    network, split = trained(CASES[name])
    order = torch.randperm(len(split.x_test), generator=torch.Generator().manual_seed(1))
    x = split.x_test[order[:count]].double()
    start = time.process_time()
    local = certified_radius(network, x, "local")
    rate = len(x) / (time.process_time() - start)
    wide = certified_radius(network, x, "global")
    with torch.no_grad():
        flip = on_rays(network, x, (40 * local).clamp(1e-3, 3.0)) if x.shape[1] == 2 else by_steps(network, x, local)
        changed = attacked(network, x, local).flips
    share = (local / flip)[flip.isfinite()]
    assert not (local > flip).any(), "a flip was found inside a certified radius"
    shares = f"{share.median():.3f}, {share.min():.3f}, {share.max():.3f}"
    return [name, f"{wide.median():.1e}", f"{local.median():.2e}", f"{flip.median():.2e}", shares,
            f"{len(x)}, {changed}", f"{rate:.0f}"]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=80, help="Held-out inputs of each network.")
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES), help="Names of networks.")
    parser.add_argument("--write", action="store_true", help="Put the table into docs/certificates.md.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in options.only:
        rows.append(row(name, options.count))
        print("  ".join(rows[-1]), flush=True)
    print(plain(HEAD, rows))
    if options.write:
        write(PAGE, "radius", markdown(HEAD, rows))


if __name__ == "__main__":
    main()
