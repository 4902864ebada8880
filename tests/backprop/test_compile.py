"""Compiled models: the gradients, not only "it runs", since a compiler may drop a backward pass without a word."""

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

import liouville as lv
import samples
from backprop.runs import MODES
from measure import near, rounding


@pytest.fixture(autouse=True)
def _fresh_compiler():
    """A compiler gives up on a function that it has compiled often, silently: every test starts from none."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def gradients(run, parameters, y, seed=0):
    torch.manual_seed(seed)
    x = y.clone().requires_grad_()
    out = run(x)
    return [out.detach(), *torch.autograd.grad(out.square().sum(), [x, *parameters])]


def check(model, reference, y, backend):
    compiled = torch.compile(model, backend=backend)
    parameters = list(model.parameters())
    expected = gradients(reference, parameters, y)
    for _ in range(2):  # compiled, and run again
        for a, b in zip(gradients(compiled, parameters, y), expected, strict=True):
            near(a, b, rounding(b, terms=20 * samples.N))
    assert counters["stats"]["unique_graphs"] > 0  # something was compiled


@pytest.mark.parametrize(
    "engine", [lv.Stored(), lv.Checkpointed(), lv.Auto(memory=1), lv.Reversible(), lv.Reversible(exact=True)], ids=repr
)
def test_compiled_flows_keep_their_gradients(engine):
    flow = samples.flow("SymplecticEuler", "separable", backprop=engine)
    check(flow, flow.with_backprop(lv.Stored()), samples.inputs(flow.field), "aot_eager")


@pytest.mark.parametrize(
    "scheme, name", [("SymplecticEuler", "dropout-partitioned"), ("LeapfrogMidpoint", "hamiltonian")]
)
@pytest.mark.parametrize("engine", [lv.Reversible(), lv.Reversible(exact=True)], ids=repr)
def test_compiled_noise_and_two_step_schemes_keep_their_gradients(engine, scheme, name):
    flow = samples.flow(scheme, name, backprop=engine)
    check(flow, flow.with_backprop(lv.Stored()), samples.inputs(flow.field), "aot_eager")


@pytest.mark.parametrize(
    "engine, backend", [(lv.Reversible(), "eager"), *((engine, "aot_eager") for engine in MODES.values())], ids=repr
)
def test_compiled_models_around_a_flow_keep_their_gradients(engine, backend):
    """Layers before, between and behind, which the compiler may fuse with neighbours of the flow."""
    flow = samples.flow("SymplecticEuler", "separable-X")
    first, between, last = (nn.Linear(4, 4, dtype=torch.float64) for _ in range(3))

    def model(engine):
        run = flow.with_backprop(engine)
        return nn.Sequential(first, nn.Tanh(), run, between, nn.GELU(), run, last)

    check(model(engine), model(lv.Stored()), samples.inputs(flow.field), backend)


def test_compiled_models_notice_a_breach_too():
    """A parameter beside theta(): the checks are not compiled away."""

    class Gained(lv.SeparableHamiltonianField):
        def p_dot(self, q, theta_j):
            return self.gain * super().p_dot(q, theta_j)

    field = Gained(4, 3)
    field.gain = nn.Parameter(torch.tensor(1.1))
    model = nn.Sequential(nn.Linear(4, 4), lv.Flow(field, lv.SymplecticEuler(), T=0.3, backprop=lv.Reversible()))
    with pytest.raises(RuntimeError, match=r"does not come through theta\(\)"):
        torch.compile(model, backend="aot_eager")(torch.randn(3, 4))
