"""`Fused` computes what `Stored` computes, for every pair of the table, at every awkward size."""

import copy
import math
import os
import pickle
import subprocess
import sys

import pytest
import torch

import liouville as lv
import samples
from kernels_against_stored import compiles, each_gradient_alone, equal, outcome, same_as_stored, same_shapes
from liouville.kernels import ops, supported
from liouville.kernels.library import is_built
from liouville.kernels.table import kernel_for
from liouville.testing import check_engine
from measure import generator, near, randn
from turns import one_in

pytestmark = pytest.mark.skipif(not is_built(), reason="the native kernel is not built")

EPS = torch.finfo(torch.float64).eps
SCHEMES = (lv.SymplecticEuler(), lv.Verlet(), lv.Yoshida4())


def separable(n, **more):
    return lv.SeparableHamiltonianField(n, 5, init=lv.Normal(1 / n), generator=generator(n), **more).double()


def pair(n, **more):
    more = {"p_features": max(1, n // 3)} | more
    return lv.PairField(n, 5, init=lv.Normal(1 / n), generator=generator(n), **more).double()


FIELDS = {
    "separable": separable,
    "separable-relu": lambda n: separable(n, activation="relu"),
    "separable-c": lambda n: separable(n, X=-0.7),
    "separable-hidden": lambda n: separable(n, hidden=n // 2 + 1),
    "separable-shared": lambda n: separable(n, shared=True),
    "pair": pair,
    "pair-square": lambda n: pair(n, p_features=n // 2),
    "pair-relu": lambda n: pair(n, activation="relu"),
    "pair-scalar": lambda n: pair(n, scalar_bias=True),
    "pair-shared": lambda n: pair(n, shared=True),
}
fields = pytest.mark.parametrize("make", FIELDS.values(), ids=FIELDS)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: type(s).__name__)
@fields
def test_value_and_gradient_equal_stored_at_every_width(make, scheme):
    for n in (2, 4, 6, 8, 10, 14, 34, 128, 160):
        flow = lv.Flow(make(n), scheme, T=0.7)
        same_as_stored(flow, randn(19, n))


@fields
def test_every_batch_size(make):
    for n in (4, 12):
        flow = lv.Flow(make(n), lv.SymplecticEuler(), T=0.7)
        for batch in (*range(1, 19), 31, 33, 63, 65, 127, 129, 500, 1500):
            same_as_stored(flow, randn(batch, n))


@pytest.mark.parametrize("layers", [1, 2, 300])
def test_every_depth(layers):
    field = lv.SeparableHamiltonianField(6, layers, init=lv.Normal(0.2), generator=generator(0)).double()
    flow = lv.Flow(field, lv.Verlet(), T=0.9)
    a, b = outcome(flow, lv.Fused(), randn(21, 6)), outcome(flow, lv.Stored(), randn(21, 6))
    equal(a, b, flow, 21)


@fields
def test_single_precision(make):
    for n in (4, 12, 64):
        flow, y = lv.Flow(make(n), lv.SymplecticEuler(), T=0.7), randn(70, n)
        exact = outcome(flow, lv.Stored(), y)
        flow.float()
        got = outcome(flow, lv.Fused(), y.float())
        assert all(g.dtype == torch.float32 for g in got)
        equal(got, exact, flow, 70)


@pytest.mark.parametrize("shape", [(0, 4), (2, 0, 4), (4,), (3, 4), (2, 5, 4), (2, 3, 2, 4)], ids=str)
def test_shapes(shape):
    flow = lv.Flow(separable(4), lv.SymplecticEuler(), T=0.7)
    same_shapes(flow, lv.Fused(), randn(*shape), 60)


def test_layouts():
    flow = lv.Flow(separable(6), lv.SymplecticEuler(), T=0.7)
    wide = randn(9, 12)
    for y in (wide[:, ::2], wide[:, 3:9], randn(6, 9).T, wide[:1, :6].expand(9, 6), wide[::3, :6]):
        got = flow.with_backprop(lv.Fused())(y)
        near(got, flow(y.contiguous()), 100 * EPS * flow.layers)
    y = wide[:, ::2]
    same_as_stored(flow, y)
    theta = type(flow.field.theta())(*(w.transpose(0, -1).contiguous().transpose(0, -1) for w in flow.field.theta()))
    state = lv.Fused().run(flow.scheme, flow.field, flow.field.split(y), theta, flow.h)
    near(torch.cat(state, -1), flow(y), 100 * EPS * flow.layers)


def test_what_needs_no_gradient_gets_none():
    flow, y = lv.Flow(separable(6), lv.Verlet(), T=0.7), randn(9, 6)
    each_gradient_alone(flow, y, 9)
    flow.requires_grad_(False)
    assert not flow.with_backprop(lv.Fused())(y).requires_grad


def test_only_one_part_of_the_state_is_used():
    flow, y = lv.Flow(pair(6), lv.Verlet(), T=0.7), randn(9, 6)

    def gradients(engine):
        return torch.autograd.grad(flow.with_backprop(engine).final_state(y)[1].sum(), list(flow.parameters()))

    equal(gradients(lv.Fused()), gradients(lv.Stored()), flow, 9)


def test_denormals():
    flow = lv.Flow(separable(4), lv.SymplecticEuler(), T=0.7)
    with torch.no_grad():
        flow.field.b_p.zero_()
        flow.field.b_q.zero_()
    y = randn(17, 4) * torch.finfo(torch.float64).smallest_normal / 16
    near(flow.with_backprop(lv.Fused())(y), flow(y), 60 * torch.finfo(torch.float64).smallest_normal * EPS)
    same_as_stored(flow, y)


@pytest.mark.parametrize("width", [4, 12])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_stays_in_its_sample(bad, width):
    flow, y = lv.Flow(separable(width), lv.SymplecticEuler(), T=0.7).with_backprop(lv.Fused()), randn(20, width)
    y[7, 1] = bad
    x = y.clone().requires_grad_()
    out = flow(x)
    assert not out[7].isfinite().all()
    others = torch.arange(20) != 7
    assert out[others].isfinite().all()
    near(out[others], flow(y[others]), 100 * EPS * flow.layers)
    out.sum().backward()
    assert x.grad[others].isfinite().all()
    if math.isnan(bad):
        assert flow.field.K_p.grad.isnan().any()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_same_bits_for_the_same_number_of_threads(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for n in (4, 40):
            flow, y = lv.Flow(separable(n), lv.SymplecticEuler(), T=0.7), randn(900, n)
            first = outcome(flow, lv.Fused(), y)
            for _ in range(5):
                assert all(torch.equal(a, b) for a, b in zip(outcome(flow, lv.Fused(), y), first, strict=True))
            equal(first, outcome(flow, lv.Stored(), y), flow, 900)
    finally:
        torch.set_num_threads(before)


def test_the_same_bits_on_torchs_threads_on_the_kernels_own_and_in_a_forked_child():
    code = """
import os, torch, liouville as lv
from liouville.kernels.library import library
torch.set_num_threads(3)
flow = lv.zoo.h2(16, 64, T=1.0).with_backprop(lv.Fused())
y = torch.randn(1000, 16)
def bits():
    return [g.numpy().tobytes() for g in torch.autograd.grad(flow(y).square().sum(), list(flow.parameters()))]
first = bits()
with torch.no_grad():
    out = flow(y)
child = os.fork()
if child == 0:
    with torch.no_grad():
        os._exit(0 if torch.equal(flow(y), out) else 1)
assert os.waitpid(child, 0)[1] == 0, "forked child"
library().lv_use_openmp(None)
assert bits() == first, "own threads"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("isa", one_in(3, ["portable", "avx2", "avx512"]))
def test_every_instruction_set(isa):
    """Each in a process of its own; one that the machine lacks falls back to the next best."""
    code = "from liouville.testing import check_engine; import liouville as lv; check_engine(lv.Fused())"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "LIOUVILLE_ISA": isa})


def test_check_engine_passes():
    check_engine(lv.Fused())


def test_two_runs_before_one_backward_pass_and_threads_of_python():
    from concurrent.futures import ThreadPoolExecutor

    flow, y = lv.Flow(separable(8), lv.SymplecticEuler(), T=0.7), randn(700, 8)
    expected = outcome(flow, lv.Fused(), y)
    with ThreadPoolExecutor(3) as pool:
        for got in pool.map(lambda _: outcome(copy.deepcopy(flow), lv.Fused(), y), range(12)):
            assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


# ---- exact ------------------------------------------------------------------------------------------------------


@fields
def test_exact_runs_differ_from_stored_by_the_grid(make):
    for n in (4, 12, 40):
        flow, y = lv.Flow(make(n), lv.Verlet(), T=0.7), randn(70, n)
        same = outcome(flow, lv.Fused(exact=True), y), outcome(flow, lv.Stored(), y)
        equal(*same, flow, 70)


@pytest.mark.parametrize("dtype", one_in(2, [torch.float32, torch.float64]))
def test_exact_runs_restore_every_bit_where_rounded_ones_are_lost(dtype):
    field = lv.SeparableHamiltonianField(4, 3000, init=lv.Normal(1.0), generator=generator(0)).to(dtype)
    flow, y = lv.Flow(field, lv.SymplecticEuler(), T=600.0), torch.randn(33, 4, generator=generator(1), dtype=dtype)
    for engine in (lv.Fused(exact=True), lv.Reversible(exact=True)):
        x = y.clone().requires_grad_()
        flow.with_backprop(engine)(x).sum().backward()  # verifies the sum of all integers
        assert x.grad.isfinite().all()


def test_leaving_the_grid_is_an_arithmetic_error():
    flow = lv.Flow(separable(4, activation="relu"), lv.SymplecticEuler(), T=2000.0, backprop=lv.Fused(exact=True))
    with pytest.raises(ArithmeticError, match="beyond the range of its coarsest grid"):
        flow(randn(5, 4))
    y = randn(5, 4)
    y[2, 1] = math.nan
    with pytest.raises(ArithmeticError, match="finite"):
        flow(y)


# ---- torch's own doors ------------------------------------------------------------------------------------------


def test_the_operators_keep_torchs_contract():
    flow, y = lv.Flow(pair(5, p_features=2), lv.Verlet(), T=0.7), randn(3, 5)
    theta = [w.detach().requires_grad_() for w in flow.field.theta()]
    code, factors = ops._encoded(kernel_for(flow.scheme, flow.field, None), flow.h, flow.layers)
    p, q = (x.contiguous().requires_grad_() for x in y.split((2, 3), -1))
    torch.library.opcheck(ops._shears, (p, q, theta, code, factors))
    plain = [w.detach() for w in theta]
    p, q = p.detach(), q.detach()
    needed = [True, False, True, True, False]
    torch.library.opcheck(ops._shears_backward, (p, q, p, q, plain, needed, code, factors))


@compiles
def test_compiled_models_get_the_same_gradients():
    flow = lv.Flow(separable(6), lv.SymplecticEuler(), T=0.7, backprop=lv.Fused())
    model, y = torch.nn.Sequential(torch.nn.Linear(6, 6).double(), flow, torch.nn.Linear(6, 2).double()), randn(9, 6)

    def gradients(run):
        x = y.clone().requires_grad_()
        return torch.autograd.grad(run(x).square().sum(), [x, *model.parameters()])

    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    equal(gradients(compiled), gradients(model), flow, 9)


def test_an_exact_run_in_a_compiled_model_is_a_graph_break():
    flow, y = lv.Flow(separable(6), lv.SymplecticEuler(), T=0.7, backprop=lv.Fused(exact=True)), randn(9, 6)
    torch._dynamo.reset()
    compiled = torch.compile(flow, backend="aot_eager")

    def gradients(run):
        return torch.autograd.grad(run(y).square().sum(), list(flow.parameters()))

    equal(gradients(compiled), gradients(flow), flow, 9)


@compiles
def test_export_sees_one_operator():
    flow = lv.Flow(separable(6), lv.SymplecticEuler(), T=0.7, backprop=lv.Fused()).requires_grad_(False)
    y = randn(9, 6)
    program = torch.export.export(flow, (y,))
    assert sum("liouville.shears" in str(node.target) for node in program.graph.nodes) == 1
    near(program.module()(y), flow(y), 0.0)


# ---- refusals ---------------------------------------------------------------------------------------------------


def test_pairs_without_a_kernel_are_refused_with_the_list_of_those_that_have_one():
    refused = 0
    for scheme, name in samples.PAIRS:
        try:
            lv.Flow(samples.field(name), samples.SCHEMES[scheme], T=1.0, backprop=lv.Fused())
        except lv.NoKernelError as error:
            refused += 1
            assert all(line in str(error) for line in supported())
            assert "Stored()" in str(error)
        else:
            check_engine(lv.Fused(), [(samples.SCHEMES[scheme], samples.field(name))])
    assert 0 < refused < len(samples.PAIRS)


def test_a_subclass_may_compute_something_else_and_has_no_kernel():
    class Other(lv.PairField):
        pass

    with pytest.raises(lv.NoKernelError, match="Other"):
        lv.Flow(Other(4, 2), lv.Verlet(), T=1.0, backprop=lv.Fused())


def test_what_the_kernel_does_not_do_is_said_and_names_stored():
    flow = lv.Flow(separable(4), lv.SymplecticEuler(), T=0.7, backprop=lv.Fused())
    y = randn(3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(ValueError, match=r"autocast.*Stored"):
        flow(y)
    with pytest.raises(ValueError, match=r"float16.*Stored"):
        copy.deepcopy(flow).half()(y.half())
    with pytest.raises(ValueError, match=r"torch.func.*Stored"):
        torch.func.grad(lambda x: flow(x).sum())(y)
    with pytest.raises(ValueError, match=r"torch.func.*Stored"):
        torch.func.vmap(flow)(y)


def test_a_state_that_was_changed_in_place_is_noticed():
    flow = lv.Flow(separable(4), lv.SymplecticEuler(), T=0.7, backprop=lv.Fused())
    p, q = flow.final_state(randn(3, 4).requires_grad_())
    with torch.no_grad():
        p.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (p.sum() + q.sum()).backward()


def test_drift_is_measured():
    field = lv.SeparableHamiltonianField(4, 2000, init=lv.Normal(2.0), generator=generator(0))
    flow = lv.Flow(field, lv.SymplecticEuler(), T=400.0, backprop=lv.Fused())
    with pytest.warns(lv.DriftWarning, match=r"Fused\(exact=True\)") as said:
        for seed in (1, 2):
            flow(torch.randn(5, 4, generator=generator(seed))).sum().backward()
    assert len(said) == 1, "once per field"


def test_engines_are_values_and_travel():
    assert lv.Fused() == lv.Fused() == pickle.loads(pickle.dumps(lv.Fused()))
    assert (repr(lv.Fused()), repr(lv.Fused(exact=True))) == ("Fused()", "Fused(exact=True)")


def test_memory_does_not_grow_with_depth():
    """What a training step keeps beside the weights: the first and the last state."""

    def numbers_kept(layers):
        field = lv.SeparableHamiltonianField(4, layers)
        flow, kept = lv.Flow(field, lv.SymplecticEuler(), T=1.0, backprop=lv.Fused()), []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
            flow(torch.randn(7, 4, requires_grad=True))
        weights = {w.data_ptr() for w in field.theta()}
        return sum(x.numel() for x in kept if x.data_ptr() not in weights)

    assert numbers_kept(4) == numbers_kept(64) == 2 * 7 * 4
