"""y' = (J - R) grad H + G u: the power balance, R = 0 as the Hamiltonian field, its inputs, and Strang's constant."""

import pytest
import torch

import liouville as lv
import samples
from liouville.analysis import certify
from measure import at, far, generator, near, randn, rounding

PORTS = [f for f in samples.FIELDS if f.startswith("port")]


def power(field, y, theta_j, u=None):
    """<grad H, y'> by autograd, and -|L^T grad H|^2 + <G^T grad H, u> written out."""
    y = y.detach().requires_grad_()
    (grad,) = torch.autograd.grad(field.storage(y, theta_j).sum(), y)
    f = field(y, theta_j) if u is None else field(y, theta_j, u=u)
    axis = field.feature_axis
    f, grad = f.detach().movedim(axis, -1), grad.movedim(axis, -1)
    flows = -(grad @ theta_j.L).square().sum(-1)
    if u is not None:
        flows = flows + ((grad @ theta_j.G) * u).sum(-1)
    size = (f * grad).abs().sum() + (grad @ theta_j.L).square().sum()
    return (f * grad).sum(-1), flows, size


@pytest.mark.parametrize("name", PORTS)
def test_the_storage_changes_by_what_flows_in_and_what_is_lost(name):
    field = samples.field(name)
    for j in range(samples.N):
        y, theta_j = samples.inputs(field, seed=j), at(field.theta(), j)
        for u in (None, *([randn(3, field.inputs, seed=j)] if field.inputs else [])):
            gained, flows, size = power(field, y, theta_j, u)
            near(gained, flows, rounding(size, terms=field.features))


def test_the_law_catches_a_resistance_that_gains():
    field = samples.field("port-hamiltonian")
    field.interconnection = lambda theta: field.J + field.resistance(theta)
    gained, flows, _ = power(field, samples.inputs(field), at(field.theta()))
    far(gained, flows, 1e-2)


@pytest.mark.parametrize("J", ["canonical", "full"])
def test_without_a_resistance_it_is_the_hamiltonian_field(J):
    own = lv.HamiltonianField(4, samples.N, J=J, init=samples.RANDOM, generator=generator()).double()
    port = lv.PortHamiltonianField(4, samples.N, J=J, damping=0.0).double()
    with torch.no_grad():
        port.K.copy_(own.K), port.b.copy_(own.b)
    y, theta = randn(3, 4), port.theta()
    for j in range(samples.N):
        near(port(y, at(theta, j)), own(y, at(own.theta(), j)), rounding(y, terms=4))
        near(port.energy(y, at(theta, j)), own.energy(y, at(own.theta(), j)), 0.0)
    assert torch.equal(port.structure(theta), own.structure(own.theta()))
    for scheme, route in ((lv.ImplicitMidpoint(), "symplectic"), (lv.ForwardEuler(), "det >= 1")):
        claims = {c.name: c for c in certify(lv.Flow(port, scheme, 0.5)).claims}
        assert (claims["lower bound"].status, claims["lower bound"].route) == ("pass", route)


def test_a_field_that_loses_energy_states_no_conserved_one_and_no_structure():
    field = samples.field("port-hamiltonian")
    assert field.structure(field.theta()) is None
    with pytest.raises(NotImplementedError, match=r"loses energy.*storage"):
        field.energy(randn(3, 4), at(field.theta()))


@pytest.mark.parametrize("engine", [lv.Stored(), lv.Checkpointed(), lv.Reversible()], ids=repr)
def test_an_input_for_all_layers_or_each_reaches_every_engine_with_its_gradient(engine):
    field = samples.field("port-hamiltonian-inputs")
    flow = lv.Flow(field, lv.DiscreteGradient(), T=0.3, backprop=engine)
    y, u = randn(3, 4), randn(samples.N, 3, 2, seed=4).requires_grad_()
    flow(y, u=lv.PerLayer(u)).square().sum().backward()
    found, x = u.grad.clone(), y
    u.grad = None
    for j in range(samples.N):  # y' = y + h (mean velocity), the mean at the solution
        (x,) = flow.scheme.step(_with(field, u[j]), (x,), at(field.theta(), j), flow.h)
    x.square().sum().backward()
    near(found, u.grad, rounding(u.grad, terms=100))
    assert float(found.abs().min()) > 0
    near(flow(y, u=u[0]), flow(y, u=lv.PerLayer(u[:1].expand(3, 3, 2))), rounding(terms=100))
    far(flow(y), flow(y, u=u[0]), 1e-2)


def _with(field, u):
    class Driven:
        def mean_velocity(self, y, z, theta_j):
            return field.mean_velocity(y, z, theta_j, u)

    return Driven()


def test_wrong_inputs_are_refused_in_a_sentence():
    flow = lv.Flow(lv.PortHamiltonianField(4, 2), lv.DiscreteGradient(), T=1.0)
    with pytest.raises(TypeError, match=r"without ports.*inputs="):
        flow(torch.zeros(3, 4), u=torch.zeros(2))
    flow = lv.Flow(lv.PortHamiltonianField(4, 2, inputs=2), lv.DiscreteGradient(), T=1.0)
    with pytest.raises(TypeError, match=r"u must have 2 features.*\(3,\)"):
        flow(torch.zeros(3, 4), u=torch.zeros(3))
    with pytest.raises(ValueError, match="2 layers"):
        flow(torch.zeros(3, 4), u=lv.PerLayer(torch.zeros(5, 2)))
    for wrong in ({"damping": -1.0}, {"quadratic": float("nan")}, {"inputs": -1}, {"rank": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be|inputs must be"):
            lv.PortHamiltonianField(4, 2, **wrong)
    with pytest.raises(ValueError, match="one J"):
        lv.PortHamiltonianField(4, 2, J=torch.zeros(2, 4, 4))
    with pytest.raises(ValueError, match="skew"):
        lv.PortHamiltonianField(4, 2, J=torch.ones(4, 4))


def test_a_shared_resistance_is_one_in_every_refinement_and_survives_a_file(tmp_path):
    field = lv.PortHamiltonianField(4, 1, shared_damping=True, inputs=1)
    assert (len(field.refined().L), len(field.refined().K), len(field.refined().G)) == (1, 2, 2)
    flow = lv.Flow(samples.field("port-hamiltonian-quadratic"), lv.DiscreteGradient(), T=0.5)
    lv.save(lv.Network(lv.Lift(4, 2), flow, torch.nn.Linear(4, 1).double()), tmp_path / "net.safetensors")
    again = lv.load(tmp_path / "net.safetensors").body
    assert again.field.quadratic == 0.5 and torch.equal(again(randn(3, 4)), flow(randn(3, 4)))


def test_a_graph_keeps_the_resistance_of_a_node_to_itself():
    field = samples.field("port-hamiltonian-graph")
    coupled = field.operator.blocks(field.resistance(field.theta()).detach())
    assert torch.equal(coupled, torch.eye(3, dtype=torch.bool))


def test_strangs_constant_is_attained():
    """Of (R P + P R)/2 with R, P >= 0 the least eigenvalue is -||R|| ||P|| / 8, at an angle of 60 degrees."""
    r, p = torch.tensor([[1.0, 0.0], [0.5, 0.75**0.5]], dtype=torch.float64)
    R, P = r.outer(r), p.outer(p)
    near(torch.linalg.eigvalsh(0.5 * (R @ P + P @ R))[0], -1 / 8, rounding())
    B = randn(2000, 2, 3, 3)
    B = B @ B.mT
    R, P = (B / torch.linalg.matrix_norm(B, ord=2)[..., None, None]).unbind(1)
    assert float(torch.linalg.eigvalsh(0.5 * (R @ P + P @ R)).min()) >= -1 / 8
