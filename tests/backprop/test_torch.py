"""The engines beside what else torch does with a graph: equal to `Stored` wherever a gradient is asked for."""

import pickle
import threading

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import samples
from backprop.runs import MODES, compare, equal_to_stored, grads_of, loss_of
from measure import near, randn, rounding

modes = pytest.mark.parametrize("engine", MODES.values(), ids=MODES)
PAIRS = [
    ("SymplecticEuler", "separable-X"),
    ("SymplecticEuler", "dropout-partitioned"),
    ("LeapfrogMidpoint", "hamiltonian"),
]
pairs = pytest.mark.parametrize("scheme, name", PAIRS)


# ---- what is asked for -----------------------------------------------------------------------------------------


@modes
@pytest.mark.parametrize("frozen", [(), ("K_p",), ("b_q", "K_q"), ("K_p", "K_q", "b_p", "b_q")], ids=str)
@pytest.mark.parametrize("needs_grad", [True, False], ids=["input", "no-input"])
def test_frozen_weights(engine, frozen, needs_grad):
    flow = samples.flow("Verlet", "separable-X")
    for name in frozen:
        getattr(flow.field, name).requires_grad_(False)
    if len(frozen) == 4 and not needs_grad:
        assert not flow.with_backprop(engine)(samples.inputs(flow.field)).requires_grad
    else:
        compare(flow, engine, samples.inputs(flow.field), needs_grad=needs_grad)


@modes
@pairs
def test_one_gradient_of_many(engine, scheme, name):
    """Of one weight alone, of the input alone, of one part of the final state alone."""

    def gradients(flow):
        x = samples.inputs(flow.field).requires_grad_()
        state = flow.final_state(x)
        for part in (*state, loss_of(state)):
            yield from torch.autograd.grad(part.square().sum(), next(flow.parameters()), retain_graph=True)
            yield from torch.autograd.grad(part.square().sum(), x, retain_graph=True)

    equal_to_stored(gradients, samples.flow(scheme, name), engine)


@modes
@pairs
def test_a_flow_behind_itself_and_in_a_network(engine, scheme, name):
    def gradients(flow):
        head = nn.Linear(4, 2, dtype=torch.float64)
        network = nn.Sequential(flow, nn.Tanh(), flow, head)
        network(samples.inputs(flow.field)).square().sum().backward()
        return [*grads_of(flow), *(p.grad for p in head.parameters())]

    equal_to_stored(gradients, samples.flow(scheme, name), engine)


@modes
@pairs
def test_retained_graphs_and_accumulation(engine, scheme, name):
    """The second backward pass through one graph gives the same gradient, to the bit, and adds it."""
    flow = samples.flow(scheme, name, backprop=engine)
    x = samples.inputs(flow.field).requires_grad_()
    loss = loss_of(flow.final_state(x))
    loss.backward(retain_graph=True)
    once = [t.grad.clone() for t in (x, *flow.parameters())]
    loss.backward()
    for a, t in zip(once, (x, *flow.parameters()), strict=True):
        assert torch.equal(2 * a, t.grad)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


@modes
def test_the_gradient_of_a_batch_is_the_sum_over_its_parts(engine):
    """Gradient accumulation; exact mode has another grid in every part, so to rounding."""
    flow = samples.flow("Verlet", "separable", backprop=engine)
    y = samples.inputs(flow.field, batch=6)
    flow(y).square().sum().backward()
    whole = [g.clone() for g in grads_of(flow)]
    flow.zero_grad()
    for part in y.split([1, 2, 3]):
        flow(part).square().sum().backward()
    for a, b in zip(grads_of(flow), whole, strict=True):
        near(a, b, rounding(b, terms=60))


# ---- inputs ----------------------------------------------------------------------------------------------------

INPUTS = {
    "empty": lambda: randn(0, 4),
    "empty-sequence": lambda: randn(3, 0, 4),
    "one": lambda: randn(1, 4),
    "vector": lambda: randn(4),
    "sequence": lambda: randn(2, 5, 4),
    "transposed": lambda: randn(4, 3).mT,
    "strided": lambda: randn(6, 8)[::2, ::2],
    "expanded": lambda: randn(1, 4).expand(3, 4),
    "zero": lambda: randn(3, 4) * 0,
}


@modes
@pytest.mark.parametrize("make", INPUTS.values(), ids=INPUTS)
def test_inputs_of_every_shape_and_layout(engine, make):
    for scheme, name in (("SymplecticEuler", "separable"), ("LeapfrogMidpoint", "hamiltonian")):
        compare(samples.flow(scheme, name), engine, make())


@modes
def test_channels_last_stays_so(engine):
    flow = samples.flow("SymplecticEuler", "separable-images")
    y = samples.inputs(flow.field).to(memory_format=torch.channels_last)
    compare(flow, engine, y)
    for state in (flow.final_state(y), flow.with_backprop(engine).final_state(y)):
        assert all(s.is_contiguous(memory_format=torch.channels_last) for s in state)


@modes
@pairs
def test_the_input_is_not_the_engines_memory(engine, scheme, name):
    """It is left alone; and `Reversible` need not keep it, so that changing it afterwards changes no gradient."""
    flow = samples.flow(scheme, name, backprop=engine)
    y = samples.inputs(flow.field)
    kept, found = y.clone(), []
    for changed in (False, True):
        torch.manual_seed(0)
        out = flow(y)
        assert torch.equal(y, kept)
        if changed and scheme != "LeapfrogMidpoint":  # whose first state is the flow's own, by plain autograd
            y.zero_()
        found.append(torch.autograd.grad(out.square().sum(), next(flow.parameters()))[0])
    assert torch.equal(*found)


@modes
@pairs
def test_an_output_changed_in_place_gives_an_error_or_the_right_gradient(engine, scheme, name):
    """What autograd says of a saved tensor that was changed, or nothing at all where it is not needed."""
    flow = samples.flow(scheme, name)
    x = samples.inputs(flow.field)

    def gradient(flow, change):
        torch.manual_seed(0)
        state = flow.final_state(x.clone().requires_grad_())
        with torch.no_grad():
            change(state)
        return torch.autograd.grad(sum(s.sum() for s in state), next(flow.parameters()))[0]

    right = gradient(flow, lambda state: None)
    for k in range(2):
        try:
            found = gradient(flow.with_backprop(engine), lambda state, k=k: state[k].add_(1.0))
        except RuntimeError as refusal:
            assert "modified by an inplace operation" in str(refusal)
        else:
            near(found, right, rounding(right, terms=60))


@modes
def test_a_weight_changed_before_the_backward_pass_raises(engine):
    """An optimizer's step between forward and backward: as by `Stored`, not the gradient of a mixture."""
    flow = samples.flow("SymplecticEuler", "separable", backprop=engine)
    out = flow(samples.inputs(flow.field))
    with torch.no_grad():
        flow.field.K_p.add_(1e-3)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


# ---- modes -----------------------------------------------------------------------------------------------------


@modes
@pairs
def test_no_grad_and_inference_mode(engine, scheme, name):
    flow = samples.flow(scheme, name)
    y = samples.inputs(flow.field)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            torch.manual_seed(0)
            out = flow.with_backprop(engine)(y)
            torch.manual_seed(0)
            near(out, flow(y), rounding(out, terms=10 * samples.N))
        assert not out.requires_grad
        assert out.is_inference() == (mode is torch.inference_mode)
    with torch.inference_mode():
        made_there = y.clone()
    compare(flow, engine, made_there, needs_grad=False)


@modes
@pytest.mark.parametrize("reentrant", [False, True], ids=["not-reentrant", "reentrant"])
@pairs
def test_checkpointing_around_a_flow(engine, reentrant, scheme, name):
    def gradients(flow):
        x = samples.inputs(flow.field).requires_grad_()
        checkpoint(lambda x: flow(torch.tanh(x)), x, use_reentrant=reentrant).square().sum().backward()
        return [x.grad, *grads_of(flow)]

    equal_to_stored(gradients, samples.flow(scheme, name), engine)


@modes
@pairs
def test_saved_tensors_may_be_moved(engine, scheme, name):
    """To the CPU and back, or through any other pair of hooks; what is saved is a copy all the same."""

    def gradients(flow):
        x = samples.inputs(flow.field).requires_grad_()
        with torch.autograd.graph.save_on_cpu():
            out = flow(x)
        yield from torch.autograd.grad(out.square().sum(), [x, *flow.parameters()])
        torch.manual_seed(0)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: pickle.dumps(t.detach()), pickle.loads):
            out = flow(x)
        yield from torch.autograd.grad(out.square().sum(), [x, *flow.parameters()])

    equal_to_stored(gradients, samples.flow(scheme, name), engine)


@modes
def test_anomaly_mode_and_a_backward_pass_in_another_thread(engine):
    def gradients(flow):
        x = samples.inputs(flow.field).requires_grad_()
        with torch.autograd.detect_anomaly(check_nan=True):
            flow(x).square().sum().backward()
        loss = flow(x).square().sum()
        thread = threading.Thread(target=loss.backward)
        thread.start()
        thread.join()
        return [x.grad, *grads_of(flow)]

    equal_to_stored(gradients, samples.flow("Verlet", "separable"), engine)
