"""`Fused` with forward Euler computes what `Stored` computes, from states that it keeps and computes again."""

import math
import subprocess
import sys
from os import environ

import pytest
import torch

import liouville as lv
from kernels_against_stored import compiles, equal, outcome, same_as_stored
from liouville.kernels import euler, ops
from liouville.kernels.library import is_built
from liouville.kernels.table import kernel_for
from liouville.testing import check_engine
from measure import generator, near, randn
from turns import one_in

pytestmark = pytest.mark.skipif(not is_built(), reason="the native kernel is not built")

EPS = torch.finfo(torch.float64).eps
LAYERS = 5


def hamiltonian(n, layers=LAYERS, **more):
    more = {"J": "full"} | more
    field = lv.HamiltonianField(n, layers, init=lv.Normal(1 / n), generator=generator(n), **more)
    return field.double()


def antisymmetric(n, layers=LAYERS, **more):
    return lv.AntisymmetricField(n, layers, init=lv.Normal(1 / n), generator=generator(n), **more).double()


def residual(n, layers=LAYERS, **more):
    return lv.ResidualField(n, layers, init=lv.Normal(1 / n), generator=generator(n), **more).double()


def skew(*shape):
    J = torch.randn(*shape, shape[-1], generator=generator(1)) / shape[-1]
    return J - J.mT


FIELDS = {
    "hamiltonian": hamiltonian,
    "hamiltonian-canonical": lambda n: hamiltonian(n + n % 2, J="canonical"),
    "hamiltonian-relu": lambda n: hamiltonian(n, activation="relu"),
    "hamiltonian-hidden": lambda n: hamiltonian(n, hidden=n // 2 + 1),
    "hamiltonian-shared": lambda n: hamiltonian(n, shared=True),
    "hamiltonian-J": lambda n: hamiltonian(n, J=skew(n)),
    "hamiltonian-J-per-layer": lambda n: hamiltonian(n, J=skew(LAYERS, n)),
    "hamiltonian-J-trained": lambda n: hamiltonian(n, J=skew(n), train_J=True, shared=True),
    "antisymmetric": antisymmetric,
    "antisymmetric-paper": lambda n: antisymmetric(n, gamma=0.3, factor=0.5, scalar_bias=True),
    "antisymmetric-relu": lambda n: antisymmetric(n, activation="relu", gamma=0.3),
    "antisymmetric-shared": lambda n: antisymmetric(n, shared=True, gamma=0.3),
    "residual": residual,
    "residual-relu": lambda n: residual(n, activation="relu"),
    "residual-scalar": lambda n: residual(n, scalar_bias=True),
    "residual-shared": lambda n: residual(n, shared=True),
}
fields = pytest.mark.parametrize("make", FIELDS.values(), ids=FIELDS)
three = pytest.mark.parametrize("make", [hamiltonian, antisymmetric, residual])


def flow_of(field, engine=lv.Stored(), T=0.7):
    return lv.Flow(field, lv.ForwardEuler(), T=T, backprop=engine)


@fields
def test_value_and_gradient_equal_stored_at_every_width(make):
    for n in (1, 2, 3, 4, 5, 7, 12, 17, 64, 128, 160):
        flow = flow_of(make(n))
        same_as_stored(flow, randn(19, flow.field.features))


@fields
def test_every_batch_size(make):
    for n in (4, 12):
        flow = flow_of(make(n))
        for batch in (*range(1, 19), 31, 33, 63, 65, 127, 129, 500, 1500):
            same_as_stored(flow, randn(batch, n))


@three
def test_every_depth(make):
    """Around the segments whose states are computed again: before, at and behind the end of one and of two."""
    S = euler.SEGMENT
    for layers in (1, 2, S - 1, S, S + 1, 2 * S, 2 * S + 1, 300):
        for n in (3, 6):
            same_as_stored(flow_of(make(n, layers)), randn(150, n))


@fields
def test_single_precision(make):
    for n in (4, 12, 64):
        flow, y = flow_of(make(n)), randn(70, n)
        exact = outcome(flow, lv.Stored(), y)
        flow.float()
        got = outcome(flow, lv.Fused(), y.float())
        assert all(g.dtype == torch.float32 for g in got)
        equal(got, exact, flow, 70)


@three
@pytest.mark.parametrize("shape", [(0, 4), (2, 0, 4), (4,), (3, 4), (2, 5, 4), (2, 3, 2, 4)], ids=str)
def test_shapes(shape, make):
    flow, y = flow_of(make(4)), randn(*shape)
    got, expected = outcome(flow, lv.Fused(), y), outcome(flow, lv.Stored(), y)
    assert [g.shape for g in got] == [e.shape for e in expected]
    if y.numel():
        equal(got, expected, flow, 60)
    else:
        assert all((g == 0).all() for g in got)


@three
def test_layouts(make):
    flow, wide = flow_of(make(6)), randn(9, 12)
    for y in (wide[:, ::2], wide[:, 3:9], randn(6, 9).T, wide[:1, :6].expand(9, 6), wide[::3, :6]):
        near(flow.with_backprop(lv.Fused())(y), flow(y.contiguous()), 100 * EPS * flow.layers)
    y = wide[:, ::2]
    same_as_stored(flow, y)
    theta = type(flow.field.theta())(*(w.transpose(0, -1).contiguous().transpose(0, -1) for w in flow.field.theta()))
    (state,) = lv.Fused().run(flow.scheme, flow.field, (y,), theta, flow.h)
    near(state, flow(y), 100 * EPS * flow.layers)


@fields
def test_what_needs_no_gradient_gets_none(make):
    flow, y = flow_of(make(6)), randn(9, 6)
    trained = [p for p in flow.parameters() if p.requires_grad]
    full = outcome(flow, lv.Stored(), y)[1:]
    for only in range(len(trained) + 1):
        x = y.clone().requires_grad_(only == 0)
        for k, p in enumerate(trained):
            p.requires_grad_(only == k + 1)
        (s,) = flow.with_backprop(lv.Fused()).final_state(x)
        (s.square() + torch.sin(3 * s)).sum().backward()
        for k, p in enumerate((x, *trained)):
            if k == only:
                equal([p.grad], [full[k]], flow, 9)
            assert (p.grad is None) == (k != only)
            p.grad = None
    flow.requires_grad_(False)
    assert not flow.with_backprop(lv.Fused())(y).requires_grad


@three
@pytest.mark.parametrize("width", [4, 12])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_stays_in_its_sample(bad, width, make):
    flow, y = flow_of(make(width), lv.Fused()), randn(20, width)
    y[7, 1] = bad
    x = y.clone().requires_grad_()
    out = flow(x)
    assert not out[7].isfinite().all()
    others = torch.arange(20) != 7
    near(out[others], flow(y[others]), 100 * EPS * flow.layers)
    out.sum().backward()
    assert x.grad[others].isfinite().all()
    if math.isnan(bad):
        assert next(flow.parameters()).grad.isnan().any()


@three
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_same_bits_for_the_same_number_of_threads(threads, make):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for n in (4, 40):
            flow, y = flow_of(make(n, 40)), randn(900, n)
            first = outcome(flow, lv.Fused(), y)
            for _ in range(3):
                assert all(torch.equal(a, b) for a, b in zip(outcome(flow, lv.Fused(), y), first, strict=True))
            equal(first, outcome(flow, lv.Stored(), y), flow, 900)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("isa", one_in(3, ["portable", "avx2", "avx512"]))
def test_every_instruction_set(isa):
    """Each in a process of its own; one that the machine lacks falls back to the next best."""
    code = """
import liouville as lv
from liouville.testing import check_engine
for n in (3, 4, 9):
    fields = (lv.HamiltonianField(n, 20, J="full", hidden=n), lv.AntisymmetricField(n, 20), lv.ResidualField(n, 20))
    check_engine(lv.Fused(), [(lv.ForwardEuler(), field) for field in fields])
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**environ, "LIOUVILLE_ISA": isa})


def test_check_engine_passes():
    check_engine(lv.Fused(), [(lv.ForwardEuler(), make(6)) for make in FIELDS.values()])


def test_two_runs_before_one_backward_pass():
    flow, a, b = flow_of(hamiltonian(6)), randn(9, 6), randn(5, 6, seed=1)

    def gradients(engine):
        run = flow.with_backprop(engine)
        return torch.autograd.grad(run(a).square().sum() + run(b).cos().sum(), list(flow.parameters()))

    equal(gradients(lv.Fused()), gradients(lv.Stored()), flow, 14)


def test_memory_is_one_state_for_a_segment_of_layers():
    """What a training step keeps beside the weights: the first state, and one behind every segment but the last."""
    for layers in (1, 16, 17, 64):
        flow, kept = flow_of(residual(4, layers), lv.Fused()), []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, kept=kept: kept.append(x) or x, lambda x: x):
            flow(randn(7, 4).requires_grad_())
        weights = {w.data_ptr() for w in flow.field.theta()}
        states = sum(x.numel() for x in kept if x.data_ptr() not in weights) / (7 * 4)
        assert states == 1 + (layers - 1) // euler.SEGMENT


# ---- torch's own doors ------------------------------------------------------------------------------------------


def test_the_operators_keep_torchs_contract():
    for make in (hamiltonian, antisymmetric):
        flow, y = flow_of(make(4, 20)), randn(3, 4)
        plan = kernel_for(flow.scheme, flow.field, None)
        plain = [w.detach() for w in plan.weights(flow.field.theta())]
        weights, run = [w.clone().requires_grad_() for w in plain], (plan.activation, 20, flow.h)
        torch.library.opcheck(ops._euler, (y.clone().requires_grad_(), weights, *run))
        needed = [True, False, True, True][: 1 + len(weights)]
        torch.library.opcheck(ops._euler_backward, (y, y[None], y, plain, needed, *run))


@compiles
@fields
def test_compiled_models_get_the_same_gradients(make):
    flow, y = flow_of(make(6), lv.Fused()), randn(9, 6)
    model = torch.nn.Sequential(torch.nn.Linear(6, 6).double(), flow, torch.nn.Linear(6, 2).double())
    trained = [p for p in model.parameters() if p.requires_grad]

    def gradients(run):
        x = y.clone().requires_grad_()
        return torch.autograd.grad(run(x).square().sum(), [x, *trained])

    torch._dynamo.reset()
    equal(gradients(torch.compile(model, backend="aot_eager", fullgraph=True)), gradients(model), flow, 9)


@compiles
def test_export_sees_one_operator():
    flow, y = flow_of(antisymmetric(6, gamma=0.3), lv.Fused()).requires_grad_(False), randn(9, 6)
    program = torch.export.export(flow, (y,))
    assert sum("liouville.euler" in str(node.target) for node in program.graph.nodes) == 1
    near(program.module()(y), flow(y), 0.0)


# ---- refusals ---------------------------------------------------------------------------------------------------


@three
def test_there_is_no_exact_run_because_there_is_no_inverse(make):
    with pytest.raises(ValueError, match=r"ForwardEuler has no inverse; use Fused\(\).*Stored\(\) or Checkpointed\(\)"):
        flow_of(make(4), lv.Fused(exact=True))


def test_convolutions_and_other_activations_have_no_kernel():
    for more in ({"operator": lv.Conv(3)}, {"activation": "softplus"}):
        for make in (hamiltonian, antisymmetric, residual):
            with pytest.raises(lv.NoKernelError, match=r"with ForwardEuler.*Stored"):
                flow_of(make(4, **more), lv.Fused())


def test_what_the_kernel_does_not_do_is_said_and_names_stored():
    flow, y = flow_of(hamiltonian(4), lv.Fused()), randn(3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(ValueError, match=r"autocast.*Stored"):
        flow(y)
    with pytest.raises(ValueError, match=r"torch.func.*Stored"):
        torch.func.vmap(flow)(y)


def test_an_input_that_was_changed_in_place_is_noticed():
    flow, y = flow_of(residual(4), lv.Fused()), randn(3, 4)
    out = flow(y)
    y.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
