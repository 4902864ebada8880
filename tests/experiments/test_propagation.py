"""The README's two pictures: its two numbers, its network, and models that the pictures are drawn from."""

import pytest

import liouville as lv
from liouville.experiments.p2.propagation import (
    OURS,
    PAPERS,
    PROCEDURES,
    PUBLISHED,
    Config,
    cases,
    plan_of,
    render,
    run,
)
from liouville.experiments.records import Record


def made(data, seed, accuracy, preset=OURS):
    return Record(Config(data, preset, 0, seed), {"accuracy": accuracy}, 1.0, {})


@pytest.mark.parametrize("preset", PROCEDURES)
@pytest.mark.parametrize("data", PUBLISHED)
def test_it_is_the_readme_s_network(data, preset):
    plan = plan_of(Config(data, preset, 0, 0))
    assert (plan.model, plan.layers, plan.T, plan.features) == ("h1", 64, 2.0, 4)
    assert plan.data_options == plan_of(Config(data, OURS, 0, 0)).data_options
    assert (plan.lift == "ends") is (preset == PAPERS)


def test_published_numbers_stand_beside_ours(tmp_path):
    records = [made("swiss-roll", s, a) for s, a in enumerate((1.0, 0.97))] + [made("double-circles", 0, 0.9)]
    rendering = render(records, tmp_path)
    assert rendering.verdicts == [(None, "met"), (None, "missed")] and not rendering.pictures
    assert [row[4:] for row in rendering.tables[0].rows] == [("100.00", "met"), ("99.76", "missed by 9.76")]
    assert "on the Swiss roll in 1 of 2 runs (100.00 %)" in rendering.text
    rendering = render([*records, made("swiss-roll", 0, 0.9, PAPERS)], tmp_path)
    assert rendering.verdicts == [("missed", "met"), (None, "missed")]


def test_a_run_leaves_a_model_that_the_pictures_show(tmp_path):
    case = next(case for case in cases(1, True) if (case.data, case.preset) == ("swiss-roll", OURS))
    values = run(Config(case.data, OURS, 2, 0), tmp_path)
    assert isinstance(lv.load(tmp_path / values["model"]), lv.Network)
    record = Record(Config(case.data, OURS, 2, 0), values, 1.0, {})
    assert set(render([record], tmp_path).pictures) == {"swiss-roll-features", "swiss-roll-motion"}
    assert "model" not in run(Config(case.data, PAPERS, 1, 0), tmp_path)
    assert "model" not in run(Config(case.data, OURS, 1, 1), tmp_path)
