"""`fit`: repeatable, chosen by validation, honest about the test part, and clear when it diverges."""

from __future__ import annotations

import dataclasses
import io
import math

import pytest
import torch

import liouville as lv
from liouville.data import Split
from liouville.train import DivergenceError, Penalty, Settings, Terminal, evaluate, fit


def moons(points: int = 400) -> Split:
    return lv.data.load("double-moons", points=points)


def network(seed: int = 0, layers: int = 4, **options: object) -> lv.Network:
    return lv.classifier("h2", 2, 2, 4, layers, 1.5, generator=torch.Generator().manual_seed(seed), **options)


def weights(net: torch.nn.Module) -> list[torch.Tensor]:
    return [w.detach().clone() for w in net.state_dict().values()]


@pytest.mark.parametrize("options", [{}, {"dropout_rate": 0.2}])
def test_runs_are_bitwise_repeatable_and_leave_the_global_stream_alone(options: dict) -> None:
    results = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        state = torch.get_rng_state()
        net = network(**options)
        history = fit(net, moons(), Settings(epochs=3, penalty=Penalty(smoothness=1e-3)))
        assert torch.equal(torch.get_rng_state(), state)
        results.append((weights(net), [(e.loss, e.gradient_norm, e.validation_loss) for e in history.epochs]))
    assert all(torch.equal(a, b) for a, b in zip(results[0][0], results[1][0], strict=True))
    assert results[0][1] == results[1][1]


def test_another_seed_is_another_run() -> None:
    histories = [fit(network(), moons(), Settings(epochs=1, seed=seed)) for seed in (0, 1)]
    assert histories[0].epochs[0].loss != histories[1].epochs[0].loss


def test_it_learns() -> None:
    net = network(layers=8)
    history = fit(net, moons(2000), Settings(epochs=60, batch_size=100, lr=0.05))
    assert history.metrics["test_accuracy"] > 0.97
    assert history.epochs[-1].loss < 0.5 * history.epochs[0].loss


def test_best_validation_weights_are_returned() -> None:
    net = network()
    history = fit(net, moons(), Settings(epochs=12, lr=0.3, schedule="constant"))
    losses = [e.validation_loss for e in history.epochs]
    assert history.best_epoch == 1 + losses.index(min(losses))
    assert history.best_epoch < 12, "the case must be one where the last epoch is not the best"
    assert history.metrics["validation_loss"] == pytest.approx(min(losses), rel=1e-6)
    assert not net.training


def test_without_validation_the_last_epoch_is_returned() -> None:
    history = fit(network(), moons(), Settings(epochs=3, validation=0.0))
    assert history.best_epoch == 3
    assert history.epochs[0].validation_loss is None
    assert "validation_loss" not in history.metrics


def test_test_part_is_read_once_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    data, seen = moons(), []

    def spy(net, x, y, task, prefix="", *more):
        seen.append((prefix, len(x)))
        return evaluate(net, x, y, task, prefix, *more)

    monkeypatch.setattr("liouville.train.loop.evaluate", spy)
    fit(network(), data, Settings(epochs=4))
    assert [prefix for prefix, _ in seen].count("test_") == 1
    assert seen[-1][0] == "test_"


def test_test_data_changes_nothing_in_training() -> None:
    data = moons()
    other = Split(data.x_train, data.y_train, data.x_test + 100, 1 - data.y_test, name=data.name, classes=2)
    nets = [network(), network()]
    for net, split in zip(nets, (data, other), strict=True):
        fit(net, split, Settings(epochs=3))
    assert all(torch.equal(a, b) for a, b in zip(weights(nets[0]), weights(nets[1]), strict=True))


def test_early_stopping() -> None:
    history = fit(network(), moons(), Settings(epochs=60, lr=0.5, schedule="constant", patience=3))
    assert len(history.epochs) < 60
    assert len(history.epochs) - history.best_epoch == 3
    assert "3 epochs" in history.stopped


def test_regression() -> None:
    x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    y = torch.sin(2 * x[:, 0]) * x[:, 1]
    data = Split(x[:300], y[:300], x[300:], y[300:], name="wave", classes=0)
    net = lv.regressor("h2", 2, 1, 8, 6, 1.5, generator=torch.Generator().manual_seed(0))
    history = fit(net, data, Settings(epochs=100, batch_size=30, lr=0.03))
    assert history.metrics["test_r2"] > 0.7
    assert "accuracy" not in history.records()[0]
    assert "r2" in history.records()[0]


def test_dtype_follows_the_network() -> None:
    net = network().double()
    fit(net, moons(), Settings(epochs=1))
    assert next(net.parameters()).dtype == torch.float64


def test_divergence_names_step_layer_and_margin_and_keeps_the_best_weights() -> None:
    net = network(layers=6)
    with pytest.raises(DivergenceError) as caught:
        fit(net, moons(), Settings(epochs=5, lr=1e6, schedule="constant", validation=0.2))
    text = str(caught.value)
    for part in ("training diverged: the loss is", "step", "epoch", "layer", "margin h x rate", "learning rate"):
        assert part in text
    assert all(w.isfinite().all() for w in weights(net))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1 .*, got 0"),
        ({"epochs": "3"}, "epochs must be a whole number of at least 1 .*, got '3'"),
        ({"lr": "0.1"}, "lr must be a number, got '0.1'"),
        ({"validation": "half"}, "validation must be a number, got 'half'"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1 .*, got 0"),
        ({"lr": -1.0}, "lr must be positive and finite, got -1"),
        ({"validation": 1.0}, r"validation must lie in \[0, 1\), got 1"),
        ({"schedule": "onecycle"}, "unknown schedule 'onecycle'; did you mean 'one-cycle'"),
        ({"optimizer": "adan"}, "unknown optimizer 'adan'; did you mean 'adam'"),
        ({"weight_decay": 0.1}, "weight_decay belongs to optimizer='adamw', got 'adam'"),
        ({"warp": -1.0}, "warp must be >= 0, got -1"),
        ({"patience": 0}, "patience must be at least 1 epoch, a whole number, got 0"),
        ({"patience": 3, "validation": 0.0}, "patience waits for a better validation loss; give validation a share"),
        ({"epochs": 2.5}, "epochs must be a whole number of at least 1 .*, got 2.5"),
        ({"batch_size": 32.0}, "batch_size must be a whole number of at least 1 .*, got 32.0"),
        ({"alternate": 0.5}, "alternate must be a whole number of at least 0 .*, got 0.5"),
        ({"shift": -1}, "shift must be a whole number of at least 0 .*, got -1"),
        ({"seed": -1}, "seed must be a whole number of at least 0 .*, got -1"),
        ({"seed": 2**63}, "seed must be a whole number of at least 0 .*, got 9223372036854775808"),
        ({"lr": math.inf}, "lr must be positive and finite, got inf"),
        ({"lr": math.nan}, "lr must be positive and finite, got nan"),
        ({"lr": 0.0}, "lr must be positive and finite, got 0"),
        ({"head_lr": math.inf}, "head_lr must be positive and finite, got inf"),
        ({"head_lr": 0.0}, "head_lr must be positive and finite, got 0"),
        ({"max_grad_norm": math.nan}, "max_grad_norm must be positive and finite, got nan"),
        ({"warp": math.inf}, "warp must be >= 0, got inf"),
        ({"weight_decay": math.nan, "optimizer": "adamw"}, "weight_decay must be >= 0, got nan"),
        ({"ema_decay": 1.0}, r"ema_decay must lie in \[0, 1\), got 1"),
        ({"beta2": 1.0}, r"beta2 must lie in \[0, 1\), got 1"),
        ({"warmup": math.nan}, r"warmup must lie in \[0, 1\), got nan"),
    ],
)
def test_settings_refuse(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**changes)


def test_plain_lines_away_from_a_terminal() -> None:
    out = io.StringIO()
    fit(network(), moons(), Settings(epochs=20), progress=Terminal(out))
    lines = out.getvalue().splitlines()
    assert 10 <= len(lines) <= 12
    assert "val accuracy" in lines[-1] and "20/20" in lines[-1]


def test_settings_of_the_other_method_are_named() -> None:
    with pytest.raises(ValueError, match=r"fit takes Settings, got GaussNewton; GaussNewton is for train.gauss_newton"):
        fit(network(), moons(), lv.train.GaussNewton())
    with pytest.raises(ValueError, match=r"gauss_newton takes GaussNewton, got Settings; Settings is for train.fit"):
        lv.train.gauss_newton(network(), moons(), Settings())


def test_data_and_networks_that_cannot_be_trained_are_named() -> None:
    split = lv.data.load("double-moons", points=40)
    network = lv.classifier("h2", inputs=2, classes=2, features=4, layers=2, T=1.0)
    x, y = split.x_train.clone().requires_grad_(), split.x_train[:, 0].clone()
    with pytest.raises(ValueError, match=r"the inputs of .* require a gradient; call .detach\(\)"):
        fit(network, dataclasses.replace(split, x_train=x), Settings(epochs=1))
    regression = dataclasses.replace(split, y_train=y, y_test=split.x_test[:, 0].clone(), classes=0, label_names=None)
    with pytest.raises(ValueError, match=r"a row of numbers for each sample.*gives \(1,\) for one sample"):
        fit(torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Flatten(0)), regression, Settings(epochs=1))
    with pytest.raises(ValueError, match="every weight of the network is frozen"):
        fit(network.requires_grad_(False), split, Settings(epochs=1))
