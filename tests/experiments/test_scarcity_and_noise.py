"""Few and noisy images: equal sizes, calibration against its definition, and records that become tables."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from liouville.data import Split
from liouville.experiments.beyond import image_networks, noise, scarcity
from liouville.experiments.beyond.image_networks import NETWORKS, Config, network_of, standing
from liouville.experiments.records import Record


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random images instead of the real ones."""

    def images(name: str, test: int) -> Split:
        generator = torch.Generator().manual_seed(0)
        x, y = torch.randn(50 + test, 1, 28, 28, generator=generator), torch.arange(50 + test) % 10
        return Split(x[:50], y[:50], x[50:], y[50:], name, 10, offset=torch.tensor(0.0), scale=torch.tensor(510.0))

    monkeypatch.setattr(image_networks, "load", images)


def test_all_have_about_as_many_weights() -> None:
    sizes = [sum(p.numel() for p in network_of(name, 0).parameters()) for name in NETWORKS]
    assert max(sizes) <= 1.1 * min(sizes)


def test_every_seed_draws_other_images(tiny: None) -> None:
    draws = [image_networks.some_images(Config("MLP", 20, 1, 5, seed)).x_train for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert len(draws[0].flatten(1).unique(dim=0)) == 20


def test_calibration_of_known_probabilities() -> None:
    """A network that is right with the probability it states has no error; one always sure has that of its mistakes."""
    right = torch.arange(1000) < 700
    y = torch.where(right, 0, 1)
    honest = torch.tensor([0.7, 0.3], dtype=torch.float64).expand(1000, 2)
    sure = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(1000, 2)
    assert noise.reliability(honest, y)["error"] <= 1000 * torch.finfo(torch.float64).eps  # a mean of 1,000 equal terms
    assert noise.reliability(sure, y)["error"] == pytest.approx(0.3)


def test_calibration_is_its_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(300, 4, generator=generator, dtype=torch.float64).softmax(-1)
    y = torch.randint(0, 4, (300,), generator=generator)
    confidence, predicted = p.max(-1)
    expected = 0.0
    for k in range(10):
        inside = (confidence >= k / 10) & (confidence < (k + 1) / 10)
        if inside.any():
            gap = (predicted == y)[inside].double().mean() - confidence[inside].mean()
            expected += float(inside.double().mean() * gap.abs())
    found = noise.reliability(p, y, bins=10)
    assert found["error"] == pytest.approx(expected, rel=1e-3)  # rounded to four digits
    assert sum(found["share"]) == pytest.approx(1, rel=1e-3)


def test_noise_is_in_grey_values(tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a network that sees nothing but the size of its input: x has the scale 510 / 255 here."""
    seen = []
    monkeypatch.setattr(noise, "_probabilities", lambda network, x: seen.append(x) or torch.eye(10)[: len(x)])
    noise.run(Config("MLP", 50, 1, 10, 0), tmp_path)
    clean, *noisy = seen
    one = noisy[0] - clean
    assert float(one.std()) == pytest.approx(0.1 / 2, rel=0.05)  # 7,840 draws: 0.8 % expected
    for level, x in zip(noise.LEVELS[1:], noisy, strict=True):
        assert torch.allclose(x - clean, level / 0.1 * one, atol=1e-5)


@pytest.mark.parametrize("experiment", [scarcity, noise])
def test_a_run_gives_what_rendering_reads(experiment, tiny: None, tmp_path: Path) -> None:
    config = Config("MLP", 50, 1, 10, 0)
    records = [Record(config, experiment.run(config, tmp_path), 1.0, {})]
    records.append(Record(replace(config, network="ResNet"), {"diverged": "..."}, 1.0, {}))
    rendering = experiment.render(records, tmp_path)
    assert [row[0] for row in rendering.tables[0].rows] == ["ResNet", "MLP"]
    for picture in rendering.pictures.values():
        assert all(path.stat().st_size > 1000 for path in picture.write(tmp_path / "picture"))


def test_the_table_of_few_images() -> None:
    case = Config("h2, 3x3", 1000, 1, 10, 0)
    records = [
        Record(replace(case, seed=seed), {"accuracy": a, "parameters": 1000}, 1.0, {})
        for seed, a in enumerate((0.9, 0.95, 0.91))
    ]
    records.append(Record(replace(case, network="MLP"), {"accuracy": 0.92, "parameters": 1000}, 1.0, {}))
    rendering = scarcity.render(records, Path())
    assert rendering.tables[0].rows == [("h2, 3x3", "1,000", "91.00 (90.00–95.00)"), ("MLP", "1,000", "92.00")]
    assert rendering.text.startswith("With 1,000 training images: MLP has the highest median, 92.0 %; h2, 3x3 is 1.0 ")
    assert "points below. Both sizes pooled, h2, 3x3 against MLP: not told apart (" in rendering.text


def test_the_best_is_the_smallest_where_that_is_better() -> None:
    assert standing({"a": [3.0], "b": [1.0]}, smaller=True) == "b has the lowest median, 1.0 %; a is 2.0 points above."
    assert standing({"a": []}) == "no run ended."
