"""Does a certificate claim anything that is false, of networks that are not what they seem?

Each case draws a network (ten kinds, dense and images, all activations, float32 and float64, weights of 1e-6 to 1e8,
one to four classes, budgets) and twists it: a subclass that computes something else everywhere or far away only, a
scheme with a step, an inverse or constants of its own, an operator or an activation that lies, a hook, something
replaced on an object, a subclass of nn.Linear, Network or Flow, a NaN in the head. Every claim that passes is then
tested by means of its own, at states near and far: autograd through the steps, difference quotients, steepest attacks.
"""

from __future__ import annotations

import copy
import random
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from sweep import Outcome, run
from torch import Tensor, nn
from twists import TWISTS

import liouville as lv
from liouville.analysis import Claim, certify
from liouville.backprop import slices

KINDS = ("h1", "h2", "ms1", "ms2", "ms3", "antisymmetric", "verlet", "leapfrog", "midpoint", "resnet")
OTHERS = {
    "h1": (lv.ImplicitMidpoint(), lv.RK4(), lv.ImplicitSymplecticEuler()),
    "h2": (lv.Verlet(), lv.Yoshida4(), lv.ForwardEuler(), lv.RK4()),
    "ms1": (lv.Verlet(), lv.Yoshida4(), lv.ForwardEuler()),
    "ms2": (lv.ImplicitMidpoint(), lv.RK4(), lv.Midpoint()),
    "resnet": (lv.RK4(), lv.Midpoint(), lv.ImplicitMidpoint()),
}
SIZES = (1e-6, 0.1, 1.0, 1.0, 1.0, 3.0, 30.0, 1e4, 1e8)
FAR = (0.3, 1.0, 5.0, 30.0, 300.0)
APART = (1e-1, 1e-3, 1e-5)
passed = Counter[str]()


def network(g: random.Random) -> tuple[lv.Network, Tensor, str]:
    """A network, inputs for it, and both in words."""
    kind, sigma = g.choice(KINDS), g.choice(("tanh", "relu", "softplus", "logistic"))
    layers, T, classes, size = g.choice((1, 2, 4)), g.choice((0.1, 0.5, 2.0)), g.choice((2, 3, 4)), g.choice(SIZES)
    dtype, images = g.choice((torch.float32, torch.float64)), g.random() < 0.12
    torch.manual_seed(g.randrange(2**31))
    if images:
        kind = g.choice(("h1", "h2", "ms1", "ms2"))
        flow = lv.zoo.MODELS[kind](4, layers, T, activation=sigma, operator=lv.Conv(3), init=lv.Normal(0.2))
        head = nn.Sequential(nn.Flatten(), nn.Linear(64, 1 if classes == 2 else classes))
        net = lv.Network(nn.Conv2d(1, 4, 3, padding=1), flow, head)
        x = torch.randn(4, 1, 4, 4)
    else:
        more: dict[str, Any] = {"gamma": g.choice((0.0, 0.3))} if kind in ("ms2", "antisymmetric", "midpoint") else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            flow = lv.zoo.MODELS[kind](4, layers, T, activation=sigma, init=lv.Normal(0.7), **more)
            if kind in OTHERS and g.random() < 0.5:
                flow = lv.Flow(flow.field, g.choice(OTHERS[kind]), T)
            if g.random() < 0.15 and kind in ("h1", "h2", "ms1") and not more:
                flow = _budgeted(flow)
        lift = nn.Linear(2, 4) if g.random() < 0.5 else lv.Lift(4, 2)
        net = lv.Network(lift, flow, nn.Linear(4, 1 if classes == 2 else classes))
        x = torch.randn(4, 2)
    with torch.no_grad():
        for p in net.body.parameters():
            p.mul_(size if p.dim() > 2 else 1.0)
    words = f"{'image ' * images}{kind} {sigma}, {layers} layers, T {T}, weights x {size:g}, {dtype}, {net.body}"
    return net.to(dtype).eval(), (g.choice((0.1, 1.0, 6.0)) * x).to(dtype), words.replace("\n", " ")


def _budgeted(flow: lv.Flow) -> lv.Flow:
    try:
        return lv.budgeted(flow, 5.0)
    except ValueError:
        return flow


def case(g: random.Random) -> Outcome:
    net, x, words = network(g)
    twist = g.choice(("none", *TWISTS))
    if twist != "none":
        net = TWISTS[twist](net, g) or net
    words = f"{twist}: {words}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            certificate = certify(net, x)
    except (ValueError, NotImplementedError, TypeError) as error:
        return Outcome("refused", f"{words}: {error}")
    wrong = []
    for claim in certificate.claims:
        if claim.status == "pass":
            passed[claim.name] += 1
            why = _false(claim, net, x)
            wrong += [f"{claim.name}: {why}"] if why else []
    return Outcome("wrong" if wrong else "right", f"{words}: {'; '.join(wrong)}")


# --- the oracle


def _false(claim: Claim, net: lv.Network, x: Tensor) -> str:
    """Why a claim that passes is not true, as far as can be seen."""
    net = copy.deepcopy(net).eval()
    if claim.name == "finite network":
        bad = [name for name, t in (*net.named_parameters(), *net.named_buffers()) if not t.isfinite().all()]
        return f"{bad} are not finite" if bad else ""
    if claim.name == "robustness radius":
        return _attacked(claim, net, x)
    if claim.name == "finite":
        return "" if all(p.isfinite().all() for p in net.body.parameters()) else "a weight is not finite"
    try:
        return _CHECKS[claim.name](claim, Truth(net, x))
    except ArithmeticError:  # an implicit layer without a solution: nothing to be seen there
        return ""


class Truth:
    """A flow in float64, states near and far in front of layer 0, and what autograd and differences say of it."""

    def __init__(self, net: lv.Network, x: Tensor) -> None:
        self.own, self.given = net.body, _entering(net, x)
        self.flow, y = copy.deepcopy(net.body).double(), self.given.double()
        noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).double()
        self.far = torch.cat([y, *(size * noise for size in FAR)])
        try:
            self.states(self.far)
        except ArithmeticError:  # implicit layers without a solution there
            self.far = y
        self.thetas = list(slices(self.flow.field.theta(), self.flow.layers))

    def states(self, y: Tensor) -> list[tuple[Tensor, ...]]:
        with torch.no_grad():
            found = [tuple(p.detach() for p in state) for state in self.flow.states(y)]
        return [s for s in found if all(p.isfinite().all() for p in s)]

    def through(self, first: int, last: int) -> Callable[[Tensor], Tensor]:
        """Flat states in front of layer ``first`` to flat states behind layer ``last - 1``."""
        shapes = [p.shape[1:] for p in next(iter(self.flow.states(self.given.double())))]

        def function(flat: Tensor) -> Tensor:
            parts = flat.split([s.numel() for s in shapes], -1)
            state = tuple(p.reshape(len(flat), *s) for p, s in zip(parts, shapes, strict=True))
            for j in range(first, last):
                state = self.flow.scheme.step(self.flow.field.at_layer(j), state, self.thetas[j], self.flow.h)
            return torch.cat([p.flatten(1) for p in state], -1)

        return function

    @torch.enable_grad()
    def matrices(self, first: int, last: int, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Jacobians at every state that stays finite, (S, n, n), and the flat states."""
        state = self.states(self.far if y is None else y)[first]
        flat = torch.cat([p.flatten(1) for p in state], -1)
        n = flat.shape[1]
        repeated = flat.repeat_interleave(n, 0).requires_grad_()
        out = self.through(first, last)(repeated)
        units = torch.eye(n, dtype=flat.dtype).repeat(len(flat), 1)
        (rows,) = torch.autograd.grad(out, repeated, units, allow_unused=True, materialize_grads=True)
        A = rows.detach().unflatten(0, (len(flat), n))
        fine = A.flatten(1).isfinite().all(1)
        return A[fine], flat[fine]

    def quotients(self, first: int) -> tuple[Tensor, Tensor]:
        """How much the map from layer ``first`` on parts two states, and how far that is off by rounding."""
        state = self.states(self.far)[first]
        flat = torch.cat([p.flatten(1) for p in state], -1)
        f, g = self.through(first, self.flow.layers), torch.Generator().manual_seed(2)
        ratios, rounding = [], []
        with torch.no_grad():
            for apart in APART:
                step = torch.randn(flat.shape, generator=g).double()
                there = flat + apart * step / step.norm(dim=1, keepdim=True)
                a, b, gap = f(flat), f(there), (there - flat).norm(dim=1)
                ratios.append((a - b).norm(dim=1) / gap)
                eps = 1e3 * torch.finfo(torch.float64).eps
                rounding.append(eps * (1 + a.norm(dim=1) + flat.norm(dim=1)) * (1 + ratios[-1]) / gap)
        found, off = torch.cat(ratios), torch.cat(rounding)
        fine = found.isfinite() & off.isfinite()
        return found[fine], off[fine]


def _entering(net: lv.Network, x: Tensor) -> Tensor:
    seen: list[Tensor] = []
    with torch.no_grad(), net.body.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach())):
        net(x)
    return seen[0]


def _lower(_: Claim, t: Truth) -> str:
    for first in {0, t.flow.layers // 2}:
        values = torch.linalg.svdvals(t.matrices(first, t.flow.layers)[0])[:, 0]
        if len(values) and float(values.min()) < 1 - 1e-6:
            return f"a norm of {float(values.min()):.9g} from layer {first} on"
    return ""


def _layers(claim: Claim, t: Truth) -> str:
    for j in range(t.flow.layers):
        values = torch.linalg.svdvals(t.matrices(j, j + 1)[0])
        if not len(values):
            continue
        log_det = values.log().sum(-1)
        slack = 1e-7 + 1e3 * torch.finfo(torch.float64).eps * values.shape[-1] * values[:, 0] / values[:, -1]
        off = torch.maximum(-log_det, log_det) if claim.route != "det >= 1" else -log_det
        if bool((off > slack).any()):
            return f"log |det| of {float(log_det[(off - slack).argmax()]):.3g} in layer {j}"
    return ""


def _upper(claim: Claim, t: Truth) -> str:
    return _beyond(t, claim.bound["U"], both=False)


def _singular(claim: Claim, t: Truth) -> str:
    return _beyond(t, claim.bound["largest"], both=True)


def _budget(claim: Claim, t: Truth) -> str:
    return _beyond(t, claim.bound["C"], both=isinstance(t.flow.scheme, lv.SplittingScheme))


def _beyond(t: Truth, U: float, both: bool) -> str:
    for first in {0, t.flow.layers // 2}:
        values = torch.linalg.svdvals(t.matrices(first, t.flow.layers)[0])
        ratios, off = t.quotients(first)
        if len(values) and float(values.max()) > U * (1 + 1e-6):
            return f"a norm of {float(values.max()):.6g} beyond {U:.6g}"
        if bool((ratios - off > U * (1 + 1e-6)).any()):
            return f"two states part by {float((ratios - off).max()):.6g}, beyond {U:.6g}"
        rounding = 1e-10 * float(values.max()) if len(values) else 0.0
        if both and len(values) and float(values.min()) < (1 - 1e-6) / U - rounding:
            return f"a singular value of {float(values.min()):.6g} below 1/{U:.6g}"
        if both and bool((ratios + off < (1 - 1e-6) / U).any()):
            return f"two states approach by {float((ratios + off).min()):.6g}, below 1/{U:.6g}"
    return ""


def _inverse(claim: Claim, t: Truth) -> str:
    everywhere = claim.statement.startswith("every layer")
    flow, y = (t.flow, t.far) if everywhere else (t.own, t.given)
    thetas = list(slices(flow.field.theta(), flow.layers))
    with torch.no_grad():
        states = list(flow.states(y))
        for j, theta_j in enumerate(thetas):
            if not all(p.isfinite().all() for p in states[j + 1]):
                break
            back = flow.scheme.inverse(flow.field.at_layer(j), states[j + 1], theta_j, flow.h)
            size = max(float(p.abs().max()) for p in (*states[j], *states[j + 1]))
            A, _ = t.matrices(j, j + 1)
            values = torch.linalg.svdvals(A)  # the least ones drown in rounding where the largest are huge
            worst = float(torch.maximum(values[:, 0], values[:, -1].reciprocal()).max()) if len(A) else 1.0
            allowed = 1e5 * torch.finfo(y.dtype).eps * (1 + worst) * size
            off = max(float((a - b).abs().max()) for a, b in zip(back, states[j], strict=True))
            if not off <= allowed and allowed < size:
                return f"layer {j} undone is {off:.3g} off, of {size:.3g}"
    return ""


def _step_size(claim: Claim, t: Truth) -> str:
    if claim.route == "measured":
        for j in range(t.flow.layers):
            A, _ = t.matrices(j, j + 1, t.given.double())
            growth = float(torch.linalg.eigvals(A).abs().max()) if len(A) else 0.0
            if growth > 1 + 1e-3:
                return f"a mode grows by {growth:.6g} in layer {j}"
        return ""
    if t.own.field.feature_axis != -1 or isinstance(t.own.field, lv.SecondOrderField):
        return ""
    y = t.far.detach()
    for theta_j in t.thetas:
        f = lambda z, w=theta_j: t.flow.field(z, w)  # noqa: E731
        A = torch.stack([torch.autograd.functional.jacobian(f, z[None])[0, :, 0] for z in y[:8]])
        rate = t.flow.h * float(torch.linalg.eigvals(A).abs().max())
        if rate > claim.bound["limit"] * (1 + 1e-6):
            return f"h x rate {rate:.4g} beyond {claim.bound['limit']:.4g}"
    return ""


def _attacked(claim: Claim, net: lv.Network, x: Tensor) -> str:
    """Random and steepest steps within the radius; of the network as it runs, or in float64 where that is claimed."""
    if "exact arithmetic" in claim.statement:
        net, x = net.double(), x.double()
    radius = lv.analysis.certified_radius(net, x).to(x)
    shape = (-1, *(1,) * (x.dim() - 1))
    far, g = (0.999 * radius.clamp(max=1e6)).view(shape), torch.Generator().manual_seed(3)

    def classes(z: Tensor) -> Tensor:
        s = net(z)
        return (s >= 0).squeeze(-1).long() if s.shape[-1] == 1 else s.argmax(-1)

    def unit(z: Tensor) -> Tensor:
        return z / z.flatten(1).norm(dim=1).clamp(min=1e-30).view(shape)

    with torch.no_grad():
        before = classes(x)
    for start in range(4):
        z = x + far * unit(torch.randn(x.shape, generator=g).to(x))
        for _ in range(1 if start == 3 else 12):
            z = z.detach().requires_grad_()
            s = net(z)
            own = s[:, 0] * (2 * before - 1) if s.shape[-1] == 1 else s.gather(-1, before[:, None])[:, 0]
            other = 0.0 if s.shape[-1] == 1 else s.scatter(-1, before[:, None], -torch.inf).amax(-1)
            (slope,) = torch.autograd.grad((own - other).sum(), z)
            z = x + far * unit(z.detach() - x - 2 * far * unit(slope))
            with torch.no_grad():
                changed = (classes(z) != before) & ((z - x).flatten(1).double().norm(dim=1) <= radius.double())
            if bool(changed.any()):
                return f"{int(changed.sum())} of {len(x)} predictions change within their radius"
    return ""


_CHECKS = {
    "lower bound": _lower,
    "layers": _layers,
    "upper bound": _upper,
    "singular values": _singular,
    "budget": _budget,
    "inverse": _inverse,
    "step size": _step_size,
}


if __name__ == "__main__":
    code = run("certificates", case, 1200)
    print("claims that passed and were tested: " + ", ".join(f"{n} {name}" for name, n in sorted(passed.items())))
    raise SystemExit(code)
