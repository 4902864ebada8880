"""1024 layers: the cases, a tiny run, and what the table and the text say of records made by hand."""

from __future__ import annotations

from liouville.experiments.beyond.depth_1024 import (
    DEEP,
    FEW_SEEDS,
    FLOWS,
    LAYERS,
    MLP,
    RATE,
    RATES,
    Config,
    cases,
    render,
    run,
)
from liouville.experiments.records import Record
from liouville.zoo import MODELS


def test_all_networks_have_1024_layers_flows_one_rate_and_others_several() -> None:
    found = cases(5, False)
    assert {c.layers for c in found} == {LAYERS} == {1024} and {c.network for c in found} == {*FLOWS, *DEEP, MLP}
    for name in (*DEEP, MLP):
        assert {c.lr for c in found if c.network == name} == {*RATES[name]}
        assert len([c for c in found if c.network == name]) == len(RATES[name]) * FEW_SEEDS >= 9
    assert set(FLOWS) <= set(MODELS)
    assert all([c.lr for c in found if c.network == name] == [RATE] * 5 for name in FLOWS)


def test_a_run_has_what_the_table_reads(tmp_path) -> None:
    made = [Config("h2", RATE, 4, 2, 80, 0)]
    made += [Config(name, 0.07, 4, 2, 80, 0) for name in (*DEEP, MLP)]
    records = [Record(case, run(case, tmp_path), 1.0, {}) for case in made]
    assert all(len(r.values["loss"]) == 2 and 0 <= r.values["accuracy"] <= 1 for r in records)
    rendering = render(records, tmp_path)
    assert [row[0] for row in rendering.tables[0].rows] == ["h2", *(f"{name}, rate 0.07" for name in (*DEEP, MLP))]
    assert rendering.pictures["losses"].write(tmp_path / "losses")


def _record(name: str, seed: int, values: dict) -> Record:
    lr = RATE if name in FLOWS else 0.005
    return Record(Config(name, lr, LAYERS, 2, 8000, seed), values, 1.0, {})


def test_what_diverged_counts_as_zero_and_is_not_said_to_learn(tmp_path) -> None:
    good = {"accuracy": 0.99, "loss": [0.5, 0.1]}
    bad = {"diverged": "the loss is nan"}
    rendering = render(
        [_record("h2", 0, good), _record("h2", 1, bad), _record("h2", 2, good), _record(MLP, 0, bad)], tmp_path
    )
    h2, perceptron = rendering.tables[0].rows
    assert h2[2:] == ("3", "99.00 (0.00–99.00)", "0.500 (0.500–0.500)", "0.100 (0.100–0.100)", "1")
    assert perceptron[2:] == ("1", "0.00", "—", "—", "1")
    learns, stays = rendering.text.split("Below it")
    assert "h2" in learns and MLP not in learns and f"{MLP}, rate 0.005 (0.0 %)" in stays
