"""Hooks of tensors and modules, copies and pickles of a flow, and exceptions: the engines as any part of a graph."""

import copy
import functools
import pickle

import pytest
import torch

import samples
from backprop.runs import MODES, compare, equal_to_stored, grads_of

modes = pytest.mark.parametrize("engine", MODES.values(), ids=MODES)
PAIRS = [
    ("SymplecticEuler", "separable-X"),
    ("SymplecticEuler", "dropout-partitioned"),
    ("LeapfrogMidpoint", "hamiltonian"),
]
pairs = pytest.mark.parametrize("scheme, name", PAIRS)


@modes
@pairs
def test_hooks_of_tensors_and_modules(engine, scheme, name):
    """Each is called once, with the same gradients, and what it returns is used."""

    def gradients(flow):
        seen = {}

        def see(name, *tensors, factor=1):
            assert name not in seen
            seen[name] = [t.clone() for t in tensors]
            return tuple(factor * t for t in tensors)

        x = samples.inputs(flow.field).requires_grad_()
        handles = [x.register_hook(lambda g: see("x", g, factor=2)[0])]
        for name, p in flow.named_parameters():
            handles.append(p.register_hook(lambda g, name=name: see(name, g, factor=0.5)[0]))
            behind = functools.partial(lambda name, p: see(f"{name}.grad", p.grad) and None, name)
            handles.append(p.register_post_accumulate_grad_hook(behind))
        handles += [
            flow.register_full_backward_pre_hook(lambda module, grads: see("pre", *grads, factor=3)),
            flow.register_full_backward_hook(lambda module, before, behind: see("post", *before, *behind) and None),
            flow.register_forward_hook(lambda module, inputs, out: see("forward", out, factor=2)[0]),
        ]
        out = flow(x)
        out.register_hook(lambda g: see("out", g)[0])
        out.square().sum().backward()
        for handle in handles:
            handle.remove()
        assert len(seen) == 5 + 2 * len(list(flow.parameters()))
        return [*(t for name in sorted(seen) for t in seen[name]), x.grad, *grads_of(flow)]

    equal_to_stored(gradients, samples.flow(scheme, name), engine)


@modes
@pairs
def test_copies_and_pickles_of_a_flow(engine, scheme, name):
    """Also of one that has just run, whose graph they have no part in."""

    def gradients(flow):
        out = flow(samples.inputs(flow.field))
        for copied in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
            assert copied.backprop == flow.backprop
            torch.manual_seed(0)
            copied(samples.inputs(flow.field)).square().sum().backward()
            yield from grads_of(copied)
        assert all(p.grad is None for p in flow.parameters())
        out.square().sum().backward()
        yield from grads_of(flow)

    equal_to_stored(gradients, samples.flow(scheme, name), engine)


@modes
def test_an_exception_in_a_hook_leaves_the_next_run_right(engine):
    flow = samples.flow("SymplecticEuler", "separable")
    y = samples.inputs(flow.field)

    def broken(gradient):
        raise RuntimeError("hook")

    handle = flow.field.K_p.register_hook(broken)
    with pytest.raises(RuntimeError, match="hook"):
        flow.with_backprop(engine)(y).sum().backward()
    handle.remove()
    flow.zero_grad()
    compare(flow, engine, y)
