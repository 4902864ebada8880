"""Depth: one setting for all, who is ahead, and that it is said where the stable networks are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from liouville.experiments.beyond import stable_depth
from liouville.experiments.beyond.stable_depth import FLOWS, NAMES, Config, cases, render, run
from liouville.experiments.records import Record
from liouville.train import DivergenceError


def record(network: str, layers: int, accuracy: float, seed: int = 0) -> Record:
    norms = {"smallest_norm": 1.0, "first_norm": 2.0, "largest_norm": 3.0} if network in FLOWS else {}
    return Record(Config(network, layers, 1, seed), {"test_accuracy": accuracy, **norms}, 1.0, {})


def test_every_network_has_every_depth() -> None:
    found = {(case.network, case.layers) for case in cases(2, False)}
    others, made = stable_depth.OTHERS, cases(5, False)
    assert found == {(name, N) for name in NAMES for N in ((16, 64) if name in others else stable_depth.DEPTHS)}
    assert len(made) == len(set(made))
    for name, N in found:
        seeds = {case.seed for case in made if (case.network, case.layers) == (name, N)}
        assert seeds == set(range(stable_depth.most(name, N, 5))) and (name in others or len(seeds) == 5)


@pytest.mark.parametrize("network", NAMES)
def test_a_run_leaves_what_the_tables_read(network: str, tmp_path: Path) -> None:
    case = Config(network, 16, 1, 0)
    values = run(case, tmp_path)
    assert 0 <= values["test_accuracy"] <= 1
    assert values["lr"] in ((stable_depth.RATE,) if network in FLOWS else stable_depth.RATES)
    if network in FLOWS:
        assert values["smallest_norm"] <= values["first_norm"] <= values["largest_norm"]
    if network in ("verlet", "h2"):  # volume is kept, so no norm falls below 1
        assert values["smallest_norm"] >= 1 - 1e-3
    tables = render([Record(case, values, 1.0, {})], tmp_path).tables
    assert len(tables) == 1 + (network in FLOWS)
    assert all(len(row) == len(table.columns) for table in tables for row in table.rows)


def test_a_run_that_diverges_at_every_rate_is_recorded_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*given: object) -> None:
        raise DivergenceError("it grew")

    monkeypatch.setattr(stable_depth, "fit", fit)
    with pytest.raises(ArithmeticError, match="it grew"):
        run(Config("h2", 8, 1, 0), tmp_path)
    lost = Record(Config("h2", 8, 1, 0), {"diverged": "it grew"}, 1.0, {})
    accuracy, norms = render([lost], tmp_path).tables
    assert accuracy.rows[-1] == ("h2", "0.0", "1") and norms.rows[-1] == ("h2", "—")


def test_text_pools_the_depths_and_names_lower_medians(tmp_path: Path) -> None:
    """Verlet is ahead in six pairs of six, h2 behind in one of six and level by the test."""
    scores = {"resnet": 0.8, "verlet": 0.9, "h2": 0.85}
    records = [record(m, N, a, seed) for m, a in scores.items() for N in (16, 256, 1024) for seed in (0, 1)]
    worse = [r for r in records if (r.case.network, r.case.layers, r.case.seed) == ("h2", 1024, 0)]
    worse[0].values["test_accuracy"] = 0.5
    rendering = render(records, tmp_path)
    assert "Verlet ahead (6 pairs of 6, p = 0.031)" in rendering.text
    assert "h2 not told apart (5 pairs of 6" in rendering.text
    assert "**Lower medians than the ResNet's: h2 at 1024 layers (67.5 against 80.0 %).**" in rendering.text
    assert set(rendering.pictures) == {"accuracy-by-depth"}
    assert len(rendering.pictures["accuracy-by-depth"].draw().axes) == 1
