"""Engines decide what is kept, never what is computed: each equals `Stored` in value and gradient, on every pair."""

import copy
import dataclasses
import functools
from dataclasses import dataclass

import pytest
import torch

import liouville as lv
import samples
from backprop.runs import compare, fits, results, rounds_otherwise
from liouville.backprop import slices
from liouville.testing import check_engine
from measure import at, near, randn, rounding
from turns import one_in

OTHERS = {name: e for name, e in samples.BACKPROPS.items() if e != lv.Stored()}
FIELDS = {name: samples.field(name) for name in samples.FIELDS}
engines = pytest.mark.parametrize("engine", OTHERS.values(), ids=OTHERS)
every_engine = pytest.mark.parametrize("engine", samples.BACKPROPS.values(), ids=samples.BACKPROPS)


@pytest.mark.parametrize(
    "engine, scheme, name",
    one_in(5, [(e, s, f) for s, f in samples.PAIRS for e in OTHERS if fits(OTHERS[e], samples.SCHEMES[s], FIELDS[f])]),
)
def test_value_and_gradient_equal_stored(engine, scheme, name):
    flow = samples.flow(scheme, name)
    compare(flow, OTHERS[engine], samples.inputs(flow.field), expected=stored(scheme, name))


@functools.cache
def stored(scheme, name):
    flow = samples.flow(scheme, name)
    return results(flow, lv.Stored(), samples.inputs(flow.field))


@engines
def test_two_forward_passes_before_one_backward_pass(engine):
    for name in ("separable", "dropout", "dropout-partitioned"):
        flow = samples.flow("LeapfrogMidpoint" if name == "dropout" else "SymplecticEuler", name)
        compare(flow, engine, samples.inputs(flow.field), runs=3)


@engines
def test_input_without_gradient(engine):
    flow = samples.flow("Verlet", "separable-X")
    compare(flow, engine, samples.inputs(flow.field), needs_grad=False)


@engines
def test_nothing_needs_a_gradient(engine):
    """Then nothing is recomputed, and the values are those of the plain loop: to the bit, but for other arithmetic."""
    flow = samples.flow("Verlet", "separable-X").requires_grad_(False)
    y = samples.inputs(flow.field)
    out = flow.with_backprop(engine)(y)
    assert not out.requires_grad
    near(out, flow(y), rounding(out, terms=10 * samples.N) if rounds_otherwise(engine) else 0.0)


@pytest.mark.parametrize("every", [1, 2, 3, 7, 100])
def test_every_segment_length(every):
    field = lv.SeparableHamiltonianField(4, 7, init=samples.RANDOM).double()
    for engine in (lv.Checkpointed(every=every), lv.Reversible(anchors=every)):
        compare(lv.Flow(field, lv.SymplecticEuler(), T=0.7), engine, randn(3, 4))


def test_check_engine_passes_ours():
    for engine in samples.BACKPROPS.values():
        check_engine(engine)


# ---- values and errors -----------------------------------------------------------------------------------------


def test_engines_are_values():
    """Equal settings, equal engines, also after a run; a fresh engine's repr is the expression that makes it."""
    assert lv.Stored() == lv.Stored()
    assert lv.Checkpointed(8) == lv.Checkpointed(every=8) != lv.Checkpointed()
    assert lv.Reversible(anchors=4) == lv.Reversible(False, False, 4) != lv.Reversible()
    assert len({lv.Stored(), lv.Stored(), lv.Checkpointed()}) == 2
    assert len(set(samples.BACKPROPS.values())) == len(samples.BACKPROPS)
    names = {type(engine).__name__: type(engine) for engine in samples.BACKPROPS.values()}
    for engine in samples.BACKPROPS.values():
        fresh = dataclasses.replace(engine)
        results(samples.flow("Verlet", "separable"), engine, randn(3, 4))
        assert copy.deepcopy(engine) == engine == fresh
        assert hash(copy.deepcopy(engine)) == hash(engine) == hash(fresh)
        assert eval(repr(fresh), names) == engine
        with pytest.raises(dataclasses.FrozenInstanceError):
            engine.setting = 1


def test_errors():
    with pytest.raises(ValueError, match="at least 1 layer per segment, got 0"):
        lv.Checkpointed(every=0)
    with pytest.raises(ValueError, match="at least 1 layer from one stored state to the next, got 0"):
        lv.Reversible(anchors=0)
    for more in ({}, {"compensated": True}):
        with pytest.raises(ValueError, match="anchors would only cost memory"):
            lv.Reversible(exact=True, anchors=4, **more)
    with pytest.raises(ValueError, match="memory must be at least 1 byte, got 0"):
        lv.Auto(memory=0)


def test_slices_of_stacked_and_shared_weights():
    field = samples.field("hamiltonian-trained-J")
    rows = list(slices(field.theta(), field.layers))
    assert len(rows) == samples.N
    for j, theta_j in enumerate(rows):
        assert torch.equal(theta_j.K, field.K[j])
        assert torch.equal(theta_j.J, at(field.theta()).J)


@every_engine
@pytest.mark.parametrize("scheme", ["ForwardEuler", "LeapfrogMidpoint", "ImplicitMidpoint"])
def test_shared_weights_get_the_sum_of_all_layers_gradients(engine, scheme):
    scheme = samples.SCHEMES[scheme]
    shared = lv.ResidualField(3, 4, shared=True, init=samples.RANDOM).double()
    apart = lv.ResidualField(3, 4).double()
    if not fits(engine, scheme, shared):
        pytest.skip("the engine refuses the scheme")
    with torch.no_grad():
        for a, s in zip(apart.parameters(), shared.parameters(), strict=True):
            a.copy_(s.expand_as(a))
    y = randn(2, 3)
    for f in (shared, apart):
        lv.Flow(f, scheme, 1.0, engine)(y).square().sum().backward()
    for a, s in zip(apart.parameters(), shared.parameters(), strict=True):
        near(s.grad[0], a.grad.sum(0), rounding(a.grad, terms=40))


@every_engine
def test_weights_of_another_depth_are_refused(engine):
    """Neither N layers nor one that all share: an error that names the weight, not a wrong slice."""
    flow = samples.flow("SymplecticEuler", "separable", backprop=engine)
    state, theta = flow.field.split(samples.inputs(flow.field)), flow.field.theta()
    short = theta._replace(K_q=theta.K_q[:2])
    with pytest.raises(ValueError, match=r"theta\(\).K_q must count the 3 layers"):
        engine.run(flow.scheme, flow.field, state, short, flow.h)


# ---- broken engines --------------------------------------------------------------------------------------------


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
