"""The other families: skew and symmetric Jacobians, second-order systems, shears, dropout."""

import copy

import pytest
import torch
from torch import nn

import liouville as lv
import samples
from liouville.backprop import slices
from measure import EPS, at, far, jacobian, near, norm, randn, rounding


def matrix_of(operator, weight, shape):
    """The dense matrix of K on images of this shape, from basis vectors."""
    n, size = weight.shape[1], weight.shape[1] * torch.Size(shape).numel()
    basis = torch.eye(size, dtype=torch.float64).reshape(size, n, *shape)
    return operator.apply(weight, basis).reshape(size, -1).mT


def jacobian_at(field, y):
    return jacobian(lambda s: (field(s[0], at(field.theta())),), (y,))


class Identity(lv.AntisymmetricField):
    """sigma = identity, so that the Jacobian is the matrix M itself."""

    def __init__(self, **more):
        linear = lv.Activation("linear", lambda x: x, lambda x: x * x / 2, torch.ones_like, 1.0, True)
        super().__init__(3, 1, activation=linear, **more)


def check_dissipation(field, gamma, shape=()):
    """M = A - gamma I has M + M^T = -2 gamma I: every entry, on the dense matrix."""
    M = jacobian_at(field.double(), randn(1, 3, *shape))
    eye = torch.eye(len(M), dtype=torch.float64)
    near(M + M.mT, -2 * gamma * eye, rounding(norm(M), terms=2))
    far(M, torch.zeros_like(M), 0.1)


@pytest.mark.parametrize("operator, shape", [(lv.Dense(), ()), (lv.Conv(3, 1), (5,)), (lv.Conv(3), (4, 3))])
@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_antisymmetric_field_dissipates_gamma_on_the_diagonal_only(operator, shape, factor):
    for gamma in (0.0, 0.3):
        check_dissipation(Identity(operator=operator, gamma=gamma, factor=factor), factor * gamma, shape)


def test_the_law_catches_gamma_subtracted_from_every_entry():
    class Shipped(Identity):
        def forward(self, y, theta_j):
            return self.activation(self.operator.apply(theta_j.A - self.gamma, y, theta_j.b))

    for operator, shape in ((lv.Dense(), ()), (lv.Conv(3), (4, 3))):
        with pytest.raises(AssertionError):
            check_dissipation(Shipped(operator=operator, gamma=0.3), 0.3, shape)


def test_antisymmetric_weights_are_skew_operators():
    for name in ("antisymmetric", "antisymmetric-gamma", "antisymmetric-images"):
        field = samples.field(name)
        for theta_j in slices(field.theta(), field.layers):
            A = matrix_of(field.operator, theta_j.A, (4, 3)[: -1 - field.feature_axis])
            assert torch.equal(A, -A.mT)
            assert A.any()


def test_spectrum_of_the_antisymmetric_field_is_imaginary():
    for seed in range(10):
        field = lv.AntisymmetricField(5, 1, init=samples.RANDOM, generator=torch.Generator().manual_seed(seed)).double()
        A = jacobian_at(field, randn(1, 5, seed=seed))
        # D A is similar to D^1/2 A D^1/2, whose eigenvalues are perturbed by at most eps cond(D^1/2) ||A||
        d = 1 - torch.tanh(randn(1, 5, seed=seed) @ field.theta().A[0].mT + field.theta().b[0]).square()
        condition = float((d.max() / d.min()).sqrt().detach())
        near(torch.linalg.eigvals(A).real, torch.zeros(5), 50 * EPS * condition * norm(A))


@pytest.mark.parametrize("name", ["symmetric", "symmetric-images"])
def test_symmetric_field_is_minus_the_gradient_of_its_potential(name):
    field = samples.field(name)
    theta_j = at(field.theta(), 1)
    y = samples.inputs(field).requires_grad_()
    (grad,) = torch.autograd.grad(field.potential(y, theta_j).sum(), y)
    near(field(y, theta_j), -grad, rounding(grad, terms=y[0].numel()))
    A = jacobian_at(field, y[:1].detach())
    near(A, A.mT, rounding(norm(A), terms=len(A)))
    assert torch.linalg.eigvalsh(A).max() <= 10 * len(A) * EPS * norm(A)


@pytest.mark.parametrize("name", ["semidefinite", "semidefinite-images"])
def test_semidefinite_field_has_a_real_non_positive_spectrum(name):
    field = samples.field(name)
    eigenvalues = torch.linalg.eigvals(jacobian_at(field, samples.inputs(field, batch=1)))
    size = float(eigenvalues.abs().max())
    # C^T C may be singular: a multiple eigenvalue 0 of a non-normal matrix moves by sqrt(eps)
    assert eigenvalues.real.max() <= 10 * EPS**0.5 * size
    assert eigenvalues.imag.abs().max() <= 10 * EPS**0.5 * size
    assert eigenvalues.real.min() < -0.01


def test_second_order_energy_is_conserved_by_the_field_and_its_gradient_is_the_field():
    for name in ("second-order", "second-order-rest", "second-order-images"):
        field = samples.field(name)
        theta_j = at(field.theta())
        q = samples.inputs(field).requires_grad_()
        p = samples.inputs(field, seed=2).requires_grad_()
        dp, dq = torch.autograd.grad(field.energy((p, q), theta_j).sum(), (p, q))
        near(field.p_dot(q, theta_j), -dq, rounding(dq, terms=q[0].numel()))
        near(field.q_dot(p, theta_j), dp, rounding(dp))


def test_second_order_output_is_q_and_says_so():
    field = samples.field("second-order")
    p, q = randn(2, 3), randn(2, 3, seed=1)
    assert field.leave(p, q) is q
    with pytest.raises(ValueError, match=r"does not determine the velocity p.*final_state"):
        field.split(q)


def test_shear_field_uses_the_weights_of_its_layer_and_given_modules_as_they_are():
    F = [nn.Linear(2, 3).double() for _ in range(4)]
    G = [nn.Linear(3, 2).double() for _ in range(4)]
    field = lv.ShearField(F, G, layers=4, features=5, p_features=2)
    y = randn(6, 5)
    for j, theta_j in enumerate(slices(field.theta(), 4)):
        expected = torch.cat((-G[j](y[:, 2:]), F[j](y[:, :2])), 1)
        near(field(y, theta_j), expected, rounding(terms=3))


def test_shear_template_gets_fresh_weights_in_every_layer():
    field = lv.ShearField(nn.Linear(2, 2), nn.Linear(2, 2), layers=3, features=4)
    w = field.theta().F__weight
    far(w[0], w[1], 1e-3)
    far(w[1], w[2], 1e-3)


def test_shear_field_survives_copies_and_refinement():
    field = samples.field("shear")
    y = samples.inputs(field)
    other = copy.deepcopy(field)
    with torch.no_grad():
        next(other.parameters()).add_(1.0)
    far(other(y, at(other.theta())), field(y, at(field.theta())), 1e-3)
    fine = field.refined()
    assert all(len(w) == 2 * samples.N for w in fine.theta())
    assert torch.equal(fine(y, at(fine.theta(), 5)), field(y, at(field.theta(), 2)))


class Scaled(nn.Linear):
    """Two settings that no repr shows: an attribute and a buffer."""

    def __init__(self, factor=1.0, shift=0.0):
        super().__init__(2, 2)
        self.factor = factor
        self.register_buffer("shift", torch.tensor([shift]))


def _acting(part):
    return nn.Sequential(nn.Linear(2, 2), part, nn.Linear(2, 2))


def test_shear_field_takes_modules_that_differ_in_their_weights_alone():
    F = [Scaled(2.0, 1.0).eval(), Scaled(2.0, 1.0)]  # whether they train is the field's to say
    field, p = lv.ShearField(F, _acting(nn.Dropout(0.0)), layers=2, features=4), torch.randn(3, 2)
    for block, theta_j in zip(F, slices(field.theta(), 2), strict=True):
        assert torch.equal(field.q_dot(p, theta_j), block(p))


@pytest.mark.parametrize("many", [False, True])
def test_shear_field_keeps_frozen_parameters_frozen(many):
    def block():
        part = _acting(nn.Tanh())
        part[0].requires_grad_(False)
        return part

    F = [block() for _ in range(3)] if many else block()
    field = lv.ShearField(F, _acting(nn.Tanh()), layers=3, features=4)
    frozen = {name for name, w in field.named_parameters() if not w.requires_grad}
    assert frozen == {"stacked.F__0__weight", "stacked.F__0__bias"}
    field.refined()
    lv.Flow(field, lv.SymplecticEuler(), T=1.0)(torch.randn(2, 4)).sum().backward()
    assert {name for name, w in field.named_parameters() if w.grad is None} == frozen
    assert all(w.requires_grad != (f"stacked.{name}" in frozen) for name, w in field.stacked.items())


@pytest.mark.parametrize(
    "F, message",
    [
        (nn.Tanh(), "F must have parameters"),
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), "running statistics, got BatchNorm1d"),
        ([nn.Linear(2, 2)], r"3 of them \(one per layer\), got 1"),
        ([nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2, bias=False)], "same names and shapes"),
        ([_acting(nn.Tanh()), _acting(nn.Tanh()), _acting(nn.ReLU())], "one structure; module 2 has other parts"),
        ([_acting(nn.ELU()), _acting(nn.ELU(0.5)), _acting(nn.ELU())], "module 1 has other parts"),
        ([Scaled(), Scaled(factor=2.0), Scaled()], "module 1 has other parts, settings"),
        ([nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 2)], "module 1 .*requires_grad"),
        (_acting(nn.Dropout(0.25)), r"must not draw random numbers, got Dropout\(p=0.25.*lv.dropout\(field, 0.25\)"),
        (_acting(nn.FeatureAlphaDropout(0.5)), "must not draw random numbers"),
        ([_acting(nn.Dropout1d(0.5))] * 3, "must not draw random numbers"),
        (nn.LSTM(2, 2, num_layers=2, dropout=0.1), r"random numbers, got LSTM.*lv.dropout\(field, 0.1\)"),
    ],
)
def test_shear_errors(F, message):
    with pytest.raises(ValueError, match=message):
        lv.ShearField(F, nn.Linear(2, 2), layers=3, features=4)


@pytest.mark.parametrize("name", ["dropout", "dropout-partitioned", "dropout-images", "dropout-second-order"])
def test_dropout_zeroes_a_share_and_keeps_the_mean(name):
    """Over 3000 masks an entry's mean errs by sqrt(p / (1 - p) / 3000) = 1.2 %; six of those are allowed."""
    field = samples.field(name)
    theta_j = at(field.theta())
    q = samples.inputs(field, batch=1)
    partitioned = isinstance(field, lv.PartitionedField)
    if partitioned and name != "dropout-second-order":
        q = field.split(q)[1]
    velocity = (lambda f: f.p_dot(q, theta_j)) if partitioned else (lambda f: f(q, theta_j))
    drawn = torch.stack([velocity(field.in_run(seed).at_layer(0)) for seed in range(3000)])
    field.eval()
    plain = velocity(field.in_run(0).at_layer(0))
    assert set(((drawn == 0) | ((drawn - plain / 0.7).abs() <= 4 * EPS * plain.abs())).unique().tolist()) == {True}
    near(drawn.mean(0) / plain, torch.ones_like(plain), 6 * (0.3 / 0.7 / 3000) ** 0.5)


def test_dropout_draws_differ_between_layers_halves_and_seeds():
    field = samples.field("dropout-partitioned")
    theta_j, half = at(field.theta()), randn(50, 2)
    masks = [
        field.in_run(3).at_layer(0).p_dot(half, theta_j) == 0,
        field.in_run(3).at_layer(1).p_dot(half, theta_j) == 0,
        field.in_run(4).at_layer(0).p_dot(half, theta_j) == 0,
        field.in_run(3).at_layer(0).q_dot(half, theta_j) == 0,
    ]
    # seeds that differ in their high bits alone: a generator that read 32 bits of them would draw the same
    masks += [field.in_run(3 + 2**k).at_layer(0).p_dot(half, theta_j) == 0 for k in range(2, 31)]
    for i, a in enumerate(masks):
        assert not any(torch.equal(a, b) for b in masks[i + 1 :])
