"""Recurrent networks are torch modules like others: saved, copied, cast, compiled, trained, watched, certified."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn

import liouville as lv
import samples
from liouville.recurrent import (
    AntisymmetricRNN,
    AntisymmetricRNNCell,
    Cell,
    HamiltonianRNN,
    HamiltonianRNNCell,
    Recurrent,
    SequenceNetwork,
    along,
    flows_along,
    step_for,
)
from measure import near, randn, rounding
from recurrent.runs import loop

T, B, I, H = 6, 4, 3, 8


def _general():
    return Recurrent(Cell(I, lv.SecondOrderField(lv.SymmetricField(4, 1)), lv.Verlet(), 0.2), backprop=lv.Reversible())


def _two_ways():
    return SequenceNetwork(HamiltonianRNN(I, H, 2, bidirectional=True, batch_first=True, length=T), nn.Linear(2 * H, 3))


MODULES = {
    "hamiltonian": lambda: HamiltonianRNN(I, H, length=T, num_layers=2, bidirectional=True, dropout=0.1),
    "antisymmetric": lambda: AntisymmetricRNN(I, H, length=T, gamma=0.1),
    "gated": lambda: AntisymmetricRNN(I, H, h=0.1, gated=True, batch_first=True),
    "general": _general,
    "network": _two_ways,
}
INPUT = randn(B, T, I)


@pytest.mark.parametrize("name", MODULES)
def test_copies_pickles_and_files_compute_the_same(name, tmp_path):
    module = MODULES[name]().double().eval()
    expected = module(INPUT)
    saved = lv.load(lv.save(module, tmp_path / "model.safetensors"))
    other = MODULES[name]().double().eval()
    for made in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), saved):
        assert type(made) is type(module)
        assert all(torch.equal(a, b) for a, b in zip(made(INPUT), expected, strict=True))
    other.load_state_dict(module.state_dict())
    if name == "gated":  # its step is given
        assert torch.equal(other(INPUT)[0], expected[0])
    assert str(saved) == str(copy.deepcopy(saved))


@pytest.mark.parametrize("kind", [HamiltonianRNNCell, AntisymmetricRNNCell])
def test_cells_are_saved(kind, tmp_path):
    cell = kind(I, H, length=T)
    loaded = lv.load(lv.save(cell, tmp_path / "cell.safetensors"))
    x = torch.randn(B, I)
    assert type(loaded) is kind and torch.equal(loaded(x), cell(x)) and loaded.h == cell.h


def test_casts_move_all_weights_and_16_bits_run():
    rnn = HamiltonianRNN(I, H, length=T)
    for dtype in (torch.float64, torch.bfloat16, torch.float32):
        y, state = rnn.to(dtype)(INPUT.to(dtype))
        assert y.dtype == state.dtype == dtype
        y.float().sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = rnn(INPUT.float())
        y.float().square().sum().backward()
    near(y.double(), rnn.double()(INPUT)[0], 0.1)


def test_autocast_gives_one_gradient_whatever_the_engine():
    rnn = HamiltonianRNN(I, H, length=T)
    gradients = []
    for engine in (lv.Stored(), lv.Reversible(), lv.Checkpointed(every=2)):
        with torch.autocast("cpu", torch.bfloat16):
            loss = rnn.with_backprop(engine)(INPUT.float())[0].float().square().sum()
        gradients.append(torch.autograd.grad(loss, list(rnn.parameters())))
    for other in gradients[1:]:
        for a, b in zip(other, gradients[0], strict=True):
            near(a, b, 0.02 * float(b.abs().max()))


def test_transforms_and_recorders_get_the_plain_loop():
    rnn = HamiltonianRNN(I, H, length=T).double()
    x = randn(T, I)
    jacobian = torch.func.jacrev(lambda u: rnn.final(u)[0])(x)
    near(jacobian, torch.autograd.functional.jacobian(lambda u: rnn.final(u)[0], x), rounding(jacobian, terms=64))
    batched = torch.func.vmap(lambda u: rnn.final(u)[0])(INPUT)
    near(batched, rnn.final(INPUT.transpose(0, 1))[0], rounding(batched, terms=64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(rnn, (randn(T, B, I),))
    near(traced(INPUT.transpose(0, 1))[0], rnn(INPUT.transpose(0, 1))[0], rounding(H))
    exported = torch.export.export(rnn.float(), (torch.randn(T, B, I),))
    u = torch.randn(T, B, I)
    near(exported.module()(u)[0], rnn(u)[0], 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("engine", [lv.Auto(), lv.Stored(), lv.Reversible(), lv.Checkpointed(every=2)], ids=repr)
def test_torch_compile_gives_the_same_values_and_gradients(engine):
    rnn = HamiltonianRNN(I, H, length=T, backprop=engine).double()
    compiled = torch.compile(rnn, backend="aot_eager")
    expected = torch.autograd.grad(rnn(INPUT)[0].square().sum(), list(rnn.parameters()))
    found = torch.autograd.grad(compiled(INPUT)[0].square().sum(), list(rnn.parameters()))
    for a, b in zip(found, expected, strict=True):
        near(a, b, rounding(b, terms=64))


def test_the_meta_device_gives_shapes():
    rnn = HamiltonianRNN(I, H, length=T)
    y, state = rnn.to("meta")(torch.empty(T, B, I, device="meta"))
    assert y.shape == (T, B, H) and state.shape == (1, B, H)


@pytest.mark.parametrize("name", samples.DRIVEN)
def test_along_one_sequence_a_cell_is_a_flow_in_depth(name):
    for scheme in (lv.SymplecticEuler(), lv.ForwardEuler(), lv.LeapfrogMidpoint()):
        try:
            cell = samples.cell(name, scheme)
        except ValueError:
            continue
        u = randn(T, samples.INPUTS)
        flow = along(cell, u)
        states = list(flow.states(torch.zeros(1, flow.field.features, dtype=u.dtype)))
        first = torch.cat(states[0], -1)
        expected = loop(cell, u[:, None], first)[1]
        for j in range(T):
            near(torch.cat(states[j + 1], -1), expected[j], rounding(expected, terms=16 * T))
        assert type(flow.field) is type(cell.field) and flow.h == pytest.approx(cell.h)


def test_what_has_no_twin_in_depth_is_refused():
    budgeted = lv.budgeted(lv.Flow(lv.PairField(4, 1), lv.SymplecticEuler(), T=0.1), 4.0).field
    cell = Cell(I, budgeted, lv.SymplecticEuler(), h=0.1)
    with pytest.raises(NotImplementedError, match="biases of PartitionedBudgetedField are made in theta"):
        along(cell, torch.randn(T, I))
    uneven = lv.data.Sequences(torch.randn(2, T, I), [T, T], torch.rand(2, T))
    with pytest.raises(ValueError, match="steps of length h; give Sequences without steps"):
        flows_along(HamiltonianRNN(I, H, length=T), uneven)


def test_packed_sequences_of_any_lengths_have_a_flow_each():
    packed = nn.utils.rnn.pack_sequence([torch.randn(3, I), torch.randn(2, I)])
    assert [[flow.layers for flow in flows] for flows in flows_along(HamiltonianRNN(I, H, length=T), packed)] == [
        [3],
        [2],
    ]


def test_levels_are_flows_along_the_outputs_below_them():
    rnn = HamiltonianRNN(I, H, 2, bidirectional=True, length=T).double()
    x = randn(T, B, I)
    flows = flows_along(rnn, x)
    zero = torch.zeros(1, H, dtype=x.dtype)
    for b in range(B):
        ends = torch.cat([flow(zero) for flow in flows[b]])
        near(ends, rnn.final(x)[:, b], rounding(ends, terms=64))


@pytest.mark.parametrize("name", ["separable", "second-order", "pair", "antisymmetric"])
def test_sensitivities_over_time_are_derivatives_of_the_run(name):
    scheme = lv.ForwardEuler() if name == "antisymmetric" else lv.SymplecticEuler()
    cell = samples.cell(name, scheme)
    u = randn(T, B, samples.INPUTS)
    found = lv.analysis.backward_sensitivity(cell, u)
    assert found.shape == (T + 1, B, cell.hidden_size, cell.hidden_size)
    states = torch.cat((torch.zeros(1, B, cell.hidden_size).double(), loop(cell, u, _zeros(cell))[1]))
    for t in range(T):
        for b in range(B):
            run = lambda x, t=t, b=b: loop(cell, u[t:, b : b + 1], x[None])[0][0]  # noqa: E731
            expected = torch.autograd.functional.jacobian(run, states[t, b])
            near(found[t, b], expected, rounding(expected, terms=64 * T))
    if name in ("separable", "second-order"):  # symplectic over time: no norm below 1, determinant 1
        assert bool((torch.linalg.matrix_norm(found, ord=2) >= 1 - 1e-12).all())
    if name != "antisymmetric":
        near(torch.linalg.det(found), torch.ones(T + 1, B), 1e-10)


def _zeros(cell):
    return torch.zeros(B, cell.hidden_size, dtype=torch.float64)


def test_certificates_over_time_prove_what_the_class_proves():
    x = randn(30, 2, I)
    certificate = lv.analysis.certify(HamiltonianRNN(I, H, length=30).double(), x)
    lower = [c for c in certificate.claims if c.name == "lower bound"]
    assert certificate.holds and [c.status for c in lower] == ["pass"] * 2
    assert all(c.route == "symplectic" for c in lower)
    assert "30 steps of SymplecticEuler" in str(certificate)
    damped = lv.analysis.certify(AntisymmetricRNN(I, H, length=30, gamma=0.1).double(), x)
    assert damped.holds and all(c.status != "pass" for c in damped.claims if c.name == "lower bound")
    with pytest.raises(ValueError, match="give some"):
        lv.analysis.certify(HamiltonianRNN(I, H, length=30))


def test_the_step_turns_a_sequence_by_the_action_and_the_margin_says_how_far_it_may_go():
    for length in (10, 1000):
        cell = HamiltonianRNNCell(I, H, length=length)
        turned = cell.margin() * length
        assert turned == pytest.approx(min(20.0, 0.5 * length), rel=1e-5)
    field = lv.PairField(H, 1)
    assert step_for(field, lv.Verlet(), 100) == pytest.approx(2 * step_for(field, lv.Verlet(), 200))
    assert 1000 * HamiltonianRNNCell(I, H, length=1000, action=100.0).margin() == pytest.approx(100.0, rel=1e-5)


@pytest.mark.parametrize("kind", [HamiltonianRNN, AntisymmetricRNN])
def test_the_scale_of_the_input_multiplies_the_first_weights_and_nothing_else(kind):
    def drawn(scale):
        rnn = kind(I, H, 2, length=30, input_scale=scale, generator=torch.Generator().manual_seed(0))
        return dict(rnn.named_parameters())

    one, four = drawn(1.0), drawn(4.0)
    for name, weight in one.items():
        assert torch.equal(four[name], 4 * weight if ".W_" in name else weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 30, "input_scale": 0.0}, "scale of an input must be a positive"),
        ({"length": 30, "input_scale": float("nan")}, "scale of an input must be a positive"),
        ({"length": 30, "action": -1.0}, "action must be a positive"),
        ({"length": 30, "action": True}, "action must be a positive"),
        ({"h": 0.1, "action": 100.0}, "leave one of them out"),
    ],
)
def test_a_scale_or_an_action_that_is_none_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        HamiltonianRNN(I, H, **options)


def test_a_head_on_the_last_state_learns_which_sign_came_first():
    g = torch.Generator().manual_seed(0)
    x, y = 0.3 * torch.randn(240, 20, 1, generator=g), torch.randint(2, (240,), generator=g)
    x[:, 0, 0] += 4.0 * y - 2.0
    torch.manual_seed(0)
    rnn = HamiltonianRNN(1, 16, batch_first=True, length=20)
    network = SequenceNetwork(rnn, nn.Linear(16, 1))
    monitor = lv.train.GradientMonitor()
    split = lv.data.Split(x[:200], y[:200], x[200:], y[200:], name="first", classes=2)
    history = lv.train.fit(
        network, split, lv.train.Settings(epochs=8, batch_size=20, lr=0.02, seed=0), callbacks=[monitor]
    )
    assert history.records()[-1]["accuracy"] > 0.9
    assert not monitor.flags and all(len(r.norms) == 21 for r in monitor.records)


@pytest.mark.parametrize("read", ["last", "outputs", "both"])
def test_the_monitor_sees_the_gradient_at_every_step(read):
    rnn = HamiltonianRNN(I, H, length=T).double()
    x = randn(T, B, I)
    with lv.train.GradientMonitor(rnn, cost=1.0) as monitor:
        y, state = rnn(x)
        loss = {"last": state.sum(), "outputs": (y**2).sum(), "both": (y**2).sum() + state.sum()}[read]
        loss.backward()
    first = torch.zeros(B, H, dtype=x.dtype, requires_grad=True)
    end, states = loop(rnn.cells[0], x, first)
    loss = {"last": end.sum(), "outputs": (states**2).sum(), "both": (states**2).sum() + end.sum()}[read]
    (expected,) = torch.autograd.grad(loss, first)
    assert len(monitor.records[0].norms) == T + 1
    assert monitor.records[0].norms[0] == pytest.approx(float(expected.norm()), rel=1e-9)
    assert not rnn.cells[0].watchers


def test_time_first_layers_are_refused_as_networks_of_samples():
    with pytest.raises(ValueError, match="batch_first=True"):
        SequenceNetwork(HamiltonianRNN(I, H, length=T), nn.Linear(H, 2))
