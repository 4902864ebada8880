"""The kernel over time computes what the plain loop computes, and keeps no more than it says."""

import math
import subprocess
import sys
from os import environ

import pytest
import torch

import liouville as lv
from kernels_against_stored import compiles
from liouville.kernels.library import is_built
from liouville.kernels.sequence import call, ops
from liouville.kernels.sequence.engine import _sent
from liouville.kernels.sequence.plan import planned
from measure import far, generator, near, randn
from sequences_by_hand import FIELDS, SHEARS, H, equal, outcome, run, start, with_input
from turns import one_in

pytestmark = pytest.mark.skipif(not is_built(), reason="the native kernel is not built")

fields = pytest.mark.parametrize("name", FIELDS)
SIZES = [(1, 1, 1), (5, 3, 2), (40, 1, 3), (33, 7, 1), (18, 70, 5), (3, 130, 17), (700, 2, 1)]  # steps, batch, inputs
EPS = torch.finfo(torch.float64).eps


def scheme_of(name, k=0):
    return (lv.SymplecticEuler(), lv.Verlet(), lv.Yoshida4())[k % 3] if name in SHEARS else lv.ForwardEuler()


def lengths(steps, batch, k):
    """Of the steps: equal, unequal, and unequal for each sample with some of length 0."""
    tau = torch.rand(steps, 1 if k == 1 else batch, 1, generator=generator(3), dtype=torch.float64)
    return None if k == 0 else tau + 0.5 if k == 1 else (tau - 0.3).clamp(min=0)


def same_as_the_loop(name, n, size, k, engine=lv.Fused()):
    steps, batch, inputs = size
    field, u, tau = with_input(name, n, inputs), randn(steps, batch, inputs), lengths(steps, batch, k % 3)
    for traces in (False, True):
        case = (scheme_of(name, k), field, u, tau, traces)
        equal(outcome(engine, *case), outcome(lv.Stored(), *case), steps * (n + batch))


@pytest.mark.parametrize(("name", "k"), one_in(5, list(FIELDS), list(range(7))))
def test_values_and_gradients_equal_the_plain_loop(name, k):
    for n in (2, 6, 34):
        same_as_the_loop(name, n, SIZES[k], k)


@pytest.mark.parametrize("n", [3, 17, 64, 128, 161])
def test_every_width(n):
    for name in ("pair-rectangular", "antisymmetric", "second-symmetric"):
        same_as_the_loop(name, n, (4, 5, 3), 1)


def test_every_batch():
    for batch in (*range(1, 15), 63, 64, 65, 128, 129, 200):
        for name in ("separable", "antisymmetric"):
            same_as_the_loop(name, 6, (18, batch, 1), 2)


@pytest.mark.parametrize("name", SHEARS)
def test_an_exact_run_equals_the_loop_to_the_spacing_of_its_grid(name):
    same_as_the_loop(name, 6, (40, 3, 2), 2, lv.Fused(exact=True))


@fields
def test_single_precision(name):
    field, u = with_input(name, 6, 2), randn(50, 9, 2)
    expected = outcome(lv.Stored(), scheme_of(name), field, u)
    field.float()
    for engine in [lv.Fused(), lv.Fused(exact=True)][: 2 if name in SHEARS else 1]:
        got = outcome(engine, scheme_of(name), field, u.float())
        assert all(x.dtype == torch.float32 for x in (*got[0], *got[1]))
        equal(got, expected, 50 * 15)


@fields
def test_every_gradient_alone(name):
    field, u, tau = with_input(name, 6, 2), randn(20, 5, 2), lengths(20, 5, 2)
    case = (scheme_of(name), field, u, tau)
    for traces in (False, True):
        full = outcome(lv.Stored(), *case, traces)
        for only in range(-1, len(full[1])):
            got = outcome(lv.Fused(), *case, traces, needed=lambda k, only=only: k == only)
            equal(got, (full[0], [g if k == only else None for k, g in enumerate(full[1])]), 20 * 11)


@pytest.mark.parametrize("name", ["separable", "antisymmetric"])
@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 3), (2, 0)], ids=str)
def test_shapes_of_the_batch(name, shape):
    field, u = with_input(name, 6, 2), randn(20, *shape, 2)
    for traces in (False, True):
        case = (scheme_of(name), field, u, None, traces)
        equal(outcome(lv.Fused(), *case), outcome(lv.Stored(), *case), 200)


@pytest.mark.parametrize("name", ["separable", "antisymmetric", "second-symmetric"])
def test_layouts(name):
    """Batch first, every other feature, one row for all samples, one number for all steps."""
    field, wide = with_input(name, 6, 3), randn(7, 20, 6)
    for u in (
        wide.transpose(0, 1)[..., :3],
        wide.transpose(0, 1)[..., ::2],
        wide[:1, :, :3].transpose(0, 1).expand(20, 7, 3),
    ):
        case = (scheme_of(name), field, u)
        for traces in (False, True):
            equal(outcome(lv.Fused(), *case, None, traces), outcome(lv.Stored(), *case, None, traces), 200)
    whole = randn(7, 24)
    parts = tuple(whole[:, k * 12 : k * 12 + 2 * x.shape[1] : 2] for k, x in enumerate(start(field, (7,))))
    near(
        run(lv.Fused(), scheme_of(name), field, parts, u)[0][0],
        run(lv.Stored(), scheme_of(name), field, parts, u)[0][0],
        1e-12,
    )


def test_costates_in_any_layout():
    field, u = with_input("separable", 6, 2), randn(20, 5, 2)
    for read in (lambda y: y.sum(), lambda y: y[..., ::2].square().sum(), lambda y: y.transpose(0, 1)[2].sin().sum()):
        found = []
        for engine in (lv.Fused(), lv.Stored()):
            x = u.clone().requires_grad_()
            _, y = run(engine, lv.SymplecticEuler(), field, start(field, (5,)), x, traces=True)
            found.append(torch.autograd.grad(read(y), x)[0])
        near(*found, 1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["separable", "antisymmetric"])
def test_what_is_not_finite_stays_in_its_sample(name, bad):
    field, u = with_input(name, 12, 2), randn(20, 7, 2)
    good = run(lv.Fused(), scheme_of(name), field, start(field, (7,)), u)[0][0]
    u[9, 3, 1] = bad
    x = u.clone().requires_grad_()
    (out, *_), _ = run(lv.Fused(), scheme_of(name), field, start(field, (7,)), x)
    others = torch.arange(7) != 3
    assert torch.equal(out[others], good[others])
    far(out[3].nan_to_num(9.0), good[3], 1e-6)
    assert torch.autograd.grad(out.sum(), x)[0][:, others].isfinite().all()


@pytest.mark.parametrize("threads", one_in(3, [2, 1, 3]))
def test_threads(threads):
    cases = [
        (scheme_of(name), with_input(name, 34, 2), randn(60, 40, 2)) for name in ("pair-scalar-relu", "antisymmetric")
    ]
    expected = [outcome(lv.Stored(), *case) for case in cases]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = [[outcome(lv.Fused(), *case) for case in cases] for _ in range(2)]
    finally:
        torch.set_num_threads(before)
    for first, again, right in zip(*found, expected, strict=True):
        equal(first, right, 60 * 74)
        assert all(torch.equal(a, b) for a, b in zip((*first[0], *first[1]), (*again[0], *again[1]), strict=True))


@pytest.mark.parametrize("isa", one_in(3, ["portable", "avx2", "avx512"]))
def test_every_instruction_set(isa):
    """Each in a process of its own; one that the machine lacks falls back to the next best."""
    code = """
import torch, liouville as lv
for kind in (lv.recurrent.HamiltonianRNN, lv.recurrent.AntisymmetricRNN):
    for n in (2, 10, 34):
        rnn, u = kind(3, n, length=40).double(), torch.randn(40, 7, 3).double()
        found = []
        for engine in (lv.Fused(), lv.Stored()):
            y, last = rnn.with_backprop(engine)(u)
            found.append(torch.autograd.grad(y.sin().sum() + last.square().sum(), list(rnn.parameters())))
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**environ, "LIOUVILLE_ISA": isa})


# ---- what is kept, and rebuilt ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["separable", "antisymmetric"])
def test_no_state_is_kept_where_steps_can_be_undone_and_every_sixteenth_elsewhere(name):
    sizes = []
    for steps in (160, 320):
        field, u = with_input(name, 64, 1), randn(steps, 3, 1).requires_grad_()
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, kept=kept: kept.append(x) or x, lambda x: x):
            run(lv.Fused(), scheme_of(name), field, start(field, (3,)), u)
        sizes.append(sum(x.numel() for x in kept if x.shape[:1] != u.shape[:1]))
    assert sizes[1] - sizes[0] == (0 if name in SHEARS else 160 // call.SEGMENT * 3 * 64)


def test_an_exact_run_restores_every_bit_where_a_floating_one_says_what_it_lost():
    """From rest, over so many steps that roundings grow; the backward pass compares the sum of all bits, or raises."""
    field = with_input("separable", 8, 1)
    with torch.no_grad():
        for p in field.parameters():
            p.copy_(1.1 * torch.randn(p.shape, generator=generator(8), dtype=p.dtype))
    field.float()
    case = (lv.SymplecticEuler(), field, randn(600, 2, 1).float())
    at_rest = (torch.zeros(2, 4), torch.zeros(2, 4))
    assert all(g.isfinite().all() for g in outcome(lv.Fused(exact=True), *case, state=at_rest)[1])
    with pytest.warns(lv.DriftWarning, match="have lost half of the digits"):
        outcome(lv.Fused(), *case, state=at_rest)


def test_a_start_at_rest_with_small_numbers_keeps_their_digits():
    field = with_input("separable", 8, 1)
    with torch.no_grad():
        for name, p in field.named_parameters():
            p.mul_(1e-4 if "b" in name.split(".")[-1] else 1.0)
    u, at_rest = randn(50, 2, 1), (torch.zeros(2, 4).double(), torch.zeros(2, 4).double())
    expected = outcome(lv.Stored(), lv.SymplecticEuler(), field, u, state=at_rest)[0][0]
    field.float()
    got = outcome(lv.Fused(exact=True), lv.SymplecticEuler(), field, u.float(), state=tuple(x.float() for x in at_rest))
    assert 0 < float(expected.abs().max()) < 0.01
    near(got[0][0], expected, 1e-5 * float(expected.abs().max()))


def test_an_exact_run_whose_numbers_leave_every_grid_is_refused():
    field = with_input("separable-relu-negative-X", 4, 1)
    with torch.no_grad():
        field.field.K_p.fill_(30.0)
        field.field.K_q.fill_(30.0)
    with pytest.raises(ArithmeticError, match=r"beyond the range|not finite"):
        outcome(lv.Fused(exact=True), lv.SymplecticEuler(), field, randn(400, 2, 1))


# ---- torch's doors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["separable", "antisymmetric", "second-semidefinite"])
def test_the_operators_keep_torchs_contract(name):
    field, u, tau = with_input(name, 6, 2), randn(20, 3, 2), lengths(20, 3, 2)
    bound, theta = bound_to(field, u, tau)
    state = start(field, (3,))
    sent = _sent(planned(scheme_of(name), bound, None), bound, state, theta, H)
    code, factors = ops._encoded(sent.run)
    assert ops._decoded(code, factors) == sent.run
    p, q = state if len(state) == 2 else (state[0], state[0].new_empty(0))
    weights = [w.detach() for w in sent.weights]
    for traces in (False, True):
        leaves = [w.clone().requires_grad_() for w in weights]
        tests = ("test_schema", "test_faketensor", "test_autograd_registration", "test_aot_dispatch_static")
        torch.library.opcheck(
            ops._sequence,
            (p, q, u.clone().requires_grad_(), tau[..., 0], leaves, traces, code, factors),
            test_utils=tests,
        )


def bound_to(field, u, tau):
    from liouville.fields import PerLayer
    from liouville.fields.given import bind

    return bind(field.in_run(0), field.theta(), (PerLayer(u), PerLayer(tau)), {}, len(u))


@compiles
@pytest.mark.parametrize(("kind", "traces"), one_in(4, ["HamiltonianRNN", "AntisymmetricRNN"], [True, False]))
def test_compiled_layers_get_the_same_gradients(kind, traces):
    rnn = getattr(lv.recurrent, kind)(2, 6, length=20, backprop=lv.Fused()).double()
    u = randn(20, 3, 2)

    def gradients(model):
        x = u.clone().requires_grad_()
        y, last = model(x)
        return torch.autograd.grad((y if traces else last).square().sum(), [x, *rnn.parameters()])

    torch._dynamo.reset()
    compiled = gradients(torch.compile(rnn, backend="aot_eager"))
    for a, b in zip(compiled, gradients(rnn), strict=True):
        near(a, b, 1e-12)


# ---- choices and refusals ---------------------------------------------------------------------------------------


def test_auto_takes_the_kernel_exactly_where_many_steps_would_lose_digits():
    for steps, said in ((20, "Fused()"), (2000, "Fused(exact=True)")):
        rnn = lv.recurrent.HamiltonianRNN(2, 6, length=steps)
        rnn.final(torch.randn(steps, 3, 2)).sum().backward()
        assert f"chose {said}" in repr(rnn.backprop)


def test_what_has_no_kernel_is_refused_and_named():
    for kind, more in (
        (lv.SeparableHamiltonianField, {"X": torch.ones(2, 2)}),
        (lv.PairField, {"activation": "softplus"}),
    ):
        with pytest.raises(lv.NoKernelError, match=r"Stored\(\)"):
            lv.recurrent.Recurrent(
                lv.recurrent.Cell(2, kind(4, 1, **more), lv.SymplecticEuler(), h=0.1), backprop=lv.Fused()
            )
    with pytest.raises(lv.NoKernelError, match="Gated"):
        lv.recurrent.AntisymmetricRNN(2, 4, length=9, gated=True, backprop=lv.Fused())
    with pytest.raises(ValueError, match="has no inverse"):
        lv.recurrent.AntisymmetricRNN(2, 4, length=9, backprop=lv.Fused(exact=True))


@pytest.mark.parametrize("name", ["separable", "antisymmetric"])
def test_second_derivatives_are_those_of_the_plain_loop(name):
    field, u, state = with_input(name, 6, 2), randn(9, 2, 3, 2), None
    for traces in (False, True):
        found = []
        for engine in (lv.Fused(), lv.Stored()):
            x, state = u.clone().requires_grad_(), tuple(s.requires_grad_() for s in start(field, (2, 3)))
            (out, *_), y = run(engine, scheme_of(name), field, state, x, lengths(9, 3, 2), traces)
            loss = out.square().sum() + (y.sin().sum() if traces else 0)
            first = torch.autograd.grad(loss, (x, *state, *field.parameters()), create_graph=True)
            found.append(torch.autograd.grad(sum(g.square().sum() for g in first), (x, *state, *field.parameters())))
        for a, b in zip(*found, strict=True):
            near(a, b, 1e-10 * max(1.0, float(b.abs().max())))


def test_transforms_are_refused():
    field, u = with_input("separable", 6, 2), randn(9, 3, 2)
    state = start(field, (3,))
    with pytest.raises(ValueError, match=r"torch.func.*Stored"):
        torch.func.vmap(lambda u: run(lv.Fused(), lv.SymplecticEuler(), field, state, u)[0][0])(u[None])


def test_lengths_that_are_learnt_run_in_the_plain_loop():
    field, u = with_input("separable", 6, 2), randn(9, 3, 2)
    found = []
    for engine in (lv.Fused(), lv.Stored()):
        tau = lengths(9, 3, 2).requires_grad_()
        (out, _), _ = run(engine, lv.SymplecticEuler(), field, start(field, (3,)), u, tau)
        found.append(torch.autograd.grad(out.square().sum(), tau)[0])
    near(*found, 1e-12)


def test_an_output_changed_in_place_is_noticed():
    field, u = with_input("separable", 6, 2), randn(9, 3, 2).requires_grad_()
    _, y = run(lv.Fused(), lv.SymplecticEuler(), field, start(field, (3,)), u, traces=True)
    loss = y.square().sum()
    with torch.no_grad():
        y.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
