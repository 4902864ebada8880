"""`Auto`: which engine it takes, and why, is a function of shapes, dtypes, scheme and memory; and it is told."""

import copy
import dataclasses
import pickle
from dataclasses import dataclass

import pytest
import torch

import liouville as lv
import samples
from backprop.runs import compare
from liouville.kernels.auto import Choice
from measure import bytes_kept, generator, randn

PLENTY = 2**40
SIXTEEN_BITS = [torch.bfloat16, torch.float16]


def choice(scheme, layers, dtype=torch.float32, memory=1, batch=64, features=4):
    """What a field of little cost gets: 4 features in every sample of a batch."""
    kind = lv.SeparableHamiltonianField if isinstance(scheme, lv.SplittingScheme) else lv.AntisymmetricField
    if isinstance(scheme, lv.ImplicitSymplecticEuler):
        kind = lv.HamiltonianField
    field = kind(features, layers, generator=generator()).to(dtype)
    return lv.Auto(memory=memory).choose(scheme, field, torch.zeros(batch, features, dtype=dtype))


@dataclass(frozen=True)
class NotShears(lv.ReversibleScheme):
    """Some reversible scheme of a user's, which runs in 16 bits; the implicit ones of ours do not."""

    order = 1

    def step(self, field, state, theta_j, h):
        return (state[0] + h * field(state[0], theta_j),)

    def inverse(self, field, state, theta_j, h):
        raise NotImplementedError


@pytest.fixture
def no_kernel(monkeypatch):
    """As for a field that has no kernel."""
    monkeypatch.setattr("liouville.kernels.auto._plan", lambda *_: None)


pytestmark = pytest.mark.usefixtures("no_kernel")


# ---- the branches ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", samples.SCHEMES.values(), ids=samples.SCHEMES)
@pytest.mark.parametrize("layers", [4, 4096])
def test_what_fits_is_stored(scheme, layers):
    engine, reason = choice(scheme, layers, memory=PLENTY)
    assert engine == lv.Stored()
    assert f"{layers} layers keep about" in reason
    assert "within" in reason


@pytest.mark.parametrize("scheme", [lv.ForwardEuler(), lv.RK4()], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *SIXTEEN_BITS], ids=str)
def test_what_has_no_inverse_is_checkpointed(scheme, dtype):
    engine, reason = choice(scheme, 4096, dtype)
    assert engine == lv.Checkpointed()
    assert f"{type(scheme).__name__} has no inverse" in reason


@pytest.mark.parametrize("dtype", SIXTEEN_BITS, ids=str)
@pytest.mark.parametrize("layers", [4, 4096])
def test_sixteen_bits_are_exact_or_checkpointed(dtype, layers):
    for scheme in (lv.SymplecticEuler(), lv.Verlet(), lv.LeapfrogMidpoint()):
        engine, reason = choice(scheme, layers, dtype)
        assert engine == lv.Reversible(exact=True)
        assert "16 bits" in reason
    assert choice(NotShears(), layers, dtype).engine == lv.Checkpointed()


@pytest.mark.parametrize("dtype, safe", [(torch.float32, 64), (torch.float64, 1024)], ids=str)
@pytest.mark.parametrize("scheme", [lv.SymplecticEuler(), lv.LeapfrogMidpoint(), lv.ImplicitMidpoint()], ids=repr)
def test_few_layers_are_rebuilt_and_more_are_not(dtype, safe, scheme):
    for layers in (2, safe):
        engine, reason = choice(scheme, layers, dtype)
        assert engine == lv.Reversible()
        assert "can be rebuilt in this precision" in reason
    assert choice(scheme, safe + 1, dtype).engine != lv.Reversible()


@pytest.mark.parametrize("dtype, safe", [(torch.float32, 64), (torch.float64, 1024)], ids=str)
@pytest.mark.parametrize("scheme", [lv.SymplecticEuler(), lv.ImplicitMidpoint()], ids=repr)
def test_more_layers_are_anchored_while_half_of_the_memory_holds_the_anchors(dtype, safe, scheme):
    """As densely as that allows, at least 16 apart and never further than a precision bears."""
    layers = 4096
    state = 64 * 4 * torch.finfo(dtype).bits // 8  # bytes
    for apart in (1, 16, 33, safe):
        memory = -(-2 * layers * state // apart)
        if choice(scheme, layers, dtype, memory).engine == lv.Stored():
            continue
        engine, reason = choice(scheme, layers, dtype, memory)
        assert engine == lv.Reversible(anchors=max(16, apart))
        assert (layers // engine.anchors) * state <= memory / 2
        assert f"every {max(16, apart)}th state is kept against drift" in reason
    engine, reason = choice(scheme, layers, dtype, memory=2 * layers * state // (safe + 10))
    shears = isinstance(scheme, lv.ShearScheme)
    assert engine == (lv.Reversible(compensated=True) if shears else lv.Checkpointed())
    assert "layers apart" in reason


def test_the_precision_of_the_worst_part_counts():
    """Under autocast half a step of a second-order network starts p in 16 bits."""
    field = lv.SecondOrderField(lv.SymmetricField(4, 8), start="half")
    y = torch.zeros(3, 4)
    assert lv.Auto(memory=1).choose(lv.SymplecticEuler(), field, y).engine == lv.Reversible()
    with torch.autocast("cpu", torch.bfloat16):
        assert lv.Auto(memory=1).choose(lv.SymplecticEuler(), field, y).engine == lv.Reversible(exact=True)


# ---- what fits -------------------------------------------------------------------------------------------------

DENSE = [(s, f) for s, f in samples.PAIRS if samples.field(f).feature_axis == -1 and "Implicit" not in s]
KINDS = {type(samples.field(f)).__name__ + s: (s, f) for s, f in DENSE}


@pytest.mark.parametrize("scheme, name", KINDS.values(), ids=KINDS)
def test_what_is_said_to_fit_fits_and_what_fits_is_not_refused(scheme, name):
    """Within a factor of two of what `Stored` keeps, on a batch so large that weights do not matter."""
    flow = samples.flow(scheme, name)
    y = samples.inputs(flow.field, batch=4096)
    kept = bytes_kept(flow, y)

    def engine(memory):
        return lv.Auto(memory=int(memory)).choose(flow.scheme, flow.field, y).engine

    assert engine(2 * kept) == lv.Stored()
    assert engine(kept / 2) != lv.Stored()


def test_a_batch_twice_as_large_needs_twice_as_much():
    memory = 1
    while choice(lv.SymplecticEuler(), 64, memory=memory, batch=100).engine != lv.Stored():
        memory *= 1.01
        memory = int(memory) + 1
    assert choice(lv.SymplecticEuler(), 64, memory=memory, batch=103).engine != lv.Stored()
    assert choice(lv.SymplecticEuler(), 64, memory=2 * memory, batch=200).engine == lv.Stored()
    assert choice(lv.SymplecticEuler(), 128, memory=2 * memory, batch=100).engine == lv.Stored()
    assert choice(lv.SymplecticEuler(), 128, memory=2 * memory, batch=103).engine != lv.Stored()


def test_empty_batches_and_single_vectors_have_a_choice():
    field = lv.SeparableHamiltonianField(4, 8)
    assert lv.Auto(memory=1).choose(lv.Verlet(), field, torch.zeros(0, 4)).engine == lv.Stored()
    assert lv.Auto(memory=1).choose(lv.Verlet(), field, torch.zeros(4)).engine == lv.Reversible()
    assert lv.Auto(memory=1).choose(lv.Verlet(), field, torch.zeros(1, 4)).engine == lv.Reversible()


@pytest.mark.parametrize(
    "scheme, name", [("SymplecticEuler", "separable-images"), ("LeapfrogMidpoint", "hamiltonian-signal")]
)
@pytest.mark.parametrize("memory", [1, PLENTY], ids=str)
def test_an_image_without_a_batch_has_a_choice(scheme, name, memory):
    """Its first axis is that of the features, and no number of samples."""
    flow = samples.flow(scheme, name)
    compare(flow, lv.Auto(memory=memory), samples.inputs(flow.field)[0])


@pytest.mark.parametrize(
    "scheme, kind", [(lv.ImplicitMidpoint(), lv.ResidualField), (lv.ImplicitSymplecticEuler(), lv.HamiltonianField)]
)
def test_it_chooses_wherever_the_flow_runs(scheme, kind):
    """With weights whose implicit equation has a solution at the flow's step, and none at a step of 1."""
    field, y = kind(4, 8, init=lv.Normal(3.0), generator=generator(27)).double(), randn(8, 4, seed=27)
    lv.Flow(field, scheme, T=0.08, backprop=lv.Auto(memory=1))(y).sum().backward()
    assert lv.Auto(memory=1).choose(scheme, field, y).engine == lv.Reversible()


# ---- what is told ----------------------------------------------------------------------------------------------


def test_the_repr_shows_the_last_choice_and_its_reason():
    auto = lv.Auto(memory=1)
    flow = samples.flow("SymplecticEuler", "separable", backprop=auto)
    assert repr(auto) == "Auto(memory=1)"
    assert repr(lv.Auto()) == "Auto()"
    y = samples.inputs(flow.field)
    chosen = auto.choose(flow.scheme, flow.field, y)
    assert isinstance(chosen, Choice)
    assert repr(auto) == "Auto(memory=1)"  # asking is not running
    flow(y)
    assert repr(auto) == "Auto(memory=1)"  # the engine of a flow is its own
    auto = flow.backprop
    assert repr(auto) == f"Auto(memory=1, chose {chosen.engine!r}: {chosen.reason})"
    assert repr(auto) in repr(flow)
    said = repr(auto)
    with torch.no_grad():
        flow(y)
    assert repr(auto) == said  # an evaluation between two steps of training does not hide what training takes
    fresh = flow.with_backprop(lv.Auto(memory=1))
    with torch.no_grad():
        fresh(y)
    assert repr(fresh.backprop) == "Auto(memory=1, chose Stored(): no gradient is needed)"
    torch.func.vmap(fresh)(y)
    assert "chose Stored(): torch.func and forward mode need the plain loop" in repr(fresh)
    plain = samples.flow("RK4", "residual", backprop=lv.Auto())
    plain(randn(3, 4))
    assert repr(plain.backprop).startswith("Auto(chose Stored(): 3 layers keep about ")


def test_a_run_chooses_what_choose_says():
    for scheme, name in (("SymplecticEuler", "separable"), ("LeapfrogMidpoint", "dropout"), ("RK4", "residual")):
        for memory in (1, 1000, PLENTY):
            auto = lv.Auto(memory=memory)
            flow = samples.flow(scheme, name, backprop=auto)
            y = samples.inputs(flow.field, batch=16)
            flow(y)
            assert repr(auto.choose(flow.scheme, flow.field, y).engine) in repr(flow.backprop)


def test_the_last_choice_is_no_part_of_the_value():
    flow, fresh = samples.flow("SymplecticEuler", "separable", backprop=lv.Auto(memory=1)), lv.Auto(memory=1)
    flow(randn(3, 4))
    used = flow.backprop
    assert repr(used) != repr(fresh)
    assert used == fresh
    assert hash(used) == hash(fresh)
    assert len({used, fresh}) == 1
    for copied in (copy.deepcopy(used), pickle.loads(pickle.dumps(used))):
        assert copied == fresh
    assert used != lv.Auto(memory=2)


def test_choosing_draws_no_random_numbers_and_leaves_no_gradient():
    for scheme, name in (
        ("SymplecticEuler", "dropout-partitioned"),
        ("LeapfrogMidpoint", "dropout"),
        ("Verlet", "separable"),
    ):
        field = samples.field(name)
        stream = torch.get_rng_state()
        for _ in range(2):
            lv.Auto().choose(samples.SCHEMES[scheme], field, samples.inputs(field))
        assert torch.equal(stream, torch.get_rng_state())
        assert all(p.grad is None and p.requires_grad for p in field.parameters())


def test_the_choice_does_not_depend_on_what_ran_before():
    """What is remembered of a field is its cost for a kind of input, and nothing of another kind."""
    field = samples.field("separable")
    y = samples.inputs(field, batch=64)
    auto = lv.Auto(memory=40_000)
    order = [y, y[:, None].expand(-1, 9, -1), y[:8], y.float()]
    first = []
    for x in order:
        fresh = copy.deepcopy(field).to(x.dtype)
        first.append(auto.choose(lv.SymplecticEuler(), fresh, x))
    shared = copy.deepcopy(field)
    for x, expected in reversed(list(zip(order, first, strict=True))):
        assert auto.choose(lv.SymplecticEuler(), shared.to(x.dtype), x) == expected
    assert len({c.engine for c in first}) > 1


@pytest.mark.parametrize("engine", [lv.Auto(), lv.Fused(), lv.BatchLast()])
def test_another_function_under_the_name_of_a_kernels_is_not_taken_for_it(engine):
    def thrice(x):
        return torch.tanh(3 * x)

    activation = dataclasses.replace(lv.activations.tanh, function=thrice, lipschitz=3.0)
    replaced = lv.SeparableHamiltonianField(4, layers=3).double()
    replaced.p_dot = lambda q, theta_j: -torch.tanh(3 * q)
    for field in (lv.SeparableHamiltonianField(4, layers=3, activation=activation).double(), replaced):
        flow, y = lv.Flow(field, lv.Verlet(), T=1.0), randn(5, 4)
        if isinstance(engine, lv.Auto):
            assert torch.equal(flow.with_backprop(engine)(y), flow(y))
        else:
            with pytest.raises(ValueError, match=r"another function called 'tanh'|whose p_dot was replaced"):
                flow.with_backprop(engine)
