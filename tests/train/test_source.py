"""`fit` on loaders, data sets and tensors: the same learning problem, whatever the samples come in."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import liouville as lv
from liouville.data.split import held_out
from liouville.train import Checkpoint, Huber, Quantile, Settings, fit

EPS = torch.finfo(torch.float64).eps
pytestmark = pytest.mark.filterwarnings("ignore:Settings")  # batches of 20, of which a loader knows nothing


def data(samples: int = 60, classes: int = 3) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(samples, 3, generator=g, dtype=torch.float64)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long() if classes == 3 else (x[:, 0] > 0).long()


def network(outputs: int = 3, layers: int = 3) -> lv.Network:
    g = torch.Generator().manual_seed(0)
    make = lv.regressor if outputs == 1 else lv.classifier
    return make("h2", 3, outputs, 4, layers, 1.0, generator=g).double()


def weights(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def settings(**more: Any) -> Settings:
    return Settings(**{"epochs": 4, "batch_size": 20, "validation": 0.0, **more})


class Stream(IterableDataset):
    """Samples without a length; counts how many it gave."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y, self.given = x, y, 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for pair in zip(self.x, self.y, strict=True):
            self.given += 1
            yield pair


class Mapped(Dataset):
    """Samples one by one."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor]:
        return self.x[k], self.y[k]


@pytest.mark.filterwarnings("ignore:Settings")
def test_a_loader_in_any_form_gives_the_same_bits() -> None:
    x, y = data()
    forms = [
        DataLoader(TensorDataset(x, y), batch_size=20),
        DataLoader(Mapped(x, y), batch_size=20),
        DataLoader(Stream(x, y), batch_size=20),
        list(zip(x.split(20), y.split(20), strict=True)),
    ]
    found = []
    for form in forms:
        net = network()
        steps = 12 if isinstance(getattr(form, "dataset", None), Stream) else None
        fit(net, form, settings(steps=steps))
        found.append(weights(net))
    assert all(torch.equal(found[0], w) for w in found[1:])


@pytest.mark.parametrize("given", ["tensors", "weighted", "TensorDataset", "arrays", "Split"])
def test_tensors_are_one_problem_with_a_loader_of_all_samples(given: str) -> None:
    """Batches of everything: only the order of the sums differs, so each of the 4 steps errs by some eps."""
    x, y = data()
    forms = {
        "tensors": (x, y),
        "weighted": (x, y, torch.full((60,), 3.0)),
        "TensorDataset": TensorDataset(x, y),
        "arrays": (x.numpy(), y.numpy().astype("int16")),
        "Split": lv.data.Split(x, y, x, y, "three", 3),
    }
    one, other = network(), network()
    how = settings(batch_size=60, optimizer="sgd")
    fit(one, forms[given], how)
    fit(other, [(x, y)], settings(optimizer="sgd"))
    assert float((weights(one) - weights(other)).abs().max()) < 1e4 * EPS * float(weights(one).abs().max())


def test_a_weight_is_a_number_of_copies_and_zero_is_none() -> None:
    x, y = data()
    w = torch.arange(60) % 3
    one, other = network(), network()
    how = settings(batch_size=200, optimizer="sgd")
    fit(one, (x, y, w.double()), how)
    fit(other, (x.repeat_interleave(w, 0), y.repeat_interleave(w, 0)), how)
    assert float((weights(one) - weights(other)).abs().max()) < 1e4 * EPS * float(weights(one).abs().max())


def test_weights_count_in_validation() -> None:
    x, y = data()
    w = torch.cat((torch.ones(30), torch.zeros(30))).double()
    found = [
        fit(network(), (x, y), settings(), validation=held).metrics["validation_loss"]
        for held in ((x, y, w), (x[:30], y[:30]), [(x, y, w)], DataLoader(TensorDataset(x[:30], y[:30]), batch_size=7))
    ]
    assert found == pytest.approx([found[0]] * 4, rel=1e-12)


def test_the_task_is_read_off_dtype_and_outputs() -> None:
    x, y = data()
    labels = torch.stack((x[:, 0] > 0, x[:, 1] > 0, x[:, 2] > 0), 1)
    cases = [
        (network(3), y.int(), "accuracy", F.cross_entropy),
        (network(2), (y > 0), "accuracy", lambda s, t: F.binary_cross_entropy_with_logits(s[:, 0], t.double())),
        (network(3), labels, "accuracy", lambda s, t: 3 * F.binary_cross_entropy_with_logits(s, t.double())),
        (network(1), x[:, 0], "r2", lambda s, t: 0.5 * F.mse_loss(s[:, 0], t)),
    ]
    for net, target, score, loss in cases:
        history = fit(net, (x, target), settings())
        assert history.score_name == score
        with torch.no_grad():
            t = target if score == "r2" else target.long()
            assert history.metrics["train_loss"] == pytest.approx(float(loss(net(x), t)))


@pytest.mark.parametrize(("loss", "outputs"), [(Huber(0.5), 1), (Quantile((0.1, 0.9)), 2), (nn.MSELoss(), 1)])
def test_another_loss_is_what_is_minimised(loss: Any, outputs: int) -> None:
    """Targets (samples,) are no row against outputs (samples, 1): torch's own losses would broadcast them."""
    x, _ = data()
    y, net = x[:, 0], lv.Network(nn.Linear(3, 4), lv.zoo.h2(4, 3, 1.0), nn.Linear(4, outputs)).double()
    column = y if isinstance(loss, Quantile) else y[:, None]
    with torch.no_grad():
        before = float(loss(net(x), column).mean())
    history = fit(net, (x, y), settings(epochs=20), loss=loss)
    with torch.no_grad():
        assert history.metrics["train_loss"] == pytest.approx(float(loss(net(x), column).mean()))
    assert history.metrics["train_loss"] < 0.8 * before


def test_huber_is_torchs_and_quantiles_are_minimisers() -> None:
    g = torch.Generator().manual_seed(0)
    s, y = (3 * torch.randn(50, 1, generator=g, dtype=torch.float64) for _ in range(2))
    assert torch.allclose(Huber(0.7)(s, y), F.huber_loss(s, y, delta=0.7, reduction="none")[:, 0])
    y = torch.arange(100.0, dtype=torch.float64)
    s = torch.linspace(0, 99, 991, dtype=torch.float64)
    losses = torch.stack([Quantile(0.25)(c.expand(100, 1), y).mean() for c in s])
    assert 24 <= float(s[losses.argmin()]) <= 25


def test_smoothed_labels_are_learned_and_not_reported() -> None:
    x, y = data()
    net = network()
    history = fit(net, (x, y), settings(batch_size=60, epochs=1, lr=1e-12, label_smoothing=0.3))
    with torch.no_grad():
        assert history.epochs[0].loss == pytest.approx(float(F.cross_entropy(net(x), y, label_smoothing=0.3)), rel=1e-6)
        assert history.metrics["train_loss"] == pytest.approx(float(F.cross_entropy(net(x), y)), rel=1e-6)


def test_steps_end_a_training_within_an_epoch_and_shape_its_schedule() -> None:
    x, y = data()
    seen: list[float] = []

    class Count(lv.train.Callback):
        def on_train_batch_end(self, loss: float) -> None:
            seen.append(loss)

    history = fit(network(), (x, y), settings(steps=7), callbacks=[Count()])
    assert len(seen) == 7 and len(history.epochs) == 3, "3 batches of 20 an epoch"
    assert fit(network(), (x, y), settings(epochs=2)).metrics == pytest.approx(
        fit(network(), (x, y), settings(steps=6)).metrics | {"seconds": pytest.approx(0, abs=60)}
    )


@pytest.mark.filterwarnings("ignore:Settings")
def test_a_stream_goes_on_where_the_epoch_before_ended() -> None:
    x, y = data()
    stream = Stream(x, y)
    history = fit(network(), DataLoader(stream, batch_size=5), settings(steps=8, epochs=4))
    assert len(history.epochs) == 4 and stream.given == 40, "8 batches of 5, each sample once"


@pytest.mark.filterwarnings("ignore:Settings")
def test_a_batch_without_a_score_leaves_that_of_the_epoch_a_number() -> None:
    """One target has no r2, and no weight no accuracy; the other batches of the epoch have."""
    x, y = data(61)
    alone = fit(network(1), (x, x[:, 0]), settings(batch_size=20, validation=0.0))
    unweighted = fit(network(), [(x, y, torch.ones(61)), (x, y, torch.zeros(61))], settings())
    assert all(math.isfinite(epoch.score) for epoch in alone.epochs + unweighted.epochs)


def test_a_validation_loader_chooses_and_none_keeps_the_last_weights() -> None:
    x, y = data()
    loader = DataLoader(Mapped(x, y), batch_size=20, shuffle=True)
    chosen = fit(network(), loader, settings(epochs=8, lr=0.5), validation=DataLoader(TensorDataset(x, y)))
    losses = [e.validation_loss for e in chosen.epochs]
    assert chosen.best_epoch == 1 + losses.index(min(losses)) and "test_loss" not in chosen.metrics
    notes: list[str] = []
    told = lv.train.Progress()
    told.note = notes.append  # type: ignore[method-assign]
    last = fit(network(), loader, settings(), progress=told)
    assert last.best_epoch == 4 and len(notes) == 1 and "last weights" in notes[0]


def test_settings_that_a_loader_does_not_follow_are_named() -> None:
    x, y = data()
    with pytest.warns(UserWarning, match=r"Settings\(batch_size=20, validation=0.3\) is not used"):
        fit(network(), DataLoader(Mapped(x, y), batch_size=30), Settings(epochs=1, batch_size=20, validation=0.3))


def test_each_class_gives_its_share() -> None:
    classes = torch.tensor([0] * 50 + [1] * 30 + [2] * 5 + [3])
    for seed in range(5):
        kept, held = held_out(86, 0.2, torch.Generator().manual_seed(seed), classes)
        assert sorted(torch.cat((kept, held)).tolist()) == list(range(86)) and len(held) == 17
        given = torch.bincount(classes[held], minlength=4).double()
        assert ((given - torch.tensor([50, 30, 5, 1]) * 17 / 86).abs() < 1).all() and given[3] == 0
    x, y = data()
    split = lv.data.Split(x, y, x, y, "three", 3)
    shares = split.holdout(0.5, torch.Generator().manual_seed(0), stratified=True)
    assert (torch.bincount(shares.y_train) - torch.bincount(shares.y_validation)).abs().max() <= 1


def test_tensors_go_on_from_a_checkpoint_to_the_bit_and_loaders_are_refused(tmp_path: Any) -> None:
    x, y = data()
    whole, half = network(), network()
    samples = (x, y, torch.linspace(0.5, 1.5, 60))
    fit(whole, samples, settings(validation=0.2))

    class Cut(lv.train.Callback):
        left = itertools.count(-5)

        def on_train_batch_end(self, loss: float) -> None:
            if next(self.left) == 0:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(half, samples, settings(validation=0.2), checkpoint=Checkpoint(tmp_path / "c", every=0), callbacks=[Cut()])
    again = network()
    fit(again, samples, settings(validation=0.2), checkpoint=Checkpoint(tmp_path / "c", every=0))
    assert torch.equal(weights(whole), weights(again))
    with pytest.raises(ValueError, match="where a loader of your own was is not known"):
        fit(network(), DataLoader(Mapped(x, y)), settings(), checkpoint=Checkpoint(tmp_path / "d"))
    with pytest.raises(ValueError, match="the data was"):
        fit(network(), (x, y), settings(validation=0.2), checkpoint=Checkpoint(tmp_path / "c"))


X, Y = data()
WRONG = [
    ((X, Y, Y), {}, "third part of the data are weights"),
    ((X, Y[:-1]), {}, "one row for each sample"),
    ((X,), {}, r"tensors \(X, y\)"),
    (X, {}, "must be a Split, a DataLoader"),
    (iter([(X, Y)]), {}, "ends after one pass"),
    ((X, Y + 1), {}, "classes from 1 to 3, and the network is for 0 to 2"),
    ([(X, Y + 1)], {}, "classes from 1 to 3"),
    ((X, X[:, :2]), {}, r"put out 2 number\(s\) a sample, not 3"),
    ((X, Y[:, None]), {}, "for a network of 3 output"),
    ((X[:, :2], Y), {}, "expected 3 inputs on axis -1, got 2"),
    ((X * math.nan, Y), {}, "NaN or infinite values in 60 of 60 samples, the first is 0"),
    ((X, Y, torch.zeros(60)), {}, "all weights of the data are 0"),
    ([], {}, "gives no batch"),
    ([{"x": X, "y": Y}], {}, r"a batch must be \(inputs, targets\).* gives keys 'x', 'y'"),
    ([(X, "y")], {}, "targets of the loader must be a tensor, got a str"),
    (Stream(X, Y), {}, "has no length"),
    ([(X, Y)], {"patience": 2, "validation": 0.1}, "nothing is held out"),
    ([(X, Y)], {"alternate": 2}, "alternate fits a fresh head"),
    ([(X, Y)], {"shift": 1}, "shift and warp move images"),
    ((X, X), {"label_smoothing": 0.1}, "is for classes"),
    ((X, Y), {"validation": 0.001}, "leaves nothing to hold out"),
]


@pytest.mark.parametrize("wrong", range(len(WRONG)))
def test_what_cannot_be_trained_on_is_refused_in_a_sentence(wrong: int) -> None:
    given, more, sentence = WRONG[wrong]
    with pytest.raises((TypeError, ValueError), match=sentence) as raised:
        fit(network(), given, settings(**more))
    assert str(raised.value).count("\n") == 0 and str(raised.value).endswith(".")


def test_wrong_losses_and_validation_are_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="give a number for each"):
        fit(network(1), (X, X[:, 0], torch.ones(60)), settings(), loss=nn.MSELoss())
    with pytest.raises(ValueError, match="loss must be a function"):
        fit(network(), (X, Y), settings(), loss="huber")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pose another task"):
        fit(network(), (X, Y), settings(), validation=(X, X))
    for callbacks in (lv.train.Callback(), ["csv"], [lv.train.CSVLogger]):
        with pytest.raises(ValueError, match="callback"):
            fit(network(), (X, Y), settings(), callbacks=callbacks)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"classes from 0 to 2.* real targets are of a floating-point dtype"):
        fit(network(1), (X, Y), settings())
    with pytest.raises(TypeError, match="gauss_newton takes a Split, got a tuple"):
        lv.train.gauss_newton(network(), (X, Y))  # type: ignore[arg-type]
    for kind, value in ((Huber, {"delta": 0}), (Quantile, {"levels": 1.5}), (Settings, {"steps": 0})):
        with pytest.raises(ValueError, match=next(iter(value))):
            kind(**value)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Settings")
def test_workers_and_pinned_memory_pass_through() -> None:
    x, y = data()
    found = []
    for workers in (0, 2):
        net = network()
        fit(net, DataLoader(Mapped(x, y), batch_size=20, shuffle=True, num_workers=workers), settings())
        found.append(weights(net))
    assert torch.equal(*found)
