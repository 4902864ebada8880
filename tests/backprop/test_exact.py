"""`Reversible(exact=True)`: every bit is restored at any depth, each backward pass verifies it, and the range ends."""

import contextlib
import copy
import math

import pytest
import torch
from torch import nn

import liouville as lv
import samples
from backprop.runs import compare, deep
from liouville.backprop.base import layer
from measure import EPS, near
from turns import one_in

EXACT = lv.Reversible(exact=True)
WIDE = lv.Reversible(exact=True, compensated=True)
DEPTH = 4096

SCHEMES = {
    "SymplecticEuler": (lv.SymplecticEuler(), "separable"),
    "Verlet": (lv.Verlet(), "pair"),
    "Yoshida4": (lv.Yoshida4(), "second-order"),
    "LeapfrogMidpoint": (lv.LeapfrogMidpoint(), "antisymmetric"),
}
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
GRIDS = {
    "float32": (EXACT, torch.float32),
    "float64": (EXACT, torch.float64),
    "float32-wide": (WIDE, torch.float32),
}
some_grids = pytest.mark.parametrize("scheme, family, engine, dtype", one_in(4, SCHEMES, GRIDS))
BFLOAT16 = torch.autocast("cpu", torch.bfloat16)


@torch.no_grad()
def there_and_back(flow, y, engine=EXACT, autocast=contextlib.nullcontext()):
    """The integers in front of the first layer, behind the last, and in front of the first again."""
    theta = flow.field.theta()
    with autocast:
        run, state = flow.start(y, theta)
        layers = engine.layers(flow.scheme, run, state, flow.h)
        while True:
            parts = layers.enter(state)
            first = [part[0].clone() for part in parts]
            for j in range(flow.layers):
                parts = layers.forward(parts, j, layer(theta, j))
            last = [part[0].clone() for part in parts]
            layers.leave(parts)
            if layers.arithmetic.in_range(
                lambda: layers.reach(state, theta)
            ):  # else it is to be repeated, on a coarser grid
                break
        for j in reversed(range(flow.layers)):
            parts = layers.inverse(parts, j, layer(theta, j))
    return first, last, [part[0] for part in parts]


def check(flow, y, **how):
    first, last, again = there_and_back(flow, y, **how)
    assert not any(torch.equal(a, b) for a, b in zip(first, last, strict=True))  # it went somewhere
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(a.stride() == b.stride() for a, b in zip(first, again, strict=True))


# ---- no bit is lost --------------------------------------------------------------------------------------------


@some_grids
def test_four_thousand_layers_are_undone_to_the_bit(scheme, family, engine, dtype):
    """T = 200: not a short way, cut finely, but one on which floating-point sums lose what they started from."""
    flow = lv.Flow(deep(family, DEPTH, dtype), scheme, T=200.0)
    check(flow, samples.inputs(flow.field).to(dtype), engine=engine)


def test_floating_point_sums_do_not_undo_four_thousand_layers():
    """The negative of the law above, so that it means something."""
    flow = lv.Flow(deep("separable", DEPTH), lv.SymplecticEuler(), T=200.0)
    y = samples.inputs(flow.field)
    with torch.no_grad():
        assert (flow.inverse(flow(y)) - y).abs().max() > 1e3 * EPS


SHAPES = {
    "dense": ("separable", (3, 4), torch.contiguous_format),
    "sequence": ("separable", (2, 5, 4), torch.contiguous_format),
    "one": ("separable", (4,), torch.contiguous_format),
    "images": ("separable-images", (2, 2, 4, 3), torch.contiguous_format),
    "channels-last": ("separable-images", (2, 2, 4, 3), torch.channels_last),
    "dropout": ("dropout", (3, 4), torch.contiguous_format),
}


PRECISIONS = {
    "float32": (torch.float32, contextlib.nullcontext()),
    "float64": (torch.float64, contextlib.nullcontext()),
    "autocast": (torch.float32, BFLOAT16),
}


@pytest.mark.parametrize("family, shape, layout, dtype, autocast", one_in(4, SHAPES, PRECISIONS))
def test_every_shape_layout_and_precision_is_undone_to_the_bit(family, shape, layout, dtype, autocast):
    flow = lv.Flow(deep(family, 512, dtype), lv.SymplecticEuler(), T=25.0)
    y = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype).to(memory_format=layout)
    check(flow, y, autocast=autocast)


@some_grids
def test_the_backward_pass_restores_every_bit_too(scheme, family, engine, dtype):
    """By its own evaluations, with gradients: it raises if the bits differ at any of 33 depths; 4096 are slow."""
    flow = lv.Flow(deep(family, 256, dtype), scheme, T=12.8, backprop=engine)
    flow(samples.inputs(flow.field).to(dtype).requires_grad_()).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in flow.parameters())


def test_the_backward_pass_restores_every_bit_under_autocast_with_noise_on_images():
    field = lv.dropout(deep("separable-images", 64, torch.float32), 0.2)
    flow = lv.Flow(field, lv.Verlet(), T=6.4, backprop=EXACT)
    y = samples.inputs(field).float().to(memory_format=torch.channels_last).requires_grad_()
    with BFLOAT16:
        out = flow(y)
    out.float().sum().backward()
    assert torch.isfinite(y.grad).all()


@pytest.mark.slow
@some_grids
def test_the_backward_pass_restores_every_bit_of_four_thousand_layers(scheme, family, engine, dtype):
    flow = lv.Flow(deep(family, DEPTH, dtype), scheme, T=200.0, backprop=engine)
    flow(samples.inputs(flow.field).to(dtype).requires_grad_()).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in flow.parameters())


# ---- and if one is, it is noticed ------------------------------------------------------------------------------


class Wavers(lv.SeparableHamiltonianField):
    """From one evaluation on, the velocity is multiplied by ``factor``: another kernel, another answer."""

    after, calls, factor = 0, 0, 1.0

    def p_dot(self, q, theta_j):
        self.calls += 1
        return super().p_dot(q, theta_j) * (self.factor if self.calls > self.after else 1.0)


@pytest.mark.parametrize("layers", [1, 8, 100])
def test_a_backward_evaluation_with_other_bits_raises(layers):
    """A relative change of 2^-40, in the backward pass of any one layer and all before it."""
    for wrong in {1, layers // 2 + 1, layers}:  # evaluations of the backward pass: the first is layer N - 1's
        field = Wavers(4, layers).double()
        flow = lv.Flow(field, lv.SymplecticEuler(), T=1.0, backprop=EXACT)
        y = samples.inputs(field).requires_grad_()
        flow(y)  # which looks at the velocities, once for a kind of input
        field.after, field.calls, field.factor = layers + wrong - 1, 0, 1 + 2.0**-40
        out = flow(y)
        assert field.calls == layers
        with pytest.raises(RuntimeError, match=r"did not restore every bit.*deterministic"):
            out.sum().backward()
        field.calls, field.factor = 0, 1.0
        flow(y).sum().backward()


# ---- the range -------------------------------------------------------------------------------------------------


def hyperbolic(T, dtype, layers=128, engine=EXACT):
    """p' = q, q' = p: grows like e^T from p = q."""
    eye = nn.Linear(2, 2, bias=False)
    back = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        eye.weight.copy_(torch.eye(2))
        back.weight.copy_(-torch.eye(2))
    field = lv.ShearField([eye] * layers, [back] * layers, layers=layers, features=4).to(dtype)
    return lv.Flow(field, lv.Verlet(), T, engine)


RANGES = {"float32": (EXACT, torch.float32, 512), "float64": (EXACT, torch.float64, 2048)}
RANGES["float32-wide"] = (WIDE, torch.float32, 2**28)


@pytest.mark.parametrize("engine, dtype, largest, scale", one_in(3, RANGES, [1e-3, 1.0]))
def test_growth_beyond_the_range_raises_and_within_it_is_right(engine, dtype, largest, scale):
    """512 times the largest input, 2,048 times in float64, 2^28 times for float32 on 64 bits, whatever its unit."""
    y = torch.full((2, 4), scale, dtype=dtype)
    layers = 128 if largest < 2**12 else 256  # so that Verlet grows like the equation
    for times in (2, 0.95 * largest):
        flow = hyperbolic(math.log(times), dtype, layers)
        x = y.clone().requires_grad_()
        out, expected = flow.with_backprop(engine)(x), flow.with_backprop(lv.Stored())(y).detach()
        assert 0.99 * times < float(expected.max()) / scale < 1.01 * times
        # the grid is 2^-21 of the largest input at its coarsest, 2^-51 in 64 bits; an error grows like the state
        near(out, expected, 128 * 2**3 * torch.finfo(dtype).eps * times * scale)
        out.sum().backward()
        near(x.grad, torch.full_like(x, times), 0.01 * times)
    for grad in (True, False):
        with torch.set_grad_enabled(grad), pytest.raises(ArithmeticError, match=r"range.*compensated=True"):
            hyperbolic(math.log(2.1 * largest), dtype, layers, engine)(y)


def test_a_run_that_is_repeated_on_a_coarser_grid_leaves_no_trace_of_the_first_attempt():
    """The same masks, one number of the global stream, no storage more, and every bit restored."""
    field = lv.dropout(hyperbolic(1.0, torch.float32).field, 0.1)
    y = torch.ones(2, 4)
    for T in (1.0, 4.5):  # once on the finest grid, once after two attempts
        flow = lv.Flow(field, lv.Verlet(), T)
        found = []
        for engine in (EXACT, WIDE, lv.Stored()):
            torch.manual_seed(3)
            x = y.clone().requires_grad_()
            out = flow.with_backprop(engine)(x)
            out.sum().backward()
            found.append((out.detach(), x.grad, torch.rand(2)))
        for others in found[:2]:
            near(others[0], found[2][0], 1e-4 * float(found[2][0].max()))
            near(others[1], found[2][1], 1e-4 * float(found[2][1].abs().max()))
            assert torch.equal(others[2], found[2][2])


@dtypes
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")], ids=str)
def test_input_that_is_not_finite_raises(dtype, bad):
    flow = lv.Flow(deep("separable", 8, dtype), lv.SymplecticEuler(), T=1.0, backprop=EXACT)
    y = samples.inputs(flow.field).to(dtype)
    y[1, 2] = bad
    with pytest.raises(ArithmeticError, match="finite"):
        flow(y)


@dtypes
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30], ids=str)
def test_a_velocity_that_is_not_finite_or_far_too_large_raises(dtype, bad):
    """In the last layer alone, and one that the activation does not bound."""
    flow = hyperbolic(1.0, dtype, layers=8)
    with torch.no_grad():
        flow.field.stacked["F__weight"][-1, 0, 0] = bad
    with pytest.raises(ArithmeticError, match=r"range|not finite"):
        flow(torch.ones(2, 4, dtype=dtype))


def test_zero_and_empty_inputs_have_a_range_too():
    flow = samples.flow("SymplecticEuler", "separable")
    for y in (torch.zeros(3, 4), torch.zeros(0, 4), torch.zeros(2, 0, 4)):
        compare(flow, EXACT, y.double())


def test_an_exception_leaves_nothing_behind():
    """After a state that left the range, or a broken backward pass, the next run of the flow is right."""
    flow = hyperbolic(2.0, torch.float64)
    y = torch.ones(2, 4, dtype=torch.float64)
    with pytest.raises(ArithmeticError):
        lv.Flow(flow.field, flow.scheme, 20.0, EXACT)(y)
    compare(flow.with_backprop(lv.Stored()), EXACT, y, allowed=lambda b: 1e4 * EPS * float(b.abs().max()))


# ---- what is small, or nothing ---------------------------------------------------------------------------------

ENGINES = {"Reversible": EXACT, "Fused": lv.Fused(exact=True), "wide": WIDE}


def carried(dtype, biases, layers=16):
    """An h2 network whose biases alone carry a state of zeros away."""
    field = lv.SeparableHamiltonianField(4, layers, init=lv.Normal(), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        field.b_p.mul_(biases), field.b_q.mul_(biases)
    return lv.Flow(field.to(dtype), lv.SymplecticEuler(), T=1.6)


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize("biases", [1.0, 1e-6, 1e-20])
@pytest.mark.parametrize("scale", [1e-3, 1e-31, 1e-42, 0.0])
def test_an_input_that_is_small_beside_the_biases_is_as_right_as_the_output_is_large(engine, biases, scale):
    """The grid has 2^-21 of the largest number of the run or finer (8 x 8 x 8 x 2^-30), N roundings of it magnified by
    ||A||, and float32 has its own."""
    flow = carried(torch.float32, biases)
    y = scale * torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        true = copy.deepcopy(flow).double()(y.double())
        growth = float(lv.analysis.backward_sensitivity(flow, y).abs().sum(-1).max())
    torch.set_flush_denormal(scale == 1e-42)  # as the command does
    try:
        x = y.clone().requires_grad_()
        out = flow.with_backprop(engine)(x)
        out.sum().backward()  # every bit is restored, or it raises
    finally:
        torch.set_flush_denormal(False)
    near(out.detach().double(), true, 16 * 2**-21 * growth * float(true.abs().max()))
    assert x.grad.isfinite().all() and bool(x.grad.any())


@pytest.mark.parametrize("engine", [EXACT, lv.Fused(exact=True)], ids=str)
def test_the_reason_of_a_refusal_is_the_true_one(engine):
    small = carried(torch.float32, 0.0).with_backprop(engine)
    with pytest.raises(ArithmeticError, match=r"too small for an exactly reversible one: the largest is .*e-3\d"):
        small(torch.full((2, 4), 1e-36))
    small(torch.full((2, 4), 1e-31)).sum().backward()
    grows = lv.zoo.h2(4, layers=64, T=200.0, activation="relu", init=lv.Normal(), backprop=engine)
    with pytest.raises(ArithmeticError, match="grows without bound"):
        grows(torch.ones(2, 4))


@torch.no_grad()
def test_runs_that_fit_their_first_grids_lie_on_them():
    """2^-27 of the largest input, 8 times that, or 64 times: records rest on these bits."""
    for T, spacing in ((1.0, 2.0**-26), (3.0, 2.0**-23), (6.0, 2.0**-20)):
        flow, state = hyperbolic(T, torch.float32), (torch.ones(2, 2), torch.ones(2, 2))
        layers, theta = EXACT.layers(flow.scheme, flow.field, state, flow.h), flow.field.theta()
        fits = False
        while not fits:
            parts = layers.enter(state)
            for j in range(flow.layers):
                parts = layers.forward(parts, j, layer(theta, j))
            layers.leave(parts)
            fits = layers.arithmetic.in_range(lambda: pytest.fail("no need to ask how far the run goes"))
        assert layers.arithmetic.spacing == spacing
