"""What the tests of the native kernel share: one loss and its gradients, by `Fused` and by `Stored`."""

import torch

import liouville as lv
from measure import near


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
