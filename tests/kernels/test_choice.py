"""`Auto` takes the native kernel where there is one for the pair, and says so; elsewhere it chooses as without it."""

import pytest
import torch

import liouville as lv
import samples
from liouville.kernels.library import is_built
from measure import near, randn, rounding

pytestmark = pytest.mark.skipif(not is_built(), reason="the native library was not built; see `make kernel`")


def chosen(flow, y, memory=2**30):
    return lv.Auto(memory=memory).choose(flow.scheme, flow.field, y)


@pytest.mark.parametrize("memory", [1, 2**40])
@pytest.mark.parametrize("dtype, exact_beyond", [(torch.float32, 64), (torch.float64, 1024)], ids=str)
def test_the_kernel_is_taken_and_is_exact_where_many_layers_are_rebuilt(memory, dtype, exact_beyond):
    for layers, exact in ((exact_beyond, False), (exact_beyond + 1, True)):
        flow = lv.zoo.h2(4, layers, T=1.0).to(dtype)
        engine, reason = chosen(flow, torch.zeros(3, 4, dtype=dtype), memory)
        assert engine == lv.Fused(exact=exact)
        assert "native kernel" in reason


def test_a_run_without_gradient_is_not_rounded_to_a_grid_that_its_other_samples_set():
    flow = lv.zoo.h2(4, 128, T=1.0).with_backprop(lv.Auto())
    y = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    y[1] *= 1e4  # an outlier would leave the first sample the digits of a grid 1e4 times as coarse
    with torch.no_grad():
        assert torch.equal(flow(y)[:1], flow(y[:1]))
    assert "Fused()" in repr(flow)


@pytest.mark.parametrize(
    "flow",
    [
        lambda: lv.Flow(lv.HamiltonianField(4, 8), lv.RK4(), T=1.0),
        lambda: lv.zoo.h2(4, 8, T=1.0, X=torch.eye(2)),
        lambda: lv.zoo.h2(4, 8, T=1.0, operator=lv.Conv(5)),
        lambda: lv.zoo.h2(4, 8, T=1.0, activation="softplus"),
        lambda: lv.Flow(lv.dropout(lv.SeparableHamiltonianField(4, 8), 0.1), lv.SymplecticEuler(), T=1.0),
    ],
    ids=["another scheme", "a matrix X", "a wide stencil", "another activation", "noise"],
)
def test_what_has_no_kernel_is_stored(flow):
    flow = flow()
    y = samples.inputs(flow.field).float()
    assert chosen(flow, y).engine == lv.Stored()


@pytest.mark.parametrize("kernel, channels, taken", [(1, 8, True), (1, 64, True), (3, 16, True), (3, 32, False)])
def test_wide_stencils_are_left_to_torch(kernel, channels, taken):
    flow = lv.zoo.h2(channels, 4, T=1.0, operator=lv.Conv(kernel))
    engine = chosen(flow, torch.zeros(2, channels, 7, 7)).engine
    assert engine == (lv.Fused() if taken else lv.Stored())


def test_sixteen_bits_and_autocast_have_no_kernel():
    flow = lv.zoo.h2(4, 8, T=1.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert chosen(flow, torch.zeros(3, 4)).engine == lv.Stored()
    assert chosen(flow.bfloat16(), torch.zeros(3, 4, dtype=torch.bfloat16)).engine == lv.Stored()


def test_a_flow_says_what_was_chosen_and_computes_what_stored_does():
    flow, y = lv.zoo.h2(4, 8, T=1.0).double(), randn(5, 4)
    auto = flow.with_backprop(lv.Auto())
    for a, b in zip(gradients(auto, y), gradients(flow, y), strict=True):
        near(a, b, rounding(b, terms=80, factor=10))
    assert "chose Fused(): there is a native kernel for this scheme and field" in repr(auto)


def gradients(flow, y):
    return torch.autograd.grad(flow(y).square().sum(), tuple(flow.parameters()))
