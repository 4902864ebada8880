"""What an engine that evaluates a layer twice needs of it: every breach raises, and nothing of a run leaks out."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import liouville as lv
import samples
from backprop.runs import MODES, compare
from liouville.activations import activation
from measure import near, rounding

modes = pytest.mark.parametrize("engine", MODES.values(), ids=MODES)
IMPLICIT = [lv.Reversible(), lv.Reversible(anchors=2)]  # the modes that run implicit schemes


def every_scheme(halves, whole, implicit=True):
    """A breach in a split field and in a whole one, with the engines and schemes that run them.

    `ImplicitSymplecticEuler` has a test of its own: it reads a field's K, J and activation, never its forward.
    """
    cases = [(e, s, halves) for e in MODES.values() for s in (lv.SymplecticEuler(), lv.Verlet())]
    cases += [(e, lv.LeapfrogMidpoint(), whole) for e in MODES.values()]
    cases += [(e, lv.ImplicitMidpoint(), whole) for e in IMPLICIT if implicit]
    return pytest.mark.parametrize(
        "engine, scheme, kind", cases, ids=lambda v: v.__name__ if isinstance(v, type) else repr(v).split("(iter")[0]
    )


def flow_of(kind, scheme, engine, layers=6):
    """Six layers with weights whose size no implicit scheme minds."""
    return lv.Flow(kind(4, layers, init=lv.Normal(0.5)).double(), scheme, T=0.1 * layers, backprop=engine)


def mixed(breach):
    """The breach, a function of (field, velocity, argument, theta_j), in p_dot of one class and forward of another."""

    class Halves(lv.SeparableHamiltonianField):
        def p_dot(self, q, theta_j):
            return breach(self, super().p_dot(q, theta_j), q, theta_j)

    class Whole(lv.HamiltonianField):
        def forward(self, y, theta_j):
            return breach(self, super().forward(y, theta_j), y, theta_j)

    return Halves, Whole


# ---- random numbers --------------------------------------------------------------------------------------------


@every_scheme(*mixed(lambda field, v, x, theta_j: F.dropout(v, 0.3, training=field.training)), implicit=False)
def test_dropout_of_torch_raises_in_the_forward_pass(engine, scheme, kind):
    flow = flow_of(kind, scheme, engine)
    y = samples.inputs(flow.field)
    with pytest.raises(RuntimeError, match=f"global stream.*{kind.__name__}") as said:
        flow(y)
    for advice in ("lv.dropout(field, p)", "StochasticField", "lv.Stored()"):
        assert advice in str(said.value)
    compare(flow.eval().with_backprop(lv.Stored()), engine, y)  # without noise there is no breach


@every_scheme(*mixed(lambda field, v, x, theta_j: v + 0.0 * torch.rand(())))
def test_a_draw_from_the_global_stream_raises_in_the_forward_pass(engine, scheme, kind):
    """Whatever becomes of the number: the stream itself is watched."""
    flow = flow_of(kind, scheme, engine)
    with pytest.raises(RuntimeError, match=f"global stream.*{kind.__name__}"):
        flow(samples.inputs(flow.field))


@modes
def test_noise_that_nobody_differentiates_is_nobodys_business(engine):
    kind, _ = mixed(lambda field, v, x, theta_j: F.dropout(v, 0.3))
    flow = flow_of(kind, lv.SymplecticEuler(), engine)
    with torch.no_grad():
        flow(samples.inputs(flow.field))


@modes
def test_forward_and_backward_leave_the_global_stream_alone(engine):
    flow = samples.flow("SymplecticEuler", "separable", backprop=engine)
    stream = torch.get_rng_state()
    out = flow(samples.inputs(flow.field))
    assert torch.equal(stream, torch.get_rng_state())
    out.sum().backward()
    assert torch.equal(stream, torch.get_rng_state())


# ---- parameters that do not come through theta() ---------------------------------------------------------------


def with_gain(breach):
    """Fields with a parameter of their own beside theta()."""

    def add(kind):
        class Gained(kind):
            def __init__(self, *args, **how):
                super().__init__(*args, **how)
                self.gain = nn.Parameter(torch.tensor(1.1))
                self.scales = None

        return Gained

    return tuple(map(add, mixed(breach)))


def directly(field, v, x, theta_j):
    return field.gain * v


def computed_before(field, v, x, theta_j):
    if field.scales is None:
        field.scales = torch.exp(field.gain)
    return field.scales * v


def in_one_layer(field, v, x, theta_j):
    return field.gain * v if torch.equal(theta_j[0].detach(), field.theta()[0][3].detach()) else v


def added(field, v, x, theta_j):
    return v + field.gain


def inside(field, v, x, theta_j):
    """Within a function of the argument: the gradient passes through other nodes first."""
    return v + torch.tanh(x * field.gain.square()).cumsum(-1)


def in_place(field, v, x, theta_j):
    return v.clone().mul_(field.gain)


def alone(field, v, x, theta_j):
    """The parameter itself, without any graph."""
    return field.gain.expand_as(v)


BREACHES = [directly, computed_before, in_one_layer, added, inside, in_place, alone]


@pytest.mark.parametrize("where", ["input and weights", "input", "weights", "one weight", "nothing else"])
@modes
def test_an_undeclared_parameter_raises_in_the_forward_pass(engine, where):
    """`Stored` gives it a gradient, so whatever else asks for one, silence would be a wrong gradient."""
    for breach in BREACHES:
        kind, _ = with_gain(breach)
        flow = flow_of(kind, lv.SymplecticEuler(), engine)
        for name, p in flow.field.named_parameters():
            p.requires_grad_(name == "gain" or "weights" in where or (where == "one weight" and name == "K_p"))
        y = samples.inputs(flow.field).requires_grad_("input" in where)
        assert flow.with_backprop(lv.Stored())(y).requires_grad
        flow.field.scales = None
        with pytest.raises(RuntimeError, match=r"does not come through theta\(\)") as said:
            flow(y)
        assert kind.__name__ in str(said.value)
        assert "lv.Stored()" in str(said.value)


@every_scheme(*with_gain(directly))
def test_an_undeclared_parameter_raises_with_every_scheme(engine, scheme, kind):
    flow = flow_of(kind, scheme, engine)
    with pytest.raises(RuntimeError, match=r"does not come through theta\(\)"):
        flow(samples.inputs(flow.field))


@every_scheme(*with_gain(in_one_layer))
def test_an_undeclared_parameter_of_one_layer_is_named_with_its_layer(engine, scheme, kind):
    flow = flow_of(kind, scheme, engine)
    with pytest.raises(RuntimeError, match=rf"layer 3 of {kind.__name__}"):
        flow(samples.inputs(flow.field))


@pytest.mark.parametrize("engine", IMPLICIT, ids=repr)
def test_an_undeclared_parameter_in_the_activation_raises(engine):
    gain = nn.Parameter(torch.tensor(0.9, dtype=torch.float64))
    trained = dataclasses.replace(activation("tanh"), name="trained", function=lambda x: torch.tanh(gain * x))
    field = lv.HamiltonianField(4, 6, activation=trained, init=lv.Normal(0.5)).double()
    for scheme in (lv.ImplicitMidpoint(), lv.ImplicitSymplecticEuler(), lv.LeapfrogMidpoint()):
        flow = lv.Flow(field, scheme, T=0.6, backprop=engine)
        with pytest.raises(RuntimeError, match=r"does not come through theta\(\)"):
            flow(samples.inputs(field))


@modes
def test_an_undeclared_input_raises_too(engine):
    """A context that the layers read, with a gradient of its own, is no parameter but no argument either."""
    kind, _ = mixed(lambda field, v, x, theta_j: v + field.context)
    flow = flow_of(kind, lv.SymplecticEuler(), engine)
    flow.field.context = nn.Linear(3, 2).double()(torch.ones(3, dtype=torch.float64))
    with pytest.raises(RuntimeError, match=r"does not come through theta\(\)"):
        flow(samples.inputs(flow.field))


@modes
def test_an_undeclared_parameter_that_needs_no_gradient_is_a_constant(engine):
    kind, _ = with_gain(directly)
    flow = flow_of(kind, lv.SymplecticEuler(), lv.Stored())
    flow.field.gain.requires_grad_(False)
    compare(flow, engine, samples.inputs(flow.field))
    kind, _ = with_gain(lambda field, v, x, theta_j: field.gain.detach() * v)
    flow = flow_of(kind, lv.SymplecticEuler(), lv.Stored())
    y = samples.inputs(flow.field).requires_grad_()
    expected = torch.autograd.grad(flow(y).sum(), [y, flow.field.K_p])
    found = torch.autograd.grad(flow.with_backprop(engine)(y).sum(), [y, flow.field.K_p])
    for a, b in zip(found, expected, strict=True):
        near(a, b, rounding(b, terms=60))


@modes
def test_weights_that_theta_computes_are_declared(engine):
    """The negative: constraints in theta(), a penalty on the same call, and one weight used twice are all right."""

    class Constrained(lv.SeparableHamiltonianField):
        def theta(self):
            theta = super().theta()
            return theta._replace(K_p=torch.tanh(theta.K_p), K_q=torch.tanh(theta.K_p))

    flow = flow_of(Constrained, lv.SymplecticEuler(), lv.Stored())
    y = samples.inputs(flow.field)

    def grads(engine):
        out = flow.with_backprop(engine)(y).square().sum() + flow.field.theta().K_p.square().sum()
        return torch.autograd.grad(out, [flow.field.K_p, flow.field.b_p])

    for a, b in zip(grads(engine), grads(lv.Stored()), strict=True):
        near(a, b, rounding(b, terms=60))


# ---- buffers ---------------------------------------------------------------------------------------------------


def with_statistics(breach):
    def add(kind):
        class Counted(kind):
            def __init__(self, *args, **how):
                super().__init__(*args, **how)
                self.register_buffer("mean", torch.zeros(()))

        return Counted

    return tuple(map(add, mixed(breach)))


def updated(field, v, x, theta_j):
    field.mean.mul_(0.9).add_(0.1 * x.detach().mean())
    return v - field.mean


def replaced(field, v, x, theta_j):
    field.mean = 0.9 * field.mean + 0.1 * x.detach().mean()
    return v - field.mean


def replaced_and_not_read(field, v, x, theta_j):
    field.mean = 0.9 * field.mean + 0.1 * x.detach().mean()
    return v


@modes
def test_a_buffer_that_a_layer_changes_raises_in_the_forward_pass(engine):
    """In place or by a new tensor: the backward pass would count every layer twice."""
    for breach in (updated, replaced, replaced_and_not_read):
        for kind, scheme in zip(with_statistics(breach), (lv.SymplecticEuler(), lv.LeapfrogMidpoint()), strict=True):
            flow = flow_of(kind, scheme, engine)
            with pytest.raises(RuntimeError, match="change the buffer mean") as said:
                flow(samples.inputs(flow.field))
            assert "running statistics" in str(said.value)


@every_scheme(*with_statistics(updated), implicit=False)  # whose solver forbids it by itself
def test_a_buffer_that_a_layer_changes_raises_with_every_scheme(engine, scheme, kind):
    flow = flow_of(kind, scheme, engine)
    with pytest.raises(RuntimeError, match="change the buffer mean"):
        flow(samples.inputs(flow.field))


class Norm(nn.Module):
    """Running statistics without a count of batches; torch changes them behind the version counters of tensors."""

    def __init__(self, features, **_):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def forward(self, x):
        return F.batch_norm(x, self.running_mean, self.running_var, training=self.training)


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, Norm])
@modes
def test_batch_norm_raises_while_it_keeps_statistics(engine, norm):
    class Normed(lv.SeparableHamiltonianField):
        def __init__(self, *args, **how):
            super().__init__(*args, **how)
            self.norm = norm(2, affine=False)

        def p_dot(self, q, theta_j):
            return super().p_dot(self.norm(q), theta_j)

    flow = flow_of(Normed, lv.SymplecticEuler(), engine)
    y = samples.inputs(flow.field)
    with pytest.raises(RuntimeError, match=r"change the buffer norm\."):
        flow(y)
    compare(flow.eval().with_backprop(lv.Stored()), engine, y)  # then they are constants
