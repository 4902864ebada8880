"""Rates: every line has its rates, and the text says what one rate for all costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from liouville.experiments.beyond.rate_transfer import (
    AFTER,
    BEFORE,
    NETWORKS,
    RATES,
    SHAPES,
    Config,
    cases,
    render,
    run,
)
from liouville.experiments.records import Record


def record(network: str, start: str, shape: tuple[int, float, int], lr: float, loss: float) -> Record:
    return Record(Config(network, start, *shape, lr, 15, 0), {"train_loss": loss, "test_accuracy": 0.9}, 1.0, {})


def test_every_shape_has_every_rate_before_and_after() -> None:
    assert len(cases(2, False)) == 2 * len(NETWORKS) * 2 * len(SHAPES) * len(RATES) == len(set(cases(2, False)))


@pytest.mark.parametrize("start", [BEFORE, AFTER])
def test_a_run_leaves_what_the_tables_read(start: str, tmp_path: Path) -> None:
    case = Config("h2", start, 16, 1.0, 4, 0.03, 1, 0)
    rendering = render([Record(case, run(case, tmp_path), 1.0, {})], tmp_path)
    (table,) = rendering.tables
    assert len(table.rows) == 1 and len(table.rows[0]) == len(table.columns)


def test_text_says_what_one_rate_for_all_costs(tmp_path: Path) -> None:
    """After, 0.03 is best for all; before, each network has a best rate of its own."""
    own = {"h2": 0.01, "antisymmetric": 0.1}
    records = [
        record(m, start, s, lr, 0.001 if lr == (0.03 if start == AFTER else own[m]) else 0.5)
        for m in NETWORKS
        for start in (BEFORE, AFTER)
        for s in SHAPES
        for lr in RATES
    ]
    text = render(records, tmp_path).text
    assert "As drawn, plain rates: with 4 features the best rates are 0.01 to 0.1" in text
    assert "Scaled, rates in units: with 4 features the best rates are 0.03 to 0.03" in text
    assert "0.03, leaves a loss of 0.001 there" in text
    assert len(render(records, tmp_path).pictures["loss-by-rate"].draw().axes) == 4
