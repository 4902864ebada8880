"""A recurrent layer is called like torch.nn.GRU with the same arguments, and answers in its shapes and types."""

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence

import liouville as lv
from liouville.recurrent import AntisymmetricRNN, Cell, HamiltonianRNN, HamiltonianRNNCell, Recurrent
from measure import near, randn, rounding

T, B, I, H = 6, 4, 3, 8
LENGTHS = [2, 6, 1, 4]
ARGUMENTS = [
    {},
    {"batch_first": True},
    {"num_layers": 2},
    {"bidirectional": True},
    {"num_layers": 3, "bidirectional": True, "batch_first": True, "dropout": 0.3},
]


def _both(more):
    ours = HamiltonianRNN(I, H, length=T, generator=torch.Generator().manual_seed(0), **more).double().eval()
    return ours, torch.nn.GRU(I, H, **more).double().eval()


def _input(more):
    x = randn(T, B, I)
    return x.transpose(0, 1) if more.get("batch_first") else x


def _hx(more, *batch):
    return randn(more.get("num_layers", 1) * (1 + more.get("bidirectional", False)), *batch, H, seed=2)


@pytest.mark.parametrize("padding", [float("nan"), float("inf")])
@pytest.mark.parametrize("more", ARGUMENTS)
def test_padding_may_be_anything(more, padding):
    """A step of length 0 changes nothing, also where its input is no number; nor does a gradient."""
    ours, x = _both(more)[0], _input(more).contiguous()
    rows = x.transpose(0, 1) if more.get("batch_first") else x
    expected = ours.final(x, lengths=LENGTHS)
    steps = torch.arange(T)[:, None] < torch.tensor(LENGTHS)
    rows[~steps] = padding
    tau = (steps.mT if more.get("batch_first") else steps).double()
    x.requires_grad_()
    for call in ({"lengths": LENGTHS}, {"steps": tau}):
        state = ours.final(x, **call)
        assert torch.equal(state, expected)
        assert all(g.isfinite().all() for g in torch.autograd.grad(state.sum(), [x, *ours.parameters()]))


@pytest.mark.parametrize("more", ARGUMENTS)
@pytest.mark.parametrize("given", [False, True])
def test_batched_and_unbatched_calls_answer_in_the_shapes_of_gru(more, given):
    ours, theirs = _both(more)
    x = _input(more)
    for sequences, batch in ((x, (B,)), (x[0] if more.get("batch_first") else x[:, 0], ())):
        hx = (_hx(more, *batch),) if given else ()
        found, expected = ours(sequences, *hx), theirs(sequences, *hx)
        assert [y.shape for y in found] == [y.shape for y in expected]
        assert ours.final(sequences, *hx).equal(found[1])


@pytest.mark.parametrize("more", ARGUMENTS)
@pytest.mark.parametrize("kind", ["unsorted", "sorted", "sequences"])
def test_packed_sequences_come_back_packed_alike(more, kind):
    ours, theirs = _both(more)
    x, lengths = _input(more), LENGTHS if kind == "unsorted" else sorted(LENGTHS, reverse=True)
    if kind == "sequences":
        packed = pack_sequence([randn(n, I, seed=n) for n in lengths])
    else:
        more_ = {"batch_first": more.get("batch_first", False), "enforce_sorted": kind == "sorted"}
        packed = pack_padded_sequence(x, torch.tensor(lengths), **more_)
    (found, state), (expected, other) = ours(packed, _hx(more, B)), theirs(packed, _hx(more, B))
    assert isinstance(found, PackedSequence) and found.data.shape == expected.data.shape and state.shape == other.shape
    assert torch.equal(found.batch_sizes, expected.batch_sizes)
    for name in ("sorted_indices", "unsorted_indices"):
        a, b = getattr(found, name), getattr(expected, name)
        assert a is b is None or torch.equal(a, b)


@pytest.mark.parametrize("more", ARGUMENTS)
@pytest.mark.parametrize("form", ["packed", "padded"])
def test_every_sequence_is_run_to_its_own_end_as_if_it_were_alone(more, form):
    ours, _ = _both(more)
    x, hx = _input(more).requires_grad_(), _hx(more, B).requires_grad_()
    first = ours.batch_first
    if form == "packed":
        packed = pack_padded_sequence(x, torch.tensor(LENGTHS), batch_first=first, enforce_sorted=False)
        y, state = ours(packed, hx)
        y = pad_packed_sequence(y, batch_first=first)[0]
    else:
        y, state = ours(x, hx, lengths=LENGTHS)
    y, u = (y, x) if first else (y.transpose(0, 1), x.transpose(0, 1))
    loss = sum((y[b, :n] ** 2).sum() for b, n in enumerate(LENGTHS)) + state.sin().sum()
    gradients = torch.autograd.grad(loss, [x, hx, *ours.parameters()])
    alone = 0.0
    for b, n in enumerate(LENGTHS):
        y_b, state_b = ours(u[b, :n], hx[:, b])
        near(y[b, :n], y_b, rounding(y_b, terms=64))
        near(state[:, b], state_b, rounding(state_b, terms=64))
        alone = alone + (y_b**2).sum() + state_b.sin().sum()
    for a, b in zip(gradients, torch.autograd.grad(alone, [x, hx, *ours.parameters()]), strict=True):
        near(a, b, rounding(b, terms=256))


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_step_of_another_length_is_a_cell_of_another_step(batch_first):
    cells = {h: HamiltonianRNNCell(I, H, h=h, generator=torch.Generator().manual_seed(0)).double() for h in (0.1, 0.25)}
    x, steps = randn(T, B, I), torch.full((T, B), 2.5, dtype=torch.float64)
    steps[:, 1] = 1.0
    rnn = Recurrent(cells[0.1], batch_first=batch_first)
    x, steps = (x.transpose(0, 1), steps.mT) if batch_first else (x, steps)
    found = rnn(x, steps=steps)[1][0]
    slow, fast = (Recurrent(cells[h], batch_first=batch_first)(x)[1][0] for h in (0.1, 0.25))
    near(found[1], slow[1], rounding(slow, terms=64))
    near(found[[0, 2, 3]], fast[[0, 2, 3]], rounding(fast, terms=64))
    one = torch.linspace(0.5, 2.0, T, dtype=torch.float64)
    each = one[None].expand(B, T) if batch_first else one[:, None].expand(T, B)
    assert torch.equal(rnn(x, steps=one)[0], rnn(x, steps=each)[0])


def test_the_reversed_direction_is_the_forward_one_on_the_reversed_sequence():
    ours, _ = _both({"bidirectional": True})
    x = randn(T, B, I)
    y, state = ours(x)
    back = Recurrent(ours.cells[1])(x.flip(0))
    assert torch.equal(y[..., H:], back[0].flip(0)) and torch.equal(state[1:], back[1])
    assert torch.equal(y[-1, :, :H], state[0]) and torch.equal(y[0, :, H:], state[1])


def test_a_sequence_can_be_run_in_pieces():
    for rnn in (HamiltonianRNN(I, H, 2, length=T).double(), _of(lv.AntisymmetricField(H, 1), lv.LeapfrogMidpoint())):
        x = randn(T, B, I)
        whole, end = rnn(x)
        first, state = rnn(x[:2])
        rest, last = rnn(x[2:], state)
        near(torch.cat((first, rest)), whole, rounding(whole, terms=64))
        near(last, end, rounding(end, terms=64))


def _of(field, scheme):
    return Recurrent(Cell(I, field, scheme, h=0.1)).double()


def test_a_cell_is_one_step_of_the_layer():
    for rnn in (HamiltonianRNN(I, H, length=T).double(), AntisymmetricRNN(I, H, length=T, gated=True).double()):
        x, hx = randn(T, B, I), None
        for u in x:
            hx = rnn.cells[0](u, hx)
        near(hx, rnn.final(x)[0], rounding(hx, terms=64))
        assert rnn.cells[0](x[0, 0]).shape == torch.nn.GRUCell(I, H).double()(x[0, 0]).shape == (H,)
        near(rnn.cells[0](x[0, 0]), rnn.cells[0](x[0])[0], rounding(hx))


def test_dropout_between_layers_acts_in_training_only_and_not_after_the_last():
    rnn = HamiltonianRNN(I, H, 2, length=T, dropout=0.5).double()
    x = randn(T, B, I)
    assert not torch.equal(rnn(x)[0], rnn(x)[0])
    assert torch.equal(rnn.cells[0](x[0]), rnn.cells[0](x[0]))
    assert torch.equal(rnn.eval()(x)[0], rnn(x)[0])
    one = HamiltonianRNN(I, H, 1, length=T, dropout=0.5).double()
    assert torch.equal(one(x)[0], one(x)[0])


def test_the_state_is_all_that_a_scheme_carries():
    sizes = {
        (lv.PairField, lv.SymplecticEuler()): H,
        (lv.AntisymmetricField, lv.RK4()): H,
        (lv.AntisymmetricField, lv.LeapfrogMidpoint()): 2 * H,
    }
    for (kind, scheme), size in sizes.items():
        assert _of(kind(H, 1), scheme).hidden_size == size
    oscillators = _of(lv.SecondOrderField(lv.SymmetricField(H, 1)), lv.SymplecticEuler())
    assert oscillators.hidden_size == 2 * H and oscillators(randn(T, B, I))[0].shape == (T, B, 2 * H)


WRONG = {
    "axes": (lambda r: r(randn(T)), r"expected sequences \(T, B, inputs\)"),
    "width": (lambda r: r(randn(T, B, I + 1)), "expected 3 inputs on the last axis"),
    "empty": (lambda r: r(randn(0, B, I)), "at least one step"),
    "dtype": (lambda r: r(randn(T, B, I).float()), "the weights are torch.float64"),
    "whole numbers": (lambda r: r(torch.ones(T, B, I, dtype=torch.long)), "floating-point input"),
    "state pair": (lambda r: r(randn(T, B, I), (randn(1, B, H), randn(1, B, H))), "the state is one tensor"),
    "state cells": (lambda r: r(randn(T, B, I), randn(2, B, H)), r"must have shape \(1, 4, hidden_size\)"),
    "state width": (lambda r: r(randn(T, B, I), randn(1, B, H + 1)), r"shape \(4, 8\)"),
    "state batch": (lambda r: r(randn(T, B, I), randn(1, B + 1, H)), r"shape \(4, 8\)"),
    "state axes": (lambda r: r(randn(T, B, I), randn(1, H)), "must have shape"),
    "state dtype": (lambda r: r(randn(T, B, I), torch.zeros(1, B, H)), "the state is torch.float32"),
    "lengths number": (lambda r: r(randn(T, B, I), lengths=[1, 2]), "lengths must be 4 whole numbers"),
    "lengths range": (lambda r: r(randn(T, B, I), lengths=[1, 2, 3, 7]), "must lie in 1 ... 6"),
    "lengths zero": (lambda r: r(randn(T, B, I), lengths=[1, 2, 3, 0]), "must lie in 1 ... 6"),
    "lengths kind": (lambda r: r(randn(T, B, I), lengths=torch.ones(B)), "whole numbers"),
    "lengths packed": (lambda r: r(pack_sequence([randn(2, I)]), lengths=[2]), "a PackedSequence has its lengths"),
    "steps shape": (lambda r: r(randn(T, B, I), steps=torch.ones(B)), r"the shape \(6,\) or \(6, 4\)"),
    "steps negative": (lambda r: r(randn(T, B, I), steps=-torch.ones(T)), "at least 0 and finite"),
    "steps nan": (lambda r: r(randn(T, B, I), steps=torch.full((T,), torch.nan)), "at least 0 and finite"),
    "cell sequence": (lambda r: r.cells[0](randn(T, B, I)), "a cell takes one step"),
    "list": (lambda r: r([[1.0] * I]), "convert it with torch.as_tensor"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_inputs_are_refused_in_one_sentence(case):
    call, said = WRONG[case]
    with pytest.raises((ValueError, TypeError), match=said) as raised:
        call(HamiltonianRNN(I, H, length=T).double())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: HamiltonianRNN(I, H), "give length, the expected number of steps, or h"),
        (lambda: HamiltonianRNN(I, H, length=5, h=0.1), "one of the two"),
        (lambda: HamiltonianRNN(I, H, length=0), "length must be the expected number"),
        (lambda: HamiltonianRNN(I, H, h=0.0), "h must be a positive"),
        (lambda: HamiltonianRNN(I, 7, length=5), "must be even"),
        (lambda: HamiltonianRNN(0, H, length=5), "inputs must be"),
        (lambda: HamiltonianRNN(I, H, 0, length=5), "num_layers must be"),
        (lambda: HamiltonianRNN(I, H, length=5, dropout=1.0), "dropout must lie"),
        (lambda: AntisymmetricRNN(I, H, length=5, gamma=-1.0), "gamma must be"),
        (lambda: AntisymmetricRNN(I, H, length=5, backprop=lv.Reversible()), "has no inverse"),
        (lambda: Recurrent([]), "have 1 cells, got 0"),
        (lambda: Recurrent([HamiltonianRNNCell(I, H, h=1.0)] * 2), "have 1 cells, got 2"),
        (lambda: Recurrent([HamiltonianRNNCell(I, H, h=1.0)] * 2, num_layers=2), "cell 1 must take 8 inputs"),
        (lambda: Recurrent(torch.nn.GRUCell(I, H)), "made of Cells"),
        (lambda: Cell(I, lv.AntisymmetricField(4, 1), lv.Verlet(), 0.1), "splits into"),
    ],
)
def test_wrong_settings_are_refused_in_one_sentence(make, said):
    with pytest.raises((ValueError, TypeError), match=said) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_a_two_step_scheme_refuses_steps_of_other_lengths():
    rnn = _of(lv.AntisymmetricField(H, 1), lv.LeapfrogMidpoint())
    for more in ({"lengths": LENGTHS}, {"steps": torch.ones(T)}):
        with pytest.raises(ValueError, match="carries more than one state"):
            rnn(randn(T, B, I), **more)
    assert rnn(randn(T, B, I), lengths=[T] * B)[0].shape == (T, B, 2 * H)
