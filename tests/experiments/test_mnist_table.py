"""P3's Table 2: the networks are the paper's, and records become the right cells."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from liouville.data import Split
from liouville.experiments.p3 import mnist_table, papers_images
from liouville.experiments.p3.mnist_table import PUBLISHED, Config, network_of
from liouville.experiments.p3.papers_images import COLUMNS, FEATURES
from liouville.experiments.records import Record
from liouville.operators import Conv
from liouville.zoo import MODELS

CASE = Config("MS1", 2, 1, "ours", 1, 40, 0)
# Weights of a layer with 8 features; P3, section "Parameters per layer", for h2 n^2/2 + n.
PER_LAYER = {"MS1": 24, "H2 (J full)": 72, "H1": 72, "h2": 40}


@pytest.mark.parametrize("column", COLUMNS)
def test_weights_are_counted_as_in_the_paper(column: str) -> None:
    for layers in (0, 2, 16):
        network = network_of(replace(CASE, column=column, layers=layers))
        assert sum(p.numel() for p in network.parameters()) == 80 + layers * PER_LAYER[column] + 62_730


@pytest.mark.parametrize("column", COLUMNS)
def test_a_pixelwise_network_is_a_1x1_convolution(column: str) -> None:
    """The dense flow at every pixel, against the same weights under Conv(1) on images."""
    vectors = network_of(replace(CASE, column=column)).body.double()
    net = COLUMNS[column]
    images = MODELS[net.model](FEATURES, 2, vectors.T, operator=Conv(1), **net.options).double()
    with torch.no_grad():
        for theirs, ours in zip(images.parameters(), vectors.parameters(), strict=True):
            theirs.copy_(ours.view_as(theirs))
    y = torch.randn(3, FEATURES, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    there = vectors(y.movedim(1, -1).contiguous()).movedim(-1, 1)
    # two layers, each twice a sum of FEATURES terms, of values that stay below 100
    assert float(images(y).detach().abs().max()) < 100
    assert torch.allclose(images(y), there, rtol=0, atol=100 * 4 * FEATURES * torch.finfo(torch.float64).eps)


@pytest.mark.parametrize("layers", [0, 1, 2, 4, 16])
def test_the_penalty_is_the_scripts(layers: int) -> None:
    """alpha h/2 sum ||theta_{j+1} - theta_j||^2, as often as is said."""
    network = network_of(replace(CASE, layers=layers))
    jumps = sum(float(w.detach().double().diff(dim=0).square().sum()) for w in network.body.parameters())
    for times in (0, 1, 15):
        penalty = papers_images.settings(COLUMNS["MS1"], 2, 0, times=times).penalty(network)
        assert float(penalty.detach()) == pytest.approx(times * 1e-3 * 0.4 / 2 * jumps, rel=1e-5)


def test_the_script_replaces_every_network_and_decays_every_weight() -> None:
    network = network_of(replace(CASE, column="H2 (J full)", procedure="script"))
    assert type(network.body.field).__name__ == "PairField"
    assert network.body.h == pytest.approx(0.05)
    (group,) = papers_images.optimizer(network, COLUMNS["H2 (J full)"]).param_groups
    assert group["weight_decay"] == 2e-4
    assert len(group["params"]) == len(list(network.parameters()))


def test_the_script_adds_the_penalty_once_for_every_layer_but_one(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def settings(*given, times: int, **named):
        seen.append(times)
        return original(*given, times=times, **named)

    original = papers_images.settings
    monkeypatch.setattr(papers_images, "settings", settings)
    for layers in (0, 2, 4):
        mnist_table.run(replace(CASE, procedure="script", layers=layers), tmp_path)
    assert seen == [0, 1, 3]


def test_the_published_columns_are_all_run_with_several_seeds() -> None:
    for column, layers in PUBLISHED:
        seeds = {
            c.seed
            for c in mnist_table.cases(5, quick=False)
            if (c.column, c.layers, c.kernel, c.procedure) == (column, layers, 1, "ours")
        }
        assert seeds == {0, 1, 2}


@pytest.mark.parametrize("procedure", mnist_table.PROCEDURES)
def test_a_run_gives_what_rendering_reads(procedure: str, tiny: None, tmp_path: Path) -> None:
    config = replace(CASE, procedure=procedure)
    rendering = mnist_table.render([Record(config, mnist_table.run(config, tmp_path), 1.0, {})], tmp_path)
    assert rendering.tables[0].rows[0][0] == "MS1, 2"


def test_the_script_reports_its_best_test_epoch(tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the training accuracy of that epoch, whatever came later."""
    test, train = iter((0.3, 0.7, 0.5)), iter((0.4, 0.8, 0.9))

    def evaluate(network, x, y, task, prefix):
        return {f"{prefix}accuracy": next(test if prefix == "test_" else train)}

    monkeypatch.setattr(mnist_table, "evaluate", evaluate)
    found = mnist_table.run(replace(CASE, procedure="script", epochs=3), tmp_path)
    assert (found["test_accuracy"], found["train_accuracy"]) == (0.7, 0.8)


def test_cells() -> None:
    """A number within two binomial standard errors is met, whatever the range, and theirs stands beside ours."""
    records = [
        Record(replace(CASE, seed=seed), {"test_accuracy": a, "train_accuracy": 0.997, "parameters": 1}, 1.0, {})
        for seed, a in enumerate((0.90, 0.975, 0.99))
    ]
    records.append(Record(replace(CASE, layers=4), {"diverged": "..."}, 1.0, {}))
    script = {"test_accuracy": 1.0, "train_accuracy": 1.0}
    records += [Record(replace(CASE, procedure=name), script, 1.0, {}) for name in ("papers", "script")]
    records.append(Record(replace(CASE, layers=4, procedure="papers", epochs=mnist_table.LONG), script, 1.0, {}))
    rendering = mnist_table.render(records, Path())
    assert rendering.verdicts == [("exceeded", "exceeded"), ("exceeded", "met"), (None, "missed"), (None, "missed")]
    first, second = rendering.tables[0].rows
    assert first[2:5] == ["99.70 (99.70–99.70)", "99.57", "exceeded by 0.13"]
    assert first[5:] == ["97.50 (90.00–99.00)", "97.72", "met"]
    assert second[2:] == ["0.00", "99.97", "missed by 99.97", "0.00", "98.03", "missed by 98.03"]
    assert "Missed by them on the training part: MS1, 4." in rendering.text
    assert "Missed by them on the test part: MS1, 4." in rendering.text
    records[0].values["test_accuracy"] = records[1].values["test_accuracy"] = 0.9748  # 0.24 points; two errors are 0.31
    assert mnist_table.render(records[:3], Path()).verdicts[1] == (None, "met")
    records[0].values["test_accuracy"] = records[1].values["test_accuracy"] = 0.974  # 0.32 points; they are 0.318
    assert mnist_table.render(records[:3], Path()).verdicts[1] == (None, "missed")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty random images instead of the real ones."""

    def images(name: str, train: int, test: int) -> Split:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2 * train, 1, 28, 28, generator=generator)
        y = torch.randint(0, 10, (2 * train,), generator=generator)
        return Split(x[:train], y[:train], x[train:], y[train:], name, 10)

    monkeypatch.setattr(mnist_table, "load", images)
