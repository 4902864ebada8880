"""What `Auto` tries before it chooses: the layer as it will run, whatever a sample is, and nothing is left behind."""

import copy

import pytest
import torch
from torch import nn

import liouville as lv
import samples
from measure import EPS, bytes_kept, generator, near, norm

TIGHT, PLENTY = 1, 2**40


class Wants(nn.Module):
    """A linear map that insists on something first."""

    def __init__(self, of, width=2):
        super().__init__()
        self.linear, self.of = nn.Linear(width, width), of

    def forward(self, x):
        self.of(x)
        return torch.tanh(self.linear(x))


def three_axes(x):
    _batch, _tokens, _width = x.shape


def four_samples(x):
    assert len(x) == 4


def statistics(x):
    return nn.functional.batch_norm(x, None, None, training=True)


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x):
        return statistics(self.linear(x))


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls.add_(1)
        return self.linear(x)


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x):
        return self.linear(x.clone().mul_(2.0).tanh_())


def a_flow(block, memory=PLENTY, features=4, layers=4):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        field = lv.ShearField(block, block, layers=layers, features=features).double()
    return lv.Flow(field, lv.SymplecticEuler(), T=1.0, backprop=lv.Auto(memory=memory))


CASES = {
    "attention": (lambda: samples.Tokens(2), (3, 5, 4)),
    "attention, one sample": (lambda: samples.Tokens(2), (1, 5, 4)),
    "attention, no sample": (lambda: samples.Tokens(2), (0, 5, 4)),
    "attention, one token": (lambda: samples.Tokens(2), (3, 1, 4)),
    "three axes": (lambda: Wants(three_axes), (3, 5, 4)),
    "four samples": (lambda: Wants(four_samples), (4, 4)),
    "statistics": (Normed, (3, 4)),
    "in place": (InPlace, (3, 4)),
    "a vector": (lambda: Wants(lambda x: None), (4,)),
    "four axes": (lambda: Wants(lambda x: None), (2, 3, 5, 4)),
}


@pytest.mark.parametrize("memory", [TIGHT, PLENTY])
@pytest.mark.parametrize("block, shape", CASES.values(), ids=CASES)
def test_it_trains_what_stored_trains(block, shape, memory):
    flow = a_flow(block(), memory)
    y = torch.randn(shape, generator=generator(1), dtype=torch.float64)
    found = []
    for engine in (flow.backprop, lv.Stored()):
        x = y.clone().requires_grad_()
        run = flow.with_backprop(engine)
        found.append(torch.autograd.grad(run(x).square().sum(), [x, *flow.parameters()]))
    for a, b in zip(*found, strict=True):
        near(a.reshape(-1, 1).sum(), b.reshape(-1, 1).sum(), 1e4 * EPS * (1 + norm(b.reshape(-1, 1))))
    assert "a guess" not in repr(flow.backprop)


def test_nothing_is_left_behind():
    """Counted calls stay those of the run, and torch's stream where it was; the run itself refuses to count."""
    flow = a_flow(Counting())
    y = torch.randn(3, 4, dtype=torch.float64)
    stream = torch.get_rng_state()
    flow.backprop.choose(flow.scheme, flow.field, y.requires_grad_())
    assert torch.equal(stream, torch.get_rng_state())
    assert all(float(b) == 0.0 for b in flow.field.buffers())
    with pytest.raises(ValueError, match="changes the buffer calls"):
        flow(y)
    assert all(float(b) == 0.0 for b in flow.field.buffers())


@pytest.mark.parametrize("shape", [(2, 64, 4), (64, 2, 4), (1, 200, 4)])
def test_the_share_of_attention_is_in_it(shape):
    """Its matrices grow with the square of the tokens: within a fifth, whatever the shape."""
    flow = a_flow(samples.Tokens(2), layers=8)
    y = torch.randn(shape, generator=generator(1), dtype=torch.float64)
    kept = bytes_kept(flow.with_backprop(lv.Stored()), y)
    for memory, engine in ((1.2 * kept, lv.Stored()), (kept / 1.2, lv.Reversible())):
        assert lv.Auto(memory=int(memory)).choose(flow.scheme, flow.field, y).engine == engine


def test_a_trial_that_fails_is_a_guess_that_is_said():
    class Derivative(nn.Module):
        """A force by torch.func, in which autograd's hooks are forbidden."""

        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x):
            return torch.func.vjp(lambda z: torch.tanh(self.linear(z)), x)[1](torch.ones_like(x))[0]

    flow = a_flow(Derivative())
    y = torch.randn(3, 4, dtype=torch.float64)
    choice = lv.Auto().choose(flow.scheme, flow.field, y)
    assert choice.engine == lv.Stored()
    assert "(a guess: RuntimeError in a trial)" in choice.reason
    assert lv.Auto(memory=TIGHT).choose(flow.scheme, flow.field, y).engine == lv.Reversible()


@pytest.mark.parametrize("engine", [lv.Auto(), lv.Auto(memory=1), lv.Fused(), lv.BatchLast()], ids=repr)
def test_tensors_without_values_have_a_choice_too(engine):
    for block, shape in ((samples.Tokens(2), (3, 5, 4)), (Wants(lambda x: None), (3, 4))):
        flow = copy.deepcopy(a_flow(block)).to("meta")
        y = torch.zeros(shape, dtype=torch.float64, device="meta").requires_grad_()
        if isinstance(engine, lv.Auto):
            assert flow.with_backprop(engine)(y).shape == shape
            flow.with_backprop(engine)(y).sum().backward()
    dense = lv.zoo.h2(4, layers=4, T=1.0).to("meta")
    y = torch.zeros(3, 4, device="meta", requires_grad=True)
    if isinstance(engine, lv.Auto):
        dense.with_backprop(engine)(y).sum().backward()


def test_a_wrong_dtype_without_values_is_named():
    flow = lv.zoo.h2(4, layers=4, T=1.0).to("meta")
    with pytest.raises(ValueError, match=r"the weights are torch.float32 and the input is torch.float64"):
        flow(torch.zeros(3, 4, dtype=torch.float64, device="meta"))
