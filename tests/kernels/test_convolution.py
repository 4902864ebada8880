"""`Fused` on images computes what `Stored` computes: 3 x 3 and pixelwise convolutions, at every awkward size."""

import math
import os
import subprocess
import sys

import pytest
import torch

import liouville as lv
from kernels_against_stored import compiles, each_gradient_alone, equal, outcome
from liouville.kernels import ops
from liouville.kernels.library import is_built
from liouville.kernels.table import kernel_for
from measure import generator, near, randn
from turns import one_in

pytestmark = pytest.mark.skipif(not is_built(), reason="the native kernel is not built")

EPS = torch.finfo(torch.float64).eps
TINY = torch.finfo(torch.float64).smallest_normal
SCHEMES = (lv.SymplecticEuler(), lv.Verlet(), lv.Yoshida4())
SIZES = ((28, 28), (7, 5), (1, 3), (3, 1), (1, 1), (2, 9), (16, 15), (33, 4))


def separable(n, kernel=3, layers=3, **more):
    scale = 1 / (n * kernel**2)
    more = {"operator": lv.Conv(kernel), "init": lv.Normal(scale), "generator": generator(n)} | more
    return lv.SeparableHamiltonianField(n, layers, **more).double()


def pair(n, kernel=3, layers=3, **more):
    scale = 1 / (n * kernel**2)
    more = {"operator": lv.Conv(kernel), "init": lv.Normal(scale), "p_features": max(1, n // 3)} | more
    return lv.PairField(n, layers, generator=generator(n), **more).double()


FIELDS = {
    "separable": separable,
    "separable-relu": lambda n, kernel=3: separable(n, kernel, activation="relu"),
    "separable-c": lambda n, kernel=3: separable(n, kernel, X=-0.7),
    "separable-hidden": lambda n, kernel=3: separable(n, kernel, hidden=n // 2 + 1),
    "separable-shared": lambda n, kernel=3: separable(n, kernel, shared=True),
    "pair": pair,
    "pair-relu": lambda n, kernel=3: pair(n, kernel, activation="relu"),
    "pair-scalar": lambda n, kernel=3: pair(n, kernel, scalar_bias=True),
    "pair-shared": lambda n, kernel=3: pair(n, kernel, shared=True),
}
fields = pytest.mark.parametrize("make", FIELDS.values(), ids=FIELDS)
kernels = pytest.mark.parametrize("kernel", [1, 3])


def same_as_stored(flow, y, engine=lv.Fused()):
    """Within the bound of `equal`, a gradient being a sum over all pixels."""
    pixels = y.numel() // flow.field.features
    equal(outcome(flow, engine, y), outcome(flow, lv.Stored(), y), flow, pixels)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: type(s).__name__)
@kernels
@fields
def test_value_and_gradient_equal_stored(make, kernel, scheme):
    for n, size in zip((2, 4, 6, 8, 10, 14, 22, 34), SIZES[::-1], strict=True):
        same_as_stored(lv.Flow(make(n, kernel), scheme, T=0.7), randn(3, n, *size))


@kernels
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_size_of_image(kernel, size):
    for n in (4, 12):
        same_as_stored(lv.Flow(separable(n, kernel), lv.SymplecticEuler(), T=0.7), randn(3, n, *size))


@kernels
@fields
def test_every_batch_size(make, kernel):
    flow = lv.Flow(make(4, kernel), lv.SymplecticEuler(), T=0.7)
    for batch in (1, 2, 3, 5, 9, 17, 40):
        same_as_stored(flow, randn(batch, 4, 5, 3))


@kernels
def test_64_channels_and_one_layer(kernel):
    same_as_stored(lv.Flow(separable(64, kernel, layers=1), lv.Verlet(), T=0.7), randn(2, 64, 7, 7))


@kernels
@fields
def test_single_precision(make, kernel):
    for n in (4, 12, 32):
        flow, y = lv.Flow(make(n, kernel), lv.SymplecticEuler(), T=0.7), randn(3, n, 9, 7)
        exact = outcome(flow, lv.Stored(), y)
        flow.float()
        got = outcome(flow, lv.Fused(), y.float())
        assert all(g.dtype == torch.float32 for g in got)
        equal(got, exact, flow, 3 * 63)


@kernels
@fields
def test_exact_runs_differ_from_stored_by_the_grid(make, kernel):
    same_as_stored(lv.Flow(make(8, kernel), lv.Verlet(), T=0.7), randn(3, 8, 9, 7), lv.Fused(exact=True))


@kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_exact_runs_restore_every_bit_where_rounded_ones_are_lost(dtype, kernel):
    field = separable(4, kernel, layers=1000, init=lv.Normal(1.0 / kernel)).to(dtype)
    flow, y = lv.Flow(field, lv.SymplecticEuler(), T=300.0), randn(3, 4, 5, 3).to(dtype)
    x = y.clone().requires_grad_()
    flow.with_backprop(lv.Fused(exact=True))(x).sum().backward()  # verifies the sum of all integers
    assert x.grad.isfinite().all()


@kernels
@pytest.mark.parametrize("shape", [(0, 4, 3, 5), (2, 4, 0, 5), (4, 3, 5), (3, 4, 3, 5)], ids=str)
def test_shapes(shape, kernel):
    if 0 in shape[1:] and kernel == 3:
        pytest.skip("torch's convolution refuses an image without pixels")
    flow, y = lv.Flow(separable(4, kernel), lv.SymplecticEuler(), T=0.7), randn(*shape)
    got = outcome(flow, lv.Fused(), y)
    if y.numel():
        equal(got, outcome(flow, lv.Stored(), y), flow, 60)
    else:
        assert all((g == 0).all() for g in got)
    assert got[2].shape == y.shape


LAYOUTS = {
    "channels last": lambda y: y.contiguous(memory_format=torch.channels_last),
    "every second image": lambda y: y.repeat_interleave(2, 0)[::2],
    "every second channel": lambda y: y.repeat_interleave(2, 1)[:, ::2],
    "every second column": lambda y: y.repeat_interleave(2, 3)[..., ::2],
    "columns first": lambda y: y.mT.contiguous().mT,
    "images innermost": lambda y: y.movedim(0, -1).contiguous().movedim(-1, 0),
    "one channel for all": lambda y: y[:, :1].expand(-1, 6, -1, -1),
    "one image for all": lambda y: y[:1].expand(4, -1, -1, -1),
}


@kernels
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts(layout, kernel):
    flow = lv.Flow(separable(6, kernel), lv.SymplecticEuler(), T=0.7)
    y = layout(randn(4, 6, 5, 3))
    same_as_stored(flow, y)
    p, q = flow.field.split(y)
    states = [(p, q.contiguous()), (p.contiguous(memory_format=torch.channels_last), q), (p.mT.contiguous().mT, q)]
    for state in states:  # whatever the two parts' memory is
        final = torch.cat(lv.Fused().run(flow.scheme, flow.field, state, flow.field.theta(), flow.h), 1)
        near(final, flow(y), 100 * EPS * flow.layers)


@kernels
def test_the_result_has_the_memory_of_the_input(kernel):
    flow, y = lv.Flow(separable(6, kernel), lv.Verlet(), T=0.7, backprop=lv.Fused()), randn(4, 6, 5, 3)
    assert flow(y).is_contiguous()
    out = flow(y.contiguous(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dims, size", [(1, (7,)), (3, (2, 3, 5))])
def test_pixelwise_on_signals_and_volumes(dims, size):
    flow = lv.Flow(separable(6, 1, operator=lv.Conv(1, dims)), lv.Verlet(), T=0.7)
    same_as_stored(flow, randn(4, 6, *size))
    same_as_stored(flow, randn(4, *size, 6).movedim(-1, 1))


def test_what_needs_no_gradient_gets_none():
    flow, y = lv.Flow(separable(6), lv.Verlet(), T=0.7), randn(3, 6, 5, 3)
    each_gradient_alone(flow, y, 45)


@kernels
def test_denormals(kernel):
    flow = lv.Flow(separable(4, kernel), lv.SymplecticEuler(), T=0.7)
    with torch.no_grad():
        flow.field.b_p.zero_()
        flow.field.b_q.zero_()
    y = randn(3, 4, 5, 3) * TINY / 16
    near(flow.with_backprop(lv.Fused())(y), flow(y), 60 * TINY * EPS * kernel**2)
    same_as_stored(flow, y)


@kernels
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_stays_in_its_image(bad, kernel):
    flow, y = lv.Flow(separable(6, kernel), lv.SymplecticEuler(), T=0.7).with_backprop(lv.Fused()), randn(7, 6, 4, 5)
    y[3, 1, 3, 4] = bad
    x = y.clone().requires_grad_()
    out = flow(x)
    assert not out[3].isfinite().all()
    others = torch.arange(7) != 3
    near(out[others], flow(y[others]), 100 * EPS * flow.layers)
    out.sum().backward()
    assert x.grad[others].isfinite().all()
    if math.isnan(bad):
        assert flow.field.K_p.grad.isnan().any()


def test_nan_reaches_no_further_than_the_tiles_that_the_stencil_touches():
    """A shear is two convolutions, each on tiles of 2 x 2 pixels that read a pixel more on every side."""
    flow = lv.Flow(separable(2, layers=1), lv.SymplecticEuler(), T=0.7, backprop=lv.Fused())
    y = randn(1, 2, 14, 14)
    y[0, 1, 6, 6] = math.nan  # in q, which moves p first
    seen = flow(y)[0, 0].isnan()
    assert seen[4:9, 4:9].all()
    seen[2:10, 2:10] = False
    assert not seen.any()


@kernels
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_same_bits_for_the_same_number_of_threads(threads, kernel):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        flow, y = lv.Flow(separable(8, kernel), lv.SymplecticEuler(), T=0.7), randn(40, 8, 14, 13)
        first = outcome(flow, lv.Fused(), y)
        for _ in range(3):
            assert all(torch.equal(a, b) for a, b in zip(outcome(flow, lv.Fused(), y), first, strict=True))
        equal(first, outcome(flow, lv.Stored(), y), flow, 40 * 14 * 13)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("isa", one_in(3, ["portable", "avx2", "avx512"]))
def test_every_instruction_set(isa):
    """Each in a process of its own; one that the machine lacks falls back to the next best."""
    tests = [f"{__file__}::{name}" for name in ("test_single_precision", "test_every_size_of_image")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]
    ran = subprocess.run(command, env={**os.environ, "LIOUVILLE_ISA": isa}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout


@compiles
@pytest.mark.slow
@kernels
def test_compiled_as_one_operator(kernel):
    flow = lv.Flow(separable(4, kernel), lv.SymplecticEuler(), T=0.7)
    for y in (randn(2, 4, 5, 3), randn(2, 4, 5, 3).contiguous(memory_format=torch.channels_last)):
        same = [torch.compile(flow.with_backprop(lv.Fused()), fullgraph=True)(y), flow(y)]
        gradients = [torch.autograd.grad(z.square().sum(), list(flow.parameters())) for z in same]
        near(*same, 100 * EPS * flow.layers)
        equal(*gradients, flow, 30)


@kernels
def test_the_operator_keeps_the_contract_of_torch(kernel):
    flow = lv.Flow(pair(4, kernel), lv.Verlet(), T=0.7)
    theta = [w.detach().requires_grad_() for w in flow.field.theta()]
    code = ops._encoded(kernel_for(flow.scheme, flow.field, None), flow.h, flow.layers)
    for y in (randn(2, 4, 5, 3), randn(2, 4, 5, 3).contiguous(memory_format=torch.channels_last)):
        state = [x.detach().requires_grad_() for x in flow.field.split(y)]
        torch.library.opcheck(ops._shears, (*state, theta, *code))


@pytest.mark.parametrize("operator", [lv.Conv(5), lv.Conv(3, dims=1), lv.Conv(3, dims=3)], ids=repr)
def test_other_stencils_have_no_kernel(operator):
    with pytest.raises(lv.NoKernelError, match=r"operator Conv.*Conv\(3\) on images"):
        lv.Flow(separable(4, operator=operator), lv.Verlet(), T=0.7, backprop=lv.Fused())


def test_memory_does_not_grow_with_depth():
    """What a training step keeps beside the weights: the first and the last state."""

    def numbers_kept(layers):
        flow, kept = lv.Flow(separable(4, layers=layers), lv.SymplecticEuler(), T=1.0, backprop=lv.Fused()), []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
            flow(randn(2, 4, 5, 3).requires_grad_())
        weights = {w.data_ptr() for w in flow.field.theta()}
        return sum(x.numel() for x in kept if x.data_ptr() not in weights)

    assert numbers_kept(3) == numbers_kept(30) == 2 * 2 * 4 * 15
