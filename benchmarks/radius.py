"""How large is a certified radius beside the distance to the nearest input of another class, and what does it cost?

Trains networks by the library's recipes and compares, on held-out inputs in float64, the local and the global radius
with the nearest flip that a search found: rays in the plane refined by bisection, else steps towards the boundary from
several starts. Gradient steps try to break every radius. With --write the table goes into docs/certificates.md, one
for each --start: weights as drawn, or scaled to the final time as `liouville train` starts by default.
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
from liouville.runs import recipe
from tables import markdown, plain, write

PAGE = Path(__file__).parent.parent / "docs" / "certificates.md"
# data, model, features, layers, T, lift, budget, activation, seed
CASES = {
    "default Swiss roll": ("swiss-roll", "h2", 4, 64, 4.0, None, None, "tanh", 0),
    "the same, seed 1": ("swiss-roll", "h2", 4, 64, 4.0, None, None, "tanh", 1),
    "relu": ("swiss-roll", "h2", 4, 64, 4.0, None, None, "relu", 0),
    "forward Euler, h1": ("swiss-roll", "h1", 4, 64, 4.0, None, None, "tanh", 0),
    "ms1, 8 features": ("swiss-roll", "ms1", 8, 64, 4.0, None, None, "tanh", 0),
    "8 features, 16 layers, budget 20": ("swiss-roll", "h2", 8, 16, 4.0, "linear", 20.0, "tanh", 0),
    "peaks, 5 classes": ("peaks", "h2", 8, 64, 3.0, None, None, "tanh", 0),
    "digits, 10 classes": ("digits", "h2", 64, 8, 1.0, None, None, "tanh", 0),
    "32 features": ("swiss-roll", "h2", 32, 64, 4.0, "linear", None, "tanh", 0),
}
STARTS = {"drawn": lv.Smooth(action=None), "scaled": lv.Smooth()}
HEAD = [
    "network",
    "global",
    "local",
    "nearest flip",
    "local / flip: median, least, most",
    "inputs, changed",
    "a second",
]


def trained(case: tuple, start: str) -> tuple[lv.Network, lv.data.Split]:
    """The network of a case from weights as they are ``"drawn"`` or ``"scaled"``, and its data."""
    data, model, n, layers, T, lift, budget, activation, seed = case
    split = lv.data.load(data, seed=seed)
    init = STARTS[start]
    builder = functools.partial(getattr(lv.zoo, model), activation=activation, init=init)
    g = torch.Generator().manual_seed(seed)
    network = lv.classifier(
        builder, split.x_train.shape[1], split.classes, n, layers, T, lift=lift, budget=budget, generator=g,
        backprop=lv.Auto(),
    )  # fmt: skip
    lv.train.fit(network, split, replace(recipe(data).settings, seed=seed), test=False)
    for flow in network.flows():
        flow.backprop = lv.Stored()
    return network.double().eval().requires_grad_(False), split


def on_rays(network: nn.Module, x: Tensor, local: Tensor, rays: int = 180, steps: int = 36) -> Tensor:
    """The distance of the nearest flip in the plane, from half the radius outwards, (B,); inf where no ray met one."""
    angle = 2 * torch.pi * torch.arange(rays, dtype=x.dtype) / rays
    ray = torch.stack((angle.cos(), angle.sin()), 1)
    own, found = classes_of(network(x)), torch.full((len(x),), torch.inf, dtype=x.dtype)
    before, unit = torch.zeros_like(found), local.clamp(min=1e-4)
    for share in (0.5, 0.9, 0.999, *torch.logspace(0.01, 1.6, steps).tolist()):
        (open_,) = found.isinf().nonzero(as_tuple=True)
        points = x[open_, None] + (share * unit[open_, None, None] * ray)
        flips = (classes_of(network(points.flatten(0, 1))) != own[open_].repeat_interleave(rays)).view(-1, rays)
        sample, which = flips.nonzero(as_tuple=True)
        sample = open_[sample]
        low, high = before[sample], (share * unit)[sample]
        for _ in range(24 if len(sample) else 0):
            middle = 0.5 * (low + high)
            other = classes_of(network(x[sample] + middle[:, None] * ray[which])) != own[sample]
            low, high = torch.where(other, low, middle), torch.where(other, middle, high)
        found.scatter_reduce_(0, sample, high, "amin")
        before = share * unit
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


def row(name: str, count: int, start: str) -> list[str]:
    network, split = trained(CASES[name], start)
    order = torch.randperm(len(split.x_test), generator=torch.Generator().manual_seed(1))
    x = split.x_test[order[:count]].double()
    seconds = []
    for _ in range(3):
        began = time.process_time()
        local = certified_radius(network, x, "local")
        seconds.append(time.process_time() - began)
    rate = len(x) / min(seconds)
    wide = certified_radius(network, x, "global")
    with torch.no_grad():
        flip = on_rays(network, x, local) if x.shape[1] == 2 else by_steps(network, x, local)
        changed = attacked(network, x, local).flips
    share = (local / flip)[flip.isfinite()]
    assert not (local > flip).any(), "a flip was found inside a certified radius"
    shares = f"{share.median():.3f}, {share.min():.3f}, {share.max():.3f}"
    return [name, f"{wide.median():.1e}", f"{local.median():.2e}", f"{flip.median():.2e}", shares,
            f"{len(x)}, {changed}", f"{rate:.0f}"]  # fmt: skip


def drawn(seed: int) -> tuple[lv.Network, Tensor]:
    """A random network in float32 or float64, of any kind that the local method knows, and 64 inputs."""
    g = torch.Generator().manual_seed(seed)

    def one(*choices):
        return choices[int(torch.randint(len(choices), (), generator=g))]

    name, n, inputs, classes = one("h2", "ms1", "ms3", "h1", "ms2", "budget"), one(4, 6), one(2, 3), one(2, 3, 5)
    builder = getattr(lv.zoo, "h2" if name == "budget" else name)
    flow = builder(n, one(2, 6, 12), one(0.5, 1.5), activation=one("tanh", "relu", "softplus", "logistic"),
                   init=lv.Normal(one(0.1, 0.5, 1.0, 3.0)), generator=g)  # fmt: skip
    flow = lv.budgeted(flow, 3.0) if name == "budget" else flow
    torch.manual_seed(seed)
    lift = one(nn.Linear(inputs, n), lv.Lift(n, inputs))
    network = lv.Network(lift, flow, nn.Linear(n, 1 if classes == 2 else classes)).to(one(torch.float32, torch.float64))
    x = torch.randn(64, inputs, generator=g).to(next(network.parameters()).dtype)
    with torch.no_grad():  # scores about 0, so that there are boundaries to find
        network.head.bias -= network(x).median(0).values
    return network.eval().requires_grad_(False), x


def attacks(count: int) -> str:
    """Attack that many inputs with a radius, of random networks, within it, and as a check of the attack beyond it."""
    inputs = networks = flips = beyond = 0
    while inputs < count:
        network, x = drawn(networks)
        radius = certified_radius(network, x, "local")
        x, radius = x[radius > 0], radius[radius > 0]
        inputs, networks = inputs + len(x), networks + 1
        if len(x):
            flips += attacked(network, x, radius).flips
            beyond += attacked(network, x, 4 * radius).flips > 0
        if networks % 20 == 0:
            print(f"{networks} networks, {inputs} inputs, {flips} flips", flush=True)
    return (
        f"{inputs} inputs of {networks} random networks, each attacked by 8 random directions and 10 gradient steps at "
        f"0.999 of its local radius: {flips} changed predictions. At 4 times the radius the same attack changes "
        f"predictions of {beyond} of the networks."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=64, help="Held-out inputs of each network.")
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES), help="Names of networks.")
    parser.add_argument("--start", choices=list(STARTS), default="drawn", help="Initial weights.")
    parser.add_argument("--attacks", action="store_true", help="Attack --count inputs of random networks instead.")
    parser.add_argument("--write", action="store_true", help="Put the result into docs/certificates.md.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.attacks:
        result = attacks(options.count)
        print(result)
        if options.write:
            write(PAGE, "attacks", result)
        return
    rows = []
    for name in options.only:
        rows.append(row(name, options.count, options.start))
        print("  ".join(rows[-1]), flush=True)
        if options.write:
            write(PAGE, f"radius {options.start}", markdown(HEAD, rows))
    print(plain(HEAD, rows))


if __name__ == "__main__":
    main()
