"""Noise of a run: one seed, drawn once, and the same masks whenever a layer is evaluated again."""

import pytest
import torch

import liouville as lv
import samples
from backprop.runs import rounds_otherwise
from measure import at, near, rounding

every_engine = pytest.mark.parametrize("engine", samples.BACKPROPS.values(), ids=samples.BACKPROPS)


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
        ("LeapfrogMidpoint", "dropout", 1),
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
    "scheme, name", [("LeapfrogMidpoint", "dropout"), ("SymplecticEuler", "dropout-second-order-half")], ids=str
)
@torch.no_grad()
def test_the_start_of_a_scheme_has_the_noise_of_layer_0(engine, scheme, name):
    flow = samples.flow(scheme, name, backprop=engine)
    field, theta, y = flow.field, flow.field.theta(), samples.inputs(flow.field)
    for run in range(5):
        torch.manual_seed(run)
        seed = int(torch.randint(2**31, ()))
        if scheme == "LeapfrogMidpoint":
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


NOISY = [
    ("SymplecticEuler", "dropout-partitioned"),
    ("SymplecticEuler", "dropout-second-order-half"),
    ("LeapfrogMidpoint", "dropout"),
]


def gradients(flow, engine, before, between):
    """The gradients of one run, in training mode or not, if the mode is then changed in front of the backward pass."""
    torch.manual_seed(0)
    out = flow.train(before).with_backprop(engine)(samples.inputs(flow.field))
    flow.train(between)
    return torch.autograd.grad(out.square().sum(), tuple(flow.parameters()))


@every_engine
@pytest.mark.parametrize("training", [True, False], ids=["train-eval", "eval-train"])
def test_noise_of_a_run_outlives_the_training_mode(engine, training):
    """Between forward and backward someone calls eval() or train(): the layers computed again see their own masks."""
    for scheme, name in NOISY:
        flow = samples.flow(scheme, name)
        expected = gradients(flow, lv.Stored(), training, training)
        for a, b in zip(gradients(flow, engine, training, not training), expected, strict=True):
            near(a, b, rounding(b, terms=10 * samples.N, factor=10))


@every_engine
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
    near(flow(y), plain, rounding(plain, terms=10 * samples.N) if rounds_otherwise(engine) else 0.0)
    assert torch.equal(flow(y), flow(y))


@every_engine
def test_forward_and_backward_leave_the_global_stream_where_stored_leaves_it(engine):
    """What is drawn after a run, or between its forward and its backward pass, does not depend on the engine."""
    for scheme, name in (*NOISY, ("SymplecticEuler", "separable")):
        flow, drawn = samples.flow(scheme, name), []
        for backprop in (lv.Stored(), engine):
            torch.manual_seed(7)
            out = flow.with_backprop(backprop)(samples.inputs(flow.field))
            between = torch.rand(3)
            out.sum().backward()
            drawn.append(torch.cat([between, torch.rand(3)]))
        assert torch.equal(*drawn)
