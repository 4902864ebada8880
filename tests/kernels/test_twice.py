"""Second derivatives through the engines that the kernel's formulas give: the plain loop's, by every way of asking."""

import pytest
import torch

import liouville as lv
from measure import near, randn, rounding

MODELS = ("h1", "h2", "ms1", "ms2", "ms3", "antisymmetric", "verlet", "leapfrog", "midpoint", "resnet")
ENGINES = {"fused": lv.Fused(), "fused-exact": lv.Fused(exact=True), "batch-last": lv.BatchLast(), "auto": lv.Auto()}


def flows():
    """Every model on every engine that runs it."""
    for name, engine in ENGINES.items():
        for model in MODELS:
            make = getattr(lv.zoo, model)
            try:
                make(4, layers=3, T=0.7, backprop=engine)
            except ValueError:
                continue
            yield pytest.param(make, engine, id=f"{model}-{name}")


def penalised(flow, y):
    """The gradients of a loss that has a gradient penalty in it."""
    x, before = y.clone().requires_grad_(), torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    inputs = [x, before, *flow.parameters()]
    loss = sum(s.square().sum() for s in flow.final_state(before * x))
    penalty = sum(g.square().sum() for g in torch.autograd.grad(loss, inputs, create_graph=True))
    return torch.autograd.grad(loss + penalty, inputs)


@pytest.mark.parametrize("make, engine", list(flows()))
def test_a_gradient_penalty_equals_that_of_the_plain_loop(make, engine):
    start = torch.Generator().manual_seed(3)
    flow, y = make(4, layers=3, T=0.7, generator=start, backprop=engine).double(), randn(5, 4)
    expected = penalised(flow.with_backprop(lv.Stored()), y)
    for a, b in zip(penalised(flow, y), expected, strict=True):
        near(a, b, rounding(*expected, terms=3 * 4 * 5))


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_a_weight_that_also_makes_the_input_is_counted_by_each_way_once(engine):
    flow, y = lv.zoo.h2(4, layers=3, T=0.7, backprop=engine).double(), randn(5, 4)

    def gradients(flow):
        x = y + flow.field.K_p.sum()
        (first,) = torch.autograd.grad(flow(x).square().sum(), flow.field.K_p, create_graph=True)
        return first, *torch.autograd.grad(first.square().sum(), list(flow.parameters()))

    expected = gradients(flow.with_backprop(lv.Stored()))
    for a, b in zip(gradients(flow), expected, strict=True):
        near(a, b, rounding(*expected, terms=3 * 4 * 5))


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_what_is_frozen_gets_no_gradient_and_hessians_are_right(engine):
    flow, y = lv.zoo.h2(4, layers=3, T=0.7, backprop=engine).double().requires_grad_(False), randn(1, 4)

    def hessian(flow):
        return torch.autograd.functional.hessian(lambda x: flow(x).square().sum(), y)

    near(hessian(flow), hessian(flow.with_backprop(lv.Stored())), rounding(hessian(flow), terms=12))
    assert all(p.grad is None for p in flow.parameters())


def test_gradgradcheck_of_weights_shared_by_all_layers():
    flow = lv.Flow(lv.SeparableHamiltonianField(4, layers=4, shared=True), lv.Verlet(), T=0.9, backprop=lv.Fused())
    names, weights = zip(*flow.double().named_parameters(), strict=True)

    def value(y, *weights):
        return torch.func.functional_call(flow, dict(zip(names, weights, strict=True)), (y,))

    inputs = [x.detach().requires_grad_() for x in (randn(2, 4), *weights)]
    assert torch.autograd.gradgradcheck(value, inputs)
