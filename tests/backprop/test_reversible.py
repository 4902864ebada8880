"""`Reversible` at depth: `Stored`'s gradients, as far as the inverse's growth allows; and which schemes it runs."""

import functools

import pytest
import torch

import liouville as lv
import samples
from backprop.runs import DEEP, MODES, deep, fits, growth, largest, results
from measure import EPS, near, randn
from turns import one_in

DEPTH = 1024
EXPLICIT = [s for s in samples.SCHEMES.values() if isinstance(s, lv.ShearScheme)]
IMPLICIT = [lv.ImplicitMidpoint(), lv.ImplicitSymplecticEuler()]


def pairs(schemes, families=DEEP):
    return [(s, f) for s in schemes for f in families if fits(lv.Stored(), s, deep(f, 1))]


@functools.cache
def reference(scheme, family, layers, T=6.4):
    """A flow, an input, the growth of the inverse, and what `Stored` gives."""
    flow = lv.Flow(deep(family, layers), scheme, T)
    y = samples.inputs(flow.field)
    return flow, y, growth(flow, y), results(flow, lv.Stored(), y)


def check_depth(scheme, family, engine, layers=DEPTH):
    """Within 1e3 * eps * (growth of the inverse) of the largest entry: N roundings that add up like a random walk."""
    flow, y, factor, expected = reference(scheme, family, layers)
    print(f"the inverse of {layers} layers of {scheme} on {family} enlarges an error {factor:.3g} times")  # noqa: T201
    values, grads = results(flow, engine, y)
    for a, b in zip([*values, *grads], [*expected[0], *expected[1]], strict=True):
        near(a, b, 1e3 * EPS * factor * largest(b))


fast = pairs([lv.SymplecticEuler()], ("separable-images", "second-order-half", "dropout"))
fast += pairs([lv.Verlet()], ("pair",)) + pairs([lv.LeapfrogMidpoint()], ("hamiltonian-trained-J", "symmetric"))


@pytest.mark.parametrize("scheme, family, mode", one_in(7, fast, list(MODES)))
def test_a_thousand_layers_equal_stored(scheme, family, mode):
    check_depth(scheme, family, MODES[mode])


DRIFTING = [s for s in EXPLICIT if not getattr(s, "kept_bits", 0)]  # inverses of the others grow 2^bits times a layer
OTHER_PAIRS = [pair for pair in pairs(DRIFTING) if pair not in fast] + pairs(IMPLICIT)


@pytest.mark.slow
@pytest.mark.parametrize(
    "scheme, family, mode",
    [(s, f, m) for s, f in OTHER_PAIRS for m in MODES if fits(MODES[m], s, deep(f, 1))],
    ids=lambda v: v if isinstance(v, str) else type(v).__name__,
)
def test_a_thousand_layers_of_the_other_pairs_equal_stored(scheme, family, mode):
    check_depth(scheme, family, MODES[mode])


@pytest.mark.parametrize(
    "scheme, family, mode",
    one_in(3, [(IMPLICIT[0], "antisymmetric"), (IMPLICIT[1], "hamiltonian")], ["reversible", "reversible-anchors"]),
)
def test_a_hundred_implicit_layers_equal_stored(scheme, family, mode):
    check_depth(scheme, family, MODES[mode], layers=128)


def test_the_measured_growth_is_that_of_a_known_map():
    """p' = q / 2, q' = p / 2 by symplectic Euler: a power of one 2 x 2 matrix."""
    field = lv.ShearField(_linear(0.5), _linear(-0.5), layers=8, features=2).double()
    flow = lv.Flow(field, lv.SymplecticEuler(), T=8.0)
    step = torch.tensor([[1.0, 0.0], [0.5, 1.0]]) @ torch.tensor([[1.0, 0.5], [0.0, 1.0]])
    back = torch.linalg.inv(torch.linalg.matrix_power(step.double(), 8))
    near(growth(flow, randn(3, 2)), torch.linalg.matrix_norm(back, ord=2), 1e-6)


def _linear(weight):
    """A linear map of one feature."""
    layer = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(weight)
    return [layer] * 8


# ---- which schemes -----------------------------------------------------------------------------------------------

NOT_REVERSIBLE = [lv.RK4(), lv.ForwardEuler()]
NOT_SHEARS = [lv.ImplicitMidpoint(), lv.ImplicitSymplecticEuler(), lv.DiscreteGradient()]
REFUSED = [(e, s, "Checkpointed") for e in MODES.values() for s in NOT_REVERSIBLE]
REFUSED += [
    (e, s, r"SymplecticEuler, Verlet, Yoshida4, LeapfrogMidpoint or Coupled.*Use Reversible\(\)")
    for e in MODES.values()
    if e.exact or e.compensated
    for s in NOT_SHEARS
]


@pytest.mark.parametrize("engine, scheme, advice", REFUSED, ids=repr)
def test_a_scheme_that_does_not_fit_is_refused_where_the_flow_is_made(engine, scheme, advice):
    """At construction, by ``with_backprop`` and by the engine itself; the error says what fits."""
    field = samples.field("hamiltonian")
    with pytest.raises(ValueError, match=rf"{type(scheme).__name__}.*{advice}|{advice}"):
        lv.Flow(field, scheme, T=1.0, backprop=engine)
    flow = lv.Flow(field, scheme, T=1.0)
    with pytest.raises(ValueError, match=type(scheme).__name__) as refusal:
        flow.with_backprop(engine)
    assert "use " in str(refusal.value).lower()
    state = scheme.init(field, samples.inputs(field), type(field.theta())(*(w[0] for w in field.theta())), flow.h)
    with pytest.raises(ValueError, match=type(scheme).__name__):
        engine.run(scheme, field, state, field.theta(), flow.h)


def test_every_reversible_scheme_is_run():
    """The negative of the refusals above: every mode runs whatever it does not refuse."""
    for engine in MODES.values():
        for scheme in samples.SCHEMES.values():
            refused = any((engine, scheme) == (e, s) for e, s, _ in REFUSED)
            refused |= isinstance(scheme, lv.Momentum) and not engine.exact  # its inverse needs the grid
            name = "separable" if isinstance(scheme, lv.SplittingScheme) else "hamiltonian"
            assert fits(engine, scheme, samples.field(name)) != refused
