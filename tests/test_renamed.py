"""Names of the version before work as the new ones do, and say so; files of that version need no warning."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import warnings
from pathlib import Path

import pytest
import torch

import liouville as lv
from liouville import runs, train
from liouville.train import GaussNewton, Penalty, Settings

FORMER = Path(__file__).parent / "former" / "midpoint.safetensors"  # written by version 0.1.0
OLD = [
    (Settings, "batch", "batch_size", 20),
    (Settings, "clip", "max_grad_norm", 0.5),
    (Settings, "average", "ema_decay", 0.9),
    (GaussNewton, "batch", "batch_size", None),
    (Penalty, "head", "head_decay", 0.25),
]
CALLS = {
    "on_start": "on_train_start",
    "on_step": "on_train_batch_end",
    "on_epoch": "on_train_epoch_end",
    "on_end": "on_train_end",
}


@pytest.mark.parametrize("kind, old, new, value", OLD)
def test_an_old_field_is_a_keyword_an_attribute_and_a_replacement(kind, old, new, value):
    expected = dataclasses.replace(kind(), **{new: value})
    with pytest.deprecated_call(match=f"{old}=.* is now called {new}="):
        assert kind(**{old: value}) == expected
    with pytest.deprecated_call(match=f"{kind.__name__}.{old} is now called {new}"):
        assert getattr(expected, old) == value
    with pytest.deprecated_call():
        assert dataclasses.replace(kind(), **{old: value}) == expected
    assert old not in inspect.signature(kind).parameters and old not in dataclasses.asdict(expected)


@pytest.mark.parametrize("kind, old, new, value", OLD)
def test_the_warning_points_at_the_line_that_has_the_old_name(kind, old, new, value):
    for use in (lambda: kind(**{old: value}), lambda: getattr(kind(), old)):
        with pytest.deprecated_call() as caught:
            use()
        assert caught[0].filename == __file__


def old_plan(plan):
    """The plan as the version before wrote it."""
    value = plan.as_dict()
    for kind, old, new, _ in OLD:
        if kind is type(plan.settings):
            value["settings"][old] = value["settings"].pop(new)
    value["settings"]["penalty"]["head"] = value["settings"]["penalty"].pop("head_decay")
    if value["scheme"] == "LeapfrogMidpoint":
        value["scheme"] = "Midpoint"
    return value


@pytest.mark.parametrize("optimizer", ["adam", "gauss-newton"])
def test_a_plan_of_the_version_before_is_read_without_a_warning(optimizer):
    plan = runs.Plan(model="midpoint", scheme="LeapfrogMidpoint")
    plan = plan.changed(optimizer=optimizer, head_decay=0.5, **({"batch_size": 7} if optimizer == "adam" else {}))
    with warnings.catch_warnings(action="error"):
        assert runs.Plan.from_dict(old_plan(plan)) == plan


def test_an_unknown_name_in_a_plan_is_refused_as_before():
    value = runs.Plan().as_dict()
    value["settings"]["penalty"]["heads"] = 1.0
    with pytest.raises(ValueError, match="heads"):
        runs.Plan.from_dict(value)


def test_a_plan_is_changed_by_old_words():
    with pytest.deprecated_call():
        assert runs.Plan().changed(batch=9, clip=0.5) == runs.Plan().changed(batch_size=9, max_grad_norm=0.5)
    assert runs.Plan(scheme="Midpoint") == runs.Plan(scheme="LeapfrogMidpoint")


class Noted(train.Callback):
    def __init__(self):
        self.calls = []

    def on_train_start(self, network):
        self.calls.append("start")

    def on_train_end(self):
        self.calls.append("end")


def test_a_callback_of_the_version_before_is_told_and_may_call_super():
    with pytest.deprecated_call(match=r"Old\.on_\w+ is now called on_train_\w+"):

        class Old(Noted):
            def on_start(self, network):
                with pytest.deprecated_call():
                    super().on_start(network)
                self.calls.append("old start")

            def on_step(self, loss):
                self.calls.append("step")

            def on_epoch(self, history):
                self.calls.append("epoch")

    old = Old()
    network = lv.classifier("h2", 2, 2, 4, 2, T=1.0)
    split = lv.data.load("double-moons", points=100)
    train.fit(network, split, Settings(epochs=1, batch_size=100), callbacks=[old], test=False)
    assert old.calls == ["start", "old start", "step", "epoch", "end"]


@pytest.mark.parametrize("old", CALLS)
def test_a_callback_is_called_by_its_old_names(old):
    """A loop of one's own may tell `GradientMonitor` by them."""
    called = []
    kind = type("New", (train.Callback,), {CALLS[old]: lambda self, *args: called.append(args)})
    with pytest.deprecated_call(match=f"New.{old} is now called {CALLS[old]}"):
        getattr(kind(), old)()
    assert called == [()]


def test_the_former_midpoint_is_leapfrog_midpoint(tmp_path):
    """A file says what the class is called now, and one of the version before, which says Midpoint, is read."""
    assert lv.Midpoint is lv.LeapfrogMidpoint and lv.schemes.SCHEMES["LeapfrogMidpoint"] is lv.Midpoint
    network = lv.load(FORMER)
    paths = FORMER, lv.save(network, tmp_path / "new.safetensors")
    said = [lv.checkpoint.read_description(path)["body"]["scheme"]["type"] for path in paths]
    assert said == ["Midpoint", "LeapfrogMidpoint"]
    x = torch.linspace(-1.0, 1.0, 10).reshape(5, 2)
    assert network.body.scheme == lv.LeapfrogMidpoint() and torch.equal(lv.load(paths[1])(x), network(x))


def test_what_a_signature_shows_is_readable():
    shown = " ".join(str(inspect.signature(f)) for f in (train.fit, train.gauss_newton, train.multilevel, runs.train))
    assert " at 0x" not in shown and "Settings(" not in shown
    assert (repr(train.progress.silent), repr(train.Terminal()), repr(train.Processes())) == (
        "Progress()",
        "Terminal()",
        "Processes()",
    )


MOVED = [(m, name) for m in ("train", "kernels", "runs", "analysis") for name in getattr(lv, m).__getattr__.homes]


@pytest.mark.parametrize("package, name", MOVED)
def test_a_name_that_left_a_package_is_found_where_it_lives(package, name):
    module = getattr(lv, package)
    assert name not in module.__all__
    with pytest.deprecated_call(
        match=rf"liouville.{package}.{name} is no longer public; .* only in liouville.{package}.[\w.]+"
    ):
        found = getattr(module, name)
    home = importlib.import_module(f"liouville.{package}.{module.__getattr__.homes[name]}")
    assert found is getattr(home, name)
    with pytest.raises(AttributeError, match="has no attribute"):
        getattr(module, f"{name}s")
