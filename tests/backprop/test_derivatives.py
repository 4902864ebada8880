"""Doors of differentiation: first derivatives are right by each, and what an engine cannot give it refuses aloud."""

import pytest
import torch
from torch.autograd import forward_ad

import liouville as lv
import samples
from backprop.runs import MODES, engine_of
from measure import jacobian, near, randn, rounding

OTHERS = {name: e for name, e in samples.BACKPROPS.items() if e != lv.Stored()}
engines = pytest.mark.parametrize("engine", OTHERS.values(), ids=OTHERS)
modes = pytest.mark.parametrize("engine", MODES.values(), ids=MODES)


def flow_and_input(batch=3):
    flow = samples.flow("SymplecticEuler", "separable")
    return flow, samples.inputs(flow.field, batch)


# ---- second derivatives ----------------------------------------------------------------------------------------


def by_grad(total, penalty, inputs):
    return torch.autograd.grad(total, inputs)


def by_grad_of_the_penalty_alone(total, penalty, inputs):
    return torch.autograd.grad(penalty, inputs)


def by_backward(total, penalty, inputs):
    total.backward()
    return [p.grad for p in inputs]


def by_backward_to_some(total, penalty, inputs):
    total.backward(inputs=inputs)
    return [p.grad for p in inputs]


@engines
@pytest.mark.parametrize("of", ["input", "weights"])
@pytest.mark.parametrize("door", [by_grad, by_grad_of_the_penalty_alone, by_backward, by_backward_to_some])
def test_second_derivatives_equal_stored_or_are_refused(engine, door, of):
    """A gradient penalty beside the loss, by every door of torch: right, or an error that names `Stored`."""
    flow, y = flow_and_input()

    def second(backprop):
        flow.zero_grad()
        x = y.clone().requires_grad_()
        inputs = [x, *flow.parameters()]
        loss = flow.with_backprop(backprop)(x).square().sum()
        gradients = torch.autograd.grad(loss, inputs, create_graph=True)
        penalty = sum(g.square().sum() for g in (gradients[:1] if of == "input" else gradients[1:]))
        return door(loss + penalty, penalty, inputs)

    if isinstance(engine_of(engine, flow, y), lv.Reversible):
        with pytest.raises(RuntimeError, match="Stored"):
            second(engine)
    else:
        for a, b in zip(second(engine), second(lv.Stored()), strict=True):
            near(a, b, rounding(b, terms=30, factor=100))


@engines
def test_hessians_equal_stored_or_are_refused(engine):
    flow, y = flow_and_input(batch=1)

    def hessian(backprop):
        return torch.autograd.functional.hessian(lambda x: flow.with_backprop(backprop)(x).square().sum(), y)

    if isinstance(engine_of(engine, flow, y), lv.Reversible):
        with pytest.raises(RuntimeError, match="Stored"):
            hessian(engine)
    else:
        near(hessian(engine), hessian(lv.Stored()), rounding(hessian(lv.Stored()), terms=30, factor=100))


@modes
def test_the_derivative_of_a_gradient_by_what_stands_before_or_behind_the_flow_is_refused_too(engine):
    """It passes through the flow's own second derivative, though neither the input nor a weight is asked for."""
    flow, y = flow_and_input()
    flow = flow.requires_grad_(False).with_backprop(engine)
    before, behind = (torch.tensor(1.5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    for scale in (before, behind):
        x = before * y
        x.retain_grad()
        (gradient,) = torch.autograd.grad((behind * flow(x)).square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="Stored"):
            torch.autograd.grad(gradient.square().sum(), scale)


@engines
def test_a_graph_of_the_gradient_changes_nothing_if_it_is_not_differentiated(engine):
    """``create_graph=True`` alone: the same gradients; and the rest of the graph can be differentiated again."""
    flow, y = flow_and_input()

    def grads(backprop, create_graph):
        x, s = y.clone().requires_grad_(), torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
        loss = s * flow.with_backprop(backprop)(x).square().sum()
        found = torch.autograd.grad(loss, [x, s, *flow.parameters()], create_graph=create_graph)
        if create_graph:
            again = torch.autograd.grad(s.square() + loss, [x, s, *flow.parameters()])
            near(again[1], found[1] + 2 * s, rounding(found[1], terms=30))
        return found

    for a, b in zip(grads(engine, True), grads(lv.Stored(), False), strict=True):
        near(a, b, rounding(b, terms=10 * samples.N, factor=10))


# ---- first derivatives -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", samples.BACKPROPS.values(), ids=samples.BACKPROPS)
@pytest.mark.parametrize("scheme, name", [("Verlet", "separable-X"), ("LeapfrogMidpoint", "hamiltonian")])
def test_gradcheck(engine, scheme, name):
    """Against differences of the value, in every input and weight. The grid of exact is too fine to be seen: 2^-52."""
    flow = samples.flow(scheme, name, backprop=engine)
    names, weights = zip(*flow.named_parameters(), strict=True)

    def value(y, *weights):
        return torch.func.functional_call(flow, dict(zip(names, weights, strict=True)), (y,))

    inputs = [samples.inputs(flow.field, 2), *(w.detach() for w in weights)]
    assert torch.autograd.gradcheck(value, [x.clone().requires_grad_() for x in inputs])


def _dual(flow, y):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(flow(forward_ad.make_dual(y, y))).tangent


TRANSFORMS = {
    "grad": lambda flow, y: torch.func.grad(lambda x: flow(x).sum())(y),
    "vmap": lambda flow, y: torch.func.vmap(flow)(y),
    "jvp": lambda flow, y: torch.func.jvp(flow, (y,), (y,))[1],
    "vjp": lambda flow, y: torch.func.vjp(flow, y)[1](y)[0],
    "jacrev": lambda flow, y: torch.func.jacrev(flow)(y),
    "jacfwd": lambda flow, y: torch.func.jacfwd(flow)(y),
    "forward-ad": _dual,
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@modes
def test_transforms_are_refused_by_name(engine, transform):
    flow, y = flow_and_input()
    with pytest.raises(RuntimeError, match="Stored"):
        transform(flow.with_backprop(engine), y)


@modes
def test_transforms_are_refused_without_gradients_too(engine):
    flow, y = flow_and_input()
    flow = flow.with_backprop(engine).requires_grad_(False)
    with torch.no_grad(), pytest.raises(RuntimeError, match="Stored"):
        torch.func.vmap(flow)(y)


@modes
def test_many_gradients_at_once_are_refused_by_name(engine):
    """torch vmaps the backward pass for ``is_grads_batched`` and ``vectorize``, behind a plain forward pass."""
    flow, y = flow_and_input()
    x = y.clone().requires_grad_()
    out = flow.with_backprop(engine)(x)
    with pytest.raises(RuntimeError, match="Stored"):
        torch.autograd.grad(out, x, randn(5, *y.shape), is_grads_batched=True)


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize("engine", [lv.Auto(), lv.Auto(memory=1)], ids=["auto", "auto-tight"])
def test_auto_takes_transforms_to_the_plain_loop(engine, transform):
    flow, y = flow_and_input()
    expected = transform(flow, y)
    near(transform(flow.with_backprop(engine), y), expected, rounding(expected, terms=30))


def test_forward_mode_and_vmap_go_through_stored():
    flow, y, v = samples.flow("Verlet", "separable-X"), randn(3, 4), randn(3, 4, seed=1)
    _, tangent = torch.func.jvp(flow, (y,), (v,))
    A = torch.func.vmap(torch.func.jacrev(flow))(y)
    near(tangent, torch.einsum("bij,bj->bi", A, v), rounding(A, terms=30))
    near(A[0], jacobian(lambda s: (flow(s[0]),), (y[:1],)), rounding(A, terms=30))


@modes
def test_jacobians_by_one_backward_pass_each(engine):
    """The plain door to a Jacobian, which retains the graph n times."""
    flow, y = flow_and_input(batch=1)
    expected = torch.autograd.functional.jacobian(flow, y)
    near(
        torch.autograd.functional.jacobian(flow.with_backprop(engine), y),
        expected,
        rounding(expected, terms=10 * samples.N),
    )
