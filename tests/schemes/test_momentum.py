"""`Momentum` and `Coupled`: their updates by hand, what they are special cases of, and inversion with kept bits."""

import pytest
import torch

import liouville as lv
import samples
from backprop.runs import deep
from liouville.backprop.base import layer
from liouville.backprop.bits import pack, unpack
from measure import at, far, generator, near, randn

BITS = (1, 2, 4, 8)
WIDE = lv.Reversible(exact=True, compensated=True)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("bits", BITS)
def test_the_update_is_the_stated_one(bits, sign):
    """v' = gamma v + (1 - gamma) h f(y), y' = y + v'."""
    field, h, gamma = samples.field("hamiltonian"), 0.3, sign * 2.0**-bits
    flow = lv.Flow(field, lv.Momentum(bits, sign), T=h * samples.N)
    y = samples.inputs(field)
    x, v = y, torch.zeros_like(y)
    for j in range(samples.N):
        v = gamma * v + (1 - gamma) * h * field(x, at(field.theta(), j))
        x = x + v
    near(flow(y), x, 1e-14)
    near(flow.final_state(y)[1], v, 1e-14)


def test_bdia_is_the_recursion_of_its_paper():
    """y_{j+1} = g y_{j-1} + (1 - g) y_j + (1 + g) h f(y_j), g = 2^-bits; from y_{-1} = y_0."""
    field, h, g = samples.field("residual"), 0.3, 0.25
    y = samples.inputs(field)
    before, x = y, y
    for j in range(samples.N):
        before, x = x, g * before + (1 - g) * x + (1 + g) * h * field(x, at(field.theta(), j))
    near(lv.Flow(field, lv.Momentum(2, -1), T=h * samples.N)(y), x, 1e-14)


def test_many_bits_are_nearly_forward_euler_and_the_difference_halves_with_each():
    field = samples.field("residual")
    y = samples.inputs(field)
    euler = lv.Flow(field, lv.ForwardEuler(), T=0.9)(y)
    off = [float((lv.Flow(field, lv.Momentum(b), T=0.9)(y) - euler).detach().norm()) for b in (4, 8)]
    assert 12 < off[0] / off[1] < 20  # 2^4, to first order in gamma


def test_coupled_takes_turns_and_twice_the_step_is_the_midpoint_rule():
    field, h = samples.field("hamiltonian"), 0.3
    y = samples.inputs(field)
    a = b = y
    for j in range(samples.N):
        a, b = b, a + h * field(b, at(field.theta(), j))
    near(lv.Flow(field, lv.Coupled(1.0), T=h * samples.N)(y), (a + b) / 2, 1e-14)
    state = lv.Coupled().step(field, (y, 2 * y), at(field.theta()), h)
    for one, other in zip(state, lv.LeapfrogMidpoint().step(field, (y, 2 * y), at(field.theta()), h), strict=True):
        near(one, other, 0.0)


@pytest.mark.parametrize("bits", [0, 3, 5, 16, 2.5, True])
def test_other_numbers_of_bits_are_refused(bits):
    with pytest.raises(ValueError, match="bits must be 1, 2, 4 or 8"):
        lv.Momentum(bits)
    with pytest.raises(ValueError, match="sign must be 1"):
        lv.Momentum(4, 0)


def test_engines_that_invert_need_the_grid():
    """And `Auto` takes it; floating numbers would be wrong by 2^bits a layer, as `inverse_state` shows."""
    field = deep("hamiltonian", 30)
    for engine in (lv.Reversible(), lv.Reversible(compensated=True), lv.Reversible(anchors=2)):
        with pytest.raises(ValueError, match=r"rounding errors by 16.*Reversible\(exact=True, compensated=True\)"):
            lv.Flow(field, lv.Momentum(), T=3.0, backprop=engine)
    flow, y = lv.Flow(field, lv.Momentum(), T=3.0, backprop=lv.Auto(memory=1)), randn(3, 4)
    assert flow.backprop.choose(flow.scheme, field, y).engine == WIDE
    flow(y.requires_grad_()).sum().backward()
    far(flow.inverse_state(flow.final_state(y))[0].detach(), y.detach(), 1e-3)
    with pytest.raises(ValueError, match="y_N does not determine"):
        flow.inverse(y)


@pytest.mark.parametrize("scheme", [*map(lv.Momentum, BITS), lv.Momentum(2, -1), lv.Coupled()], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layers", [12, 96])
def test_no_element_is_rebuilt_otherwise(scheme, dtype, layers):
    """Down, and up again with what every layer left behind: bits an entry, to the byte."""
    flow = lv.Flow(deep("hamiltonian", layers, dtype), scheme, T=layers / 10)
    y, theta = randn(5, 4).to(dtype), flow.field.theta()
    with torch.no_grad():
        run, state = flow.start(y, theta)
        layer_by_layer = WIDE.layers(scheme, run, state, flow.h)
        parts = layer_by_layer.enter(state)
        first, left = [part[0].clone() for part in parts], []
        for j in range(layers):
            parts = layer_by_layer.forward(parts, j, layer(theta, j))
            left.append(layer_by_layer.left)
        assert sum(x.nbytes for x in left[0]) == -(-20 * scheme.kept_bits // 8)
        for j in reversed(range(layers)):
            layer_by_layer.left = list(left[j])
            parts = layer_by_layer.inverse(parts, j, layer(theta, j))
    assert sum(int((a != part[0]).sum()) for a, part in zip(first, parts, strict=True)) == 0


def test_a_bit_that_was_changed_is_noticed():
    """Of those that a layer in the middle left behind, by the verdict of the backward pass."""
    from liouville.backprop import passes

    flow = lv.Flow(deep("hamiltonian", 20), lv.Momentum(), T=2.0, backprop=WIDE)
    down = passes.Run._down

    def spoilt(self, *args):
        final, kept = down(self, *args)
        kept["left", 11][0][0] ^= 1
        return final, kept

    passes.Run._down = spoilt
    try:
        with pytest.raises(RuntimeError, match="did not restore every bit"):
            flow(randn(3, 4).requires_grad_()).sum().backward()
    finally:
        passes.Run._down = down


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("size", [1, 7, 64, 1001])
def test_bits_are_packed_densely_and_come_back(bits, size):
    low = torch.randint(2**bits, (size,), generator=generator())
    packed = pack(low, bits)
    assert packed.numel() == -(-size * bits // 8)
    assert torch.equal(unpack(packed, bits, size).long(), low)


def test_the_wide_grid_reaches_four_million_times_the_input():
    """SmolLM2's hidden states grow to 29,764 times the largest input: on 57 bits that would be refused."""

    class Grows(lv.ResidualField):
        def forward(self, y, theta_j):
            return 2 * y + super().forward(y, theta_j)

    field = Grows(3, 12, init=samples.RANDOM)
    y = randn(4, 3).float().requires_grad_()
    flow = lv.Flow(field, lv.Momentum(), T=12.0, backprop=WIDE)
    out = flow(y)
    assert out.abs().max() > 30_000 * y.abs().max()
    out.sum().backward()
    with pytest.raises(ArithmeticError, match="beyond the range"):
        lv.Flow(Grows(3, 30, init=samples.RANDOM), lv.Momentum(), T=30.0, backprop=WIDE)(y)
