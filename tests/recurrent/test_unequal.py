"""`fit` on sequences of unequal lengths: each is learned from as if it were alone, whatever form it comes in."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence
from torch.utils.data import DataLoader, Dataset

import liouville as lv
from liouville.data import Sequences, Split
from liouville.recurrent import Cell, HamiltonianRNN, Recurrent, SequenceNetwork
from liouville.train import Checkpoint, GradientMonitor, Settings, fit
from measure import near, randn, rounding
from recurrent.runs import loop

N, T, I, H = 30, 7, 3, 8
ENGINES = {
    "stored": lv.Stored(),
    "checkpointed": lv.Checkpointed(),
    "reversible": lv.Reversible(),
    "exact": lv.Reversible(exact=True),
    "fused": lv.Fused(),
    "auto": lv.Auto(),
}
LAYERS = {
    "one way": lambda: HamiltonianRNN(I, H, batch_first=True, length=T),
    "two levels, two ways": lambda: HamiltonianRNN(I, H, 2, batch_first=True, length=T, bidirectional=True),
    "pair": lambda: Recurrent(Cell(I, lv.PairField(H, layers=1), lv.SymplecticEuler(), 0.2), batch_first=True),
    "antisymmetric": lambda: lv.recurrent.AntisymmetricRNN(I, H, batch_first=True, length=T),
}


def network(layer="one way", engine=None, outputs=3):
    torch.manual_seed(0)
    rnn = LAYERS[layer]()
    rnn = rnn if engine is None else rnn.with_backprop(engine)
    return SequenceNetwork(rnn, nn.Linear(rnn.output_size, outputs)).double()


def data(steps=False, padding=0.0):
    """Sequences of 1 to T steps whose label depends on all of them."""
    x, lengths = randn(N, T, I, seed=1), torch.arange(N) % T + 1
    tau = randn(N, T, seed=2).abs() if steps else None
    y = Sequences(x, lengths).x.sum(1).argmax(1)
    x[torch.arange(T) >= lengths[:, None]] = padding
    return x, lengths, y, tau


def settings(**more):
    return Settings(**{"epochs": 3, "batch_size": 10, "lr": 0.05, "validation": 0.2, **more})


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


class Alone(nn.Module):
    """Every sequence by itself, cut to its length."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        steps = [None] * len(x) if x.steps is None else [x.steps[b, :n] for b, n in enumerate(x.lengths.tolist())]
        return torch.cat([self.inner(x[b][None], steps=steps[b]) for b in range(len(x))])


@pytest.mark.parametrize("steps", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("layer", LAYERS)
def test_padding_has_no_influence_on_a_training(layer, engine, steps):
    """Plain gradient steps, so that roundings of sums in another order stay roundings: 3 steps of 10 samples."""
    if layer == "antisymmetric" and engine in ("reversible", "exact"):
        pytest.skip("forward Euler cannot be undone")
    x, lengths, y, tau = data(steps, padding=float("nan"))
    whole = Sequences(x, lengths, tau)
    split = Split(whole[:20], y[:20], whole[20:], y[20:], "sums", 3)
    one, other = network(layer, ENGINES[engine]), network(layer, lv.Stored())
    how = settings(optimizer="sgd", epochs=1)
    found, expected = fit(one, split, how).metrics, fit(Alone(other), split, how).metrics
    near(weights(one), weights(other), rounding(weights(other), terms=3 * 10 * T * 64))
    for name in ("train_loss", "validation_loss", "test_loss", "test_accuracy"):
        near(torch.tensor(found[name]), torch.tensor(expected[name]), rounding(terms=3 * 10 * T * 64))


class Ragged(Dataset):
    """Single sequences, each as long as it is."""

    def __init__(self, x, lengths, y):
        self.x, self.lengths, self.y = x, lengths, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, k):
        return self.x[k, : self.lengths[k]], self.y[k]


def packed(samples):
    return pack_sequence([s for s, _ in samples], enforce_sorted=False), torch.stack([label for _, label in samples])


@pytest.mark.filterwarnings("ignore:Settings")
def test_every_form_gives_the_same_bits_whatever_is_in_the_padding():
    x, lengths, y, _ = data()
    noisy = data(padding=1e30)[0]
    pairs, ragged = list(zip(zip(x, lengths, strict=True), y, strict=True)), Ragged(noisy, lengths, y)
    batches = [slice(k, k + 10) for k in range(0, N, 10)]
    forms = {
        "lengths beside": [((x[k], lengths[k]), y[k]) for k in batches],
        "noise in the padding": [((noisy[k], lengths[k]), y[k]) for k in batches],
        "Sequences": [(Sequences(x, lengths)[k], y[k]) for k in batches],
        "arrays": [((x[k].numpy(), lengths[k].numpy()), y[k].numpy()) for k in batches],
        "packed": [(pack_padded_sequence(x[k], lengths[k], True, enforce_sorted=False), y[k]) for k in batches],
        "a loader": DataLoader(pairs, batch_size=10),
        "a loader of single ones": DataLoader(ragged, batch_size=10, collate_fn=Sequences.collate),
        "a loader that packs": DataLoader(ragged, batch_size=10, collate_fn=packed),
        "weighted": [((x[k], lengths[k]), y[k], torch.ones(10)) for k in batches],
    }
    found = {}
    for name, form in forms.items():
        net = network()
        metrics = fit(net, form, settings(), validation=((noisy, lengths), y)).metrics
        found[name] = (weights(net), metrics["validation_loss"])
    first = found["lengths beside"]
    assert all(torch.equal(first[0], w) and first[1] == loss for w, loss in found.values())


@pytest.mark.parametrize("given", ["a pair", "Sequences", "packed", "a data set", "a Split", "weights"])
def test_tensors_with_lengths_are_held_out_and_shuffled_like_others(given):
    x, lengths, y, _ = data()
    whole = Sequences(x, lengths)
    form = {
        "a pair": ((x, lengths), y),
        "Sequences": [whole, y],
        "packed": (pack_padded_sequence(x, lengths, True, enforce_sorted=False), y),
        "a data set": Ragged(x, lengths, y),
        "a Split": Split(whole, y, whole, y, "sums", 3),
        "weights": (whole, y, torch.ones(N)),
    }[given]
    history = fit(network(), form, settings(epochs=12))
    assert history.metrics["train_accuracy"] > 0.7 and ("validation_loss" in history.metrics) == (given != "a data set")
    if given != "a data set":
        expected = fit(network(), ((x, lengths), y), settings(epochs=12)).metrics
        means = 1e-12 if given == "weights" else 0.0  # a mean by weights rounds otherwise
        assert history.metrics["train_loss"] == pytest.approx(expected["train_loss"], rel=means, abs=0.0)


def test_a_training_goes_on_to_the_bit_and_knows_its_lengths_but_not_its_padding(tmp_path):
    x, lengths, y, _ = data()
    whole, half = network(), network()
    fit(whole, ((x, lengths), y), settings())

    class Cut(lv.train.Callback):
        left = 4

        def on_train_batch_end(self, loss):
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

    kept = Checkpoint(tmp_path / "c", every=0)
    with pytest.raises(KeyboardInterrupt):
        fit(half, ((x, lengths), y), settings(), checkpoint=kept, callbacks=[Cut()])
    with pytest.raises(ValueError, match="the data"):
        fit(network(), ((x, lengths.clamp(max=5)), y), settings(), checkpoint=kept)
    again = network()
    fit(again, ((data(padding=3.0)[0], lengths), y), settings(), checkpoint=kept)
    assert torch.equal(weights(again), weights(whole))


def test_a_network_answers_raw_sequences_and_is_kept_with_its_data(tmp_path):
    """Predictions are those of the sequences alone; the padding of raw inputs does not count either."""
    x, lengths, y, _ = data()
    raw, offset, scale = 3.0 * x + 2.0, torch.full((I,), 2.0), torch.full((1,), 3.0)
    names = ("red", "green", "blue")
    whole = Sequences(x, lengths)
    split = Split(whole, y, whole, y, "sums", 3, label_names=names, offset=offset, scale=scale)
    assert torch.equal(
        split.transformed(Sequences(raw, lengths)).x, split.facts().transformed(Sequences(raw, lengths)).x
    )
    net = network()
    fit(net, split, settings())
    net.facts = split.facts()
    loaded = lv.load(lv.save(net, tmp_path / "net.safetensors"))
    expected = [names[int(net(whole[b][None]).argmax())] for b in range(N)]
    for made in (net, loaded, net.with_backprop(lv.Stored())):
        assert made.predict(Sequences(raw, lengths)) == expected
    assert net.predict(Sequences(raw[:, :2], [2] * N)) == [names[k] for k in net(x[:, :2]).argmax(1).tolist()]
    with pytest.raises(ValueError, match=r"samples of shape \(7, 3\), got \(7, 2\)"):
        net.predict(Sequences(raw[..., :2], lengths))


def test_the_monitor_sees_the_gradient_of_each_sequence_to_its_end():
    x, lengths, _, _ = data()
    net, batch = network(), Sequences(x, lengths)
    with GradientMonitor(net, cost=1.0, samples=N) as monitor:
        net(batch).square().sum().backward()
    cell, first = net.rnn.cells[0], torch.zeros(N, H, dtype=torch.float64, requires_grad=True)
    tau = (torch.arange(T)[:, None] < lengths).double()[..., None]
    net.head(loop(cell, batch.x.transpose(0, 1), first, tau)[0]).square().sum().backward()
    assert monitor.records[0].norms[0] == pytest.approx(float(first.grad.norm()), rel=1e-9)


def test_rows_of_sequences_are_as_those_of_a_tensor():
    x, lengths, _, tau = data(True)
    whole = Sequences(x, lengths, tau)
    assert len(whole) == N and whole.shape == (N, T, I) and torch.equal(whole[3], x[3, :4])
    some = whole[torch.tensor([8, 1])]
    assert some.shape == (2, 2, I) and some.lengths.tolist() == [2, 2] and torch.equal(some.steps, tau[[8, 1], :2])
    assert [len(part) for part in whole.split(8)] == [8, 8, 8, 6]
    assert whole.to(torch.float32).steps.dtype is torch.float32 and whole.longest().shape == (1, T, I)
    again = Sequences.of([whole[b] for b in range(N)], [tau[b, :n] for b, n in enumerate(lengths)])
    assert torch.equal(again.x, whole.x) and torch.equal(again.steps, whole.steps)
    one = Sequences(x, lengths, torch.ones(T))
    assert torch.equal(network()(one), network()(Sequences(x, lengths)))


X, L, Y, _ = data()
LONG, FEW, BOTH = L + 5, L[:-1], Sequences(X, L)
WRONG = [
    (((X, LONG), Y), r"lengths must lie in 1 ... 7, the steps of the input, got 8 at 2"),
    (((X, L - 1), Y), r"lengths must lie in 1 ... 7.*, got 0 at 0"),
    (((X, FEW), Y), r"lengths must be 30 whole numbers, one for each sequence, got a tensor \(29,\)"),
    (((X, L.double()), Y), r"lengths must be 30 whole numbers.*float64"),
    ((BOTH, Y[1:]), "inputs and targets of the data must have one row for each sample"),
    (((X[..., None], L), Y), r"inputs of the data must be a tensor, got a tuple.*unequal lengths are \(x, lengths\)"),
    (([X[0], X[1]], Y), r"must be a tensor, got a list of 2.*liouville.data.Sequences"),
    ((X, L, Y), r"lengths of sequences go with the inputs, \(\(x, lengths\), y\)"),
    (BOTH, "the data must be a Split"),
    ((Sequences(X.where(X < 2, torch.nan), L), Y), "the inputs of the data have NaN or infinite values in"),
    ((Sequences(X[..., :2], L), Y), "expected 3 inputs"),
]


@pytest.mark.parametrize(("given", "sentence"), WRONG)
def test_what_does_not_fit_is_said_in_one_sentence(given, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence) as raised:
        fit(network(), given, settings())
    assert "\n" not in str(raised.value)


def test_networks_and_settings_that_take_no_sequences_say_so():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(I * T, 3)).double()
    for net in (linear, lv.classifier("h2", I, 3, 4, 2, 1.0).double()):
        with pytest.raises(ValueError, match=r"sequences of unequal lengths, which .* does not take"):
            fit(net, (BOTH, Y), settings())
    for more in ({"capture": True}, {"alternate": 1}):
        with pytest.raises(ValueError, match="not sequences of unequal lengths"):
            fit(network(), (BOTH, Y), settings(**more))
    with pytest.raises(ValueError, match="shift and warp move images"):
        fit(network(), (BOTH, Y), settings(shift=1))
    with pytest.raises(TypeError, match="both be tensors or both be Sequences"):
        Split(BOTH, Y, X, Y, "sums", 3)
    with pytest.raises(ValueError, match="give them only with padded tensors"):
        network()(BOTH, lengths=L)
    with pytest.raises(ValueError, match="each sequence must be"):
        Sequences.of([X[0], X[1, :, :2]])
    two_step = Recurrent(Cell(I, lv.AntisymmetricField(H, 1), lv.LeapfrogMidpoint(), 0.1), batch_first=True)
    with pytest.raises(ValueError, match="LeapfrogMidpoint carries more than one state"):
        fit(SequenceNetwork(two_step, nn.Linear(2 * H, 3)).double(), (BOTH, Y), settings())


@pytest.mark.parametrize("lengths", ["abcd", ["1", "2"], None, [10**30] * N, {1, 2}, iter([1])])
def test_lengths_that_are_no_numbers_are_refused_in_one_sentence(lengths):
    with pytest.raises(ValueError, match="lengths must be 30 whole numbers, one for each sequence, got"):
        Sequences(X, lengths)


def test_no_sequence_is_a_batch_without_an_answer():
    none = Sequences(X[:0], [])
    assert network()(none).shape == (0, 3)
    net = named()
    for empty in (none, X[:0]):
        with pytest.raises(ValueError, match="expected at least one sample, got inputs of shape"):
            net.predict(empty)
        with pytest.raises(ValueError, match="the data has no samples"):
            fit(network(), (empty, Y[:0]), settings())
    with pytest.raises(ValueError, match="expected at least one sequence"):
        lv.analysis.singular_spectra(network(), none)
    with pytest.raises(ValueError, match=r"each sequence must be .*, got none\."):
        Sequences.of([])


def test_padding_of_steps_is_not_read_either():
    steps = torch.rand(N, T, dtype=torch.float64) + 0.5
    broken = steps.where(torch.arange(T) < L[:, None], torch.nan)
    net = network("two levels, two ways")
    expected = net(X, lengths=L, steps=steps)
    assert torch.equal(net(X, lengths=L, steps=broken), expected)
    assert torch.equal(net(Sequences(X, L, broken)), expected)
    packed = pack_padded_sequence(X, L, batch_first=True, enforce_sorted=False)
    assert torch.equal(net(packed, steps=broken[:, : int(L.max())]), net(packed, steps=steps[:, : int(L.max())]))
    broken[0, 0] = torch.nan
    with pytest.raises(ValueError, match="steps must be lengths of at least 0"):
        net(X, lengths=L, steps=broken)
    listed = Sequences.of(
        [x[:n] for x, n in zip(X, L, strict=True)], [s[:n].tolist() for s, n in zip(steps, L, strict=True)]
    )
    assert torch.equal(net(listed), net(Sequences(X, L, steps)))


def named():
    net = network()
    net.facts = Split(BOTH, Y, BOTH, Y, "sums", 3, label_names=("low", "mid", "high")).facts()
    return net


def test_predict_takes_every_form_that_fit_takes():
    net, expected = named(), named().predict(BOTH)
    assert net.predict((X, L)) == net.predict([X, L.tolist()]) == expected
    assert net.predict(pack_padded_sequence(X, L, batch_first=True, enforce_sorted=False)) == expected
    for wrong in ([X[0], X[1, :2]], X[:, :2], X[0]):
        with pytest.raises(ValueError, match=r"sums has samples of shape .*Sequences\.of") as raised:
            net.predict(wrong)
        assert "\n" not in str(raised.value)


def test_certificates_take_packed_sequences():
    net, packed = network(), pack_padded_sequence(X[:3], L[:3], batch_first=True, enforce_sorted=False)
    assert lv.analysis.certify(net, packed) == lv.analysis.certify(net, Sequences(X[:3], L[:3]))
    with pytest.raises(ValueError, match="sequences are for recurrent layers"):
        lv.analysis.certify(lv.zoo.h2(I + 1, 2, 1.0), packed)
