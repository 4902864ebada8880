"""Every field keeps the contract, and `check_field` notices every way of breaking it."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import liouville as lv
import samples
from liouville.fields.base import Lipschitz
from liouville.testing import check_field
from measure import at, generator, randn


@pytest.mark.parametrize("name", samples.FIELDS)
def test_contract(name):
    field = samples.field(name)
    for seed in range(3):
        check_field(field, samples.inputs(field), seed=seed)


def test_the_field_given_is_left_as_it_is():
    field = lv.ResidualField(3, 2).eval()
    before = {name: w.clone() for name, w in field.state_dict().items()}
    check_field(field)
    assert not field.training
    assert all(w.dtype == torch.float32 and torch.equal(w, before[name]) for name, w in field.state_dict().items())


class Residual(lv.ResidualField):
    def __init__(self):
        super().__init__(3, 2)


class StrayParameter(Residual):
    """Reaches theta() and the layer too, beside it."""

    def forward(self, y, theta_j):
        return super().forward(y, theta_j) + 0.1 * self.b[0]


class DetachedStray(Residual):
    def forward(self, y, theta_j):
        return super().forward(y, theta_j) + 0.1 * self.K[0, 0].detach()


class FrozenStray(Residual):
    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, y, theta_j):
        return super().forward(y, theta_j) + self.shift


class UnusedParameter(Residual):
    def __init__(self):
        super().__init__()
        self.extra = nn.Parameter(torch.ones(2, 3))


class HiddenModule(Residual):
    """Kept in a list, so that it is no parameter of the field at all."""

    def __init__(self):
        super().__init__()
        self.blocks = [nn.Linear(3, 3).double()]

    def forward(self, y, theta_j):
        return self.blocks[0](super().forward(y, theta_j))


class PlainTensor(Residual):
    def __init__(self):
        super().__init__()
        self.J = torch.eye(3, dtype=torch.float64)

    def forward(self, y, theta_j):
        return super().forward(y, theta_j) @ self.J


class Noisy(Residual):
    def forward(self, y, theta_j):
        return super().forward(y, theta_j) + torch.randn(3, dtype=y.dtype)


class DrawsWithoutUse(Residual):
    def forward(self, y, theta_j):
        torch.rand(1)
        return super().forward(y, theta_j)


class InPlace(Residual):
    def forward(self, y, theta_j):
        y += 0.0 * y + 1.0
        return super().forward(y - 1.0, theta_j)


class Running(Residual):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, y, theta_j):
        self.calls += 1
        return super().forward(y, theta_j)


class AcrossBatch(Residual):
    def forward(self, y, theta_j):
        return super().forward(y - y.mean(0), theta_j)


class OneBatchAxis(Residual):
    def forward(self, y, theta_j):
        return super().forward(y, theta_j).flatten(0, -2)


class WrongShape(Residual):
    def forward(self, y, theta_j):
        return super().forward(y, theta_j)[..., :1]


class SinglePrecision(Residual):
    def forward(self, y, theta_j):
        return super().forward(y, theta_j).float()


class Detached(Residual):
    def forward(self, y, theta_j):
        return self.activation(y @ theta_j.K.mT.detach() + theta_j.b)


class TupleTheta(Residual):
    def theta(self):
        return (self.K, self.b)


class WrongAxis(Residual):
    def theta(self):
        return super().theta()._replace(b=self.b.mT)


class RandomTheta(Residual):
    def theta(self):
        return super().theta()._replace(b=self.b + torch.randn(2, 3, dtype=self.b.dtype))


class LowRate(Residual):
    def rate(self, theta):
        return 0.05 * super().rate(theta)

    def lipschitz(self, theta):  # which asks for the rate
        parts, one_sided = super().lipschitz(theta)
        return Lipschitz(tuple(20 * L for L in parts), 20 * one_sided)


class LowConstants(Residual):
    def lipschitz(self, theta):
        parts, one_sided = super().lipschitz(theta)
        return Lipschitz(tuple(0.05 * L for L in parts), one_sided)


class ScalarRate(Residual):
    def rate(self, theta):
        return super().rate(theta).max()


class NotSkew(lv.HamiltonianField):
    """Once shipped by others: gamma subtracted from every entry of the structure matrix, not from its diagonal."""

    def __init__(self):
        super().__init__(4, 2)

    def structure(self, theta_j):
        return self.J - 0.1


class StatedNotSkew(lv.SeparableHamiltonianField):
    """The field itself is right; the structure that it states is not."""

    def __init__(self):
        super().__init__(4, 2)

    def structure(self, theta):
        return super().structure(theta) - 0.1


class FirstStructure(lv.HamiltonianField):
    """Says the first layer's J of every layer."""

    def __init__(self):
        J = torch.randn(2, 4, 4, generator=generator(), dtype=torch.float64)
        super().__init__(4, 2, J=J - J.mT)

    def forward(self, y, theta_j):
        return self.gradient(y, theta_j) @ theta_j.J.mT

    def structure(self, theta):
        return super().structure(theta) if theta.J.dim() == 2 else theta.J[0]


class OtherEnergy(lv.HamiltonianField):
    def __init__(self):
        super().__init__(4, 2)

    def energy(self, y, theta_j):
        return y.square().sum(-1)


class ScaledEnergy(lv.HamiltonianField):
    """Conserved, but f is not J grad H."""

    def __init__(self):
        super().__init__(4, 2)

    def energy(self, y, theta_j):
        return 2 * super().energy(y, theta_j)


class BatchEnergy(lv.HamiltonianField):
    def __init__(self):
        super().__init__(4, 2)

    def energy(self, y, theta_j):
        return super().energy(y, theta_j).sum()


class Coupled(lv.SeparableHamiltonianField):
    """p' reads p as well."""

    def __init__(self):
        super().__init__(4, 2)

    def forward(self, y, theta_j):
        p, q = self.split(y)
        return self.join(self.p_dot(q, theta_j) - 0.1 * p, self.q_dot(p, theta_j))


class Swapped(lv.PairField):
    def __init__(self):
        super().__init__(4, 2)

    def join(self, p, q):
        return torch.cat((q, p), -1)


class OtherJacobian(Residual):
    def jacobian(self, y, theta):
        return -super().jacobian(y, theta)


class OtherHalf(lv.PairField):
    def __init__(self):
        super().__init__(4, 2)

    def q_jacobian(self, p, theta):
        return 2 * super().q_jacobian(p, theta)


class GlobalNoise(lv.fields.DropoutField):
    def __init__(self):
        super().__init__(Residual(), 0.5)

    def _masked(self, velocity, generator):
        return velocity if generator is None else nn.functional.dropout(velocity, 0.5)


BROKEN = {
    StrayParameter: "through theta",
    DetachedStray: "'K'",
    FrozenStray: "'shift'",
    UnusedParameter: "'extra'",
    HiddenModule: "another tensor",
    PlainTensor: "register_buffer",
    Noisy: "deterministic",
    DrawsWithoutUse: "global generator",
    InPlace: "changes nothing|deterministic",
    Running: "changes nothing",
    AcrossBatch: "independent",
    OneBatchAxis: "batch axis",
    WrongShape: "shaped like the state",
    SinglePrecision: "float32",
    Detached: "finite differences",
    TupleTheta: "NamedTuple",
    WrongAxis: "axis 0",
    RandomTheta: "theta.. is deterministic",
    LowRate: "spectral radius",
    LowConstants: "lipschitz bounds",
    ScalarRate: "one number per layer",
    NotSkew: "constant",
    StatedNotSkew: "J is skew",
    FirstStructure: "one for each layer",
    OtherEnergy: "constant",
    ScaledEnergy: "J grad H",
    BatchEnergy: "one number per sample",
    Coupled: "p_dot",
    OtherJacobian: "jacobian is the derivative",
    OtherHalf: "q_jacobian is the derivative",
    Swapped: "split undoes join",
    GlobalNoise: "one draw",
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda c: c.__name__)
def test_a_broken_field_is_caught_and_named(broken):
    with pytest.raises(AssertionError, match=BROKEN[broken]):
        check_field(broken())


def test_the_unbroken_ones_pass():
    check_field(Residual())
    check_field(lv.HamiltonianField(4, 2))


class _Nothing(NamedTuple):
    pass


class Rotation(lv.VectorField):
    """A field without weights: y' = (-y_2, y_1)."""

    def __init__(self, layers):
        super().__init__(2, layers)

    def theta(self):
        return _Nothing()

    def forward(self, y: Tensor, theta_j: _Nothing) -> Tensor:
        return torch.stack((-y[..., 1], y[..., 0]), -1)


def test_a_field_without_weights_runs_its_layers():
    field, y = Rotation(200), randn(3, 2)
    check_field(field)
    for engine in (lv.Stored(), lv.Checkpointed()):
        out = lv.Flow(field, lv.RK4(), T=1.0, backprop=engine)(y)
        c, s = torch.cos(torch.tensor(1.0).double()), torch.sin(torch.tensor(1.0).double())
        exact = y @ torch.stack((torch.stack((c, s)), torch.stack((-s, c))))
        assert (out - exact).abs().max() < 1e-9  # h^4 / 120 = 5e-12 times |y|


def test_a_theta_of_the_wrong_depth_is_refused():
    class Short(Residual):
        def theta(self):
            return type(super().theta())(*(torch.cat((w, w)) for w in super().theta()))

    with pytest.raises(ValueError, match=r"axis 0 of theta\(\)\.K must count the 2 layers.*\(4, 3, 3\)"):
        lv.Flow(Short(), lv.ForwardEuler(), T=1.0)(torch.randn(2, 3))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: lv.ResidualField(0, 2), "features must be at least 1, got 0"),
        (lambda: lv.ResidualField(2, 0), "layers must be at least 1, got 0"),
        (lambda: lv.SeparableHamiltonianField(5, 2), r"must be even.*got 5.*Lift\(6\)"),
        (lambda: lv.PairField(4, 2, p_features=4), "p_features must lie in 1 ... 3, got 4"),
        (lambda: lv.HamiltonianField(3, 2), 'even for the canonical J, got 3.*J="full"'),
        (lambda: lv.HamiltonianField(4, 2, J="cannonical"), "did you mean 'canonical'"),
        (lambda: lv.HamiltonianField(4, 2, J=torch.eye(4)), "must be skew.*got a largest entry .* of 2"),
        (lambda: lv.HamiltonianField(4, 2, J=torch.zeros(3, 3)), r"shape \(4, 4\).*got \(3, 3\)"),
        (lambda: lv.SeparableHamiltonianField(4, 2, X=torch.eye(3)), r"\(n_q, n_p\) = \(2, 2\), got \(3, 3\)"),
        (lambda: lv.SeparableHamiltonianField(5, 2, p_features=2), "3 x 2 matrix"),
        (lambda: lv.AntisymmetricField(4, 2, gamma=-0.1), "gamma must be >= 0.*got -0.1"),
        (lambda: lv.AntisymmetricField(4, 2, gamma=float("nan")), "gamma must be >= 0 and finite.*got nan"),
        (lambda: lv.AntisymmetricField(4, 2, gamma=float("inf")), "gamma must be >= 0 and finite.*got inf"),
        (lambda: lv.SecondOrderField(lv.SymmetricField(2, 2), start="zero"), "got 'zero'"),
        (lambda: lv.ResidualField(2, 2, activation="thanh"), "did you mean 'tanh'"),
        (lambda: lv.dropout(lv.ResidualField(2, 2), 1.0), r"\[0, 1\), got 1.0"),
        (lambda: lv.dropout(lv.dropout(lv.ResidualField(2, 2), 0.1), 0.1), "deterministic field, got DropoutField"),
        (lambda: lv.Smooth(modes=0), "modes must be at least 1, got 0"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_noise_needs_a_run():
    field = samples.field("dropout")
    with pytest.raises(RuntimeError, match=r"use field\.in_run\(seed\)\.at_layer\(j\)"):
        field.at_layer(0)
    y, theta_0 = samples.inputs(field), at(field.theta())
    assert field.eval().at_layer(0) is field
    quiet = field.in_run()
    field.train()
    assert torch.equal(quiet.at_layer(0)(y, theta_0), field.field(y, theta_0))  # a run that began without noise
    deterministic = samples.field("residual")
    assert deterministic.in_run(3).at_layer(1) is deterministic


def test_a_field_that_states_no_rate_says_how_to_state_one():
    with pytest.raises(NotImplementedError, match="override rate"):
        samples.field("shear").rate(samples.field("shear").theta())
