"""A sequence stepped in a plain loop: what the kernel over time is compared with."""

import torch

import liouville as lv
from measure import generator


def separable(n, **more):
    return lv.SeparableHamiltonianField(n, 1, init=lv.Normal(1 / n), generator=generator(n), **more).double()


def pair(n, **more):
    return lv.PairField(n, 1, init=lv.Normal(1 / n), generator=generator(n), **more).double()


def second(force, **more):
    def make(n):
        return lv.SecondOrderField(force(n, 1, init=lv.Normal(1 / n), generator=generator(n), **more)).double()

    return make


def euler(kind, **more):
    def make(n):
        return kind(n, 1, init=lv.Normal(1 / n), generator=generator(n), **more).double()

    return make


SHEARS = {
    "separable": separable,
    "separable-relu": lambda n: separable(n, activation="relu"),
    
    "pair": pair,
    "pair-rectangular": lambda n: pair(n, p_features=n // 3 + 1) if n > 2 else pair(n),
    "pair-relu": lambda n: pair(n, activation="relu"),
    "second-symmetric": second(lv.SymmetricField),
    "second-hidden": lambda n: second(lv.SymmetricField, hidden=n + 3)(n),
    "second-residual": second(lv.ResidualField),
    "second-semidefinite": second(lv.SemidefiniteField),
}
EULER = {
    "hamiltonian": euler(lv.HamiltonianField, J="full"),
    "hamiltonian-hidden": lambda n: euler(lv.HamiltonianField, J="full", hidden=n // 2 + 1)(n),
    "hamiltonian-relu": euler(lv.HamiltonianField, J="full", activation="relu"),
    "antisymmetric": euler(lv.AntisymmetricField, gamma=0.1),
    "antisymmetric-scalar": euler(lv.AntisymmetricField, scalar_bias=True, factor=0.5),
    "residual": euler(lv.ResidualField),
}
