"""Three levels on MNIST: networks in the manner of the first paper, and tables whose numbers can be counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import liouville as lv
from liouville.data import Split
from liouville.experiments.p1 import mnist_levels
from liouville.experiments.p1.mnist_levels import LEVELS, NAMES, Config, cases, render, run
from liouville.experiments.p1.mnist_network import CHANNELS, network_of
from liouville.experiments.records import Record


def digits() -> Split:
    """What looks like MNIST: ten classes of noise."""
    x = torch.randn(40, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    y = torch.arange(40) % 10
    return Split(x, y, x[:10], y[:10], "mnist", 10)


def record(start: str, lr: float = 0.01, seed: int = 0, model: str = "verlet", **values: object) -> Record:
    return Record(Config(model, start, lr, 1000, 100, 2, seed), values, 1.0, {})


@pytest.mark.parametrize("model", NAMES)
def test_networks_have_the_stated_sizes(model: str) -> None:
    """Six channels, 3 x 3, tanh, T = 6, and every pixel is read; all depths carry the same function of time."""
    network = network_of(model, 4, seed=1)
    flow = network.body
    assert flow.field.activation.name == "tanh" and flow.T == 6.0
    assert flow.field.operator == lv.operators.Conv(3)
    assert network.head[-1].in_features == CHANNELS * 28**2
    assert network(torch.randn(2, 1, 28, 28)).shape == (2, 10)
    fine = network_of(model, 256, seed=1)
    assert torch.equal(network.head[-1].weight, fine.head[-1].weight)
    weights = network.body.field.theta()[0], fine.body.field.theta()[0]
    means = [w.mean(0) for w in weights]
    assert torch.allclose(*means, atol=0.05 * float(weights[0].detach().abs().max()))
    assert float(lv.analysis.margin(flow).max()) < 2  # or multilevel would leave 4 layers out


def test_auxiliary_channels_start_at_zero_and_are_not_read() -> None:
    network = network_of("verlet", 4, seed=0)
    y = network.lift(torch.randn(3, 1, 28, 28))
    assert y.shape[1] == 2 * CHANNELS and not y[:, :CHANNELS].any() and y[:, CHANNELS:].abs().min() > 0
    moved = y.clone()
    moved[:, :CHANNELS] += 1.0
    assert torch.equal(network.head(y), network.head(moved))


@pytest.mark.parametrize("start", mnist_levels.STARTS)
def test_a_run_leaves_what_the_tables_read(start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist_levels.data, "load", lambda *names, **options: digits())
    case = Config("verlet", start, 0.01, 40, 10, 1, 0)
    values = run(case, tmp_path)
    depths = (LEVELS[-1],) if start == "cold" else LEVELS
    assert [layers for layers, _, _ in values["curve"]] == list(depths)
    assert [layers for layers, _, _ in values["levels"]] == ([] if start == "cold" else list(LEVELS))
    work = [done for _, done, _ in values["curve"]]
    assert work[0] == depths[0] * (2 * 32 + 8) and work == sorted(work)
    tables = render([Record(case, values, 1.0, {})], tmp_path).tables
    assert tables and all(len(row) == len(table.columns) for table in tables for row in table.rows)


def test_work_is_counted_to_the_target_and_to_the_cap() -> None:
    """1,000 images, a fifth held out: 16 layers cost 16 * (2 * 800 + 200) an epoch, all levels 28 times that."""
    epoch = 16 * 1800
    late = record("cold", curve=[[16, epoch, 0.9], [16, 2 * epoch, 0.96]])
    never = record("cold", seed=1, curve=[[16, epoch, 0.9], [16, 2 * epoch, 0.94]])
    lost = record("cold", seed=2, diverged="at once")
    ahead = record("until the target", work=epoch, validation_accuracy=0.95)
    lost_too = record("until the target", seed=2, diverged="at once")
    found = [mnist_levels._spent(r) for r in (late, never, lost, ahead, lost_too)]
    assert found == [(2 * epoch, True), (2 * epoch, False), (2 * epoch, False), (epoch, True), (2 * 28 * 1800, False)]


def test_a_share_is_of_the_best_cold_start_of_the_same_seed() -> None:
    epoch = 16 * 1800
    cold = [record("cold", lr, curve=[[16, epoch, 0.9], [16, 2 * epoch, s]]) for lr, s in ((0.005, 0.94), (0.01, 0.97))]
    other = record("cold", seed=1, curve=[[16, epoch, 0.99]])
    mine = record("until the target", work=epoch // 2, validation_accuracy=0.96)
    rendering = render([mine, *cold, other], Path())
    row = next(row for row in rendering.tables[-1].rows if row[1] == "multilevel")
    assert row[4:] == ["1 of 1", "0.25", "90.0"]
    assert "multilevel needs 0.25 of the work" in rendering.text and "at most half" in rendering.text
    assert "**not** at most half" in render([record("until the target", diverged="x"), *cold], Path()).text


def test_where_every_cold_start_diverged_nothing_is_said_of_equal_work() -> None:
    mine = record("until the target", work=100, validation_accuracy=0.96)
    text = render([mine, record("cold", diverged="x")], Path()).text
    assert "of the work" in text and "at equal work" not in text


def test_errors_are_those_of_the_levels() -> None:
    (table,) = render([record("all levels", levels=[[8, 0.9, 0.95]], curve=[], test_accuracy=0.9)], Path()).tables
    assert list(table.rows) == [(NAMES["verlet"], "8", "10.0", "5.0", "", "not available")]


def test_every_seed_has_its_runs() -> None:
    assert {case.seed for case in cases(5, False)} == set(range(5))
