"""`multilevel`: repeatable and resumable, levels end for a reason, the test part is read once, work is counted."""

from __future__ import annotations

import functools
import importlib
import io
from dataclasses import replace

import pytest
import torch

import liouville as lv
from liouville.data import Split
from liouville.train import History, Penalty, Settings, Terminal, evaluate, fit, multilevel, optimizer_of, refine
from train.hand import weights

SHORT = Settings(epochs=2, batch_size=50, lr=0.02, schedule="constant", penalty=Penalty(smoothness=1e-5))


def moons(points: int = 400) -> Split:
    return lv.data.load("double-moons", points=points)


def network(layers: int = 4, T: float = 0.8, **options: object) -> lv.Network:
    """Its weights as they are drawn, so that steps may be too long."""
    build = functools.partial(lv.zoo.h2, init=lv.Smooth(action=None))
    return lv.classifier(build, 2, 2, 4, layers, T, generator=torch.Generator().manual_seed(0), **options)


def equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(v, w) for v, w in zip(weights(a).values(), weights(b).values(), strict=True))


def test_runs_are_bitwise_repeatable_and_leave_the_global_stream_alone() -> None:
    runs = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        state, net = torch.get_rng_state(), network(dropout_rate=0.2)
        history = multilevel(net, moons(), SHORT, levels=3)
        assert torch.equal(torch.get_rng_state(), state)
        runs.append((net, [(e.loss, e.validation_loss) for e in history.epochs]))
    assert equal(runs[0][0], runs[1][0]) and runs[0][1] == runs[1][1]


def test_a_run_that_is_taken_up_again_is_the_run_that_was_not_interrupted() -> None:
    """Two levels, a doubling, one more level with the same optimiser: three levels at once, to the bit."""
    whole = network()
    history = multilevel(whole, moons(), SHORT, levels=3)
    parts = network()
    optimizer = optimizer_of(parts, SHORT)
    first = multilevel(parts, moons(), replace(SHORT, patience=10), levels=2, optimizer=optimizer)
    refine(parts, optimizer)
    second = multilevel(parts, moons(), SHORT, levels=1, optimizer=optimizer)
    assert equal(whole, parts)
    assert [e.loss for e in history.epochs] == [e.loss for e in first.epochs + second.epochs]
    assert history.work == first.work + second.work


def test_the_optimiser_is_carried_and_not_made_anew() -> None:
    nets = [network(), network()]
    multilevel(nets[0], moons(), SHORT, levels=2)
    fit(nets[1], moons(), replace(SHORT, patience=10), optimizer=optimizer_of(nets[1], SHORT))
    refine(nets[1])
    fit(nets[1], moons(), SHORT, optimizer=optimizer_of(nets[1], SHORT))
    assert not equal(*nets)


def test_levels_tell_what_happened_right_before_and_right_behind_each_doubling() -> None:
    data, net = moons(), network()
    history = multilevel(net, data, SHORT, levels=3)
    assert [level.layers for level in history.levels] == [(4,), (8,), (16,)]
    assert net.body.layers == 16 and net.body.T == 0.8
    held = data.holdout(SHORT.validation, torch.Generator().manual_seed(SHORT.seed))
    score = evaluate(net, held.x_validation, held.y_validation, lv.train.trainable.task_of(net, data))
    assert history.levels[-1].end == score
    for coarse, fine in zip(history.levels, history.levels[1:], strict=False):
        assert fine.start["loss"] == pytest.approx(coarse.end["loss"], abs=0.1)
        assert fine.start["loss"] != coarse.end["loss"]
        assert fine.end["loss"] <= fine.start["loss"]
    assert [e.epoch for e in history.epochs] == [1, 2, 3, 4, 5, 6]
    assert [e.layers for e in history.epochs] == [4, 4, 8, 8, 16, 16]
    assert history.records()[-1]["layers"] == 16
    assert history.metrics["seconds"] == pytest.approx(sum(level.seconds for level in history.levels))


def test_work_is_two_evaluations_a_training_sample_and_layer_and_one_for_validation() -> None:
    """200 training points, 20 of them held out; the weights that a level begins with are validated, too."""
    assert fit(network(), moons(), SHORT).work == 4 * 2 * (2 * 180 + 20)
    assert fit(network(), moons(), replace(SHORT, target_score=1.0)).work == 4 * (20 + 2 * (2 * 180 + 20))
    assert fit(network(), moons(), replace(SHORT, validation=0.0)).work == 4 * 2 * 2 * 200
    history = multilevel(network(), moons(), SHORT, levels=2)
    assert [level.work for level in history.levels] == [N * (20 + 2 * (2 * 180 + 20)) for N in (4, 8)]
    assert history.work == history.metrics["work"] == sum(level.work for level in history.levels)
    assert fit(torch.nn.Linear(2, 1), moons(), SHORT).work == 0


def test_a_level_ends_at_the_target() -> None:
    settings = replace(SHORT, epochs=60, lr=0.05, target_score=0.9)
    history = multilevel(network(), moons(), settings, levels=3)
    for level in history.levels:
        assert level.end["accuracy"] >= 0.9
        assert level.epochs < 60 and "the target 0.9 was reached" in level.stopped
    assert history.levels[-1].epochs == 0, "the case must be one where a doubling keeps the target"
    assert "before the first epoch" in history.stopped
    assert history.best_epoch == len(history.epochs)


def test_a_level_ends_when_validation_stalls_and_the_last_one_obeys_its_settings() -> None:
    settings = replace(SHORT, epochs=25, lr=0.5)
    history = multilevel(network(), moons(), settings, levels=2)
    first, last = history.levels
    assert first.epochs < 25 and first.stopped == "no better validation loss in 10 epochs"
    assert last.epochs == 25 and last.stopped == "all epochs done"
    history = multilevel(network(), moons(), replace(settings, patience=3), levels=2)
    assert {level.stopped for level in history.levels} == {"no better validation loss in 3 epochs"}


def test_the_weights_that_a_level_begins_with_are_kept_where_training_makes_them_worse() -> None:
    net = network()
    multilevel(net, moons(), replace(SHORT, epochs=30, lr=0.05), levels=1)
    refine(net)
    before = weights(net)
    history = fit(net, moons(), replace(SHORT, lr=1.0, epochs=1), optimizer=optimizer_of(net, replace(SHORT, lr=1.0)))
    assert history.best_epoch == 0 and history.epochs[0].validation_loss > history.start["validation_loss"]
    assert all(torch.equal(before[name], w) for name, w in weights(net).items())


def test_the_target_returns_the_weights_that_reached_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where an epoch before had the lower loss: what is returned has the score."""
    figures = iter([(1.0, 0.1), (0.5, 0.5), (0.6, 0.96)])  # the weights at the start, of epoch 1, of epoch 2

    def judged(net, x, y, task, prefix="", *more):
        loss, accuracy = next(figures, (0.0, 0.0))
        return {f"{prefix}loss": loss, f"{prefix}accuracy": accuracy}

    monkeypatch.setattr("liouville.train.loop.evaluate", judged)
    history = fit(network(), moons(), replace(SHORT, epochs=60, target_score=0.95))
    assert history.best_epoch == len(history.epochs) == 2
    assert history.stopped == "the target 0.95 was reached"


def test_a_level_behind_the_first_is_trained_whatever_its_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    margins = iter([1.0, 5.0, 5.0])
    module = importlib.import_module("liouville.train.multilevel")  # its name in the package is the function's
    monkeypatch.setattr(module, "margin", lambda flow: torch.tensor([next(margins)]))
    history = multilevel(network(), moons(), SHORT, levels=3)
    assert len(history.levels) == 3 and not history.skipped


def test_test_part_is_read_once_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spy(net, x, y, task, prefix="", *more):
        seen.append(prefix)
        return evaluate(net, x, y, task, prefix, *more)

    monkeypatch.setattr("liouville.train.loop.evaluate", spy)
    history = multilevel(network(), moons(), SHORT, levels=3)
    assert seen.count("test_") == 1 and seen[-1] == "test_"
    assert "test_accuracy" in history.metrics


def test_it_starts_finer_where_the_coarsest_step_is_too_long_and_says_so() -> None:
    out, net = io.StringIO(), network(layers=2, T=5.0)
    worst = float(lv.analysis.margin(net.body).max())
    assert 4 < worst < 16
    history = multilevel(net, moons(), SHORT, levels=4, progress=Terminal(out))
    first = next(N for N in (2, 4, 8, 16) if worst * 2 / N <= 2 or N == 16)
    assert history.levels[0].layers == (first,) and history.levels[-1].layers == (16,)
    assert history.skipped[0] == f"2 layers: margin h x rate {worst:.3g}, above 2"
    assert f"level 1 of 4 left out, {history.skipped[0]}" in out.getvalue()


@pytest.mark.parametrize(
    ("scheme", "limit"),
    [(lv.LeapfrogMidpoint(), 1.0), (lv.RK4(), 8**0.5), (lv.ForwardEuler(), 2.0), (lv.ImplicitMidpoint(), 1e9)],
)
@pytest.mark.parametrize("share", [0.9, 1.1])
def test_what_is_too_long_is_the_schemes_to_say(scheme: lv.Scheme, limit: float, share: float) -> None:
    """Forward Euler, which is stable nowhere, is trained up to a margin of 2."""
    net = lv.classifier("midpoint", 2, 2, 4, 2, 1.0, generator=torch.Generator().manual_seed(0))
    net.body.scheme = scheme
    net.body.T = share * min(limit, 5.0) / float(lv.analysis.margin(net.body).max())
    history = multilevel(net, moons(200), replace(SHORT, epochs=1), levels=2)
    assert bool(history.skipped) == (share > 1 and limit < 1e9)
    assert all(f"above {limit:.4g}" in said for said in history.skipped)


def test_the_last_level_is_trained_whatever_its_margin() -> None:
    wild = network(layers=2, T=30.0).with_backprop(lv.Stored())  # steps so long that no inverse keeps its digits
    history = multilevel(wild, moons(), SHORT, levels=2)
    assert [level.layers for level in history.levels] == [(4,)] and len(history.skipped) == 1


def test_progress_shows_every_level() -> None:
    out = io.StringIO()
    multilevel(network(), moons(), SHORT, levels=2, progress=Terminal(out))
    lines = out.getvalue().splitlines()
    assert lines[0] == "level 1 of 2: 4 layers"
    assert sum(line.startswith("level 2 of 2: validation accuracy") for line in lines) == 1
    assert "layer evaluations; all epochs done" in lines[-1]


def test_on_epoch_sees_the_epochs_of_all_levels() -> None:
    seen: list[tuple[int, int]] = []

    def on_epoch(history: History) -> None:
        seen.append((len(history.epochs), history.records()[-1]["epoch"]))

    multilevel(network(), moons(), SHORT, levels=2, on_epoch=on_epoch)
    assert seen == [(k, k) for k in (1, 2, 3, 4)]


@pytest.mark.parametrize("model", ["ms2", "ms1", "resnet", "leapfrog"])
def test_every_family_and_sgd(model: str) -> None:
    net = lv.classifier(model, 2, 2, 4, 2, 1.0, generator=torch.Generator().manual_seed(0))
    history = multilevel(net, moons(), replace(SHORT, optimizer="sgd", lr=0.01), levels=2, how="linear")
    assert history.epochs[0].lr == 0.01 and history.epochs[-1].lr == 0.02
    assert net.body.layers == 4


def test_several_flows_are_doubled_together() -> None:
    x = torch.randn(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    data = Split(x[:40], (x[:40].mean((1, 2, 3)) > 0).long(), x[40:], (x[40:].mean((1, 2, 3)) > 0).long(), "blobs", 2)
    net = lv.classifier("ms1", (1, 8, 8), 2, (4, 8), (1, 2), 0.2, conv=lv.zoo.Images())
    history = multilevel(net, data, replace(SHORT, batch_size=10), levels=2)
    assert [level.layers for level in history.levels] == [(1, 2), (2, 4)]


def test_errors() -> None:
    with pytest.raises(ValueError, match="a level ends by its validation loss; give validation a share above 0"):
        multilevel(network(), moons(), replace(SHORT, validation=0.0))
    with pytest.raises(ValueError, match="levels must be at least 1, got 0"):
        multilevel(network(), moons(), SHORT, levels=0)
    with pytest.raises(ValueError, match="the network has no flow to refine"):
        multilevel(torch.nn.Linear(2, 1), moons(), SHORT, levels=2)
    for bad in ({"target_score": 1.5}, {"target_score": 0.9, "validation": 0.0}, {"target_score": float("nan")}):
        with pytest.raises(
            ValueError, match="target_score is a validation score of at most 1, and needs a validation share"
        ):
            Settings(**bad)
