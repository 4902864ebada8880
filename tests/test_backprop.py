"""Engines decide what is kept, never what is computed: each equals `Stored` in value and gradient, on every pair."""

import copy
import gc
from dataclasses import dataclass

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import liouville as lv
import samples
from liouville.backprop import slices
from liouville.testing import check_engine
from measure import at, jacobian, near, randn, rounding

OTHERS = {name: e for name, e in samples.BACKPROPS.items() if e != lv.Stored()}
engines = pytest.mark.parametrize("engine", OTHERS.values(), ids=OTHERS)


def loss_of(*states):
    return sum((s.square() + torch.sin(3 * s)).sum() for state in states for s in state)


def results(flow, engine, y, seed=3, runs=1, needs_grad=True):
    """Final states of ``runs`` forward passes and the gradients of one loss of all of them."""
    flow, x = flow.with_backprop(engine), y.clone().requires_grad_(needs_grad)
    torch.manual_seed(seed)
    states = [flow.final_state((k + 1) * x) for k in range(runs)]
    inputs = [p for p in flow.parameters() if p.requires_grad] + [x] * needs_grad
    return [s.detach() for state in states for s in state], torch.autograd.grad(loss_of(*states), inputs)


def compare(flow, engine, y, **how):
    values, grads = results(flow, engine, y, **how)
    expected, expected_grads = results(flow, lv.Stored(), y, **how)
    for a, b in zip([*values, *grads], [*expected, *expected_grads], strict=True):
        # a rounding per operation of N layers, about 10 terms each, carried on by a growth below 10 in these samples
        near(a, b, rounding(b, terms=10 * flow.layers, factor=10))


def fits(engine, scheme, name):
    try:
        samples.flow(scheme, name, backprop=engine)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    "engine, scheme, name", [(e, s, f) for e in OTHERS for s, f in samples.PAIRS if fits(OTHERS[e], s, f)]
)
def test_value_and_gradient_equal_stored(engine, scheme, name):
    flow, engine = samples.flow(scheme, name), OTHERS[engine]
    compare(flow, engine, samples.inputs(flow.field))


@engines
def test_two_forward_passes_before_one_backward_pass(engine):
    for name in ("separable", "dropout", "dropout-partitioned"):
        flow = samples.flow("Midpoint" if name == "dropout" else "SymplecticEuler", name)
        compare(flow, engine, samples.inputs(flow.field), runs=3)


@engines
def test_input_without_gradient(engine):
    flow = samples.flow("Verlet", "separable-X")
    compare(flow, engine, samples.inputs(flow.field), needs_grad=False)


@engines
def test_nothing_needs_a_gradient(engine):
    flow = samples.flow("Verlet", "separable-X").requires_grad_(False)
    y = samples.inputs(flow.field)
    out = flow.with_backprop(engine)(y)
    assert not out.requires_grad
    near(out, flow(y), 0.0)


@pytest.mark.parametrize("every", [1, 2, 3, 7, 100])
def test_every_segment_length(every):
    field = lv.SeparableHamiltonianField(4, 7, init=samples.RANDOM).double()
    compare(lv.Flow(field, lv.SymplecticEuler(), T=0.7), lv.Checkpointed(every=every), randn(3, 4))


def test_check_engine_passes_ours():
    for engine in samples.BACKPROPS.values():
        check_engine(engine)


# ---- noise -----------------------------------------------------------------------------------------------------


def numbers_drawn(run):
    """How many numbers a run takes from torch's global stream: 0, 1, or None for anything else."""
    torch.manual_seed(0)
    run()
    after = torch.get_rng_state()
    torch.manual_seed(0)
    for numbers in (0, 1):
        if torch.equal(after, torch.get_rng_state()):
            return numbers
        torch.randint(2**31, ())
    return None


@pytest.mark.parametrize("engine", samples.BACKPROPS.values(), ids=samples.BACKPROPS)
def test_a_run_draws_one_number_from_the_global_stream_if_it_needs_any(engine):
    for scheme, name, drawn in (
        ("SymplecticEuler", "separable", 0),
        ("SymplecticEuler", "dropout-partitioned", 1),
        ("SymplecticEuler", "dropout-second-order-half", 1),
        ("Midpoint", "dropout", 1),
    ):
        flow = samples.flow(scheme, name, backprop=engine)
        y = samples.inputs(flow.field).requires_grad_()
        assert numbers_drawn(lambda f=flow, y=y: f(y).sum().backward()) == drawn
        assert numbers_drawn(lambda f=flow, y=y: list(f.states(y))) == drawn
        assert numbers_drawn(lambda f=flow, y=y: f.eval()(y)) == 0


def masks_of(field, velocity, seed):
    """What each layer of a run multiplies its velocity by, an entry: 0, or 1 / (1 - p)."""
    drawn = [velocity(field.in_run(seed).at_layer(j), at(field.theta(), j)) for j in range(field.layers)]
    return [(v != 0).double() / (1 - field.probability) for v in drawn]


def midpoint_by_hand(field, y, theta, h, masks):
    before, y = y - h * masks[0] * field(y, at(theta)), y
    for j, m in enumerate(masks):
        before, y = y, before + 2 * h * m * field(y, at(theta, j))
    return before, y


def leapfrog_by_hand(field, q, theta, h, masks):
    """p is half a step behind q; q' = p is a velocity too, and loses entries like the other."""
    force, moves = masks
    p = -h / 2 * force[0] * field.force(q, at(theta))
    for j in range(len(force)):
        p = p + h * force[j] * field.force(q, at(theta, j))
        q = q + h * moves[j] * p
    return p, q


@pytest.mark.parametrize("engine", samples.BACKPROPS.values(), ids=samples.BACKPROPS)
@pytest.mark.parametrize(
    "scheme, name", [("Midpoint", "dropout"), ("SymplecticEuler", "dropout-second-order-half")], ids=str
)
@torch.no_grad()
def test_the_start_of_a_scheme_has_the_noise_of_layer_0(engine, scheme, name):
    flow = samples.flow(scheme, name, backprop=engine)
    field, theta, y = flow.field, flow.field.theta(), samples.inputs(flow.field)
    for run in range(5):
        torch.manual_seed(run)
        seed = int(torch.randint(2**31, ()))
        if scheme == "Midpoint":
            masks = masks_of(field, lambda f, w: f(y, w), seed)
            expected = midpoint_by_hand(field.field, y, theta, flow.h, masks)
            start = (y - flow.h * masks[0] * field.field(y, at(theta)), y)
        else:
            masks, moves = (masks_of(field, f, seed) for f in (lambda f, w: f.p_dot(y, w), lambda f, w: f.q_dot(y, w)))
            expected = leapfrog_by_hand(field.field, y, theta, flow.h, (masks, moves))
            start = (-flow.h / 2 * masks[0] * field.field.force(y, at(theta)), y)
        assert (masks[0] == 0).any()
        torch.manual_seed(run)
        final = flow.final_state(y)
        torch.manual_seed(run)
        states = list(flow.states(y))
        for a, b in zip((*final, *states[0], *states[-1]), (*expected, *start, *expected), strict=True):
            near(a, b, rounding(b, terms=10 * samples.N))


def test_noise_of_a_run_outlives_the_training_mode():
    """Between forward and backward someone calls eval(): the layers computed again still see their masks."""
    flow, grads = samples.flow("SymplecticEuler", "dropout-partitioned"), []
    y = samples.inputs(flow.field)
    for engine in samples.BACKPROPS.values():
        torch.manual_seed(0)
        out = flow.train().with_backprop(engine)(y)
        flow.eval()
        grads.append(torch.autograd.grad(out.square().sum(), tuple(flow.parameters())))
    for a, b in zip((*grads[1], *grads[2]), (*grads[0], *grads[0]), strict=True):
        near(a, b, rounding(b, terms=10 * samples.N, factor=10))


@pytest.mark.parametrize("engine", samples.BACKPROPS.values(), ids=samples.BACKPROPS)
def test_noise_differs_between_runs_repeats_with_the_seed_and_is_absent_in_evaluation(engine):
    flow = samples.flow("SymplecticEuler", "dropout-partitioned", backprop=engine)
    y = samples.inputs(flow.field)
    torch.manual_seed(1)
    a, b = flow(y), flow(y)
    torch.manual_seed(1)
    assert torch.equal(a, flow(y))
    assert not torch.equal(a, b)
    flow.eval()
    plain = lv.Flow(flow.field.field, flow.scheme, flow.T)(y)
    assert torch.equal(flow(y), plain)
    assert torch.equal(flow(y), flow(y))


# ---- memory ----------------------------------------------------------------------------------------------------


class Live(TorchDispatchMode):
    """Counts the storages of at least ``size`` bytes made inside that are alive."""

    def __init__(self, size):
        super().__init__()
        self.size, self.made, self.peak, self.calls = size, {}, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().nbytes() >= self.size:
                ref = StorageWeakRef(tensor.untyped_storage())
                self.made[ref.cdata] = ref
        self.calls += 1
        if self.calls % 16 == 0:
            self.peak = max(self.peak, self.count())
        return out

    def count(self):
        self.made = {key: ref for key, ref in self.made.items() if not ref.expired()}
        return len(self.made)


def storages(engine, N, scheme=None, build=lv.SeparableHamiltonianField):
    """Live state-sized storages behind the forward pass, and their peak during the backward pass."""
    flow = lv.Flow(build(4, N).double(), scheme or lv.SymplecticEuler(), T=1.0, backprop=engine)
    y = randn(200, 4)  # 200 x 2 numbers: more than any weight of a layer
    with Live(200 * 2 * 8) as live:
        out = flow(y)
        kept = live.count()
        out.sum().backward()
    assert all(p.grad is not None for p in flow.parameters())
    return kept, live.peak


def test_stored_keeps_every_layer_and_checkpointed_their_square_root():
    depths = (16, 64, 256)
    stored = [storages(lv.Stored(), N)[0] for N in depths]
    kept, peak = zip(*[storages(lv.Checkpointed(), N) for N in depths], strict=True)
    for i in (1, 2):  # four times the layers
        assert 3.5 < stored[i] / stored[i - 1] < 4.5
        assert 1.5 < kept[i] / kept[i - 1] < 2.5
        assert 1.5 < peak[i] / peak[i - 1] < 2.5
    assert kept[2] < 3 * 256**0.5 + 10  # p and q of 16 segments


def test_the_count_notices_an_engine_that_keeps_everything():
    @dataclass(frozen=True)
    class Pretends(lv.Checkpointed):
        def run(self, *args):
            return lv.Stored().run(*args)

    kept = [storages(Pretends(), N)[0] for N in (16, 64)]
    assert kept[1] / kept[0] > 3.5


@pytest.mark.parametrize("engine", samples.BACKPROPS.values(), ids=samples.BACKPROPS)
def test_nothing_is_left_when_the_output_is_unused_or_a_layer_raises(engine):
    class Breaks(lv.SeparableHamiltonianField):
        broken = False

        def p_dot(self, q, theta_j):
            if self.broken and torch.equal(theta_j.K_q, self.K_q[4]):
                raise RuntimeError("layer 4")
            return super().p_dot(q, theta_j)

    field = Breaks(4, 8).double()
    flow, y = lv.Flow(field, lv.SymplecticEuler(), T=1.0, backprop=engine), randn(200, 4)
    with Live(200 * 2 * 8) as live:
        flow(y)
        gc.collect()
        assert live.count() <= 1  # the input itself
        field.broken = True
        with pytest.raises(RuntimeError, match="layer 4"):
            flow(y)
        gc.collect()
        assert live.count() <= 1  # the input itself
    field.broken = False
    compare(flow, engine, y[:3])


# ---- other modes of differentiation ----------------------------------------------------------------------------


@engines
def test_second_derivatives_equal_stored(engine):
    flow = samples.flow("SymplecticEuler", "separable")

    def second(backprop):
        x = samples.inputs(flow.field).requires_grad_()
        (grad,) = torch.autograd.grad(flow.with_backprop(backprop)(x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(grad.square().sum(), [x, *flow.parameters()])

    for a, b in zip(second(engine), second(lv.Stored()), strict=True):
        near(a, b, rounding(b, terms=30, factor=100))


@engines
def test_autocast_holds_in_the_recomputation(engine):
    """Same low precision in both passes: equal to `Stored` to bfloat16's eps would hide a switch, so to float32's."""
    flow, y = samples.flow("SymplecticEuler", "separable").float(), torch.randn(3, 4)

    def grads(backprop):
        x = y.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = flow.with_backprop(backprop)(x)
        return [out.detach(), *torch.autograd.grad(out.float().square().sum(), [x, *flow.parameters()])]

    low = grads(lv.Stored())
    for a, b in zip(grads(engine), low, strict=True):
        near(a.double(), b.double(), 100 * torch.finfo(torch.float32).eps * float(b.abs().max().clamp(min=1)))
    exact = torch.autograd.grad(flow(x := y.clone().requires_grad_()).square().sum(), x)[0]
    assert (low[1] - exact).abs().max() > 1e-4  # autocast did something


def test_forward_mode_and_vmap_go_through_stored():
    flow, y, v = samples.flow("Verlet", "separable-X"), randn(3, 4), randn(3, 4, seed=1)
    _, tangent = torch.func.jvp(flow, (y,), (v,))
    A = torch.func.vmap(torch.func.jacrev(flow))(y)
    near(tangent, torch.einsum("bij,bj->bi", A, v), rounding(A, terms=30))
    near(A[0], jacobian(lambda s: (flow(s[0]),), (y[:1],)), rounding(A, terms=30))


@pytest.mark.parametrize("engine", samples.BACKPROPS.values(), ids=samples.BACKPROPS)
def test_compiled_flows_keep_their_gradients(engine):
    """Gradients, not only "it runs": a compiler may drop a backward pass without a word."""
    flow = samples.flow("SymplecticEuler", "separable", backprop=engine)
    y = samples.inputs(flow.field)
    compiled = torch.compile(flow, backend="aot_eager")

    def grads(run):
        x = y.clone().requires_grad_()
        out = run(x)
        return [out.detach(), *torch.autograd.grad(out.square().sum(), [x, *flow.parameters()])]

    for a, b in zip(grads(compiled), grads(flow), strict=True):
        near(a, b, rounding(b, terms=10 * samples.N))


# ---- values, errors, broken engines ----------------------------------------------------------------------------


def test_engines_are_values():
    assert lv.Stored() == lv.Stored()
    assert lv.Checkpointed(8) == lv.Checkpointed(every=8) != lv.Checkpointed()
    assert len({lv.Stored(), lv.Stored(), lv.Checkpointed()}) == 2
    for engine in samples.BACKPROPS.values():
        assert copy.deepcopy(engine) == engine
        assert eval(repr(engine), {"Stored": lv.Stored, "Checkpointed": lv.Checkpointed}) == engine


def test_errors():
    with pytest.raises(ValueError, match="at least 1 layer per segment, got 0"):
        lv.Checkpointed(every=0)


def test_slices_of_stacked_and_shared_weights():
    field = samples.field("hamiltonian-trained-J")
    rows = list(slices(field.theta(), field.layers))
    assert len(rows) == samples.N
    for j, theta_j in enumerate(rows):
        assert torch.equal(theta_j.K, field.K[j])
        assert torch.equal(theta_j.J, at(field.theta()).J)


def test_shared_weights_get_the_sum_of_all_layers_gradients():
    shared = lv.ResidualField(3, 4, shared=True, init=samples.RANDOM).double()
    apart = lv.ResidualField(3, 4).double()
    with torch.no_grad():
        for a, s in zip(apart.parameters(), shared.parameters(), strict=True):
            a.copy_(s.expand_as(a))
    y = randn(2, 3)
    for engine in samples.BACKPROPS.values():
        for f in (shared, apart):
            f.zero_grad()
            lv.Flow(f, lv.ForwardEuler(), 1.0, engine)(y).square().sum().backward()
        for a, s in zip(apart.parameters(), shared.parameters(), strict=True):
            near(s.grad[0], a.grad.sum(0), rounding(a.grad, terms=40))


@dataclass(frozen=True)
class OtherNoise(lv.Stored):
    """Draws new noise for the second half: what a naive recomputation of dropout does."""

    def run(self, scheme, field, state, theta, h):
        for j, theta_j in enumerate(slices(theta, field.layers)):
            state = scheme.step(field.at_layer(j + 100 * (j // 3)), state, theta_j, h)
        return state


@dataclass(frozen=True)
class ExtraDraw(lv.Stored):
    def run(self, scheme, field, state, theta, h):
        out = super().run(scheme, field, state, theta, h)
        torch.rand(1)
        return out


@dataclass(frozen=True)
class DropsALayer(lv.Stored):
    def run(self, scheme, field, state, theta, h):
        for theta_j in list(slices(theta, field.layers))[:-1]:
            state = scheme.step(field, state, theta_j, h)
        return state


@dataclass(frozen=True)
class LosesAGradient(lv.Stored):
    """The right value; the weights of one layer are detached."""

    def run(self, scheme, field, state, theta, h):
        for j, theta_j in enumerate(slices(theta, field.layers)):
            if j == 2:
                theta_j = type(theta)(*(w.detach() for w in theta_j))
            state = scheme.step(field.at_layer(j), state, theta_j, h)
        return state


class Refuses(lv.Backprop):
    def run(self, scheme, field, state, theta, h):
        raise ValueError("no")


class NoValue(lv.Stored):
    def __eq__(self, other):
        return self is other

    __hash__ = object.__hash__


@pytest.mark.parametrize(
    "broken, message",
    [
        (OtherNoise(), "SymplecticEuler on PartitionedDropoutField"),
        (ExtraDraw(), "one seed per run"),
        (DropsALayer(), "SymplecticEuler on SeparableHamiltonianField"),
        (LosesAGradient(), "value and gradient"),
        (Refuses(), "refused all"),
        (NoValue(), "engines are values"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_a_broken_engine_is_caught_and_named(broken, message):
    with pytest.raises(AssertionError, match=message):
        check_engine(broken)


def test_given_pairs_are_not_skipped():
    pair = (lv.Verlet(), samples.field("pair"))
    check_engine(lv.Checkpointed(), [pair])
    with pytest.raises(ValueError, match="no"):
        check_engine(Refuses(), [pair])
