"""Fig. 2: a tiny run gives what the figures read; the theorem holds in it; ranges stand beside the paper's."""

import pytest

from liouville.experiments.p3.gradients import BOUND, EPOCHS, PUBLISHED, Config, mlp, plan_of, render, run
from liouville.experiments.records import Record


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    cases = [Config("h1", 0.8, 1, 16, 0), Config("h1-shared", 0.8, 1, 16, 0), Config("mlp-32", 0.0, 1, 16, 0)]
    return [Record(case, run(case, tmp_path_factory.mktemp("gradients")), 1.0, {}) for case in cases]


def test_it_is_the_paper_s_figure(records):
    values = records[0].values
    assert values["depths"] == [1, 11, 21, 31, 41, 51, 61] and EPOCHS * 32 == 960
    assert values["iterations"] == [0, 16, 32] and len(values["gradients"]) == 2
    assert all(len(values[key]) == 7 and len(values[key][0]) == 3 for key in ("mean", "least", "median", "most"))


@pytest.mark.parametrize(("name", "stacked"), [("h1", 64), ("h1-shared", 1)])
def test_time_invariant_weights_are_shared_by_64_layers(name, stacked):
    plan = plan_of(Config(name, 0.8, 1, 16, 0))
    flow = plan.network(plan.load()).body
    assert (flow.layers, flow.T, flow.field.K.shape[0]) == (64, 0.8, stacked)


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.endswith("script")])
def test_the_script_s_rate_falls(name):
    """Its step counter, on top of the same network."""
    script, plain = (plan_of(Config(n, 0.8, 1, 16, 0)) for n in (name, name.removesuffix("-script")))
    assert script.fit_settings().schedule == "epoch-count" and plain.fit_settings().schedule == "constant"
    assert PUBLISHED[name] == PUBLISHED[name.removesuffix("-script")]


def test_the_bound_holds_for_every_sample_and_the_mean_is_no_larger_than_the_largest(records):
    for record in records:
        assert record.values["mean_range"][1] <= record.values["single_range"][1] * 1.001  # four digits are kept
        assert (record.values["least_of_all_depths"] >= BOUND) == (record.case.network in PUBLISHED)


def test_the_fully_connected_net_has_its_layers():
    chain = mlp(32, 4, seed=0)
    assert len(chain) == 33
    assert sum(p.numel() for p in chain.parameters()) == (2 * 4 + 4) + 31 * (4 * 4 + 4) + (4 + 1)


def test_ranges_stand_beside_the_paper_s(records, tmp_path):
    rendering = render(records, tmp_path)
    norms, losses = rendering.tables
    assert [row[5] for row in norms.rows] == ["[1, 17]", "[1, 37]", "not available"]
    assert losses.rows[2][3].endswith("/ 50.0") and "not available" in losses.rows[0][3]
    for picture in rendering.pictures.values():
        picture.draw()


def test_a_run_that_diverged_counts_as_zero(records, tmp_path):
    lost = Record(Config("h1", 0.8, 1, 16, 1), {"diverged": "..."}, 1.0, {})
    assert render([records[0], lost], tmp_path).tables[1].rows[0][3].endswith("/ not available")
    assert "(0.0–" in render([records[0], lost], tmp_path).tables[1].rows[0][3]
    render([lost], tmp_path)
