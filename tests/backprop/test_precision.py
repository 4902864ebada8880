"""What float32 costs: gradients of each engine against float64's, beside the error of `Stored` in float32."""

import math

import pytest
import torch

import liouville as lv
import samples
from backprop.runs import deep, growth, results
from turns import one_in

PAIRS = {
    "separable": lv.SymplecticEuler(),
    "separable-ms3": lv.Verlet(),
    "pair": lv.SymplecticEuler(),
    "second-order": lv.Verlet(),
    "antisymmetric": lv.LeapfrogMidpoint(),
    "hamiltonian": lv.LeapfrogMidpoint(),
}
TIMES = (3.2, 12.8)


def errors(family, scheme, layers, T, seed, engines):
    """|g - g_64| / |g_64| of the gradients of all weights and inputs, for one drawing of both."""
    field = deep(family, layers, torch.float32, seed)
    exact = deep(family, layers, torch.float64, seed)
    exact.load_state_dict(field.state_dict())
    y = samples.inputs(field, batch=16, seed=seed).float()
    flow = lv.Flow(exact, scheme, T)
    assert growth(flow, y.double()) < 1e5

    def gradients(flow, y, engine):
        return torch.cat([g.double().flatten() for g in results(flow, engine, y)[1]])

    reference = gradients(flow, y.double(), lv.Stored())
    flow = lv.Flow(field, scheme, T)
    return [float((gradients(flow, y, e) - reference).norm() / reference.norm()) for e in engines]


def ratios(family, scheme, layers, seeds, *engines):
    """The root mean square of an engine's errors over draws and times, over that of `Stored`: one draw is luck."""
    rows = [errors(family, scheme, layers, T, s, (lv.Stored(), *engines)) for T in TIMES for s in range(seeds)]
    stored, *others = (math.sqrt(sum(e * e for e in column)) for column in zip(*rows, strict=True))
    print(f"{layers} layers of {scheme} on {family}: {[f'{e / stored:.2f}' for e in others]} times Stored's error")  # noqa: T201
    return [e / stored for e in others]


def check(family, layers, seeds, scheme=None):
    """Exact: spacings of the largest entry's size, so within 5. The others: better sums, so within 1, and noise."""
    engines = [lv.Reversible(exact=e, compensated=c) for e, c in ((True, False), (False, True), (True, True))]
    exact, compensated, both = ratios(family, scheme or PAIRS[family], layers, seeds, *engines)
    assert exact < 5
    assert compensated < 1.5
    assert both < 1.5


@pytest.mark.parametrize("family", one_in(3, list(PAIRS)))
def test_float32_gradients_are_as_good_as_stored_ones(family):
    check(family, 64, 3)


@pytest.mark.slow
@pytest.mark.parametrize("family, layers, seeds", [("pair", 256, 2), ("antisymmetric", 1024, 1)])
def test_float32_gradients_of_more_layers_are_as_good_as_stored_ones(family, layers, seeds):
    check(family, layers, seeds)


def test_float32_gradients_of_a_growing_network_are_as_good_as_stored_ones():
    """Midpoint on a field of real rates, where perturbations grow, and the state decays below the grid's spacing."""
    check("symmetric", 64, 4, scheme=lv.LeapfrogMidpoint())


@pytest.mark.slow
@pytest.mark.parametrize("family", PAIRS)
@pytest.mark.parametrize("layers, seeds", [(256, 4), (1024, 2), (4096, 1)], ids=str)
def test_float32_gradients_of_deep_networks_are_as_good_as_stored_ones(family, layers, seeds):
    check(family, layers, seeds)


def test_the_measure_tells_float32_from_float64():
    """An engine that runs in float64 below a float32 flow is many times better than `Stored`: the measure sees it."""

    class Double(lv.Stored):
        def run(self, scheme, field, state, theta, h):
            state, theta = tuple(s.double() for s in state), type(theta)(*(w.double() for w in theta))
            return tuple(s.float() for s in super().run(scheme, field, state, theta, h))

    assert ratios("separable", lv.SymplecticEuler(), 64, 1, Double())[0] < 0.3


def test_sixteen_bit_states_are_exact_too():
    """bfloat16 throughout: the state is kept on a grid of float32's, so the gradient is no worse than `Stored`'s."""
    field = deep("separable", 256, torch.bfloat16)
    exact = deep("separable", 256)
    exact.load_state_dict(field.state_dict())
    y = samples.inputs(field, batch=16).bfloat16()

    def gradient(flow, y, engine):
        x = y.clone().requires_grad_()
        return torch.autograd.grad(flow.with_backprop(engine)(x).double().square().sum(), x)[0].double()

    reference = gradient(lv.Flow(exact, lv.SymplecticEuler(), 6.4), y.double(), lv.Stored())
    off = [
        (gradient(lv.Flow(field, lv.SymplecticEuler(), 6.4), y, e) - reference).norm() / reference.norm()
        for e in (lv.Stored(), lv.Reversible(exact=True))
    ]
    assert off[1] < 1.5 * off[0]
