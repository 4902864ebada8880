"""Does ShearField compute what a plain loop over the user's own modules computes, whatever they share, keep or do?

Each case draws a module from a grammar (layers, ties, shared parts, parametrisations, buffers, and breaches: work in
place, hooks, noise, state, odd widths), how it is given (a template, N modules, one for several layers, the same for F
and G), an engine and a use (inference, training steps, copies, state_dict, refinement, inverse). The oracle is
p -= h G_j(q), q += h F_j(p) with modules of torch, trained by the same steps.
"""

from __future__ import annotations

import copy
import random
import traceback
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from sweep import Outcome, run
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

import liouville as lv

N, WIDTH, HIDDEN = 4, 3, 5
ENGINES = {
    "Stored": lv.Stored(),
    "Checkpointed": lv.Checkpointed(),
    "Checkpointed(1)": lv.Checkpointed(every=1),
    "Reversible": lv.Reversible(),
    "exact": lv.Reversible(exact=True),
    "compensated": lv.Reversible(compensated=True),
    "anchors": lv.Reversible(anchors=2),
    "Auto": lv.Auto(),
    "Auto(tight)": lv.Auto(memory=1),
}
SCHEMES: dict[str, tuple[lv.Scheme, tuple[tuple[str, float], ...]]] = {
    "SymplecticEuler": (lv.SymplecticEuler(), (("p", 1.0), ("q", 1.0))),
    "Verlet": (lv.Verlet(), (("p", 0.5), ("q", 1.0), ("p", 0.5))),
}
TRAINED = {"step": 1, "two steps": 2, "deepcopy": 1, "state_dict": 1, "refined": 1}
USES = ("inference", "inference mode", "inverse", "evaluation", *TRAINED)
PATTERNS = ("template", "distinct", "same", "alternating", "shared with G", "shifted to G", "one part shared")


class Acting(nn.Module):
    """A linear map and what ``act`` makes of it: the way in which users write modules of their own."""

    def __init__(self, act: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.linear, self.act = nn.Linear(WIDTH, WIDTH), act
        self.gain = nn.Parameter(torch.rand(WIDTH))
        self.calls = 0

    def forward(self, x: Tensor) -> Any:
        return self.act(self, x)


class Tied(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(WIDTH, WIDTH) / 2)
        self.v, self.rest = self.w, nn.ParameterList([self.w] * depth)
        self.register_buffer("a", torch.ones(WIDTH))
        self.register_buffer("b", self.a)

    def forward(self, x: Tensor) -> Tensor:
        for w in (self.v, *self.rest):
            x = torch.tanh(x @ w + self.a) * self.b
        return x @ self.w.mT


class Attention(nn.Module):
    """Over the last axis but one; sound on any number of axes."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.out(torch.softmax(q @ k.mT / WIDTH**0.5, -1) @ v)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(WIDTH, WIDTH, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x)[0]


class Buffered(nn.Module):
    def __init__(self, change: str) -> None:
        super().__init__()
        self.linear, self.change = nn.Linear(WIDTH, WIDTH), change
        self.register_buffer("shift", torch.randn(WIDTH) if "own" in change else torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        if "written" in self.change:
            with torch.no_grad():
                self.shift.mul_(0.5)
        if "replaced" in self.change:
            self.shift = 0.5 * self.shift
        return self.linear(x + self.shift.clone())


class Skew(nn.Module):
    """A parametrisation without an inverse."""

    def forward(self, w: Tensor) -> Tensor:
        return w.triu(1) - w.triu(1).mT


class Spec(NamedTuple):
    """A kind of module; ``sound``: every engine must run it; ``written``: it may be refused where layers run twice."""

    make: Callable[[random.Random], nn.Module]
    sound: bool = True
    written: bool = False


def mlp(rng: random.Random) -> nn.Sequential:
    acts = (nn.Tanh, nn.GELU, nn.SiLU, nn.PReLU, nn.ELU, lambda: nn.ReLU(inplace=True), nn.Softplus)
    parts: list[nn.Module] = [nn.Linear(WIDTH, HIDDEN), rng.choice(acts)()]
    if rng.random() < 0.4:
        parts += [rng.choice((lambda: nn.LayerNorm(HIDDEN), lambda: nn.RMSNorm(HIDDEN), nn.Identity))()]
    block = nn.Sequential(*parts, nn.Linear(HIDDEN, WIDTH, bias=rng.random() < 0.5))
    if rng.random() < 0.3:
        block[0].requires_grad_(False)
    return block


def twice(rng: random.Random) -> nn.Sequential:
    act = rng.choice((nn.PReLU, lambda: nn.LayerNorm(WIDTH), lambda: nn.Linear(WIDTH, WIDTH)))()
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), act, nn.Linear(WIDTH, WIDTH), act)


def parametrised(rng: random.Random) -> nn.Module:
    kind = rng.choice(("weight", "orthogonal", "cayley", "skew"))
    linear = nn.Linear(WIDTH, WIDTH)
    if kind == "weight":
        return nn.Sequential(parametrizations.weight_norm(linear), nn.Tanh())
    if kind == "skew":
        parametrize.register_parametrization(linear, "weight", Skew())
        return linear
    return parametrizations.orthogonal(linear, orthogonal_map="cayley" if kind == "cayley" else None)


def hooked(rng: random.Random) -> nn.Module:
    kind, linear = rng.randrange(5), nn.Linear(WIDTH, WIDTH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == 0:
            nn.utils.weight_norm(linear)
        elif kind == 1:
            nn.utils.spectral_norm(linear)
        elif kind == 2:
            prune.l1_unstructured(linear, "weight", 0.3)
        elif kind == 3:
            linear.register_forward_hook(lambda module, inputs, out: 2 * out)
        else:
            linear.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))
    return rng.choice((linear, nn.Sequential(linear, nn.Tanh())))


def acting(*acts: Callable[[Any, Tensor], Any]) -> Callable[[random.Random], nn.Module]:
    return lambda rng: Acting(rng.choice(acts))


def counted(m: Any, x: Tensor) -> Tensor:
    m.calls += 1
    return m.linear(x) / m.calls


def cached(m: Any, x: Tensor) -> Tensor:
    m.last = x
    return m.linear(x)


SPECS = {
    "mlp": Spec(mlp),
    "tied": Spec(lambda rng: Tied(rng.randrange(3))),
    "part twice": Spec(twice),
    "parametrised": Spec(parametrised),
    "attention": Spec(lambda rng: Attention()),
    "recurrent": Spec(lambda rng: Recurrent()),
    "function of its own": Spec(
        acting(lambda m, x: torch.sin(m.linear(x)) * m.gain, lambda m, x: m.linear(x * m.gain))
    ),
    "buffer": Spec(lambda rng: Buffered(rng.choice(("constant", "own")))),
    "buffer written": Spec(lambda rng: Buffered(rng.choice(("own written", "written", "replaced"))), False),
    "spectral": Spec(lambda rng: parametrizations.spectral_norm(nn.Linear(WIDTH, WIDTH)), written=True),
    "in place": Spec(
        acting(
            lambda m, x: m.linear(F.relu_(x)),
            lambda m, x: m.linear(x.add_(1.0)),
            lambda m, x: m.linear(x) + 0 * x[..., :1].mul_(2.0),
            lambda m, x: m.linear(x.detach().sigmoid_() + x),
        ),
        False,
    ),
    "in place first": Spec(lambda rng: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(WIDTH, WIDTH)), False),
    "hooked": Spec(hooked, False),
    "noise": Spec(
        acting(
            lambda m, x: m.linear(x + torch.rand_like(x)),
            lambda m, x: m.linear(F.dropout(x, 0.3, training=True)),
            lambda m, x: F.rrelu(m.linear(x), training=True),
            lambda m, x: m.linear(x) * F.gumbel_softmax(x, hard=True),
        ),
        False,
    ),
    "odd velocity": Spec(
        acting(
            lambda m, x: m.linear(x)[..., :1],
            lambda m, x: m.linear(x).float(),
            lambda m, x: (m.linear(x), x),
            lambda m, x: m.linear(x).mean(0, keepdim=True),
        ),
        False,
    ),
    "state": Spec(acting(counted, cached), False),
    "draws by its name": Spec(
        lambda rng: nn.Sequential(nn.Linear(WIDTH, WIDTH), rng.choice((nn.RReLU, nn.Dropout))()), False
    ),
    "lazy": Spec(lambda rng: nn.LazyLinear(WIDTH), False),
    "without weights": Spec(lambda rng: nn.Tanh(), False),
}


def given(rng: random.Random, pattern: str, make: Callable[[random.Random], nn.Module]) -> tuple[Any, Any]:
    """What stands for F and for G: a template each, or N modules."""
    state = rng.getstate()

    def one() -> nn.Module:  # of one structure every time
        rng.setstate(state)
        return make(rng)

    if pattern == "template":
        return one(), mlp(rng)
    modules = [one() for _ in range(N)]
    if pattern == "same":
        return [modules[0]] * N, [mlp(rng)] * N
    if pattern == "alternating":
        return [modules[j % 2] for j in range(N)], [mlp(rng)] * N
    if pattern == "shared with G":
        return modules, modules
    if pattern == "shifted to G":
        return modules, modules[1:] + modules[:1]
    if pattern == "one part shared":
        part = nn.Linear(WIDTH, WIDTH)
        return [nn.Sequential(part, m) for m in modules], [part] * N
    rng.setstate(state)
    other = rng.getstate()
    G = []
    for _ in range(N):
        rng.setstate(other)
        G.append(mlp(rng))
    return modules, G


def loop(modules: tuple[list[nn.Module], list[nn.Module]], stages: Any, x: Tensor, h: float) -> Tensor:
    p, q = x.chunk(2, -1)
    for f, g in zip(*modules, strict=True):
        for half, c in stages:
            if half == "p":
                p = p - c * h * g(q)
            else:
                q = q + c * h * f(p)
    return torch.cat((p, q), -1)


def by_hand(field: Any, key: str, template: nn.Module) -> list[nn.Module]:
    """The modules of a template's layers, with the field's weights."""
    modules = [copy.deepcopy(template).double() for _ in range(N)]
    theta = field.theta()._asdict()
    for j, module in enumerate(modules):
        with torch.no_grad():
            for name, w in module.named_parameters():
                w.copy_(theta[f"{key}__{name.replace('.', '__')}"][j])
            for name, b in module.named_buffers():
                name = f"{key}_buffer__{name.replace('.', '__')}"
                if name in theta or hasattr(field, name):  # and not another name of one that was there
                    b.copy_(theta[name][j] if name in theta else getattr(field, name))
    return modules


def case(rng: random.Random) -> Outcome:
    torch.manual_seed(rng.randrange(2**31))
    name, pattern = rng.choice(list(SPECS)), rng.choice(PATTERNS)
    engine, use, scheme = rng.choice(list(ENGINES)), rng.choice(USES), rng.choice(list(SCHEMES))
    words = f"{name}, {pattern}, {engine}, {use}, {scheme}"
    spec = SPECS[name]
    F_, G_ = given(rng, pattern, spec.make)
    once = engine in ("Stored", "Auto") and use != "inverse"
    sound = spec.sound and (once or not spec.written)
    try:
        oracle = copy.deepcopy((F_, G_))
    except Exception:
        return Outcome("right", f"{words}: torch itself does not copy it")
    try:
        field = lv.ShearField(F_, G_, layers=N, features=2 * WIDTH).double()
        flow = lv.Flow(field, SCHEMES[scheme][0], T=0.8, backprop=ENGINES[engine])
        if pattern == "template":
            oracle = by_hand(field, "F", F_), by_hand(field, "G", G_)
        both = nn.ModuleList([*oracle[0], *oracle[1]]).double()
        return Outcome("right" if agree(flow, oracle, both, SCHEMES[scheme][1], use, rng) else "wrong", words)
    except (ValueError, TypeError, RuntimeError, NotImplementedError, ArithmeticError) as error:
        inside = "/liouville/" in traceback.extract_tb(error.__traceback__)[-1].filename
        if inside and not sound:
            return Outcome("refused", f"{words}: {error}")
        if not inside and fails_alone(oracle, SCHEMES[scheme][1]):
            return Outcome("right", f"{words}: a plain loop fails too")
        return Outcome("wrong" if inside else "defect", f"{words}: {type(error).__name__}: {error}")


def fails_alone(oracle: Any, stages: Any) -> bool:
    try:
        x = torch.randn(5, 2, 2 * WIDTH, dtype=torch.float64)
        loop(nn.ModuleList([*oracle[0], *oracle[1]]).double() and oracle, stages, x, 0.2).sum().backward()
    except Exception:
        return True
    return False


def agree(flow: Any, oracle: Any, both: nn.Module, stages: Any, use: str, rng: random.Random) -> bool:
    x = torch.randn(*rng.choice(((5,), (5, 2))), 2 * WIDTH, dtype=torch.float64)
    if not any(isinstance(m, Attention | Recurrent) for m in both.modules()):
        x = x.reshape(-1, 2 * WIDTH)
    elif x.dim() == 2:
        x = x[:, None]
    seed, kept = rng.randrange(2**31), x.clone()
    if use == "evaluation":
        flow.eval(), both.eval()
    sides = ((flow.parameters, lambda: flow(x)), (both.parameters, lambda: loop(oracle, stages, x, 0.2)))
    for _ in range(TRAINED.get(use, 0)):
        for parameters, out in sides:
            torch.manual_seed(seed)
            optimizer = torch.optim.SGD(parameters(), lr=0.05)
            out().square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    h = 0.2
    if use == "deepcopy":
        flow = copy.deepcopy(flow)
    elif use == "state_dict":
        other, state = copy.deepcopy(flow), flow.state_dict()
        with torch.no_grad():
            for p in other.parameters():
                p.zero_()
        other.load_state_dict(state)
        flow = other
    elif use == "refined":
        flow, h = flow.refined(), 0.1
        oracle = tuple([m for m in row for _ in range(2)] for row in oracle)
        if any(type(m).__name__ == "_SpectralNorm" or "written" in getattr(m, "change", "") for m in both.modules()):
            return True  # a buffer of a layer becomes two
    with torch.inference_mode(use == "inference mode"), torch.set_grad_enabled(False):
        torch.manual_seed(seed)
        found = flow(x)
        if use == "inverse":
            return close(flow.inverse(found), x)
        torch.manual_seed(seed)
        return close(found, loop(oracle, stages, x.clone(), h)) and torch.equal(x, kept)


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and bool(torch.allclose(a, b, rtol=1e-9, atol=1e-9))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    raise SystemExit(run("user modules", case, 500))
