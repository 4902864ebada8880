"""Blocks as strangers write them, and places to put a stack: the gradients of `Stored`, or an error that says why."""

import random

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import liouville as lv
from measure import near, randn
from stacks import residual_mlp, tokens

ENGINES = {
    "exact": ("momentum", lv.Reversible(exact=True, compensated=True)),
    "floating": ("coupled", lv.Reversible()),
    "checkpointed": ("momentum", lv.Checkpointed()),
}
engines = pytest.mark.parametrize("engine", ENGINES)


class Residual(nn.Module):
    """x + f(x), for classes below to change."""

    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.Tanh())

    def forward(self, x):
        return x + self.f(x)


class Adds(Residual):
    """The gradients of its parameters are the costate itself, twice."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.Parameter(randn(5, 8, seed=i)) for i in range(2))

    def forward(self, x):
        return x + self.f(x) + self.a + self.b


class Unused(Residual):
    def __init__(self):
        super().__init__()
        self.never = nn.Parameter(torch.ones(2))


class Constant(Residual):
    def forward(self, x):
        return x + self.f[1].bias


class Detached(Residual):
    def forward(self, x):
        return x + self.f(x.detach())


class NoGraph(Residual):
    def forward(self, x):
        with torch.no_grad():
            z = self.f(x)
        return x + z


class Branches(Residual):
    """As routers do: which parameters take part depends on the data."""

    def __init__(self):
        super().__init__()
        self.ways = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))

    def forward(self, x):
        return x + torch.tanh(self.ways[int(x.detach().sum() > 0)](self.f(x)))


class Recomputes(Residual):
    def forward(self, x):
        return x + checkpoint(self.f, x, use_reentrant=False)


class Nested(Residual):
    def __init__(self):
        super().__init__()
        self.inner = lv.reversible(residual_mlp(2))

    def forward(self, x):
        return x + self.f(self.inner(x))


class Named(Residual):
    """Hidden states by name only, and a mask that may be None."""

    def forward(self, *, hidden_states, mask=None):
        return hidden_states + self.f(hidden_states) * (1.0 if mask is None else mask)


class Lists(Residual):
    def forward(self, x):
        return [x + self.f(x), None]


def built(kind, engine):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        blocks = [kind() for _ in range(4)]
    scheme = ENGINES[engine][0]
    return [
        lv.reversible(nn.ModuleList(blocks).double(), scheme, backprop=e) for e in (ENGINES[engine][1], lv.Stored())
    ]


def gradients(stack, call, x):
    stack.zero_grad()
    x = x.clone().requires_grad_()
    call(stack, x).square().sum().backward()
    return [x.grad, *(p.grad for p in stack.parameters())]


def compare(pair, call, x):
    """The same gradients, and none where `Stored` has none."""
    for a, b in zip(*(gradients(stack, call, x) for stack in pair), strict=True):
        assert (a is None) == (b is None)
        if a is not None and a.numel():
            near(a, b, 1e-12 * max(1.0, float(b.abs().max())))


KINDS = [Residual, Adds, Unused, Constant, Detached, NoGraph, Branches, Recomputes, Nested, Lists, nn.Identity]


@engines
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_of_strangers(kind, engine):
    compare(built(kind, engine), lambda stack, x: stack(x), tokens())


@engines
@pytest.mark.parametrize("mask", [None, randn(5, 1)])
def test_hidden_states_by_name(engine, mask):
    def loop(stack, x):
        for layer in stack:
            x = layer(hidden_states=x, mask=mask)
        return x

    for call in (loop, lambda stack, x: stack(hidden_states=x, mask=mask)):
        compare(built(Named, engine), call, tokens())


INPUTS = {
    "no samples": lambda: tokens()[:0],
    "one": lambda: tokens()[:1],
    "a vector": lambda: tokens()[0, 0],
    "transposed": lambda: tokens().transpose(0, 1),
    "expanded": lambda: tokens()[:1].expand(3, 5, 8),
    "every other": lambda: randn(2, 5, 16)[..., ::2],
}


@engines
@pytest.mark.parametrize("name", INPUTS)
def test_inputs_of_every_layout(name, engine):
    compare(built(Residual, engine), lambda stack, x: stack(x), INPUTS[name]())


CALLS = {
    "checkpointed": lambda stack, x: checkpoint(stack, x, use_reentrant=False),
    "checkpointed reentrantly": lambda stack, x: checkpoint(stack, x, use_reentrant=True),
    "twice in a row": lambda stack, x: stack(0.3 * stack(x)) + stack(x),
    "changed afterwards": lambda stack, x: stack(x).mul_(2),
}


@engines
@pytest.mark.parametrize("name", CALLS)
def test_places_for_a_stack(name, engine):
    compare(built(Residual, engine), CALLS[name], tokens())


@engines
def test_modes_without_gradients_leave_no_trace(engine):
    stack, expected = built(Residual, engine)
    with torch.inference_mode():
        out = stack(tokens())
    with torch.no_grad():
        near(stack(tokens()), out, 0.0)
    compare((stack, expected), lambda stack, x: stack(x), tokens())


# ---- never a wrong gradient without a word ---------------------------------------------------------------------


class Keeps(Residual):
    """An auxiliary loss, kept on the module, as routers keep theirs."""

    def forward(self, x):
        h = self.f(x)
        self.extra = h.square().mean()
        return x + h


@pytest.mark.parametrize("scheme, backprop", [("momentum", ENGINES["exact"][1]), ("coupled", lv.Reversible())])
def test_what_a_block_keeps_beside_its_output_cannot_be_differentiated(scheme, backprop):
    stack = lv.reversible([Keeps().double() for _ in range(3)], scheme, backprop=backprop)
    out = stack(tokens())
    with pytest.raises(RuntimeError, match="a tensor that a layer keeps beside its result"):
        (out.sum() + sum(block.extra for block in stack._modules.values())).backward()


@pytest.mark.parametrize("backprop", [lv.Stored(), lv.Checkpointed()])
def test_and_can_where_the_graph_is_the_plain_one(backprop):
    """Checkpointed segments keep what autograd needs of it."""
    found = []
    for engine in (backprop, lv.Stored()):
        torch.manual_seed(0)
        stack = lv.reversible([Keeps().double() for _ in range(3)], backprop=engine)
        out = stack(tokens())
        (out.sum() + sum(block.extra for block in stack._modules.values())).backward()
        found.append(torch.cat([p.grad.flatten() for p in stack.parameters()]))
    near(found[0], found[1], 1e-12)


class Counts(Residual):
    def __init__(self):
        super().__init__()
        self.count = 0

    def forward(self, x):
        self.count += 1
        return x + self.f(x) / self.count


class Draws(Residual):
    def forward(self, x):
        return x + self.f(x) * random.random()


class Generates(Residual):
    def __init__(self):
        super().__init__()
        self.source = torch.Generator().manual_seed(0)

    def forward(self, x):
        return x + self.f(x) * torch.rand(8, generator=self.source)


class Averages(Residual):
    def __init__(self):
        super().__init__()
        self.mean = {"x": torch.zeros(())}

    def forward(self, x):
        self.mean["x"] = 0.9 * self.mean["x"] + 0.1 * x.detach().mean()
        return x + self.f(x) + self.mean["x"]


class Buffers(Residual):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        self.count = self.count + 1
        return x + self.f(x) / self.count


@engines
@pytest.mark.parametrize("kind", [Counts, Draws, Generates, Averages, Buffers])
def test_blocks_that_are_not_the_same_twice(kind, engine):
    stack, _ = built(kind, engine)
    with pytest.raises(RuntimeError, match=r"did not restore every bit|another velocity at each|change the buffer"):
        stack(tokens()).sum().backward()


@engines
def test_arguments_that_change_between_the_passes(engine):
    class Scaled(Residual):
        def forward(self, x, scale):
            return x + self.f(x) * scale

    stack, _ = built(Scaled, engine)
    scale = torch.ones(8).double()
    out = stack(tokens(), scale)
    scale.zero_()
    with pytest.raises(RuntimeError, match=r"by an inplace operation|an argument has changed"):
        out.sum().backward()


@engines
def test_a_hook_on_a_parameter_meets_its_whole_gradient_once(engine):
    """And hooks over several of them, which torch makes of hooks on each."""
    pair, found = built(Residual, engine), []
    for stack in pair:
        weights, seen = list(stack.parameters()), []
        handles = [
            weights[1].register_hook(lambda g, seen=seen: seen.append(g.clone()) or 3 * g),
            torch.autograd.graph.register_multi_grad_hook(weights, lambda g, seen=seen: seen.append(len(g))),
        ]
        grads = gradients(stack, lambda stack, x: stack(x), tokens())
        for handle in handles:
            handle.remove()
        assert len(seen) == 2 and seen[1] == len(weights)
        found.append([seen[0], *grads])
    for a, b in zip(*found, strict=True):
        near(a, b, 1e-12 * max(1.0, float(b.abs().max())))
    assert float(found[0][0].abs().max()) > 0


class Collects(Residual):
    def __init__(self, into):
        super().__init__()
        self.into = into

    def forward(self, x, losses):
        self.into(losses, self.f(x).square().mean())
        return x + self.f(x)


@engines
@pytest.mark.parametrize(
    ("into", "losses"),
    [(list.append, []), (lambda d, x: d.update(a=x), {"a": None}), (lambda t, x: t[0].append(x), ([],))],
)
def test_lists_and_dicts_that_blocks_write_into_are_refused(into, losses, engine):
    for backprop in (ENGINES[engine][1], lv.Stored()):
        stack = lv.reversible([Collects(into).double() for _ in range(2)], ENGINES[engine][0], backprop=backprop)
        with pytest.raises(ValueError, match="changes a list or dict among its arguments"):
            stack(tokens(), losses)


class KeepsApart(Residual):
    """The same, away from the output."""

    def forward(self, x):
        self.extra = self.f[1](x).square().mean()
        return x + self.f(x)


@pytest.mark.parametrize("scheme, backprop", [("momentum", ENGINES["exact"][1]), ("leapfrog", lv.Reversible())])
def test_nor_after_the_backward_pass(scheme, backprop):
    stack = lv.reversible([KeepsApart().double() for _ in range(3)], scheme, backprop=backprop)
    stack(tokens()).sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="a tensor that a layer keeps beside its result"):
        sum(block.extra for block in stack._modules.values()).backward()


def test_numbers_that_are_none_pass_through_checkpointed():
    stack = built(Residual, "checkpointed")[0]
    x = torch.full((2, 5, 8), torch.nan, dtype=torch.float64, requires_grad=True)
    stack(x).sum().backward()
    assert x.grad.isnan().any()


def test_the_first_layers_can_be_called():
    pair = built(Residual, "exact")
    first = lv.reversible(list(lv.unwrap(pair[1]))[:2])
    near(pair[0][:2](tokens()), first(tokens()), 0.0)


@pytest.mark.parametrize("scheme", [None, lv.Momentum, "euler", lv.ImplicitMidpoint()])
def test_what_is_no_scheme_for_blocks_is_refused_when_the_stack_is_made(scheme):
    with pytest.raises((TypeError, ValueError), match="scheme"):
        lv.reversible([Residual()], scheme, backprop=lv.Checkpointed())
