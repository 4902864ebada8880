"""`BatchLast` computes what `Stored` computes, for every pair that `Fused` inverts."""

import math

import pytest
import torch

import liouville as lv
import samples
from kernels_against_stored import equal, outcome, same_shapes
from liouville.kernels import auto
from liouville.testing import check_engine
from measure import generator, randn


def separable(n, **more):
    return lv.SeparableHamiltonianField(n, 5, init=lv.Normal(1 / n), generator=generator(n), **more).double()


def pair(n, **more):
    return lv.PairField(n, 5, p_features=max(1, n // 3), init=lv.Normal(1 / n), generator=generator(n), **more).double()


FIELDS = {
    "separable": separable,
    "relu": lambda n: separable(n, activation="relu"),
    "number": lambda n: separable(n, X=-0.7),
    "hidden": lambda n: separable(n, hidden=n // 2 + 1),
    "shared": lambda n: separable(n, shared=True),
    "pair": pair,
    "pair-relu": lambda n: pair(n, activation="relu"),
    "pair-scalar": lambda n: pair(n, scalar_bias=True),
    "pair-shared": lambda n: pair(n, shared=True),
}


@pytest.mark.parametrize("scheme", [lv.SymplecticEuler(), lv.Verlet(), lv.Yoshida4()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("make", FIELDS.values(), ids=FIELDS)
def test_value_and_gradient_equal_stored(make, scheme):
    for n, batch in ((2, 1), (4, 19), (10, 7), (34, 3)):
        flow, y = lv.Flow(make(n), scheme, T=0.7), randn(batch, n)
        equal(outcome(flow, lv.BatchLast(), y), outcome(flow, lv.Stored(), y), flow, batch)


def test_check_engine_passes():
    check_engine(lv.BatchLast())


def test_every_pair_runs_or_is_refused_as_fused_refuses_it():
    ran = 0
    for scheme, name in samples.PAIRS:
        try:
            lv.Flow(samples.field(name), samples.SCHEMES[scheme], T=1.0, backprop=lv.BatchLast())
        except ValueError as error:
            assert "Stored()" in str(error)
        else:
            ran += 1
            check_engine(lv.BatchLast(), [(samples.SCHEMES[scheme], samples.field(name))])
    assert 0 < ran < len(samples.PAIRS)


@pytest.mark.parametrize("shape", [(0, 4), (4,), (2, 5, 4)], ids=str)
def test_shapes(shape):
    flow = lv.Flow(separable(4), lv.SymplecticEuler(), T=0.7)
    same_shapes(flow, lv.BatchLast(), randn(*shape), 10)


def test_what_needs_no_gradient_gets_none_and_the_input_stays():
    flow, y = lv.Flow(separable(6), lv.Verlet(), T=0.7), randn(6, 9).mT  # whose transpose is contiguous
    full, before = outcome(flow, lv.Stored(), y)[3:], y.clone()
    flow.field.b_q.requires_grad_(False)
    states = flow.with_backprop(lv.BatchLast()).final_state(y)
    sum((s.square() + torch.sin(3 * s)).sum() for s in states).backward()
    assert flow.field.b_q.grad is None
    assert torch.equal(y, before)
    equal([p.grad for p in list(flow.parameters())[:-1]], full[:-1], flow, 9)


def test_memory_does_not_grow_with_depth():
    def numbers_kept(layers):
        field = lv.SeparableHamiltonianField(4, layers)
        flow, kept = lv.Flow(field, lv.SymplecticEuler(), T=1.0, backprop=lv.BatchLast()), []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
            flow(torch.randn(7, 4, requires_grad=True))
        weights = {w.data_ptr() for w in field.theta()}
        return sum(x.numel() for x in kept if x.data_ptr() not in weights)

    assert numbers_kept(4) == numbers_kept(64) == 2 * 7 * 4


def test_drift_is_measured():
    field = lv.SeparableHamiltonianField(4, 2000, init=lv.Normal(2.0), generator=generator(0))
    flow = lv.Flow(field, lv.SymplecticEuler(), T=400.0, backprop=lv.BatchLast())
    with pytest.warns(lv.DriftWarning, match="Checkpointed"):
        flow(torch.randn(5, 4, generator=generator(1))).sum().backward()


def test_refusals_name_stored():
    flow, y = lv.Flow(separable(4), lv.SymplecticEuler(), T=0.7, backprop=lv.BatchLast()), randn(3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(ValueError, match=r"autocast.*Stored"):
        flow(y)
    with pytest.raises(ValueError, match=r"torch.func.*Stored"):
        torch.func.grad(lambda x: flow(x).sum())(y)
    y[0, 0] = math.nan
    assert flow(y)[1:].isfinite().all()


def test_auto_takes_it_where_the_kernel_was_not_built(monkeypatch):
    monkeypatch.setattr(auto, "is_built", lambda: False)
    for layers, batch, features, engine in (
        (8, 64, 32, lv.BatchLast()),
        (8, 32, 4, lv.Stored()),  # too few samples to gain
        (65, 4000, 4, lv.Stored()),  # too many layers to rebuild by rounded sums
        (8, 4000, 64, lv.Stored()),
    ):
        flow = lv.zoo.h2(features, layers, T=1.0)
        chosen, reason = lv.Auto().choose(flow.scheme, flow.field, torch.zeros(batch, features))
        assert chosen == engine
        assert ("native kernel was not built" in reason) == (engine == lv.BatchLast())
