"""A training that was ended at any step and goes on is the one that nothing ended, to the bit."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import liouville as lv
from liouville.sealed import opened, sealed
from liouville.train import Checkpoint, GaussNewton, Penalty, Settings, fit
from liouville.train.checkpoints import Keeper
from turns import one_in


class End(Exception):
    """What ends a training in these tests."""


class Steps:
    """How many steps were taken, and at the end of which one the training ends; -1 for none."""

    taken, last = 0, -1


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the step after which, its state being written, the next training ends."""
    step = Keeper.step

    def counted(self: Keeper, training: Any) -> None:
        step(self, training)
        Steps.taken += 1
        if Steps.taken == Steps.last:
            raise End

    def at(last: int) -> None:
        Steps.taken, Steps.last = 0, last

    monkeypatch.setattr(Keeper, "step", counted)
    at(-1)
    return at


DATA = lv.data.load("double-moons", points=100)


def network(model: str = "h2", layers: int = 3, **options: Any) -> lv.Network:
    generator = torch.Generator().manual_seed(0)
    return lv.classifier(model, 2, 2, 4, layers, 1.0, generator=generator, **options)


def gradients(settings: dict[str, Any], options: dict[str, Any], checkpoint: Checkpoint | None) -> Any:
    net = network(**options)
    return net, fit(net, DATA, Settings(epochs=3, batch_size=30, **settings), checkpoint=checkpoint)


def levels(settings: dict[str, Any], options: dict[str, Any], checkpoint: Checkpoint | None) -> Any:
    net = network(layers=2, **options)
    chosen: Any
    if "iterations" in settings:
        net, chosen = net.double(), GaussNewton(**settings)
    else:
        chosen = Settings(epochs=2, batch_size=30, **settings)
    return net, lv.train.multilevel(net, DATA, chosen, levels=3, checkpoint=checkpoint)


def second(settings: dict[str, Any], options: dict[str, Any], checkpoint: Checkpoint | None) -> Any:
    net = network("verlet", **options).double()
    return net, lv.train.gauss_newton(
        net, DATA, GaussNewton(iterations=3, products=5, **settings), checkpoint=checkpoint
    )


PLANS = {
    "adam, dropout": (gradients, {}, {"dropout_rate": 0.2}),
    "average, clip": (gradients, {"ema_decay": 0.9, "max_grad_norm": 0.1, "schedule": "step"}, {}),
    "sgd, cosine, no validation": (gradients, {"optimizer": "sgd", "schedule": "cosine", "validation": 0.0}, {}),
    "adamw, epoch-count, penalty": (
        gradients,
        {"optimizer": "adamw", "weight_decay": 0.1, "schedule": "epoch-count", "penalty": Penalty(smoothness=0.1)},
        {},
    ),
    "alternation, dropout": (gradients, {"alternate": 3}, {"dropout_rate": 0.2}),
    "patience, target": (gradients, {"patience": 1, "target_score": 1.0}, {}),
    "bfloat16": (gradients, {"bfloat16": True}, {}),
    "levels": (levels, {}, {"dropout_rate": 0.1}),
    "levels, sgd, patience": (levels, {"optimizer": "sgd", "patience": 1}, {}),
    "levels, gauss-newton": (levels, {"iterations": 1, "products": 3}, {}),
    "gauss-newton": (second, {}, {}),
    "gauss-newton, joint, trust region": (second, {"head": "joint", "safeguard": "trust-region"}, {}),
    "gauss-newton, alternating": (second, {"head": "alternating", "batch_size": 40, "curvature": 0.5}, {}),
    "gauss-newton, simple": (second, {"head": "eliminated-simple", "rtol": 0.0}, {}),
}
ENGINES: dict[str, Any] = {
    "stored": lv.Stored(),
    "checkpointed": lv.Checkpointed(),
    "reversible": lv.Reversible(),
    "exact": lv.Reversible(exact=True),
    "fused": lv.Fused(),
    "batch-last": lv.kernels.BatchLast(),
    "auto": lv.Auto(),
}


def told(history: Any) -> Any:
    """All that a history says, but for seconds."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: without(v) for k, v in value.items() if k != "seconds"}
        return [without(v) for v in value] if isinstance(value, list) else value

    return without(dataclasses.asdict(history))


def same(one: Any, other: Any) -> bool:
    (net, history), (mine, again) = one, other
    weights = zip(net.state_dict().items(), mine.state_dict().items(), strict=True)
    return told(history) == told(again) and all(a == b and torch.equal(v, w) for (a, v), (b, w) in weights)


def goes_on(plan: Any, path: Path, ended: Any, at: int) -> bool:
    """Whether a run that is ended after ``at`` steps goes on to what an undisturbed one is."""
    train, settings, options = plan
    ended(-1)
    whole = train(settings, options, Checkpoint(path / "whole", 1e6))
    steps = Steps.taken
    ended(at % steps + 1 if steps > at else steps)
    at = Steps.last
    with pytest.raises(End):
        train(settings, options, Checkpoint(path / "parts", 0.0))
    ended(-1)
    torch.manual_seed(at)
    parts = train(settings, options, Checkpoint(path / "parts"))
    assert Steps.taken == steps - at, "it must go on from where it was ended, not from the beginning"
    return same(whole, parts) and same(whole, train(settings, options, None))


@pytest.mark.parametrize(("plan", "at"), one_in(9, {name: (plan,) for name, plan in PLANS.items()}, [0, 2, 3, 5, 8]))
def test_to_the_bit(plan: Any, at: int, tmp_path: Path, ended: Any) -> None:
    assert goes_on(plan, tmp_path, ended, at)


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_to_the_bit_with_every_engine(engine: Any, tmp_path: Path, ended: Any) -> None:
    assert goes_on((gradients, {}, {"backprop": engine}), tmp_path, ended, 4)


@pytest.mark.parametrize(
    "name, changed",
    [
        ("network.body.T was 1.0, is 2.0", lambda: lv.classifier("h2", 2, 2, 4, 3, 2.0)),
        ("network.body.backprop.type was", lambda: network(backprop=lv.Reversible())),
    ],
)
def test_another_network_is_refused_by_name_even_with_weights_of_the_same_shapes(
    name: str, changed: Any, tmp_path: Path
) -> None:
    checkpoint = Checkpoint(tmp_path / "state")
    fit(network(), DATA, Settings(epochs=1), checkpoint=checkpoint)
    with pytest.raises(ValueError, match=name):
        fit(changed(), DATA, Settings(epochs=1), checkpoint=checkpoint)


@pytest.mark.parametrize("name", ["nowhere/state", "folder", "pipe"])
def test_where_no_state_can_be_kept_nothing_is_trained(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    net = network()
    before = [p.clone() for p in net.parameters()]
    with pytest.raises((FileNotFoundError, ValueError), match=r"make it first|choose another name"):
        fit(net, DATA, Settings(epochs=1), checkpoint=Checkpoint(tmp_path / name))
    assert all(bool((p == q).all()) for p, q in zip(net.parameters(), before, strict=True))


@pytest.mark.parametrize(
    "path, value",
    [
        (("belongs",), 3),
        (("streams",), 3),
        (("training",), []),
        (("training", "optimizer", "moments", 0, "exp_avg"), 3),
        (("training", "optimizer", "moments", 1, "exp_avg_sq"), torch.zeros(3)),
        (("training", "optimizer", "moments", 1, "step"), torch.zeros(3)),
        (("training", "optimizer", "groups", 0, "betas"), 1.5),
    ],
)
def test_a_forged_state_is_one_sentence(path: tuple[Any, ...], value: Any, tmp_path: Path) -> None:
    file = tmp_path / "state"
    fit(network(), DATA, Settings(epochs=1), checkpoint=Checkpoint(file))
    state = opened(file.read_bytes(), "liouville-training-1", file)
    place: Any = state
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file.write_bytes(sealed(state, "liouville-training-1"))
    with pytest.raises(ValueError, match=r"holds no state of a training|does not fit this training"):
        fit(network(), DATA, Settings(epochs=1), checkpoint=Checkpoint(file))
