"""Logs of a training: a row or a scalar for every epoch, also of the epochs before it was resumed."""

import csv
import sys

import pytest

import liouville as lv
from liouville.train import CSVLogger, Settings, TensorBoardLogger


def trained(callbacks, epochs=3):
    network = lv.classifier("h2", inputs=2, classes=2, features=4, layers=2, T=1.0)
    return lv.train.fit(network, lv.data.load("double-moons", points=100), Settings(epochs=epochs), callbacks=callbacks)


def test_a_csv_log_is_the_history(tmp_path):
    file = tmp_path / "new" / "log.csv"
    history = trained([CSVLogger(file)])
    with file.open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert [float(row["loss"]) for row in rows] == [epoch.loss for epoch in history.epochs]
    assert list(rows[0]) == list(history.records()[0])


def test_what_is_not_measured_is_empty_and_a_file_is_replaced(tmp_path):
    file = tmp_path / "log.csv"
    file.write_text("mine\n")
    network = lv.classifier("h2", inputs=2, classes=2, features=4, layers=2, T=1.0)
    split = lv.data.load("double-moons", points=100)
    lv.train.fit(network, split, Settings(epochs=2, validation=0.0), callbacks=[CSVLogger(file)])
    with file.open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert [row["validation_loss"] for row in rows] == ["", ""]


def test_a_log_that_begins_late_has_the_epochs_before_it(tmp_path):
    history = trained([])
    log = CSVLogger(tmp_path / "log.csv")
    log.on_train_epoch_end(history)
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 1 + len(history.epochs)


def test_tensorboard_reads_every_scalar(tmp_path):
    event = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    history = trained([TensorBoardLogger(tmp_path / "board")])
    found = event.EventAccumulator(str(tmp_path / "board"))
    found.Reload()
    names = {"loss", "penalty", "accuracy", "gradient_norm", "lr", "seconds", "layers", "work"}
    assert set(found.Tags()["scalars"]) == {f"train/{name}" for name in names} | {
        "validation/loss",
        "validation/accuracy",
    }
    seen = [(e.step, pytest.approx(e.value, rel=1e-6)) for e in found.Scalars("validation/loss")]
    assert seen == [(epoch.epoch, epoch.validation_loss) for epoch in history.epochs]


def test_a_resumed_log_has_every_epoch_once(tmp_path):
    event = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    first = trained([TensorBoardLogger(tmp_path)], epochs=2)
    again = TensorBoardLogger(tmp_path)
    first.epochs += trained([], epochs=2).epochs
    first.epochs[2:] = [type(e)(**{**vars(e), "epoch": e.epoch + 2}) for e in first.epochs[2:]]
    again.on_train_epoch_end(first)
    again.on_train_end()
    found = event.EventAccumulator(str(tmp_path))
    found.Reload()
    assert [e.step for e in found.Scalars("train/loss")] == [1, 2, 3, 4]


def test_without_the_package_a_sentence_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ModuleNotFoundError, match=r"liouville\[tensorboard\]"):
        TensorBoardLogger(tmp_path)
