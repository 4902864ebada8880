"""The README's two pictures: its two numbers, its network, and models that the pictures are drawn from."""

import pytest

import liouville as lv
from liouville.experiments.propagation import PUBLISHED, Config, cases, plan_of, render, run
from liouville.experiments.records import Record


def made(data, seed, accuracy):
    return Record(Config(data, 0, seed), {"accuracy": accuracy}, 1.0, {})


@pytest.mark.parametrize("data", PUBLISHED)
def test_it_is_the_readme_s_network(data):
    plan = plan_of(Config(data, 0, 0))
    assert (plan.model, plan.layers, plan.T, plan.features) == ("h1", 64, 2.0, 4)


def test_published_numbers_stand_beside_ours(tmp_path):
    records = [made("swiss-roll", s, a) for s, a in enumerate((1.0, 0.97))] + [made("double-circles", 0, 0.9)]
    rendering = render(records, tmp_path)
    assert rendering.cells == (1, 2) and not rendering.pictures
    assert [row[3:] for row in rendering.tables[0].rows] == [("100.00", "met"), ("99.76", "9.8 points below")]
    assert "1 of 2 runs reach the published 100.00 %" in rendering.text


def test_a_run_leaves_a_model_that_the_pictures_show(tmp_path):
    case = next(case for case in cases(1, True) if case.data == "swiss-roll")
    values = run(Config(case.data, 2, 0), tmp_path)
    assert isinstance(lv.load(tmp_path / values["model"]), lv.Network)
    record = Record(Config(case.data, 2, 0), values, 1.0, {})
    assert set(render([record], tmp_path).pictures) == {"swiss-roll-features", "swiss-roll-motion"}
    assert "model" not in run(Config(case.data, 1, 1), tmp_path)
