"""What the tests of the native kernel share: one loss and its gradients, by `Fused` and by `Stored`."""

import pytest
import torch

import liouville as lv
from measure import near

compiles = pytest.mark.skipif(
    torch.__version__.startswith("2.6."), reason="torch.compile of torch 2.6 cannot follow how a kernel is chosen"
)


def outcome(flow, engine, y):
    """The final state, and the gradients of one loss of it."""
    x = y.clone().requires_grad_()
    states = flow.with_backprop(engine).final_state(x)
    loss = sum((s.square() + torch.sin(3 * s)).sum() for s in states)
    weights = [p for p in flow.parameters() if p.requires_grad]
    return [*(s.detach() for s in states), *torch.autograd.grad(loss, [x, *weights])]


def equal(actual, expected, flow, batch):
    """To within a rounding for each of the N layers and n + B terms of a sum; weights of norm about 1 keep growth
    and cancellation of these few layers below 100, inversion's included."""
    allowed = 100 * torch.finfo(actual[0].dtype).eps * flow.layers * (flow.field.features + batch)
    for a, b in zip(actual, expected, strict=True):
        near(a, b, allowed * max(1.0, float(b.abs().max()) if b.numel() else 1.0))


def same_as_stored(flow, y):
    equal(outcome(flow, lv.Fused(), y), outcome(flow, lv.Stored(), y), flow, len(y))


def each_gradient_alone(flow, y, terms):
    """Where one tensor alone needs a gradient, it gets the right one, and no other gets any."""
    full = outcome(flow, lv.Stored(), y)[2:]
    for only in range(len(full)):
        x = y.clone().requires_grad_(only == 0)
        for k, p in enumerate(flow.parameters()):
            p.requires_grad_(only == k + 1)
        states = flow.with_backprop(lv.Fused()).final_state(x)
        sum((s.square() + torch.sin(3 * s)).sum() for s in states).backward()
        for k, p in enumerate((x, *flow.parameters())):
            if k == only:
                equal([p.grad], [full[k]], flow, terms)
            assert (p.grad is None) == (k != only)
            p.grad = None


def same_shapes(flow, engine, y, terms):
    """Every shape of batch, an empty one included, whose gradients of the weights are zero."""
    got, expected = outcome(flow, engine, y), outcome(flow, lv.Stored(), y)
    assert [g.shape for g in got] == [e.shape for e in expected]
    if y.numel():
        equal(got, expected, flow, terms)
    else:
        assert all((g == 0).all() for g in got)
