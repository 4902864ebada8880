"""y' = J grad H: energies, structure matrices and spectra, by autograd and written out."""

import pytest
import torch

import liouville as lv
import samples
from measure import EPS, at, far, jacobian, near, norm, randn, rounding

GENERAL = [f for f in samples.FIELDS if f.startswith("hamiltonian")]
SEPARABLE = [f for f in samples.FIELDS if f.startswith("separable")]


def structure(field, theta_j):
    return field.structure(theta_j)


def dense(field, y):
    """d f / d y of one sample."""
    return jacobian(lambda s: (field(s[0], at(field.theta())),), (y,))


@pytest.mark.parametrize("name", GENERAL + SEPARABLE)
def test_field_is_J_grad_H_and_keeps_H(name):
    field = samples.field(name)
    for j, seed in enumerate(range(5)):
        theta_j = at(field.theta(), j % samples.N)
        y = samples.inputs(field, seed=seed).requires_grad_()
        (grad,) = torch.autograd.grad(field.energy(y, theta_j).sum(), y)
        J, axis = structure(field, theta_j).detach(), field.feature_axis
        f, grad = field(y, theta_j).detach().movedim(axis, -1), grad.movedim(axis, -1)
        terms = f[0].numel()
        near(J + J.mT, torch.zeros_like(J), 0.0)
        near(f, torch.einsum("ij,...j->...i", J, grad), rounding(J.abs().sum(1).max() * grad.abs().max(), terms=terms))
        power = (f * grad).flatten(1)
        near(power.sum(1), torch.zeros(len(y)), rounding(power.abs().sum(1).max(), terms=terms))


def test_the_law_catches_gamma_subtracted_from_every_entry():
    """A graph layer once shipped like this passed all of its shape tests."""
    field = lv.HamiltonianField(4, 1).double()
    with torch.no_grad():
        field.J -= 0.1
    y = randn(3, 4).requires_grad_()
    theta_j = at(field.theta())
    (grad,) = torch.autograd.grad(field.energy(y, theta_j).sum(), y)
    far((field(y, theta_j) * grad).sum(1), torch.zeros(3), 1e-3)


@pytest.mark.parametrize("name", ["hamiltonian", "hamiltonian-full", "hamiltonian-trained-J", "hamiltonian-singular"])
def test_spectrum_is_imaginary_and_trace_zero(name):
    field = samples.field(name)
    A = dense(field, samples.inputs(field, batch=1))
    near(torch.trace(A), 0.0, rounding(norm(A), terms=len(A)))
    # a defective double eigenvalue 0 (singular J) moves by sqrt(eps)
    near(torch.linalg.eigvals(A).real, torch.zeros(len(A)), 10 * len(A) * EPS**0.5 * norm(A))


def test_canonical_and_full_J():
    assert torch.equal(
        lv.HamiltonianField(4, 1).J,
        torch.tensor([[0.0, 0, -1, 0], [0, 0, 0, -1], [1, 0, 0, 0], [0, 1, 0, 0]]),
    )
    assert torch.equal(lv.HamiltonianField(3, 1, J="full").J, torch.tensor([[0.0, 1, 1], [-1, 0, 1], [-1, -1, 0]]))


def test_trained_J_starts_where_it_should_and_stays_skew():
    plain, trained = (lv.HamiltonianField(4, 2, train_J=t).double() for t in (False, True))
    assert torch.equal(trained.theta().J[0], plain.J)
    with torch.no_grad():
        trained.J_raw += randn(1, 4, 4)
    J = trained.theta().J
    assert torch.equal(J, -J.mT)
    far(J, plain.J, 0.1)


def test_J_per_layer_reaches_its_layer():
    field = samples.field("hamiltonian-J-per-layer")
    assert field.theta().J.shape == (samples.N, 4, 4)
    assert not field.J_raw.requires_grad
    near(field.theta().J, samples._skew_layers(), 4e-7 * 4)  # stored in float32 at construction


@pytest.mark.parametrize("name", SEPARABLE)
def test_structure_of_the_separable_field(name):
    field = samples.field(name)
    J, n_p = field.structure(field.theta()), field.p_features
    X = J[n_p:, :n_p]
    assert torch.equal(J[:n_p, n_p:], -X.mT)
    assert not J[:n_p, :n_p].any()
    assert not J[n_p:, n_p:].any()


def test_separable_is_the_general_field_with_a_block_diagonal_K():
    field = samples.field("separable-X")
    theta = field.theta()
    whole = lv.HamiltonianField(4, samples.N, J=field.structure(theta)).double()
    with torch.no_grad():
        for j in range(samples.N):
            whole.K[j] = torch.block_diag(theta.K_p[j], theta.K_q[j])
            whole.b[j] = torch.cat((theta.b_p[j], theta.b_q[j]))
    y = randn(5, 4)
    for j in range(samples.N):
        near(whole(y, at(whole.theta(), j)), field(y, at(theta, j)), rounding(field.X.abs().sum() * 4, terms=4))


@pytest.mark.parametrize("name", ["pair", "pair-rectangular", "pair-scalar"])
def test_pair_field_is_sigma_of_a_skew_block_matrix(name):
    """d/dt [z; y] = [-sigma; sigma]([0 K^T; K 0] ...): P1's augmented system up to the order of the halves."""
    field = samples.field(name)
    theta = at(field.theta())
    y = samples.inputs(field)
    p, q = y[:, : field.p_features], y[:, field.p_features :]
    expected = torch.cat((-torch.tanh(q @ theta.K + theta.c), torch.tanh(p @ theta.K.mT + theta.b)), 1)
    near(field(y, theta), expected, rounding(terms=field.features))


def test_conv_with_a_1x1_stencil_is_the_dense_field_at_every_pixel():
    g = torch.Generator
    dense_field = lv.SeparableHamiltonianField(4, 1, init=samples.RANDOM, generator=g().manual_seed(0)).double()
    images = lv.SeparableHamiltonianField(
        4, 1, operator=lv.Conv(1), init=samples.RANDOM, generator=g().manual_seed(0)
    ).double()
    y = randn(2, 4, 3, 5)
    expected = dense_field(y.movedim(1, -1), at(dense_field.theta())).movedim(-1, 1)
    near(images(y, at(images.theta())), expected, rounding(8, terms=8))
    H = dense_field.energy(y.movedim(1, -1), at(dense_field.theta())).sum((1, 2))
    near(images.energy(y, at(images.theta())), H, rounding(H, terms=60))


# ---- constants given by the caller -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.float64])
@pytest.mark.parametrize("layers", [None, 2])
def test_J_may_be_given_in_any_dtype(dtype, layers):
    J = torch.tensor([[0, 2, -1], [-2, 0, 3], [1, -3, 0]], dtype=dtype)
    field = lv.HamiltonianField(3, 2, J=J if layers is None else J.expand(layers, 3, 3))
    stated = field.J if layers is None else field.theta().J[1]
    assert stated.dtype == torch.float32
    assert torch.equal(stated, J.float())


def test_J_and_X_are_copies():
    J, X = torch.tensor([[0.0, -1.0], [1.0, 0.0]], requires_grad=True), torch.eye(2, requires_grad=True)
    general, separable = lv.HamiltonianField(2, 1, J=J), lv.SeparableHamiltonianField(4, 1, X=X)
    with torch.no_grad():
        J *= 5
        X *= 5
    assert general.J.tolist() == [[0, -1], [1, 0]]
    assert torch.equal(separable.X, torch.eye(2))
    assert not general.J.requires_grad
    assert not separable.X.requires_grad


def test_J_and_X_are_exact_under_the_default_dtype_float64():
    X = randn(2, 2)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        field = lv.SeparableHamiltonianField(4, 1, X=X)
        assert torch.equal(field.X, X)
        J = field.structure(field.theta())
        assert torch.equal(lv.HamiltonianField(4, 1, J=J).J, J)
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("name", ["hamiltonian", "hamiltonian-trained-J", "separable", "separable-X"])
def test_the_rate_of_weights_that_are_not_finite_is_not_finite(name):
    for broken in range(len(list(samples.field(name).parameters()))):
        field = samples.field(name)
        with torch.no_grad():
            list(field.parameters())[broken].fill_(torch.nan)
        bias = list(dict(field.named_parameters()))[broken].startswith("b")
        assert field.rate(field.theta()).isfinite().all() == bias


def test_the_rate_of_a_broken_constant_is_infinite():
    general, separable = samples.field("hamiltonian"), samples.field("separable-X")
    general.J[0, 1] = separable.X[0, 1] = torch.nan
    for field in (general, separable):
        assert (field.rate(field.theta()) == torch.inf).all()
