"""The gate of a run: what no engine can run is refused in every one, what some can is told; looking leaves no trace."""

import functools
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

import liouville as lv
import samples
from liouville.testing import check_field
from measure import randn

ENGINES = [lv.Stored(), lv.Checkpointed(), lv.Reversible(), lv.Reversible(exact=True), lv.Auto()]


class Own(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.linear, self.act, self.calls, self.kept = nn.Linear(2, 2).double(), act, 0, None
        self.register_buffer("sum", torch.zeros(()))

    def forward(self, x):
        return self.act(self, x)


def counted(m, x):
    m.calls += 1
    return m.linear(x) / m.calls


def cached(m, x):
    m.kept = x
    return m.linear(x)


def counted_in_a_list(m, x):
    m.kept = m.kept or [0]
    m.kept[0] += 1
    return m.linear(x) / m.kept[0]


def weights_cached(m, x):
    if m.kept is None:
        m.kept = m.linear.weight.detach().tanh()
    return m.linear(x) + x @ m.kept


@functools.lru_cache
def _tanh_of_weights(linear):
    return linear.weight.detach().tanh()


def summed(m, x):
    m.sum += 1
    return m.linear(x) / m.sum.clone()


def replaced(m, x):
    m.sum = m.sum + 1
    return m.linear(x) / m.sum


BREACHES = {
    "relu_": (lambda m, x: m.linear(F.relu_(x)), ValueError, "changes the input of .* in place"),
    "add_": (lambda m, x: m.linear(x.add_(1.0)), ValueError, "changes the input of .* in place"),
    "a view": (lambda m, x: m.linear(x) + x[..., :1].mul_(2.0), ValueError, "changes the input of .* in place"),
    "through detach": (lambda m, x: m.linear(x.detach().tanh_() + x), ValueError, "changes the input of .* in place"),
    "width 1": (lambda m, x: m.linear(x)[..., :1], ValueError, r"shape \(3, 1\)"),
    "another batch": (lambda m, x: m.linear(x).mean(0, keepdim=True), ValueError, r"shape \(1, 2\)"),
    "another dtype": (lambda m, x: m.linear(x).float(), ValueError, "float32, and the state"),
    "a tuple": (lambda m, x: (m.linear(x), x), TypeError, "must be a tensor, got tuple"),
    "a count": (counted, ValueError, "keeps the attribute calls of F"),
    "a cache": (cached, ValueError, "keeps the attribute kept of F"),
    "a count in a list": (counted_in_a_list, ValueError, "keeps the attribute kept of F"),
    "a cache of weights": (weights_cached, ValueError, "keeps values computed from its weights"),
    "a cache of another": (lambda m, x: m.linear(x @ _tanh_of_weights(m.linear)), ValueError, "from its weights"),
    "sparse": (lambda m, x: m.linear(x).to_sparse(), ValueError, "must be a dense tensor"),
    "a buffer of all": (summed, ValueError, "changes the buffer sum, which ShearField keeps once"),
    "a new buffer": (replaced, ValueError, "replaces a buffer by a new tensor"),
}


def shear(act, engine=None):
    field = lv.ShearField(Own(act), nn.Linear(2, 2), layers=4, features=4).double()
    return lv.Flow(field, lv.SymplecticEuler(), 1.0, engine or lv.Stored())


USES = {
    "training": lambda flow, x: flow(x),
    "inference": torch.no_grad()(lambda flow, x: flow(x)),
    "inference mode": torch.inference_mode()(lambda flow, x: flow(x)),
    "inverse": torch.no_grad()(lambda flow, x: flow.inverse(x)),
    "inverse of a state": torch.no_grad()(lambda flow, x: flow.inverse_state(x.chunk(2, -1))),
    "trajectory": torch.no_grad()(lambda flow, x: flow.trajectory(x)),
    "sensitivity": lv.analysis.backward_sensitivity,
    "jacrev": lambda flow, x: torch.func.jacrev(flow)(x),
    "jit.trace": lambda flow, x: torch.jit.trace(flow.requires_grad_(False), x),
}


@pytest.mark.parametrize("name", BREACHES)
def test_a_breach_is_refused_by_every_engine_and_in_every_use(name):
    act, kind, message = BREACHES[name]
    x = randn(3, 4)
    kept = x.clone()
    for engine in ENGINES:
        with pytest.raises(kind, match=message):
            shear(act, engine)(x)
    for use, call in USES.items():
        if (name, use) == ("a buffer of all", "jacrev"):
            continue  # which torch forbids by itself
        with pytest.raises(kind, match=message):
            call(shear(act), x)
    assert torch.equal(x, kept)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["relu_", "add_", "a view"])
def test_work_in_place_is_right_where_a_compiler_hides_it(name):
    flow, x = shear(BREACHES[name][0]), randn(3, 4)
    kept, F_ = x.clone(), []
    theta = flow.field.theta()._asdict()
    p, q = x.chunk(2, -1)
    for j in range(4):
        F_ = Own(BREACHES[name][0])
        F_.linear.load_state_dict({k: theta[f"F__linear__{k}"][j] for k in ("weight", "bias")})
        p = p - 0.25 * F.linear(q, theta["G__weight"][j], theta["G__bias"][j])
        q = q + 0.25 * F_(p.clone())
    with torch.no_grad():
        found = torch.compile(flow, backend="aot_eager", fullgraph=True)(x)
    assert torch.allclose(found, torch.cat((p, q), -1), rtol=0, atol=1e-13)
    assert torch.equal(x, kept)


HOOKS = {
    "prune": lambda field, name: prune.identity(field, name),
    "weight_norm": lambda field, name: torch.nn.utils.weight_norm(field, name),
    "a pre-hook": lambda field, name: field.register_forward_pre_hook(lambda *_: None),
    "a hook": lambda field, name: field.register_forward_hook(lambda *_: None),
    "a backward hook": lambda field, name: field.register_full_backward_hook(lambda *_: None),
}


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.filterwarnings("ignore")
def test_hooks_of_a_field_are_refused(hook):
    for name in ("separable", "dropout-partitioned", "second-order", "residual"):
        field = samples.field(name)
        part = max(field.modules(), key=lambda m: len(m._parameters))
        HOOKS[hook](part, next(iter(part._parameters)))
        scheme = lv.SymplecticEuler() if isinstance(field, lv.PartitionedField) else lv.ForwardEuler()
        with pytest.raises(ValueError, match=r"which no engine runs.*parametriz"):
            lv.Flow(field, scheme, 1.0, lv.Auto())(samples.inputs(field))
        with pytest.raises(AssertionError, match="a field has no hooks"):
            check_field(field)


NOISE = {
    "rand": (lambda m, x: m.linear(x + torch.rand_like(x)), True),
    "dropout": (lambda m, x: m.linear(F.dropout(x, 0.5, training=True)), True),
    "rrelu": (lambda m, x: F.rrelu(m.linear(x), training=True), False),
    "its own stream": (lambda m, x: m.linear(x) + torch.rand(2, generator=STREAM, dtype=x.dtype), False),
}
STREAM = torch.Generator().manual_seed(0)


@pytest.mark.parametrize("name", NOISE)
def test_noise_is_replayed_rightly_or_refused(name):
    act, replayed = NOISE[name]
    flow, x = shear(act), randn(3, 4)
    flow(x).sum().backward()  # evaluated once
    expected, found = [], []
    for engine, grads in ((lv.Stored(), expected), (lv.Checkpointed(), found)):
        torch.manual_seed(0)
        flow.zero_grad()
        if engine == lv.Checkpointed() and not replayed:
            with pytest.raises(RuntimeError, match=r"not the same when they are run again.*lv.Stored\(\)"):
                flow.with_backprop(engine)(x)
            continue
        flow.with_backprop(engine)(x).sum().backward()
        grads += [p.grad.clone() for p in flow.parameters()]
    assert not replayed or all(torch.allclose(a, b) for a, b in zip(expected, found, strict=True))
    assert isinstance(lv.Auto(memory=1).choose(flow.scheme, flow.field, x).engine, lv.Stored)
    with pytest.raises(RuntimeError):
        flow.with_backprop(lv.Reversible())(x)
    with pytest.raises(ValueError, match="draw random numbers or change buffers"):
        flow.inverse(x)


@pytest.mark.parametrize("name", samples.FIELDS)
def test_looking_leaves_no_trace(name):
    """Of a sound field: neither its buffers, nor the input, nor torch's streams are moved, and it looks once."""
    field = samples.field(name).eval()
    before = {k: v.clone() for k, v in field.state_dict().items()}
    x = samples.inputs(field)
    kept, stream = x.clone(), torch.get_rng_state()
    scheme = lv.SymplecticEuler() if isinstance(field, lv.PartitionedField) else lv.ForwardEuler()
    lv.Flow(field, scheme, 0.9)(x)
    assert torch.equal(stream, torch.get_rng_state()) and torch.equal(x, kept)
    assert all(torch.equal(v, before[k]) for k, v in field.state_dict().items())


class Theta(NamedTuple):
    w: torch.Tensor


class Field(lv.VectorField):
    def __init__(self, act, theta=Theta):
        super().__init__(4, 3)
        self.w, self.act, self.made = nn.Parameter(randn(3, 4, 4)), act, theta

    def theta(self):
        return self.made(self.w)

    def forward(self, y, theta_j):
        return self.act(self, y, theta_j.w)


def _cached(field, y, w):
    if not hasattr(field, "kept"):
        field.kept = w.detach().tanh()
    return y @ field.kept


def _in_one_place(field, y, w):
    field.__dict__.setdefault("place", torch.empty_like(y))
    return torch.tanh(y @ w, out=field.place)


@pytest.mark.parametrize(
    "act, message",
    [
        (lambda field, y, w: (y @ w).mean(0, keepdim=True), r"shape \(1, 4\)"),
        (_cached, "keeps values computed from its weights"),
        (_in_one_place, "overwrites its previous velocity"),
    ],
)
@torch.no_grad()
def test_a_field_of_ones_own_is_looked_at_for_one_sample_and_for_more(act, message):
    flow = lv.Flow(Field(act), lv.RK4(), 1.0)
    with pytest.raises(ValueError, match=message):
        for batch in (1, 5):
            flow(randn(batch, 4))


@pytest.mark.parametrize("made", [tuple, list, lambda w: w, lambda w: {"w": w}, lambda w: Theta([w]), lambda w: (w,)])
def test_weights_of_another_form_are_refused(made):
    with pytest.raises(TypeError, match="must be a NamedTuple of tensors"):
        lv.Flow(Field(lambda field, y, w: y @ w, made), lv.RK4(), 1.0)(randn(2, 4))
