"""`gauss_newton`: what it minimises, keeps, returns, counts and refuses."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from torch import nn

import liouville as lv
from liouville.data import Split
from liouville.train import (
    DivergenceError,
    GaussNewton,
    History,
    Penalty,
    Settings,
    evaluate,
    gauss_newton,
    multilevel,
    optimizer_of,
    refine,
)
from liouville.train.trainable import task_of
from train.hand import network, points, weights
from train.problems import randn
from turns import one_in

PENALTY = Penalty(smoothness=1e-3, decay=1e-3, head_decay=1e-2)
METHODS = ("eliminated", "eliminated-simple", "joint", "alternating")
SAFEGUARDS = ("armijo", "trust-region")


def settings(**changes: object) -> GaussNewton:
    return GaussNewton(**{"iterations": 8, "penalty": PENALTY, "validation": 0.0, "rtol": 0.0, **changes})


def objective(net: nn.Module, split: Split) -> float:
    with torch.no_grad():
        return float(task_of(net, split).loss(net(split.x_train), split.y_train) + PENALTY(net))


@pytest.mark.parametrize("head, safeguard", one_in(3, METHODS, SAFEGUARDS))
def test_every_iteration_lowers_the_objective(head: str, safeguard: str) -> None:
    """On all samples: the records show it, they are true, and the last one is what the network has."""
    net, split = network(), points()
    start = objective(net, split)
    history = gauss_newton(net, split, settings(head=head, safeguard=safeguard))
    values = [start, *(e.loss + e.penalty for e in history.epochs)]
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(values))
    assert values[-1] < 0.7 * start
    assert objective(net, split) == pytest.approx(values[-1], rel=1e-12)
    assert history.epochs[-1].penalty == pytest.approx(float(PENALTY(net).detach()), rel=1e-9)
    assert history.best_epoch == len(history.epochs) and not net.training


@pytest.mark.slow
def test_beats_the_first_order_loop_in_iterations() -> None:
    """Twenty iterations reach a lower objective than a hundred steps of Adam on the whole training part."""
    split = points(60, 10)
    ours, theirs = network(), network()
    gauss_newton(ours, split, settings(iterations=20))
    lv.train.fit(theirs, split, lv.train.Settings(epochs=100, batch_size=60, penalty=PENALTY, validation=0.0))
    assert objective(ours, split) < objective(theirs, split)


@pytest.mark.parametrize("head", one_in(3, METHODS))
def test_returns_the_best_validation(head: str) -> None:
    """The highest score, then the lowest loss; the records and the metrics agree with the network."""
    net, split = network(), points(40, 10)
    held = (randn(20, 2, seed=5), (randn(20, 2, seed=5).prod(1) > 0).long())
    history = gauss_newton(net, split, settings(head=head, iterations=12), validation=held)
    keys = [(-e.validation_score, e.validation_loss) for e in history.epochs]
    assert history.best_epoch == keys.index(min(keys)) + 1
    now = evaluate(net, *held, task_of(net, split))
    assert now["loss"] == pytest.approx(min(keys)[1], rel=1e-12)
    assert history.metrics["validation_accuracy"] == now["accuracy"] == -min(keys)[0]


def test_the_test_part_decides_nothing() -> None:
    split = points(40, 10)
    other = dataclasses.replace(split, x_test=-3 * split.x_test, y_test=1 - split.y_test)
    first, second = network(), network()
    a = gauss_newton(first, split, settings(validation=0.25))
    b = gauss_newton(second, other, settings(validation=0.25))
    assert a.best_epoch == b.best_epoch
    assert all(torch.equal(v, weights(second)[k]) for k, v in weights(first).items())
    assert len(a.epochs) == 8 and a.metrics["test_loss"] != b.metrics["test_loss"]


@pytest.mark.parametrize("head", one_in(3, METHODS))
def test_repeatable(head: str) -> None:
    runs = []
    for _ in range(2):
        net = network()
        more = {"batch_size": 10, "curvature": 0.5} if head == "alternating" else {}
        gauss_newton(net, points(), settings(head=head, validation=0.2, **more))
        runs.append(weights(net))
    assert all(torch.equal(runs[0][k], runs[1][k]) for k in runs[0])


def test_work_is_that_of_the_objective() -> None:
    """An iteration: forwards and backwards, two sweeps a product, one a try and one for the record; and validation."""
    history = gauss_newton(network(layers=4), points(25), settings(iterations=2, head="joint"))
    assert [e.work for e in history.epochs] == [4 * 25 * (2 + 2 * e.products + e.tries + 1) for e in history.epochs]
    assert history.metrics["work"] == sum(e.work for e in history.epochs) and history.epochs[0].layers == 4
    held = (randn(7, 2), torch.zeros(7).long())
    validated = gauss_newton(network(layers=4), points(25), settings(iterations=2, head="joint"), validation=held)
    assert validated.metrics["work"] == history.metrics["work"] + 3 * 4 * 7


@pytest.mark.slow
def test_the_initial_weights_may_be_the_best() -> None:
    """Validation samples that training makes worse: what the run began with comes back."""
    net, split = network(), points(40, 10)
    gauss_newton(net, split, settings())
    before = weights(net)
    with torch.no_grad():
        held = split.x_train, (net(split.x_train)[:, 0] >= 0).long()
    other = dataclasses.replace(split, y_train=1 - split.y_train)
    history = gauss_newton(net, other, settings(), validation=held)
    assert history.best_epoch == 0 and history.start["validation_accuracy"] == 1.0
    assert all(torch.equal(v, before[k]) for k, v in weights(net).items())
    done = gauss_newton(net, other, settings(target_score=1.0), validation=held)
    assert not done.epochs and done.stopped == "the target 1 was reached before the first iteration"


@pytest.mark.slow
def test_stops() -> None:
    split = points(40, 10)
    target = gauss_newton(network(), split, settings(validation=0.2, target_score=0.6))
    assert (
        target.epochs and target.epochs[-1].validation_score >= 0.6 and target.stopped == "the target 0.6 was reached"
    )
    assert all(e.validation_score < 0.6 for e in target.epochs[:-1])
    small = gauss_newton(network(), split, settings(iterations=100, rtol=0.5))
    assert len(small.epochs) < 100 and "gradient norm fell" in small.stopped
    assert small.epochs[-1].gradient_norm <= 0.5 * small.epochs[0].gradient_norm
    patient = gauss_newton(network(), split, settings(iterations=100, validation=0.2, patience=2))
    assert len(patient.epochs) == patient.best_epoch + 2 < 100
    flat = gauss_newton(network(), split, settings(iterations=5, decrease=0.999999, tries=1, max_step=1e3))
    assert flat.stopped == "no step was found that lowers the objective" and flat.epochs[-1].lr == 0.0


def test_every_kind_of_target() -> None:
    x = randn(40, 2, seed=3)
    three = Split(x, torch.arange(40) % 3, x, torch.arange(40) % 3, name="three", classes=3)
    real = Split(x, x[:, :1].sin(), x, x[:, :1].sin(), name="sine", classes=0)
    for split, net in (
        (three, lv.classifier("h2", 2, 3, 4, 3, 1.0, generator=torch.Generator()).double()),
        (real, lv.regressor("h2", 2, 1, 4, 3, 1.0, generator=torch.Generator()).double()),
    ):
        for head in METHODS:
            history = gauss_newton(net, split, settings(head=head, iterations=3))
            assert history.epochs[-1].loss < 1.2 and math.isfinite(history.metrics["train_loss"])
    assert history.metrics["train_r2"] > 0.9


def test_float32_and_any_module() -> None:
    net = lv.classifier("h2", 2, 2, 4, 3, 1.0, generator=torch.Generator())
    assert gauss_newton(net, points(), settings()).epochs[-1].loss < math.log(2)
    plain = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    assert gauss_newton(plain, points(), settings(head="joint")).epochs[-1].loss < math.log(2)
    with pytest.raises(ValueError, match="needs a liouville Network"):
        gauss_newton(plain, points(), settings())


def test_divergence_keeps_the_best_weights() -> None:
    net, split = network(), points(40, 10)
    seen: list[dict[str, torch.Tensor]] = []

    def spoil(history: History) -> None:
        seen.append(weights(net))
        if len(history.epochs) == 2:
            next(net.body.parameters()).data.fill_(math.nan)

    with pytest.raises(DivergenceError, match="objective is nan at iteration 3"):
        gauss_newton(net, split, settings(head="joint"), on_epoch=spoil)
    assert all(torch.equal(v, seen[1][k]) or math.isnan(float(seen[1][k].sum())) for k, v in weights(net).items())
    assert all(bool(v.isfinite().all()) for v in weights(net).values())


def test_interruption_leaves_the_best_weights() -> None:
    net = network()

    def stop(history: History) -> None:
        if len(history.epochs) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gauss_newton(net, points(), settings(), on_epoch=stop)
    assert objective(net, points()) < math.log(2)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"head": "frozen"}, "treatment of the head"),
        ({"safeguard": "hope"}, "safeguard"),
        ({"iterations": 0}, "iterations must be a whole number of at least 1"),
        ({"decrease": 1.0}, r"decrease must lie in \[0, 1\)"),
        ({"ridge": 0.0}, "ridge must be positive"),
        ({"curvature": 0.0, "head": "alternating"}, "curvature must be a share"),
        ({"batch_size": 10}, "belong to head='alternating'"),
        ({"penalty": Penalty(smoothness=1e-3)}, "has a solution for sure only with a decay"),
    ],
)
def test_refuses(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GaussNewton(**changes)  # type: ignore[arg-type]


@pytest.mark.slow
def test_verlet_on_the_swiss_roll() -> None:
    """The first paper's problem, T = 20, 64 layers from K = I: every point between the training points, in 60."""
    split = lv.data.load("swiss-roll", version="meganet", noise=0.0, test="interleaved", dtype=torch.float64)
    body = lv.zoo.verlet(4, 64, 20.0, init=lv.Smooth(scale=0.0, mean=1.0), backprop=lv.Auto())
    head = nn.Sequential(lv.network.Half("q"), nn.Linear(2, 1))
    net = lv.Network(lv.Lift(4, 2, place="q"), body, head).double()
    settings = GaussNewton(
        iterations=60, target_score=1.0, safeguard="trust-region", penalty=Penalty(smoothness=5e-3, head_decay=1e-4)
    )
    history = gauss_newton(net, split, settings, validation=(split.x_test, split.y_test))
    assert history.metrics["validation_accuracy"] == 1.0
    assert history.epochs[-1].loss < 0.1 and len(history.epochs) <= 60


def test_levels_double_the_network_and_choose_by_the_same_samples() -> None:
    """Two levels are a run, a doubling and a run, to the bit; the test part is read once, for the finest network."""
    split, held = points(40, 10), (randn(20, 2, seed=5), torch.arange(20) % 2)
    whole, parts, chosen = network(layers=8), network(layers=8), settings(iterations=3, patience=3)
    history = multilevel(whole, split, chosen, levels=2, validation=held)
    first = gauss_newton(parts, split, chosen, validation=held, test=False)
    refine(parts)
    second = gauss_newton(parts, split, chosen, validation=held)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole).values(), weights(parts).values(), strict=True))
    assert [e.loss for e in history.epochs] == [e.loss for e in first.epochs + second.epochs]
    assert [e.layers for e in history.epochs] == [8] * len(first.epochs) + [16] * len(second.epochs)
    assert [level.end for level in history.levels] == [
        {"loss": run.metrics["validation_loss"], "accuracy": run.metrics["validation_accuracy"]}
        for run in (first, second)
    ]
    assert history.work == first.work + second.work and "test_loss" not in first.metrics
    assert history.metrics["test_loss"] == second.metrics["test_loss"]


@pytest.mark.slow
def test_levels_wait_ten_iterations_for_a_better_validation_but_the_last_obeys() -> None:
    """Against the opposite labels validation falls from the start on."""
    split = points(20, 10)
    held = split.x_train, 1 - split.y_train
    history = multilevel(network(layers=8), split, settings(iterations=12), levels=2, validation=held)
    assert history.levels[0].stopped == "no better validation in 10 iterations"
    assert [level.epochs for level in history.levels] == [10, 12]


def test_levels_refuse_what_belongs_to_the_other_kind_of_settings() -> None:
    net, split = network(), points()
    with pytest.raises(ValueError, match="optimizer= belongs to Settings"):
        multilevel(net, split, settings(validation=0.2), optimizer=optimizer_of(net, Settings()))
    with pytest.raises(ValueError, match="validation= belongs to GaussNewton"):
        multilevel(net, split, Settings(), validation=(split.x_test, split.y_test))
    with pytest.raises(ValueError, match="a level ends by its validation loss"):
        multilevel(net, split, settings())
