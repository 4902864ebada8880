"""A `ShearField` computes what a loop over the user's own modules computes, whatever they share and keep."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import liouville as lv
from measure import near, randn, rounding

N = 3
ENGINES = [lv.Stored(), lv.Checkpointed(), lv.Reversible(), lv.Reversible(exact=True), lv.Auto()]


class Tied(nn.Module):
    """One parameter and one buffer, each under two names."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(2, 2))
        self.v = self.w
        self.register_buffer("a", torch.ones(2))
        self.register_buffer("b", self.a)

    def forward(self, x):
        return torch.tanh(x @ self.w + self.a) @ self.v * self.b


class Shifted(nn.Module):
    def __init__(self, shift):
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("shift", torch.full((2,), shift))

    def forward(self, x):
        return self.linear(x + self.shift)


def linear():
    return nn.Linear(2, 2)


def twice():
    act = nn.PReLU()
    return nn.Sequential(nn.Linear(2, 2), act, nn.Linear(2, 2), act)


def _pair(kind):
    return [kind() for _ in range(N)], [linear() for _ in range(N)]


def _alternating():
    a, b = twice(), twice()
    return [a, b, a], [linear()] * N


def _one_part():
    part = linear()
    return [nn.Sequential(part, nn.Tanh(), linear()) for _ in range(N)], [part] * N


def _shifted_to_g():
    modules = [twice() for _ in range(N)]
    return modules, modules[1:] + modules[:1]


GIVEN = {
    "tied": lambda: _pair(Tied),
    "part twice": lambda: _pair(twice),
    "one for all": lambda: ([linear()] * N, [linear()] * N),
    "one for F and G": lambda: ([one := linear()] * N, [one] * N),
    "alternating": _alternating,
    "one part": _one_part,
    "shifted to G": _shifted_to_g,
    "weight norm": lambda: _pair(lambda: parametrizations.weight_norm(linear())),
    "orthogonal": lambda: _pair(lambda: parametrizations.orthogonal(linear())),
    "a buffer for each": lambda: ([Shifted(float(j)) for j in range(N)], [linear() for _ in range(N)]),
}


def loop(F, G, x, h):
    p, q = x.chunk(2, -1)
    for f, g in zip(F, G, strict=True):
        p = p - h * g(q)
        q = q + h * f(p)
    return torch.cat((p, q), -1)


def made(name, engine=None):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        F, G = GIVEN[name]()
    both = nn.ModuleList([*F, *G]).double()
    flow = lv.Flow(lv.ShearField(F, G, layers=N, features=4), lv.SymplecticEuler(), T=0.9)
    return flow.with_backprop(engine or lv.Stored()), F, G, both


@pytest.mark.parametrize("engine", ENGINES, ids=repr)
@pytest.mark.parametrize("name", GIVEN)
def test_values_and_training_steps_are_those_of_a_loop_over_the_modules(name, engine):
    flow, F, G, both = made(name, engine)
    x = randn(5, 4)
    assert sum(p.numel() for p in flow.parameters()) == sum(p.numel() for p in both.parameters())
    for _ in range(2):
        for parameters, out in ((flow.parameters, lambda: flow(x)), (both.parameters, lambda: loop(F, G, x, 0.3))):
            optimizer = torch.optim.SGD(parameters(), lr=0.1)
            out().square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    near(flow(x), loop(F, G, x, 0.3), rounding(terms=100 * N))
    near(flow.inverse(flow(x)), x, rounding(terms=100 * N))


@pytest.mark.parametrize("name", GIVEN)
def test_copies_and_refinement_after_a_step_keep_what_is_shared(name):
    flow, F, G, _ = made(name)
    x = randn(5, 4)
    flow(x).sum().backward()
    norms = name in ("weight norm", "orthogonal")  # torch does not pickle a parametrised module
    for other in (copy.deepcopy(flow), *([] if norms else [pickle.loads(pickle.dumps(flow))])):
        assert torch.equal(other(x), flow(x))
    fine, double = flow.refined(), [[m for m in row for _ in range(2)] for row in (F, G)]
    near(fine(x), loop(*double, x, 0.15), rounding(terms=100 * N))
    sizes = [sum(p.numel() for p in f.parameters()) for f in (fine, flow)]
    assert sizes[0] <= 2 * sizes[1]
    assert lv.analysis.certify(flow, x).holds
    fresh, _, _, _ = made(name)
    with torch.no_grad():
        for p in fresh.parameters():
            p.add_(1.0)
    fresh.load_state_dict(flow.state_dict())
    assert torch.equal(fresh(x), flow(x))


def test_sharing_is_saved(tmp_path):
    with torch.random.fork_rng(devices=[]):
        a, b = linear(), linear()
        field = lv.ShearField([a, b, a], [b] * N, layers=N, features=4)
    flow = lv.Flow(field, lv.Verlet(), 1.0)
    other = lv.load(lv.save(flow, tmp_path / "shared.safetensors"))
    x = torch.randn(3, 4)
    assert torch.equal(other(x), flow(x))
    assert sum(p.numel() for p in other.parameters()) == 12
    assert torch.equal(lv.Flow(lv.dropout(field, 0.1), lv.Verlet(), 1.0).eval().refined()(x), flow.refined()(x))
    with pytest.raises(ValueError, match="layers that share F__weight weights of their own; use 'constant'"):
        flow.refined("linear")


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "orthogonal"])
def test_a_parametrised_template_has_other_weights_in_every_layer(kind):
    template = getattr(parametrizations, kind)(nn.Linear(4, 4))
    field = lv.ShearField(template, template, layers=N, features=8)
    at = lambda j: field.q_dot(torch.eye(4), type(field.theta())(*(w[j if len(w) > 1 else 0] for w in field.theta())))  # noqa: E731
    for j in range(1, N):
        assert (at(j) - at(0)).abs().max() > 1e-3


def test_spectral_norms_are_those_of_modules_of_their_own():
    """Each layer keeps its singular vectors; with layer 0's for all, norms reached 13.8 where these are near 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        F, G = ([parametrizations.spectral_norm(nn.Linear(4, 4)) for _ in range(N)] for _ in range(2))
    both = nn.ModuleList([*F, *G]).double()
    flow = lv.Flow(lv.ShearField(F, G, layers=N, features=8), lv.SymplecticEuler(), 0.9)
    x, y = randn(16, 8), randn(16, 8, seed=1)
    for parameters, out in ((flow.parameters(), lambda: flow(x)), (both.parameters(), lambda: loop(F, G, x, 0.3))):
        optimizer = torch.optim.SGD(parameters, lr=1.0)
        for _ in range(10):
            optimizer.zero_grad()
            (out() - y).square().mean().backward()
            optimizer.step()
    for engine in (lv.Checkpointed(), lv.Reversible()):
        with pytest.raises(RuntimeError, match="change the buffer"):
            copy.deepcopy(flow).with_backprop(engine)(x)
    flow.eval(), both.eval()
    near(flow(x), loop(F, G, x, 0.3), rounding(terms=1000 * N))
    near(flow.with_backprop(lv.Reversible())(x), flow(x), rounding(terms=100 * N))


def _hooked(hook):
    module = linear()
    hook(module)
    return nn.Sequential(module, nn.Tanh())


class Own(nn.Linear):
    def __init__(self, act, window=1):
        super().__init__(2, 2)
        self.act, self._window = act, window

    def forward(self, x):
        return self.act(super().forward(x))


class Nothing(nn.Linear):
    def forward(self):
        return self.weight


@pytest.mark.parametrize(
    "F, message",
    [
        (lambda: nn.LazyLinear(2), "F has parameters without a shape, got LazyLinear"),
        (lambda: _hooked(torch.nn.utils.weight_norm), "F must not have hooks, got forward pre hook .*parametrizations"),
        (lambda: _hooked(torch.nn.utils.spectral_norm), "F must not have hooks"),
        (lambda: _hooked(lambda m: prune.identity(m, "weight")), "F must not have hooks"),
        (lambda: _hooked(lambda m: m.register_forward_hook(print)), "got forward hook print on Linear"),
        (lambda: _hooked(lambda m: m.register_full_backward_hook(print)), "got backward hook print on Linear"),
        (lambda: nn.Sequential(linear(), nn.RReLU()), "must not draw random numbers, got RReLU.*nn.LeakyReLU"),
        (lambda: [Own(torch.tanh), Own(torch.tanh), Own(torch.relu)], "module 2 has other parts"),
        (lambda: [Own(torch.tanh), Own(torch.tanh, 2), Own(torch.tanh)], "module 1 has other parts"),
        (lambda: Nothing(2, 2), "called with a tensor, and Nothing is not"),
        (lambda: nn.ModuleDict({"a": linear()}), "ModuleDict, which has no forward"),
        (lambda: [torch.jit.script(linear()) for _ in range(3)], "RecursiveScriptModule; give the original module"),
        (lambda: nn.DataParallel(linear()), "DataParallel; give the original module"),
        (lambda: [linear(), linear().double(), linear()], "module 1 has other parts, settings, dtypes"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_no_engine_could_run_is_refused_at_construction(F, message):
    with pytest.raises(ValueError, match=message):
        lv.ShearField(F(), linear(), layers=3, features=4)


def test_what_is_no_module_is_a_type_error():
    for F in (torch.tanh, [torch.tanh] * 3):
        with pytest.raises(TypeError, match="F must be a module or 3 of them"):
            lv.ShearField(F, linear(), layers=3, features=4)


def test_odd_names_of_parts_are_taken():
    F = nn.Sequential()
    for name in ("a-b", "a b", "a_b"):
        F.add_module(name, linear())
    field = lv.ShearField(nn.ModuleList([F, copy.deepcopy(F)]), linear(), layers=2, features=4)
    p = torch.randn(3, 2)
    assert torch.equal(field.q_dot(p, type(field.theta())(*(w[0] for w in field.theta()))), F(p))


class Fourier(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(2, dtype=torch.complex128))

    def forward(self, x):
        return torch.fft.irfft(torch.fft.rfft(x) * self.w, n=3)


@pytest.mark.parametrize("engine", [lv.Stored(), lv.Checkpointed(), lv.Reversible(), lv.Reversible(exact=True)])
def test_weights_that_are_complex_and_weights_under_a_cache(engine):
    F = [Fourier() for _ in range(3)]
    G = [parametrizations.weight_norm(nn.Linear(3, 3).double()) for _ in range(3)]
    flow = lv.Flow(lv.ShearField(F, G, layers=3, features=6), lv.SymplecticEuler(), 0.6, engine)
    x = randn(5, 6)
    with parametrize.cached():
        y = flow(x)
    expected = loop(F, G, x, 0.2)
    near(y.detach(), expected.detach(), rounding(expected.detach(), terms=100))
