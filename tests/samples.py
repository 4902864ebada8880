"""One tiny instance of every public operator, activation, field, scheme, engine and part of a network.

Every sample is made afresh by a function, in float64, from a generator of its own.
"""

import torch
from torch import nn

import liouville as lv
from liouville import network
from liouville.activations import ACTIVATIONS
from measure import generator

N = 3  # layers of every field sample
# every layer, every half and every bias different, and none of them zero: nothing may be mixed up unnoticed
RANDOM = lv.Normal(0.6)

# three nodes in a row that own 1, 2 and 1 of four features; and two, one of which hears nothing of the other
PATH = lv.Graph([(0, 1), (1, 2)], sizes=(1, 2, 1))
ONE_WAY = lv.Graph(torch.tensor([[1, 0], [1, 1]]), sizes=(1, 2))

OPERATORS = {
    "dense": lv.Dense(),
    "graph": ONE_WAY,
    **{f"conv{dims}d-{kernel}": lv.Conv(kernel, dims) for dims in (1, 2, 3) for kernel in (1, 3, 5)},
}


def _rect_X():
    return torch.tensor([[0.9, -0.4], [0.3, 0.8], [-0.5, 0.2]])


def _general_X():
    return torch.tensor([[1.2, 0.7], [-0.3, 0.6]])


def _block():
    return nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 2))


class _Tied(nn.Module):
    """A parameter under two names, a part used twice, a buffer of its own in every layer."""

    def __init__(self, shift):
        super().__init__()
        self.w = nn.Parameter(0.6 * torch.randn(2, 2))
        self.v, act = self.w, nn.PReLU()
        self.parts = nn.Sequential(nn.Linear(2, 2), act, nn.Linear(2, 2), act)
        self.register_buffer("shift", torch.full((2,), shift))

    def forward(self, x):
        return torch.tanh(self.parts(x + self.shift) @ self.w) @ self.v


def _sharing():
    """Layers 0 and 2 have one module as F; G is one module for all layers, a part of which is F's."""
    one, two = _block(), _block()
    return {"F": [one, two, one], "G": [nn.Sequential(one[0], nn.Tanh(), nn.Linear(5, 2))] * N}


class Tokens(nn.Module):
    """Attention over the tokens of a sequence: it takes (batch, tokens, width) and nothing else."""

    def __init__(self, width):
        super().__init__()
        self.width = width
        self.read, self.write = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        B, T, _ = x.shape
        q, k, v = self.read(x).reshape(B, T, 3, self.width).unbind(2)
        return self.write((q @ k.mT / self.width**0.5).softmax(-1) @ v)


def _skew_layers():
    B = torch.randn(N, 4, 4, generator=generator(9))
    return B - B.mT


def _port(g, **more):
    field = lv.PortHamiltonianField(4, N, init=RANDOM, generator=g, **more)
    with torch.no_grad():
        field.L.add_(0.3 * torch.randn(field.L.shape, generator=g))
    return field


def _lossless(field):
    with torch.no_grad():
        field.L.zero_()
    return field


def _singular_J():
    J = torch.zeros(4, 4)
    J[0, 1], J[1, 0] = -1.0, 1.0
    return J


def _budgeted(field, scheme):
    """Rescaled: the raw weights of the samples exceed a budget of 1.5."""
    return lv.budgeted(lv.Flow(field, scheme, T=0.9), 1.5).field


def _images(**more):
    return {"operator": lv.Conv(3), "init": lv.Normal(0.2), **more}


_FIELDS = {
    "separable": lambda g: lv.SeparableHamiltonianField(4, N, init=RANDOM, generator=g),
    "separable-X": lambda g: lv.SeparableHamiltonianField(4, N, X=_general_X(), init=RANDOM, generator=g),
    "separable-rectangular": lambda g: lv.SeparableHamiltonianField(
        5, N, X=_rect_X(), p_features=2, init=RANDOM, generator=g
    ),
    "separable-ms3": lambda g: lv.SeparableHamiltonianField(4, N, X=-1.0, init=RANDOM, generator=g),
    "separable-hidden": lambda g: lv.SeparableHamiltonianField(4, N, hidden=3, init=RANDOM, generator=g),
    "separable-shared": lambda g: lv.SeparableHamiltonianField(4, N, shared=True, init=RANDOM, generator=g),
    "separable-softplus": lambda g: lv.SeparableHamiltonianField(4, N, activation="softplus", init=RANDOM, generator=g),
    "separable-images": lambda g: lv.SeparableHamiltonianField(4, N, **_images(X=_general_X()), generator=g),
    "separable-graph": lambda g: lv.SeparableHamiltonianField(8, N, operator=PATH, init=RANDOM, generator=g),
    "hamiltonian-graph": lambda g: lv.HamiltonianField(8, N, operator=PATH, init=RANDOM, generator=g),
    "hamiltonian": lambda g: lv.HamiltonianField(4, N, init=RANDOM, generator=g),
    "hamiltonian-full": lambda g: lv.HamiltonianField(3, N, J="full", init=RANDOM, generator=g),
    "hamiltonian-singular": lambda g: lv.HamiltonianField(4, N, J=_singular_J(), hidden=3, init=RANDOM, generator=g),
    "hamiltonian-trained-J": lambda g: lv.HamiltonianField(4, N, train_J=True, init=RANDOM, generator=g),
    "hamiltonian-J-per-layer": lambda g: lv.HamiltonianField(4, N, J=_skew_layers(), init=RANDOM, generator=g),
    "hamiltonian-logistic": lambda g: lv.HamiltonianField(4, N, activation="logistic", init=RANDOM, generator=g),
    "hamiltonian-signal": lambda g: lv.HamiltonianField(4, N, operator=lv.Conv(3, 1), init=RANDOM, generator=g),
    "hamiltonian-images": lambda g: lv.HamiltonianField(4, N, **_images(), generator=g),
    "port-hamiltonian": lambda g: _port(g),
    "port-hamiltonian-quadratic": lambda g: _port(g, J="full", quadratic=0.5, rank=2, shared_damping=True),
    "port-hamiltonian-inputs": lambda g: _port(g, inputs=2, activation="softplus"),
    "port-hamiltonian-lossless": lambda g: _lossless(_port(g, quadratic=0.3)),
    "port-hamiltonian-graph": lambda g: lv.PortHamiltonianField(8, N, operator=PATH, init=RANDOM, generator=g),
    "port-hamiltonian-images": lambda g: lv.PortHamiltonianField(4, N, **_images(), generator=g),
    "pair": lambda g: lv.PairField(4, N, init=RANDOM, generator=g),
    "pair-rectangular": lambda g: lv.PairField(5, N, p_features=2, init=RANDOM, generator=g),
    "pair-scalar": lambda g: lv.PairField(4, N, scalar_bias=True, init=RANDOM, generator=g),
    "pair-graph": lambda g: lv.PairField(6, N, operator=ONE_WAY, init=RANDOM, generator=g),
    "pair-images": lambda g: lv.PairField(4, N, **_images(), generator=g),
    "antisymmetric": lambda g: lv.AntisymmetricField(4, N, init=RANDOM, generator=g),
    "antisymmetric-gamma": lambda g: lv.AntisymmetricField(
        4, N, gamma=0.3, factor=0.5, scalar_bias=True, init=RANDOM, generator=g
    ),
    "antisymmetric-shared": lambda g: lv.AntisymmetricField(4, N, shared=True, init=RANDOM, generator=g),
    "antisymmetric-graph": lambda g: lv.AntisymmetricField(6, N, operator=ONE_WAY, init=RANDOM, generator=g),
    "antisymmetric-images": lambda g: lv.AntisymmetricField(4, N, gamma=0.1, **_images(), generator=g),
    "antisymmetric-gated": lambda g: lv.fields.GatedAntisymmetricField(4, N, gamma=0.2, init=RANDOM, generator=g),
    "residual": lambda g: lv.ResidualField(4, N, init=RANDOM, generator=g),
    "residual-relu": lambda g: lv.ResidualField(4, N, activation="relu", scalar_bias=True, init=RANDOM, generator=g),
    "residual-graph": lambda g: lv.ResidualField(3, N, operator=ONE_WAY, init=RANDOM, generator=g),
    "residual-images": lambda g: lv.ResidualField(3, N, **_images(), generator=g),
    "symmetric": lambda g: lv.SymmetricField(3, N, hidden=5, init=lv.Normal(0.3), generator=g),
    "symmetric-graph": lambda g: lv.SymmetricField(3, N, hidden=6, operator=ONE_WAY, init=RANDOM, generator=g),
    "symmetric-images": lambda g: lv.SymmetricField(3, N, **_images(), generator=g),
    "semidefinite": lambda g: lv.SemidefiniteField(3, N, hidden=2, init=RANDOM, generator=g),
    "semidefinite-graph": lambda g: lv.SemidefiniteField(3, N, operator=ONE_WAY, init=RANDOM, generator=g),
    "semidefinite-images": lambda g: lv.SemidefiniteField(3, N, **_images(), generator=g),
    "second-order": lambda g: lv.SecondOrderField(lv.SymmetricField(3, N, init=RANDOM, generator=g), start="half"),
    "second-order-rest": lambda g: lv.SecondOrderField(lv.SymmetricField(3, N, init=RANDOM, generator=g)),
    "second-order-semidefinite": lambda g: lv.SecondOrderField(lv.SemidefiniteField(3, N, init=RANDOM, generator=g)),
    "residual-images-3d": lambda g: lv.ResidualField(2, N, **_images(operator=lv.Conv(3, 3)), generator=g),
    "second-order-images": lambda g: lv.SecondOrderField(lv.SymmetricField(2, N, **_images(), generator=g)),
    "shear": lambda g: lv.ShearField(_block(), _block(), layers=N, features=4),
    "shear-tied": lambda g: lv.ShearField([_Tied(0.1 * j) for j in range(N)], _block(), layers=N, features=4),
    "shear-shared": lambda g: lv.ShearField(**_sharing(), layers=N, features=4),
    "shear-images": lambda g: lv.ShearField(
        nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.GroupNorm(1, 2)),
        nn.Conv2d(2, 1, 3, padding=1),
        layers=N,
        features=3,
        p_features=1,
        feature_axis=-3,
    ),
    "shear-tokens": lambda g: lv.ShearField(_block(), Tokens(2), layers=N, features=4, sample_ndim=2),
    "shear-signal": lambda g: lv.ShearField(
        nn.Conv1d(2, 1, 3, padding=1),
        nn.Conv1d(1, 2, 3, padding=1, padding_mode="circular"),
        layers=N,
        features=3,
        p_features=2,
        feature_axis=-2,
    ),
    "shear-tokens-dropout": lambda g: lv.dropout(
        lv.ShearField(_block(), Tokens(2), layers=N, features=4, sample_ndim=2), 0.3
    ),
    "budgeted-separable": lambda g: _budgeted(
        lv.SeparableHamiltonianField(4, N, X=_general_X(), init=RANDOM, generator=g), lv.SymplecticEuler()
    ),
    "budgeted-hamiltonian": lambda g: _budgeted(
        lv.HamiltonianField(3, N, J="full", init=RANDOM, generator=g), lv.ForwardEuler()
    ),
    "dropout": lambda g: lv.dropout(lv.HamiltonianField(4, N, init=RANDOM, generator=g), 0.3),
    "dropout-images": lambda g: lv.dropout(lv.AntisymmetricField(3, N, **_images(), generator=g), 0.3),
    "dropout-partitioned": lambda g: lv.dropout(lv.SeparableHamiltonianField(4, N, init=RANDOM, generator=g), 0.3),
    "dropout-second-order": lambda g: lv.dropout(
        lv.SecondOrderField(lv.SymmetricField(3, N, init=RANDOM, generator=g)), 0.3
    ),
    "dropout-second-order-half": lambda g: lv.dropout(
        lv.SecondOrderField(lv.SymmetricField(3, N, init=RANDOM, generator=g), start="half"), 0.3
    ),
}
FIELDS = tuple(_FIELDS)


def field(name, seed=0):
    """A fresh field in float64; `torch.nn` blocks draw from the global stream, which is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _FIELDS[name](generator(seed)).double()


INPUTS = 2  # the width of what drives a field
DRIVEN = {
    "separable": lambda g: lv.SeparableHamiltonianField(4, 1, init=RANDOM, generator=g),
    "separable-X": lambda g: lv.SeparableHamiltonianField(
        5, 1, X=_rect_X(), p_features=2, hidden=3, init=RANDOM, generator=g
    ),
    "pair": lambda g: lv.PairField(5, 1, p_features=2, init=RANDOM, generator=g),
    "pair-scalar": lambda g: lv.PairField(4, 1, scalar_bias=True, init=RANDOM, generator=g),
    "second-order": lambda g: lv.SecondOrderField(lv.SymmetricField(2, 1, hidden=3, init=RANDOM, generator=g)),
    "hamiltonian": lambda g: lv.HamiltonianField(4, 1, hidden=3, init=RANDOM, generator=g),
    "port": lambda g: lv.PortHamiltonianField(4, 1, rank=2, damping=0.3, quadratic=0.2, init=RANDOM, generator=g),
    "antisymmetric": lambda g: lv.AntisymmetricField(4, 1, gamma=0.1, scalar_bias=True, init=RANDOM, generator=g),
    "gated": lambda g: lv.fields.GatedAntisymmetricField(4, 1, init=RANDOM, generator=g),
    "residual": lambda g: lv.ResidualField(3, 1, init=RANDOM, generator=g),
    "semidefinite": lambda g: lv.SecondOrderField(lv.SemidefiniteField(2, 1, init=RANDOM, generator=g)),
    "graph": lambda g: lv.SeparableHamiltonianField(8, 1, operator=PATH, init=RANDOM, generator=g),
}


def driven(name, seed=0):
    """A fresh field of one layer, driven by an input."""
    g = generator(seed)
    return lv.fields.driven(DRIVEN[name](g), INPUTS, generator=g).double()


def cell(name, scheme, inputs=INPUTS, h=0.3, seed=0):
    """A fresh cell of the same field."""
    g = generator(seed)
    return lv.recurrent.Cell(inputs, DRIVEN[name](g), scheme, h, generator=g).double()


def inputs(of, batch=3, seed=1):
    """A random input of a field: (batch, features), (batch, features, 4, 3) or (batch, 3, features)."""
    positions = (4, 3, 2)[: -1 - of.feature_axis]
    tokens = (3,) * ((of.sample_ndim or -of.feature_axis) + of.feature_axis)
    return torch.randn(batch, *tokens, of.features, *positions, generator=generator(seed), dtype=torch.float64)


SCHEMES = {
    s.__class__.__name__: s
    for s in (
        lv.ForwardEuler(),
        lv.SymplecticEuler(),
        lv.Verlet(),
        lv.Yoshida4(),
        lv.LeapfrogMidpoint(),
        lv.RK4(),
        lv.ImplicitMidpoint(),
        lv.ImplicitSymplecticEuler(),
        lv.DiscreteGradient(),
        lv.Momentum(),
        lv.Coupled(),
    )
}
# they take every field, and do with one what they do with all
FEW = ("hamiltonian", "antisymmetric", "residual", "separable-X", "pair-rectangular", "hamiltonian-full")
FEW += ("antisymmetric-images", "shear-tokens", "dropout", "residual-graph")


def _fits(scheme, of):
    try:
        lv.Flow(of, scheme, T=1.0)
    except ValueError:
        return False
    return True


PAIRS = [
    (s, f) for s in SCHEMES for f in (FEW if s in ("Momentum", "Coupled") else FIELDS) if _fits(SCHEMES[s], field(f))
]
REVERSIBLE_PAIRS = [(s, f) for s, f in PAIRS if isinstance(SCHEMES[s], lv.ReversibleScheme)]

BACKPROPS = {
    "stored": lv.Stored(),
    "checkpointed": lv.Checkpointed(),
    "checkpointed-2": lv.Checkpointed(every=2),
    "auto": lv.Auto(),
    "auto-tight": lv.Auto(memory=1),
    "reversible": lv.Reversible(),
    "reversible-exact": lv.Reversible(exact=True),
    "reversible-compensated": lv.Reversible(compensated=True),
    "reversible-exact-compensated": lv.Reversible(exact=True, compensated=True),
    "reversible-anchors": lv.Reversible(anchors=2),
}


def flow(scheme, name, T=0.9, **more):
    return lv.Flow(field(name), SCHEMES[scheme], T, **more)


def _network():
    body = nn.Sequential(lv.zoo.h2(4, layers=2, T=1.0), lv.Connector(4, 6), lv.zoo.ms1(6, layers=2, T=1.0))
    return lv.Network(lv.Lift(4, 2, place="ends"), body, nn.Linear(6, 3))


# what -> (instance, an input)
PARTS = {
    "lift": lambda: (lv.Lift(4, 2), torch.randn(3, 2)),
    "lift-images": lambda: (lv.Lift(4, axis=-3), torch.randn(2, 1, 4, 4)),
    "connector": lambda: (lv.Connector(4, 6), torch.randn(3, 4)),
    "connector-images": lambda: (
        lv.Connector(4, 6, pool=2, learned=False, dims=2),
        torch.randn(2, 4, 4, 4),
    ),
    "channels-last": lambda: (network.ChannelsLast(), torch.randn(2, 3, 4, 4)),
    "node-head": lambda: (lv.NodeHead(PATH, 8, outputs=(0, 2, 2)), torch.randn(3, 8)),
    "half": lambda: (network.Half("q"), torch.randn(3, 4)),
    "flow": lambda: (lv.zoo.h1(4, layers=3, T=1.0), torch.randn(3, 4)),
    "network": lambda: (_network(), torch.randn(3, 2)),
}

INITIALS = {"smooth": lv.Smooth(), "normal": lv.Normal(0.5)}


def everything():
    """One instance of each kind of sample, for the test that no public class is missing."""
    return [
        *OPERATORS.values(),
        *ACTIVATIONS.values(),
        *(field(name) for name in FIELDS),
        *(driven(name) for name in DRIVEN),
        *SCHEMES.values(),
        *BACKPROPS.values(),
        lv.Fused(),  # which needs the native library to run: its laws are in kernels/, as the next one's
        lv.BatchLast(),
        *INITIALS.values(),
        lv.PerLayer([0.0] * N),
        *(make()[0] for make in PARTS.values()),
    ]
