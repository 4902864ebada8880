"""Runs of driven fields over time: one loss of final state and trajectory, by any engine, and its gradients."""

import torch

import liouville as lv
from liouville.fields import PerLayer, driven
from liouville.fields.given import bind
from measure import generator, near, randn

H = 0.3


def made(kind, **more):
    """A field of one layer, from its width."""
    return lambda n: kind(n, 1, init=lv.Normal(1 / n), generator=generator(n), **more).double()


def second(kind, **more):
    return lambda n: lv.SecondOrderField(made(kind, **more)(n))


SHEARS = {
    "separable": made(lv.SeparableHamiltonianField),
    "separable-relu-negative-X": made(lv.SeparableHamiltonianField, activation="relu", X=-1.0),
    "separable-hidden": lambda n: made(lv.SeparableHamiltonianField, hidden=n + 1)(n),
    "pair": made(lv.PairField),
    "pair-rectangular": lambda n: made(lv.PairField, p_features=n // 3 + 1)(n),
    "pair-scalar-relu": made(lv.PairField, scalar_bias=True, activation="relu"),
    "second-symmetric": second(lv.SymmetricField),
    "second-symmetric-hidden": lambda n: second(lv.SymmetricField, hidden=n + 3)(n),
    "second-residual": second(lv.ResidualField),
    "second-semidefinite": second(lv.SemidefiniteField),
}
EULER = {
    "hamiltonian": made(lv.HamiltonianField, J="full"),
    "hamiltonian-hidden-relu": lambda n: made(lv.HamiltonianField, hidden=n // 2 + 1, activation="relu")(n),
    "antisymmetric": made(lv.AntisymmetricField, gamma=0.1),
    "antisymmetric-scalar": made(lv.AntisymmetricField, scalar_bias=True, factor=0.5),
    "residual": made(lv.ResidualField),
}
FIELDS = SHEARS | EULER


def with_input(name, n, inputs):
    return driven(FIELDS[name](n), inputs, generator=generator(1)).double()


def start(field, batch, dtype=torch.float64):
    """The parts of a first state."""
    own = field.field
    if not isinstance(own, lv.PartitionedField):
        return (randn(*batch, own.features, seed=5).to(dtype),)
    second_order = isinstance(own, lv.SecondOrderField)
    widths = (own.features, own.features) if second_order else (own.p_features, own.features - own.p_features)
    return tuple(randn(*batch, width, seed=k).to(dtype) for k, width in enumerate(widths))


def run(engine, scheme, field, state, u, tau=None, traces=False, h=H):
    """The final state, and the trajectory or None."""
    args = (PerLayer(u),) if tau is None else (PerLayer(u), PerLayer(tau))
    bound, theta = bind(field.in_run(0), field.theta(), args, {}, len(u))
    if traces:
        return engine.trajectory(scheme, bound, state, theta, h)
    return engine.run(scheme, bound, state, theta, h), None


def outcome(engine, scheme, field, u, tau=None, traces=False, needed=lambda k: True, state=None):
    """What the run gives, and the gradients of the first state, u and the weights; None where not ``needed``."""
    dtype = next(field.parameters()).dtype
    state = start(field, u.shape[1:-1], dtype) if state is None else state
    leaves = [x.clone().requires_grad_(needed(k)) for k, x in enumerate((*state, u))]
    weights = list(field.parameters())
    for k, w in enumerate(weights):
        w.requires_grad_(needed(len(leaves) + k))
    final, trajectory = run(engine, scheme, field, tuple(leaves[:-1]), leaves[-1], tau, traces)
    loss = sum((x.square() + torch.sin(3 * x)).sum() for x in final)
    if traces:
        loss = (
            loss + (trajectory.cos() * torch.linspace(0, 1, trajectory.numel(), dtype=dtype).view_as(trajectory)).sum()
        )
    wanted = [x for x in (*leaves, *weights) if x.requires_grad]
    found = iter(torch.autograd.grad(loss, wanted) if wanted else ())
    gradients = [next(found) if x.requires_grad else None for x in (*leaves, *weights)]
    return [x.detach() for x in (*final, *([trajectory] if traces else []))], gradients


def equal(actual, expected, terms):
    """To within a rounding for each step and term of a sum; the factor covers growth over these few steps."""
    for a, b in zip((*actual[0], *actual[1]), (*expected[0], *expected[1]), strict=True):
        assert (a is None) == (b is None)
        if b is not None and b.numel():
            assert a.shape == b.shape
            near(a, b, 100 * torch.finfo(a.dtype).eps * terms * max(1.0, float(b.abs().max())))
