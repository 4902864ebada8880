"""Arguments of a run through every engine: the same values, and gradients to the tensors among them."""

import pytest
import torch
from torch import nn

import liouville as lv
import samples
from backprop.runs import fits, largest, loss_of
from fields.test_arguments import Conditioned, Masked, Plain
from measure import EPS, near, randn
from samples import Tokens

ENGINES = {name: e for name, e in samples.BACKPROPS.items() if e != lv.Stored()}
engines = pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
N = 5


class Attention(Tokens):
    """Over the tokens that a mask admits; ``bias`` is added to the scores."""

    def forward(self, x, mask=None, bias=0.0):
        q, k, v = self.read(x).reshape(*x.shape[:2], 3, self.width).unbind(2)
        scores = q @ k.mT / self.width**0.5 + bias
        return self.write((scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1) @ v)


def shear(F=Plain, G=Attention, layers=N):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return lv.ShearField(F(2), G(2), layers=layers, features=4, sample_ndim=2).double()


def tokens():
    return randn(3, 6, 4)


def _masked():
    """A causal mask of no gradient, a score for every pair, and one that no leaf is."""
    leaf = randn(6, 6, seed=1).requires_grad_()
    return shear(), tokens(), {"mask": torch.ones(6, 6, dtype=bool).tril(), "bias": leaf.sin() * 2}, [leaf]


def _per_layer():
    leaf = randn(N, 6, 6, seed=1).requires_grad_()
    return shear(), tokens(), {"bias": lv.PerLayer(leaf)}, [leaf]


def _noisy():
    leaf = randn(2, seed=1).requires_grad_()
    return lv.dropout(shear(G=Masked), 0.2), tokens(), {"mask": leaf, "shift": 0.1}, [leaf]


def _own():
    leaves = [randn(3, seed=1).requires_grad_(), randn(4, 3, seed=2).requires_grad_()]
    return Conditioned(N).double(), randn(4, 3), {"scale": leaves[0], "offset": leaves[1]}, leaves


CASES = {
    "masked": ("SymplecticEuler", _masked),
    "masked-verlet": ("Verlet", _masked),
    "per-layer": ("Yoshida4", _per_layer),
    "midpoint": ("LeapfrogMidpoint", _own),
    "implicit": ("ImplicitMidpoint", _own),
    "rk4": ("RK4", _own),
    "dropout": ("SymplecticEuler", _noisy),
    "one-layer": ("SymplecticEuler", lambda: _change(_noisy(), shear(G=Masked, layers=1))),
}


def _change(case, field):
    return field, *case[1:]


def gradients(flow, y, context, leaves):
    y = y.clone().requires_grad_()
    torch.manual_seed(3)
    states = flow.final_state(y, **context)
    inputs = [*flow.parameters(), y, *leaves]
    return [*states, *torch.autograd.grad(loss_of(states), inputs, retain_graph=True)]


@pytest.mark.parametrize("engine, case", [(e, c) for e in ENGINES for c in CASES])
def test_values_and_gradients_equal_stored(engine, case):
    scheme, make = CASES[case]
    field, y, context, leaves = make()
    engine, scheme = ENGINES[engine], samples.SCHEMES[scheme]
    if not fits(engine, scheme, field):
        pytest.skip("the engine refuses the scheme")
    flow = lv.Flow(field, scheme, T=0.9)
    expected = gradients(flow, y, context, leaves)
    assert all(g.abs().max() > 1e-3 for g in expected[-len(leaves) :])
    for a, b in zip(gradients(flow.with_backprop(engine), y, context, leaves), expected, strict=True):
        near(a, b, 10 * 10 * N * EPS * largest(b))  # as for the gradients of weights, in runs.compare


@engines
def test_a_network_and_its_flows(engine):
    """Through a body of flows and connectors; what holds no flow gets none, and equals the parts by hand."""
    a, b = (lv.Flow(shear(), lv.SymplecticEuler(), 1.0, engine) for _ in range(2))
    net = lv.Network(nn.Identity(), nn.Sequential(a, nn.Tanh(), nn.Sequential(b)), nn.Linear(4, 1).double())
    y, bias = tokens(), randn(6, 6)
    near(net(y, bias=bias), net.head(b(torch.tanh(a(y, bias=bias)), bias=bias)), 0.0)
    net.body.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match=r"hook .* on the body"):
        net(y, bias=bias)


@engines
def test_a_mask_changed_before_the_backward_pass_is_noticed(engine):
    flow = lv.Flow(shear(G=Masked), lv.SymplecticEuler(), 1.0, engine)
    mask = torch.ones(2).double()
    out = flow(tokens().requires_grad_(), mask=mask)
    mask.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def _single(engine):
    return lv.Flow(shear().float(), lv.SymplecticEuler(), 1.0, engine), tokens().float(), randn(6, 6).float()


@engines
def test_autocast_reaches_them(engine):
    flow, y, bias = _single(engine)
    with torch.autocast("cpu", torch.bfloat16):
        near(flow(y, bias=bias), flow.with_backprop(lv.Stored())(y, bias=bias), 2**-6)


@pytest.mark.slow
@engines
def test_compiled_flows_take_them(engine):
    flow, y, bias = _single(engine)
    found = []
    for run in (flow, torch.compile(flow, backend="aot_eager")):
        leaf = bias.clone().requires_grad_()
        run(y, bias=leaf).square().sum().backward()
        found.append(leaf.grad)
    near(*found, 1e-5 * float(found[0].abs().max()))
    torch._dynamo.reset()


def test_transforms_by_the_plain_loop():
    """torch.func.grad with respect to an argument, and one mask for each sample by vmap."""
    field, y, context, _ = _own()
    flow, scale = lv.Flow(field, lv.RK4(), 1.0), context["scale"].detach()
    by_transform = torch.func.grad(lambda s: flow(y, scale=s).square().sum())(scale)
    scale.requires_grad_()
    (expected,) = torch.autograd.grad(flow(y, scale=scale).square().sum(), scale)
    near(by_transform, expected, 1e-12)
    many = randn(4, 3, seed=7)
    near(torch.func.vmap(lambda z, s: flow(z, scale=s))(y, many), flow(y, scale=many), 1e-13)


def test_auto_takes_another_engine_than_the_kernel(monkeypatch):
    """For a field of a kernel's kind that was given an argument by a subclass, whose velocities are other ones."""

    class Gated(lv.SeparableHamiltonianField):
        def p_dot(self, q, theta_j, gate=1.0):
            return super().p_dot(q, theta_j) * gate

        def q_dot(self, p, theta_j, gate=1.0):
            return super().q_dot(p, theta_j) * gate

    flow = lv.Flow(Gated(4, 3), lv.SymplecticEuler(), 1.0, lv.Auto())
    y = torch.randn(2, 4)
    assert not torch.equal(flow(y, gate=0.5), flow(y))
    flow(y.requires_grad_(), gate=0.5).sum().backward()
    assert "Stored" in repr(flow.backprop)
    with pytest.raises(lv.NoKernelError):
        lv.Flow(Gated(4, 3), lv.SymplecticEuler(), 1.0, lv.Fused())
