"""A J A^T = J (A in numerator layout), determinants, and their failure where they must fail."""

import pytest
import torch

import liouville as lv
import samples
from liouville.schemes import SPLITTINGS
from measure import EPS, at, far, first_state, generator, jacobian, near, norm, randn, step_jacobian

SPLITTING = [s for s, v in samples.SCHEMES.items() if isinstance(v, lv.SplittingScheme)]
SEPARABLE = [f for f in samples.FIELDS if f.startswith("separable")]
SECOND_ORDER = ["second-order", "second-order-rest", "second-order-images"]


def J_of(field):
    """J on the flattened (p, q): over features, and the identity over positions."""
    positions = torch.Size((4, 3)[: -1 - field.feature_axis]).numel()
    if isinstance(field, lv.SecondOrderField):
        J = torch.kron(torch.tensor([[0.0, -1.0], [1.0, 0.0]]).double(), torch.eye(field.features).double())
    else:
        J = field.structure(at(field.theta()))
    return torch.kron(J.detach(), torch.eye(positions, dtype=torch.float64))


def step(scheme, field, h=0.4, j=0, seed=1):
    return step_jacobian(scheme, field, first_state(scheme, field, samples.inputs(field, batch=1, seed=seed), h), h, j)


def check_symplectic(A, J, solver=1.0):
    # two products of n terms with entries up to ||A||^2 ||J||; an implicit equation is solved to 10 eps instead of 1
    near(A @ J @ A.mT, J, 10 * solver * len(A) * EPS * norm(A) ** 2 * norm(J))


# ---- symplectic ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SEPARABLE + SECOND_ORDER)
@pytest.mark.parametrize("scheme", SPLITTING)
def test_splitting_schemes_are_symplectic_on_separable_fields(scheme, name):
    field = samples.field(name)
    for j in range(samples.N):
        check_symplectic(step(samples.SCHEMES[scheme], field, h=0.2 + j, j=j, seed=j), J_of(field))


def block_J(seed=3):
    X = randn(2, 2, seed=seed).float()
    zero = torch.zeros(2, 2)
    return torch.cat((torch.cat((zero, -X.mT), 1), torch.cat((X, zero), 1)))


@pytest.mark.parametrize("name", [f for s, f in samples.PAIRS if s == "ImplicitMidpoint" and f.startswith("ham")])
def test_implicit_midpoint_is_symplectic_for_every_constant_J(name):
    field = samples.field(name)
    for h in (0.3, 3.0):
        check_symplectic(step(lv.ImplicitMidpoint(), field, h=h), J_of(field), solver=10)


def test_implicit_symplectic_euler_is_symplectic_for_canonical_and_block_J():
    for J in ("canonical", block_J()):
        for seed in range(5):
            field = lv.HamiltonianField(4, 1, J=J, init=samples.RANDOM, generator=generator(seed)).double()
            check_symplectic(step(lv.ImplicitSymplecticEuler(), field, h=0.3, seed=seed), field.J, solver=10)


def test_whole_flows_are_symplectic_relative_to_their_growth():
    field = lv.SeparableHamiltonianField(4, 64, X=torch.tensor([[1.2, 0.7], [-0.3, 0.6]]), init=samples.RANDOM).double()
    flow = lv.Flow(field, lv.SymplecticEuler(), T=6.4)
    A = jacobian(lambda s: flow.backprop.run(flow.scheme, field, s, field.theta(), flow.h), field.split(randn(1, 4)))
    # 64 layers, each with its rounding, carried to the end
    J = field.structure(field.theta())
    near(A @ J @ A.mT, J, 10 * 64 * 4 * EPS * norm(A) ** 2 * norm(J))
    assert norm(A) >= 1.0


# ---- and where it must fail ------------------------------------------------------------------------------------


def test_numerator_layout_A_transpose_J_A_differs_for_a_general_X():
    field = samples.field("separable-X")
    A, J = step(lv.SymplecticEuler(), field), J_of(field)
    check_symplectic(A, J)
    far(A.mT @ J @ A, J, 1e-3)


@pytest.mark.parametrize("scheme", ["ForwardEuler", "RK4"])
@pytest.mark.parametrize("name", ["hamiltonian", "separable-X"])
def test_forward_euler_and_rk4_are_not_symplectic(scheme, name):
    field = samples.field(name)
    A, J = step(samples.SCHEMES[scheme], field, h=0.8), J_of(field)
    far(A @ J @ A.mT, J, 1e-4)
    with pytest.raises(AssertionError):
        check_symplectic(A, J, solver=10)


def common_structure(jacobians):
    """The smallest singular value of J -> (A J A^T - J for all A) over skew J of norm 1, and its J."""
    n = len(jacobians[0])
    rows, columns = torch.triu_indices(n, n, 1)
    basis = torch.zeros(len(rows), n, n, dtype=torch.float64)
    basis[torch.arange(len(rows)), rows, columns] = 2**-0.5
    basis = basis - basis.mT
    images = torch.stack([torch.stack([A @ J @ A.mT - J for A in jacobians]).flatten() for J in basis], 1)
    _, s, Vh = torch.linalg.svd(images, full_matrices=False)
    return float(s[-1]), torch.tensordot(Vh[-1], basis, 1)


def layers_of(field, scheme):
    # the canonical J belongs to halves of equal size
    return [step(scheme, field, j=j, seed=j) for j in range(samples.N)]


@pytest.mark.parametrize("name", ["pair", "pair-scalar"])
def test_no_constant_J_makes_the_pair_field_symplectic_though_its_determinant_is_one(name):
    field = samples.field(name)
    jacobians = layers_of(field, lv.SymplecticEuler())
    value, _ = common_structure(jacobians)
    assert value > 1e-3
    for A in jacobians:
        near(torch.linalg.slogdet(A).logabsdet, 0.0, 10 * len(A) * EPS * float(torch.linalg.cond(A)))


def test_the_search_for_a_common_J_finds_it_where_there_is_one():
    field = samples.field("separable-X")
    value, J = common_structure(layers_of(field, lv.SymplecticEuler()))
    assert value < 1e3 * EPS
    known = field.structure(field.theta())
    known = known / known.norm()
    near(torch.minimum((J - known).abs().max(), (J + known).abs().max()), 0.0, 1e4 * EPS)


def test_a_semidefinite_force_is_not_symplectic():
    field = samples.field("second-order-semidefinite")
    A, J = step(lv.Verlet(), field, h=0.8), J_of(field)
    far(A @ J @ A.mT, J, 1e-4)


# ---- determinants ----------------------------------------------------------------------------------------------


def check_unit_determinant(A):
    sign, logarithm = torch.linalg.slogdet(A)
    assert sign == 1
    near(logarithm, 0.0, 10 * len(A) * EPS * float(torch.linalg.cond(A)))


@pytest.mark.parametrize("scheme, name", [(s, f) for s, f in samples.PAIRS if s in SPLITTING])
def test_every_shear_has_determinant_one(scheme, name):
    scheme, field = samples.SCHEMES[scheme], samples.field(name)
    state = first_state(scheme, field, samples.inputs(field, batch=1))
    for j in range(samples.N):  # dropout included: the masks of a run of seed 11
        theta_j, layer = at(field.theta(), j), field.in_run(11).at_layer(j)
        check_unit_determinant(jacobian(lambda s, w=theta_j, f=layer: scheme.step(f, s, w, 0.4), state))


def test_the_law_catches_what_is_no_shear():
    field = samples.field("separable")
    for scheme in (lv.ForwardEuler(), lv.RK4()):
        with pytest.raises(AssertionError):
            check_unit_determinant(step(scheme, field, h=0.8))


def check_euler_determinant(field, h, seed):
    """det(I + h f') = prod(1 + h^2 mu_k^2) >= 1, i mu_k the eigenvalues of f'."""
    y = randn(1, field.features, seed=seed)
    A = step_jacobian(lv.ForwardEuler(), field, (y,), h)
    f = (A - torch.eye(len(A), dtype=torch.float64)) / h
    # both signs of each mu count once; perturbed by eps ||f'|| cond at most, cond of the eigenvectors below 1e4 here
    predicted = 0.5 * torch.log1p(h**2 * torch.linalg.eigvals(f).imag.square()).sum()
    sign, logarithm = torch.linalg.slogdet(A)
    allowed = 1e4 * len(A) * EPS * max(1.0, h * norm(f)) ** 2
    assert sign == 1
    assert logarithm >= -allowed
    near(logarithm, predicted, allowed)


@pytest.mark.parametrize("seed", range(10))
def test_forward_euler_on_h1_and_ms2_has_determinant_at_least_one(seed):
    h = 0.05 * (seed + 1)
    for J in ("canonical", "full", block_J(seed)):
        check_euler_determinant(
            lv.HamiltonianField(4, 1, J=J, init=samples.RANDOM, generator=generator(seed)).double(), h, seed
        )
    check_euler_determinant(
        lv.HamiltonianField(5, 1, J="full", hidden=7, init=samples.RANDOM, generator=generator(seed)).double(), h, seed
    )
    for n in (4, 5):
        check_euler_determinant(
            lv.AntisymmetricField(n, 1, init=samples.RANDOM, generator=generator(seed)).double(), h, seed
        )


SIN3 = lv.Activation(
    "sin3", lambda x: torch.sin(3 * x), lambda x: -torch.cos(3 * x) / 3, lambda x: 3 * torch.cos(3 * x), 3.0, False
)


def log_determinants(make, seeds=20):
    fields = [make(generator(seed)).double() for seed in range(seeds)]
    return torch.stack(
        [
            torch.linalg.det(step_jacobian(lv.ForwardEuler(), f, (randn(1, f.features, seed=s),), 0.5))
            for s, f in enumerate(fields)
        ]
    )


def test_the_bound_needs_a_monotone_activation():
    for kind in (lv.HamiltonianField, lv.AntisymmetricField):
        assert log_determinants(lambda g, k=kind: k(4, 1, init=samples.RANDOM, generator=g)).min() >= 1 - 1e-12
        # 1 - 1e-12 stands for 1 to within rounding; without monotonicity it is missed by far
        assert (
            log_determinants(lambda g, k=kind: k(4, 1, activation=SIN3, init=samples.RANDOM, generator=g)).min() < 0.9
        )


def test_the_bound_is_lost_with_gamma():
    assert (
        log_determinants(lambda g: lv.AntisymmetricField(4, 1, gamma=0.5, init=samples.RANDOM, generator=g)).min() < 0.9
    )


def test_rk4_and_residual_networks_promise_no_determinant():
    field = samples.field("hamiltonian")
    dets = [torch.linalg.det(step(lv.RK4(), field, h=h, seed=s)) for h in (1.0, 1.5) for s in range(10)]
    assert min(dets) < 1 - 1e-3
    assert log_determinants(lambda g: lv.ResidualField(4, 1, init=samples.RANDOM, generator=g)).min() < 0.9


def test_forward_euler_still_bounds_every_backward_sensitivity_from_below():
    """det >= 1 per layer, so every product has norm >= 1, per sample, at any depth."""
    for seed in range(5):
        field = lv.HamiltonianField(4, 50, init=lv.Normal(0.7), generator=generator(seed)).double()
        A = torch.eye(4, dtype=torch.float64)
        y = randn(1, 4, seed=seed)
        for j in reversed(range(50)):
            A = A @ step_jacobian(lv.ForwardEuler(), field, (y,), 0.1, j)
            assert norm(A) >= 1 - 50 * 4 * EPS


@pytest.mark.parametrize("kind", SPLITTINGS, ids=lambda kind: kind.__name__)
def test_what_is_read_by_its_stages_computes_by_its_stages(kind):
    """Proofs, bounds and kernels take these schemes for their stages."""
    for name in ("init", "step", "shears", "inverse", "final"):
        assert getattr(kind, name) is getattr(lv.SplittingScheme, name)
