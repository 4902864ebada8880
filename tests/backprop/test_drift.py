"""How far rebuilt states are off is measured: a warning where half of the digits are lost, an error where all are."""

import re
import warnings

import pytest
import torch
from torch import nn

import liouville as lv
import samples
from backprop.runs import MODES, deep
from measure import flat, generator
from turns import one_in

HALF = torch.finfo(torch.float32).eps ** 0.5


def wild(layers=96, std=3.0, h=1.0, seed=0):
    """An unstable flow: weights of the papers' kind, but large, and steps beyond the stable ones."""
    field = lv.SeparableHamiltonianField(4, layers, init=lv.Normal(std), generator=generator(seed))
    return lv.Flow(field, lv.SymplecticEuler(), T=h * layers, backprop=lv.Reversible())


WILD = {"few": (96, 3.0, 1.0), "steep": (128, 1.0, 0.5), "even": (128, 1.5, 0.5), "long": (512, 2.0, 0.2)}
flows = pytest.mark.parametrize("how", WILD.values(), ids=WILD)


def train(flow, dtype=torch.float32, seed=1):
    flow(samples.inputs(flow.field, seed=seed).to(dtype).requires_grad_()).square().sum().backward()


def warned(flow, **how):
    """The drift warnings of a training step."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        train(flow, **how)
    return [str(w.message) for w in seen if issubclass(w.category, lv.DriftWarning)]


@torch.no_grad()
def rebuilt_errors(flow, y):
    """By the plain inverse: how far each state is off that is rebuilt from the last, relative to its largest entry."""
    states = [flat(state) for state in flow.states(y)]
    state, errors = tuple(flow.final_state(y)), {}
    theta = flow.field.theta()
    for j in reversed(range(flow.layers)):
        theta_j = type(theta)(*(w[j] for w in theta))
        state = flow.scheme.inverse(flow.field, state, theta_j, flow.h)
        errors[j] = float((flat(state) - states[j]).abs().max()) / float(states[j].abs().max())
    return errors


# ---- the warning -----------------------------------------------------------------------------------------------


@flows
def test_an_unstable_flow_warns_once_per_field_and_says_how_deep(how):
    flow = wild(*how)
    (said,) = warned(flow)
    errors = rebuilt_errors(flow, samples.inputs(flow.field).float())
    N, (layer, depth) = flow.layers, map(int, re.search(r"from layer (\d+) of (\d+) down", said).groups())
    assert depth == N
    # the deepest one compared, one layer in N / 32; a factor of 2 for an inverse that rounds in another order
    assert errors[layer] > HALF / 2
    assert all(errors[j] < 2 * HALF for j in range(layer + N // 32, N, N // 32))
    assert not warned(flow)
    assert not warned(flow.with_backprop(lv.Reversible()))
    assert len(warned(wild(*how))) == 1  # another field, another warning


@flows
def test_the_warning_states_the_margin_and_what_to_do(how):
    flow = wild(*how)
    margin = flow.h * float(flow.field.rate(flow.field.theta()).max())
    (said,) = warned(flow)
    assert f"step-size margin h x rate is {margin:.2g}" in said
    for advice in ("Reversible(exact=True)", "Reversible(anchors=", "Checkpointed()", "smaller steps"):
        assert advice in said


def test_the_warning_is_a_user_warning_that_can_be_made_an_error():
    assert issubclass(lv.DriftWarning, UserWarning)
    with warnings.catch_warnings():
        warnings.simplefilter("error", lv.DriftWarning)
        with pytest.raises(lv.DriftWarning, match="lost half of the digits of float32"):
            train(wild())


def test_a_scheme_that_is_not_made_of_shears_is_not_told_to_be_exact():
    field = lv.HamiltonianField(4, 128, init=lv.Normal(1.0), generator=generator())
    flow = lv.Flow(field, lv.ImplicitMidpoint(), T=32.0, backprop=lv.Reversible())
    (said,) = warned(flow)
    assert "exact" not in said
    assert "Reversible(anchors=" in said


@flows
def test_anchors_remove_it(how):
    flow = wild(*how)
    assert not warned(flow.with_backprop(lv.Reversible(anchors=8)))
    assert warned(flow)


@flows
def test_the_anchors_that_the_warning_suggests_remove_it(how):
    (said,) = warned(wild(*how))
    suggested = int(re.search(r"anchors=(\d+)", said)[1])
    assert not warned(wild(*how).with_backprop(lv.Reversible(anchors=suggested)))


def test_a_flow_with_anchors_is_told_to_take_more_of_them():
    """Never as few as it has, nor fewer."""
    for anchors in (64, 96, 256):
        flow = wild(512, 2.0, 0.2).with_backprop(lv.Reversible(anchors=anchors))
        for said in warned(flow):
            assert int(re.search(r"Reversible\(anchors=(\d+)", said)[1]) < anchors


@flows
@pytest.mark.parametrize("engine", [MODES["reversible-exact"], MODES["reversible-compensated"]], ids=repr)
def test_exact_and_compensated_do_not_drift(how, engine):
    assert not warned(wild(*how).with_backprop(engine))


STABLE = {"separable": lv.SymplecticEuler(), "second-order": lv.Verlet(), "antisymmetric": lv.LeapfrogMidpoint()}


@pytest.mark.parametrize("family", STABLE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("layers", [64, 1024])
def test_a_stable_flow_does_not_warn(family, dtype, layers):
    flow = lv.Flow(deep(family, layers, dtype), STABLE[family], T=12.8, backprop=lv.Reversible())
    assert not warned(flow, dtype=dtype)


# ---- autocast --------------------------------------------------------------------------------------------------


def autocast_gradient(field, scheme, engine, y, low):
    x = y.clone().requires_grad_()
    with torch.autocast("cpu", low, enabled=low is not None):
        out = lv.Flow(field, scheme, T=6.4, backprop=engine)(x)
    return torch.autograd.grad(out.float().square().mean(), x)[0]


@pytest.mark.parametrize(
    "scheme, low", one_in(5, [lv.SymplecticEuler(), lv.Verlet(), lv.Yoshida4()], [torch.bfloat16, torch.float16])
)
def test_autocast_is_no_drift(scheme, low):
    """A velocity of 16 bits, evaluated at a state that differs by a rounding, may differ by one of its own roundings.

    The gradient is no further from float32's than `Stored`'s under the same autocast: nothing to warn of, or raise for.
    """
    off = {lv.Stored(): 0.0, lv.Reversible(): 0.0}
    for seed in range(2):
        field = lv.SeparableHamiltonianField(64, 64, generator=generator(seed))
        y = torch.randn(256, 64, generator=generator(seed))
        right = autocast_gradient(field, scheme, lv.Stored(), y, None)
        with warnings.catch_warnings():
            warnings.simplefilter("error", lv.DriftWarning)
            for engine in off:
                off[engine] += float((autocast_gradient(field, scheme, engine, y, low) - right).norm() / right.norm())
    assert off[lv.Reversible()] < 1.5 * off[lv.Stored()]


def test_autocast_does_not_make_a_layer_one_that_cannot_be_undone():
    """The draws of the test above on which the check of the last layer took a rounding of 16 bits for an impurity."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lv.DriftWarning)
        for seed in range(6):
            field = lv.SeparableHamiltonianField(128, 8, generator=generator(seed))
            y = torch.randn(256, 128, generator=generator(seed))
            autocast_gradient(field, lv.Yoshida4(), lv.Reversible(), y, torch.bfloat16)


# ---- the last layer --------------------------------------------------------------------------------------------


class OwnNoise:
    """Draws from a generator of its own, which no engine can know of: in every layer, or in one of them."""

    def noise(self, v, theta_j):
        if not hasattr(self, "own"):
            self.own, self.only = torch.Generator().manual_seed(0), None
        if self.only is not None and not torch.equal(theta_j[0].detach(), self.theta()[0][self.only].detach()):
            return v
        return v + 0.01 * torch.randn(v.shape, generator=self.own, dtype=v.dtype)


class NoisyHalves(OwnNoise, lv.SeparableHamiltonianField):
    def p_dot(self, q, theta_j):
        return self.noise(super().p_dot(q, theta_j), theta_j)


class NoisyWhole(OwnNoise, lv.HamiltonianField):
    def forward(self, y, theta_j):
        return self.noise(super().forward(y, theta_j), theta_j)


IMPURE = [(e, lv.SymplecticEuler(), NoisyHalves) for e in MODES.values()]
IMPURE += [(e, lv.LeapfrogMidpoint(), NoisyWhole) for e in MODES.values()]
IMPURE += [(lv.Reversible(), lv.Verlet(), NoisyHalves), (lv.Reversible(anchors=1), lv.Yoshida4(), NoisyHalves)]


@pytest.mark.parametrize("layers", [1, 6, 70])
@pytest.mark.parametrize("engine, scheme, kind", IMPURE, ids=repr)
def test_a_field_with_noise_of_its_own_raises(engine, scheme, kind, layers):
    flow = lv.Flow(kind(4, layers).double(), scheme, T=0.1 * layers, backprop=engine)
    with pytest.raises(RuntimeError, match=kind.__name__) as said:
        flow(samples.inputs(flow.field).requires_grad_()).sum().backward()
    for advice in ("lv.dropout", "StochasticField"):
        assert advice in str(said.value)
    assert all(p.grad is None for p in flow.parameters())


class OwnDropout(OwnNoise, lv.SeparableHamiltonianField):
    """What someone writes who does not know of `lv.dropout`."""

    def p_dot(self, q, theta_j):
        v = super().p_dot(q, theta_j)
        return v * (self.noise(torch.zeros_like(v), theta_j) > 0)


@pytest.mark.parametrize("engine", MODES.values(), ids=MODES)
@pytest.mark.parametrize("low", [None, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("layers, T", [(8, 0.8), (64, 6.4), (1024, 1.0)])
def test_dropout_with_a_generator_of_its_own_raises_at_any_step_and_precision(engine, low, layers, T):
    """Half of a velocity comes back as another half: however little it moves the state, the gradient is wrong."""
    field = OwnDropout(4, layers, generator=generator())
    y = torch.randn(8, 4, generator=generator())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lv.DriftWarning)
        with pytest.raises(RuntimeError, match="OwnDropout"):
            with torch.autocast("cpu", low or torch.bfloat16, enabled=low is not None):
                out = lv.Flow(field, lv.SymplecticEuler(), T, backprop=engine)(y)
            out.float().sum().backward()


@pytest.mark.parametrize("engine", MODES.values(), ids=MODES)
@pytest.mark.parametrize("only", [0, 1, 4, 5])
def test_noise_in_one_layer_alone_does_not_pass_in_silence(engine, only):
    """An error, or where the last layer is innocent at least the warning."""
    field = NoisyHalves(4, 6).double()
    field.own, field.only = torch.Generator().manual_seed(0), only
    flow = lv.Flow(field, lv.SymplecticEuler(), T=0.6, backprop=engine)
    with warnings.catch_warnings():
        warnings.simplefilter("error", lv.DriftWarning)
        with pytest.raises((RuntimeError, lv.DriftWarning)):
            train(flow, dtype=torch.float64)


@pytest.mark.parametrize("engine", MODES.values(), ids=MODES)
@pytest.mark.parametrize("layers", [1, 8])
def test_a_state_that_comes_back_as_nan_does_not_pass_in_silence(engine, layers):
    """Neither is a NaN larger than any tolerance, nor smaller."""

    class Breaks(lv.SeparableHamiltonianField):
        broken = False

        def p_dot(self, q, theta_j):
            return super().p_dot(q, theta_j) * (torch.nan if self.broken else 1.0)

    flow = lv.Flow(Breaks(4, layers).double(), lv.SymplecticEuler(), T=1.0, backprop=engine)
    out = flow(samples.inputs(flow.field).requires_grad_())
    flow.field.broken = True
    with warnings.catch_warnings():
        warnings.simplefilter("error", lv.DriftWarning)
        with pytest.raises((RuntimeError, lv.DriftWarning)):
            out.sum().backward()


@pytest.mark.parametrize("engine", MODES.values(), ids=MODES)
@pytest.mark.parametrize("layers", [1, 2, 8])
def test_a_run_that_starts_from_zeros_is_no_drift(engine, layers):
    """Zeros in, more behind: coming back to a rounding of what there was in between, all digits are there."""
    field = lv.SeparableHamiltonianField(4, layers, init=lv.Normal(0.5), generator=generator()).double()
    flow = lv.Flow(field, lv.SymplecticEuler(), T=0.1 * layers, backprop=engine)
    with warnings.catch_warnings():
        warnings.simplefilter("error", lv.DriftWarning)
        flow(torch.zeros(3, 4, dtype=torch.float64)).sum().backward()


@pytest.mark.parametrize("engine", MODES.values(), ids=MODES)
def test_a_buffer_that_someone_changes_before_the_backward_pass_does_not_pass_in_silence(engine):
    """As by `Stored`, which keeps it and notices."""
    for run in (lv.Stored(), engine):
        field = lv.SeparableHamiltonianField(4, 8, X=torch.eye(2)).double()
        out = lv.Flow(field, lv.SymplecticEuler(), T=1.0, backprop=run)(samples.inputs(field))
        with torch.no_grad():
            field.X.mul_(1.01)
        with pytest.raises(RuntimeError):
            out.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_velocities_of_zero_are_repeated_where_denormal_numbers_are_flushed(dtype):
    stack = lv.reversible([nn.Identity() for _ in range(3)], "midpoint", backprop=lv.Reversible())
    x = torch.randn(2, 3, dtype=dtype, requires_grad=True)
    torch.set_flush_denormal(True)
    try:
        stack(x).sum().backward()
    finally:
        torch.set_flush_denormal(False)
    assert bool((x.grad == 1).all())
