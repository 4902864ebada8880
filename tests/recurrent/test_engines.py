"""Over time every engine is the plain loop: in value, and in the gradients of inputs, weights, states and outputs."""

import pytest
import torch

import liouville as lv
import samples
from live import Live
from measure import near, randn, rounding
from recurrent.runs import PAIRS, loop
from turns import one_in

T, B = 7, 3
ENGINES = {k: e for k, e in samples.BACKPROPS.items() if k != "stored"}


def _weights(y):
    return torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)


def _gradients(cell, u, state, tau, run):
    """The value and the gradients of a loss of all states and of the last one."""
    end, states = run(cell, u, state, tau)
    loss = (states * _weights(states)).sum() + end.square().sum()
    return end, states, torch.autograd.grad(loss, [u, state, *cell.parameters()])


def _case(field, scheme, steps):
    cell = samples.cell(field, samples.SCHEMES[scheme])
    u, state = randn(T, B, samples.INPUTS, seed=3).requires_grad_(), randn(B, cell.hidden_size, seed=4).requires_grad_()
    tau = {"none": None, "each": 2 * torch.rand(T, 1, 1).double(), "ended": torch.ones(T, B, 1).double()}[steps]
    if steps == "ended":
        tau[3:, 0] = 0.0
        tau[1:, 2] = 0.0
    return cell, u, state, tau


def _pairs_of_engines():
    for field, scheme in PAIRS:
        for name, engine in ENGINES.items():
            try:
                engine.check(samples.SCHEMES[scheme], samples.driven(field))
            except ValueError:
                continue
            for steps in ("none", "each", "ended"):
                yield field, scheme, name, steps


@pytest.mark.parametrize(("field", "scheme", "engine", "steps"), one_in(43, list(_pairs_of_engines())))
@pytest.mark.filterwarnings("ignore::liouville.schemes.StabilityWarning")
def test_every_engine_is_the_plain_loop(field, scheme, engine, steps):
    cell, u, state, tau = _case(field, scheme, steps)
    expected = _gradients(cell, u, state, tau, loop)
    found = _gradients(cell, u, state, tau, lambda c, *a: c.run(*a, ENGINES[engine], traces=True))
    implicit = 1e3 if scheme.startswith(("Implicit", "Discrete")) else 1.0  # a solver's residual, T times
    for a, b in zip((*found[:2], *found[2]), (*expected[:2], *expected[2]), strict=True):
        near(a, b, implicit * rounding(b, terms=64 * T))
    last = cell.run(u, state, tau, ENGINES[engine], traces=False)
    near(last[0], expected[0], implicit * rounding(expected[0], terms=8 * T))
    assert last[1] is None


@pytest.mark.parametrize("engine", ["reversible", "reversible-exact", "reversible-compensated", "checkpointed", "auto"])
def test_gradients_arrive_only_where_they_are_asked_for(engine):
    cell, u, state, _ = _case("separable", "SymplecticEuler", "none")
    cell.requires_grad_(False)
    end, states = cell.run(u.detach(), state, None, samples.BACKPROPS[engine], traces=True)
    states[2].sum().backward()
    expected = torch.autograd.grad(loop(cell, u.detach(), state)[1][2].sum(), state)[0]
    near(state.grad, expected, rounding(expected, terms=64))
    assert end.requires_grad and u.grad is None


class _Sizes(torch.utils._python_dispatch.TorchDispatchMode):
    """The largest tensor that an operation makes, in entries."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in torch.utils._pytree.tree_leaves(out):
            if isinstance(x, torch.Tensor) and not x._is_view():
                self.largest = max(self.largest, x.numel())
        return out


@pytest.mark.parametrize("engine", ["stored", "reversible", "reversible-exact", "checkpointed"])
def test_no_weight_is_ever_repeated_over_time(engine):
    """A (T, n, n) tensor would be the largest by far: n is wide, inputs and batch are narrow."""
    n, steps = 24, 16
    cell = lv.recurrent.HamiltonianRNNCell(1, n, length=steps)
    with _Sizes() as sizes:
        end, states = cell.run(
            torch.randn(steps, 1, 1), torch.zeros(1, n), None, samples.BACKPROPS[engine], traces=True
        )
        (end.sum() + states.sum()).backward()
    assert sizes.largest < steps * (n // 2) ** 2 / 4


def _held(steps, engine, traces, n=8, batch=200):
    """Bytes of live storages between the passes and at most, without input, output and the input's gradient."""
    cell = lv.recurrent.HamiltonianRNNCell(1, n, length=steps).double()
    u, state = randn(steps, batch, 1).requires_grad_(), randn(batch, n)
    with Live(4 * batch, known=(u, state, *cell.parameters())) as live:
        end, states = cell.run(u, state, None, engine, traces=traces)
        kept = live.bytes()
        (end.sum() if states is None else states[-1].sum() + end.sum()).backward()
    output = 0 if states is None else states.nbytes
    return kept - output, live.most - output - u.nbytes - output  # the output's costate is as large


@pytest.mark.parametrize(
    ("engine", "traces"),
    [
        (lv.Auto(), False),
        (lv.Auto(), True),
        (lv.Reversible(exact=True), True),
        (lv.Reversible(compensated=True), False),
    ],
    ids=repr,
)
def test_memory_does_not_grow_with_time_beyond_inputs_and_outputs(engine, traces):
    few, many = _held(34, engine, traces), _held(68, engine, traces)
    assert 0 < few[0] == many[0]
    assert many[1] <= few[1] + 4 * 200 * 8 * 8  # a few states more: when python lets go of them is not fixed


def test_the_plain_loop_keeps_more_for_every_step():
    assert _held(48, lv.Stored(), False)[0] > 3.5 * _held(12, lv.Stored(), False)[0]
