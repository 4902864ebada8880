"""N steps on [0, T]: trajectory, inverse, refinement, copies, and what happens to a wrong input."""

import copy
import io
import itertools
import pickle

import pytest
import torch

import liouville as lv
import samples
from liouville.backprop import slices
from measure import EPS, at, far, first_state, jacobian, near, randn, rounding, slope
from turns import one_in

flows = pytest.mark.parametrize("scheme, name", samples.PAIRS)


def evaluated(scheme, name, **more):
    return samples.flow(scheme, name, **more).eval()


@flows
def test_a_flow_is_n_steps_of_its_scheme(scheme, name):
    flow = evaluated(scheme, name)
    y = samples.inputs(flow.field)
    assert (flow.layers, flow.h, flow.T) == (samples.N, 0.9 / samples.N, 0.9)
    with torch.no_grad():
        state = first_state(flow.scheme, flow.field, y, flow.h)
        for j in range(samples.N):
            state = flow.scheme.step(flow.field, state, at(flow.field.theta(), j), flow.h)
        assert torch.equal(flow(y), flow.scheme.final(flow.field, state))
        assert all(torch.equal(a, b) for a, b in zip(flow.final_state(y), state, strict=True))


@flows
@torch.no_grad()
def test_trajectory_starts_with_the_input_and_ends_with_forward(scheme, name):
    flow = evaluated(scheme, name)
    y = samples.inputs(flow.field)
    path = flow.trajectory(y)
    assert path.shape == (samples.N + 1, *y.shape)
    assert torch.equal(path[0], y)
    assert torch.equal(path[-1], flow(y))
    assert len(list(flow.states(y))) == samples.N + 1


def test_trajectory_of_a_noisy_flow_is_one_run():
    flow = samples.flow("SymplecticEuler", "dropout-partitioned")
    y = samples.inputs(flow.field)
    torch.manual_seed(5)
    path = flow.trajectory(y)
    torch.manual_seed(5)
    assert torch.equal(path[-1], flow(y))


@pytest.mark.parametrize("scheme, name", samples.REVERSIBLE_PAIRS)
@torch.no_grad()
def test_inverse_state_undoes_final_state(scheme, name):
    flow = evaluated(scheme, name)
    y = samples.inputs(flow.field)
    start = flow.scheme.init(flow.field, y, at(flow.field.theta()), flow.h)
    back = flow.inverse_state(flow.final_state(y))
    one = tuple(s[:1] for s in start)
    with torch.enable_grad():
        A = jacobian(lambda s: flow.backprop.run(flow.scheme, flow.field, s, flow.field.theta(), flow.h), one)
    # rounding of every layer (implicit ones are solved to 10 eps) amplified on the way back
    for b, s in zip(back, start, strict=True):
        near(b, s, rounding(s, terms=10 * samples.N, factor=100 * float(torch.linalg.cond(A))))


@torch.no_grad()
def test_inverse_of_one_step_schemes_and_refusals():
    for scheme, name in (("SymplecticEuler", "separable"), ("Verlet", "pair"), ("ImplicitMidpoint", "hamiltonian")):
        flow = samples.flow(scheme, name)
        y = samples.inputs(flow.field)
        near(flow.inverse(flow(y)), y, rounding(y, terms=10 * samples.N, factor=100))
    with pytest.raises(ValueError, match="ForwardEuler has no inverse; use a reversible scheme"):
        samples.flow("ForwardEuler", "hamiltonian").inverse(y)
    with pytest.raises(ValueError, match="ForwardEuler has no inverse"):
        samples.flow("ForwardEuler", "hamiltonian").inverse_state((y,))
    for scheme, name in (("LeapfrogMidpoint", "antisymmetric"), ("SymplecticEuler", "second-order")):
        flow = samples.flow(scheme, name)
        with pytest.raises(ValueError, match=r"use flow\.final_state and flow\.inverse_state"):
            flow.inverse(samples.inputs(flow.field))


def test_noise_is_not_inverted_while_training():
    flow = samples.flow("SymplecticEuler", "dropout-partitioned")
    y = samples.inputs(flow.field)
    with pytest.raises(ValueError, match=r"draws new noise in every run; call flow.eval\(\)"):
        flow.inverse(y)
    flow.eval()
    near(flow.inverse(flow(y)), y, rounding(y, terms=30, factor=100))
    near(flow.with_backprop(lv.Checkpointed()).inverse(flow(y)), y, rounding(y, terms=30, factor=100))


# ---- refinement ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["ForwardEuler", "SymplecticEuler", "Verlet", "Yoshida4", "RK4", "ImplicitMidpoint"])
@torch.no_grad()
def test_constant_refinement_differs_by_the_order(scheme):
    """Twice the layers with the same weights is the same differential equation with half the step.

    Halving again and again, the differences fall by 2^order; two-step Midpoint is left out because its state jumps
    with the weights.
    """
    flow = samples.flow(scheme, "separable-X", T=1.2)
    y = samples.inputs(flow.field)
    flow, outputs = flow.refined().refined(), []
    for _ in range(4):
        outputs.append(flow(y))
        flow = flow.refined("constant")
    differences = [float((a - b).abs().max()) for a, b in itertools.pairwise(outputs)]
    assert min(differences) > 1e-12
    # h from 0.1 to 0.025: the slope is still off by O(h)
    assert abs(slope(differences) - flow.scheme.order) < 0.15


@pytest.mark.parametrize("how", ["constant", "linear", "linear-left"])
def test_refinement_keeps_the_kind_of_flow_and_the_original(how):
    flow = lv.zoo.h2(4, layers=5, T=2.0, backprop=lv.Checkpointed())
    before = copy.deepcopy(flow.state_dict())
    fine = flow.refined(how)
    assert (fine.layers, fine.T, fine.h) == (10, 2.0, 0.2)
    assert (fine.scheme, fine.backprop) == (flow.scheme, flow.backprop)
    for w in fine.parameters():
        w.data.add_(1.0)
    assert all(torch.equal(v, before[k]) for k, v in flow.state_dict().items())


@pytest.mark.parametrize("how, order", [("constant", 2), ("linear", 2), ("linear-left", 1)])
@torch.no_grad()
def test_refined_weights_stay_near_the_smooth_function_they_came_from(how, order):
    """Verlet, weights at the middles: refining by "linear-left", which shifts them by a quarter of a layer, costs h."""

    def flow(N):
        field = lv.zoo.h2(4, layers=N, T=1.0, generator=torch.Generator().manual_seed(2)).double().field
        return lv.Flow(field, lv.Verlet(), T=1.0)

    y = randn(3, 4)
    limit = flow(2048)(y)
    errors = [float((flow(N).refined(how)(y) - limit).abs().max()) for N in (64, 128)]
    assert abs(slope(errors) - order) < 0.1


@torch.no_grad()
def test_default_weights_start_n_and_2n_layers_from_the_same_function_of_time():
    """So the outputs converge; independent weights per layer do not."""
    y = randn(3, 4)

    def outputs(init):
        def make(N):
            return lv.zoo.h2(4, layers=N, T=1.0, init=init, generator=torch.Generator().manual_seed(7)).double()

        return [make(N)(y) for N in (64, 128, 256)]

    a, b, c = outputs(lv.Smooth())
    assert abs(slope([float((a - b).abs().max()), float((b - c).abs().max())]) - 1) < 0.1
    a, b, c = outputs(lv.Normal())
    assert (b - c).abs().max() > 0.05


# ---- copies ----------------------------------------------------------------------------------------------------


def test_with_backprop_shares_the_weights():
    flow = samples.flow("SymplecticEuler", "separable")
    other = flow.with_backprop(lv.Checkpointed())
    assert other.field is flow.field
    assert (other.backprop, flow.backprop) == (lv.Checkpointed(), lv.Stored())


@pytest.mark.parametrize("scheme, name", one_in(3, samples.PAIRS))
def test_deepcopy_pickle_and_state_dict(scheme, name):
    flow = evaluated(scheme, name)
    y = samples.inputs(flow.field)
    with torch.no_grad():
        expected = flow(y)
        for other in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
            assert torch.equal(other(y), expected)
            next(other.parameters()).add_(1.0)
            assert torch.equal(flow(y), expected)
            buffer = io.BytesIO()
            torch.save(flow.state_dict(), buffer)
            other.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
            assert torch.equal(other(y), expected)


@pytest.mark.parametrize("name", samples.FIELDS)
def test_every_tensor_follows_to_another_dtype_and_device(name):
    field = samples.field(name).float()
    meta = copy.deepcopy(field).to("meta")
    assert {t.device.type for t in (*meta.parameters(), *meta.buffers())} == {"meta"}
    assert {t.device.type for t in meta.theta()} == {"meta"}
    double = copy.deepcopy(field).double()
    floats = [t for t in double.buffers() if t.is_floating_point()]  # which rows layers share are whole numbers
    assert {t.dtype for t in (*double.parameters(), *floats, *double.theta())} == {torch.float64}


def test_constants_are_in_the_state_dict():
    assert "J" in samples.field("hamiltonian").state_dict()
    assert "X" in samples.field("separable-X").state_dict()
    assert "field.J" in samples.field("dropout").state_dict()


# ---- shapes and errors -----------------------------------------------------------------------------------------


@torch.no_grad()
def test_any_batch_axes_for_vectors_and_any_size_for_images():
    flow = samples.flow("SymplecticEuler", "separable")
    y = randn(2, 3, 5, 4)
    near(flow(y).flatten(0, 2), flow(y.flatten(0, 2)), rounding(y, terms=30))
    near(flow(y[0, 0, 0]), flow(y)[0, 0, 0], rounding(y, terms=30))
    images = samples.flow("SymplecticEuler", "separable-images")
    for size in ((1, 1), (7, 2)):
        assert images(randn(2, 4, *size)).shape == (2, 4, *size)


@torch.no_grad()
def test_memory_format_does_not_change_the_result():
    for name in ("separable-images", "pair-images"):
        flow = samples.flow("SymplecticEuler", name)
        y = samples.inputs(flow.field)
        near(flow(y.to(memory_format=torch.channels_last)), flow(y), rounding(y, terms=100))


@pytest.mark.parametrize(
    "y, message",
    [
        (torch.zeros(3, 5), r"expected 4 features on axis -1, got an input of shape \(3, 5\).*Lift\(4\)"),
        (torch.zeros(()), "expected 4 features"),
        (
            torch.zeros(3, 4, dtype=torch.int64),
            r"floating-point input of 16, 32 or 64 bits, got torch.int64.*\.float\(\)",
        ),
        (torch.zeros(3, 4, dtype=torch.bool), "got torch.bool"),
        (torch.zeros(3, 4, dtype=torch.float64), r"weights are torch.float32 and the input is torch.float64.*\.to\("),
    ],
)
def test_wrong_inputs(y, message):
    flow = lv.zoo.h2(4, layers=3, T=1.0)
    for method in (flow, flow.trajectory, flow.inverse):
        with pytest.raises(ValueError, match=message):
            method(y)


def test_wrong_image_shapes():
    flow = samples.flow("SymplecticEuler", "separable-images")
    for shape in ((4, 4), (2, 3, 4, 4)):
        with pytest.raises(ValueError, match="expected 4 features on axis -3"):
            flow(randn(*shape))


SECOND_ORDER = [name for name in samples.FIELDS if "second-order" in name]


@pytest.mark.parametrize("name", SECOND_ORDER)
@pytest.mark.parametrize("scheme", samples.SCHEMES)
def test_a_second_order_field_takes_splitting_schemes_and_its_half_step_start_symplectic_euler_alone(scheme, name):
    field = samples.field(name)
    start = getattr(field, "field", field).start
    if scheme == "SymplecticEuler" or (start == "rest" and scheme in ("Verlet", "Yoshida4")):
        assert (scheme, name) in samples.PAIRS
        return
    assert (scheme, name) not in samples.PAIRS
    message = 'start="rest"' if isinstance(samples.SCHEMES[scheme], lv.SplittingScheme) else "SymplecticEuler, Verlet"
    if scheme.startswith(("Implicit", "Discrete")) and name.endswith("images"):
        message = "needs vectors"
    elif scheme == "DiscreteGradient":
        message = "needs the mean of the velocity between two states"
    elif scheme == "ImplicitSymplecticEuler":
        message = "needs a HamiltonianField"
    with pytest.raises(ValueError, match=message):
        samples.flow(scheme, name)


def test_a_scheme_of_the_same_stages_as_symplectic_euler_may_start_half_a_step_before():
    class Own(lv.SplittingScheme):
        order = 2
        stages = (("p", 1.0), ("q", 1.0))

    field = samples.field("second-order")
    y = samples.inputs(field)
    assert torch.equal(lv.Flow(field, Own(), T=1.0)(y), lv.Flow(field, lv.SymplecticEuler(), T=1.0)(y))


@pytest.mark.parametrize("T", [0, -1.0, float("nan"), float("inf")])
def test_wrong_T(T):
    with pytest.raises(ValueError, match=r"T must be a positive, finite time of at most 3.4e\+38, got"):
        lv.Flow(lv.ResidualField(2, 2), lv.ForwardEuler(), T)


def test_repr_names_scheme_step_and_engine():
    text = repr(lv.zoo.h2(4, layers=64, T=6.4, backprop=lv.Checkpointed(every=8)))
    assert "scheme=SymplecticEuler(), T=6.4, h=0.1, backprop=Checkpointed(every=8)" in text
    assert "features=4, layers=64" in text


def test_deep_flows_do_not_lose_their_gradient():
    """The backward sensitivity of 512 symplectic layers has norm at least 1, and the gradient is not small."""
    flow = lv.zoo.h2(4, layers=512, T=20.0).double()
    A = jacobian(lambda s: (flow(s[0]),), (randn(1, 4),))
    assert torch.linalg.matrix_norm(A, ord=2) >= 1 - 512 * 4 * EPS
    y = randn(5, 4)
    flow(y).square().sum().backward()
    first = [p.grad[0].abs().max() for p in flow.field.parameters()]
    assert min(first) > 1e-6


def test_layers_receive_their_own_weights():
    field = lv.ResidualField(2, 4, init=samples.RANDOM).double()
    flow, y = lv.Flow(field, lv.ForwardEuler(), T=1.0), randn(3, 2)
    path = flow.trajectory(y)
    for j, theta_j in enumerate(slices(field.theta(), 4)):
        near(path[j + 1], path[j] + 0.25 * torch.tanh(path[j] @ field.K[j].mT + field.b[j]), rounding(y, terms=4))
        far(theta_j.K, field.K[(j + 1) % 4], 1e-6)


MISPLACED = [
    (lv.Conv(3), (5, 4, 12), r"for signals build the field with an operator of that kind, lv.Conv\(..., dims=1\)"),
    (lv.Conv(3), (5, 4), "for vectors build the field with lv.Dense"),
    (lv.Conv(3), (5, 4, 6, 6, 6), r"for volumes build .*dims=3"),
    (lv.Conv(3, 1), (5, 4, 6, 6), r"for images build .*dims=2"),
    (lv.Dense(), (5, 4, 6), r"for signals build .*dims=1"),
    (lv.Dense(), (5, 4, 6, 6), r"for images build .*dims=2.*feature_axis=-3"),
    (lv.Dense(), (5, 3, 6, 6), r"lift it first, for example with Lift\(4\)"),
]


@pytest.mark.parametrize("operator, shape, message", MISPLACED)
def test_features_on_another_kinds_axis_are_told(operator, shape, message):
    with pytest.raises(ValueError, match=message):
        lv.zoo.h2(4, layers=2, T=1.0, operator=operator)(torch.zeros(shape))
