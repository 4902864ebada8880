"""What the tests of the engines share: values and gradients of a run, deep flows, and how fast an inverse grows."""

import torch
from torch import nn

import liouville as lv
import samples
from measure import EPS, at, flat, generator, near, norm, rounding

MODES = {name: e for name, e in samples.BACKPROPS.items() if isinstance(e, lv.Reversible)}
"""The ways to be reversible."""


def fits(engine, scheme, field):
    """Whether the engine runs the pair."""
    try:
        lv.Flow(field, scheme, T=1.0, backprop=engine)
    except ValueError:
        return False
    return True


def engine_of(engine, flow, y):
    """The engine that runs: what `Auto` chooses, or the engine itself."""
    return engine.choose(flow.scheme, flow.field, y).engine if isinstance(engine, lv.Auto) else engine


def rounds_otherwise(engine):
    """Whether the engine adds velocities in an arithmetic of its own, so that its values differ by roundings."""
    return isinstance(engine, lv.Reversible) and (engine.exact or engine.compensated)


def loss_of(*states):
    return sum((s.square() + torch.sin(3 * s)).sum() for state in states for s in state)


def results(flow, engine, y, seed=3, runs=1, needs_grad=True):
    """Final states of ``runs`` forward passes and the gradients of one loss of all of them."""
    flow, x = flow.with_backprop(engine), y.clone().requires_grad_(needs_grad)
    torch.manual_seed(seed)
    states = [flow.final_state((k + 1) * x) for k in range(runs)]
    inputs = [p for p in flow.parameters() if p.requires_grad] + [x] * needs_grad
    return [s.detach() for state in states for s in state], torch.autograd.grad(loss_of(*states), inputs)


def compare(flow, engine, y, allowed=None, expected=None, **how):
    """Values and gradients equal those of `Stored`, each to ``allowed(it)``."""
    values, grads = results(flow, engine, y, **how)
    expected, expected_grads = expected or results(flow, lv.Stored(), y, **how)
    # a rounding per operation of N layers, about 10 terms each, carried on by a growth below 10 in these samples
    allowed = allowed or (lambda b: 10 * 10 * flow.layers * EPS * largest(b))
    for a, b in zip([*values, *grads], [*expected, *expected_grads], strict=True):
        assert a.shape == b.shape
        if b.numel():
            near(a, b, allowed(b))


def equal_to_stored(gradients, flow, engine):
    """``gradients(flow)`` by the engine and by `Stored`, each from the same seed."""
    found = []
    for backprop in (engine, lv.Stored()):
        torch.manual_seed(0)
        flow.zero_grad()
        found.append([None if g is None else g.detach().clone() for g in gradients(flow.with_backprop(backprop))])
    for a, b in zip(*found, strict=True):
        assert (a is None) == (b is None)
        if b is not None:
            assert a.dtype == b.dtype
            near(a, b, rounding(b, terms=10 * samples.N, factor=10))


def grads_of(flow):
    return [p.grad for p in flow.parameters()]


def largest(x):
    """The largest magnitude, at least 1."""
    return max(1.0, float(x.detach().abs().max())) if x.numel() else 1.0


@torch.no_grad()
def growth(flow, y, delta=1e-6):
    """The largest norm of d state_j / d state_N over the layers j, by differences: what the way back makes of an error.

    The last state of one sample is moved by ``delta`` along every axis, and all of them are taken back together. Of a
    field with dropout the growth without noise is measured.
    """
    scheme, field = flow.scheme, getattr(flow.field, "field", flow.field)
    theta = field.theta()
    state = scheme.init(field, y[:1], at(theta), flow.h)
    for j in range(flow.layers):
        state = scheme.step(field, state, at(theta, j), flow.h)
    moved = flat(state) + delta * torch.eye(flat(state).numel(), dtype=y.dtype)
    rows = torch.cat([flat(state)[None], moved]).split([s.numel() for s in state], dim=1)
    state, worst = tuple(r.reshape(-1, *s.shape[1:]) for r, s in zip(rows, state, strict=True)), 1.0
    for j in reversed(range(flow.layers)):
        state = scheme.inverse(field, state, at(theta, j), flow.h)
        A = torch.cat([(s[1:] - s[:1]).flatten(1) for s in state], dim=1) / delta
        worst = max(worst, norm(A))
    return worst


def _block(features):
    return nn.Sequential(nn.Linear(features, 5), nn.Tanh(), nn.Linear(5, features))


def _images(**more):
    return {"operator": lv.Conv(3), **more}


_DEEP = {
    "separable": lambda N, **how: lv.SeparableHamiltonianField(4, N, **how),
    "separable-ms3": lambda N, **how: lv.SeparableHamiltonianField(4, N, X=-1.0, **how),
    "separable-hidden": lambda N, **how: lv.SeparableHamiltonianField(4, N, hidden=3, **how),
    "separable-images": lambda N, **how: lv.SeparableHamiltonianField(2, N, **_images(**how)),
    "pair": lambda N, **how: lv.PairField(5, N, p_features=2, **how),
    "second-order": lambda N, **how: lv.SecondOrderField(lv.SymmetricField(3, N, **how)),
    "second-order-half": lambda N, **how: lv.SecondOrderField(lv.SemidefiniteField(3, N, **how), start="half"),
    "shear": lambda N, **_: lv.ShearField(_block(2), _block(2), layers=N, features=4),
    "dropout": lambda N, **how: lv.dropout(lv.SeparableHamiltonianField(4, N, **how), 0.3),
    "hamiltonian": lambda N, **how: lv.HamiltonianField(4, N, **how),
    "hamiltonian-trained-J": lambda N, **how: lv.HamiltonianField(4, N, train_J=True, **how),
    "antisymmetric": lambda N, **how: lv.AntisymmetricField(4, N, gamma=0.1, **how),
    "antisymmetric-images": lambda N, **how: lv.AntisymmetricField(2, N, **_images(**how)),
    "residual": lambda N, **how: lv.ResidualField(3, N, **how),
    "symmetric": lambda N, **how: lv.SymmetricField(3, N, **how),
    "dropout-whole": lambda N, **how: lv.dropout(lv.AntisymmetricField(4, N, **how), 0.3),
}
DEEP = tuple(_DEEP)


def deep(name, layers, dtype=torch.float64, seed=0):
    """A field of any depth whose weights are one smooth function of time, of moderate size."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        init = lv.Smooth(scale=0.5, bias_scale=0.3, mean=1.0)
        return _DEEP[name](layers, init=init, generator=generator(seed)).to(dtype)
