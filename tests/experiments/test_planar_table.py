"""P3's Table 1: the runs are the papers', and the tables say what the records say."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from liouville.experiments.planar_table import COLUMNS, EXPERIMENT, PROCEDURES, PUBLISHED, Config, cases, plan_of, run
from liouville.experiments.records import Record
from liouville.fields import Normal
from liouville.network import Network

ALL = cases(2, quick=False)


def record(case: Config, accuracy: float, validation: float = 0.5, training: float = 0.5) -> Record:
    return Record(case, {"accuracy": accuracy, "validation": validation, "training": training}, 1.0, {})


def rendered(records: list[Record]) -> tuple[str, list[list[str]], tuple[int, int] | None]:
    """The text, the rows of the first table, the cells."""
    rendering = EXPERIMENT.render(records, Path())
    return rendering.text, [list(row) for row in rendering.tables[0].rows], rendering.cells


def of(**values: object) -> list[Config]:
    return [case for case in ALL if all(getattr(case, name) == value for name, value in values.items())]


def test_every_published_number_has_its_runs() -> None:
    """Each with both places of the inputs and with our settings, at every T, with every seed."""
    for (data, layers), row in PUBLISHED.items():
        for column, _ in zip(COLUMNS, row, strict=True):
            for name in ("front", "ends", "ours"):
                found = of(data=data, layers=layers, column=column, procedure=name)
                times = PROCEDURES[name].times or COLUMNS[column].times
                assert len(found) == 2 * len(times) and {case.T for case in found} == set(times)


@pytest.mark.parametrize("name", ["front", "ends"])
@pytest.mark.parametrize("column", COLUMNS)
def test_the_papers_procedure_is_the_scripts(name: str, column: str) -> None:
    """HamiltonianNet, train_2d_example.py: 4,000 and 4,000 points, four features, 50 epochs of batches of 125, Adam at
    0.05, N(0, 1) weights, a head of ten steps, alpha = 5e-4, alpha_c = 1e-4 and its 1/2."""
    plan = plan_of(Config("swiss-roll", column, 8, name, 2.0, 0, 3))
    split, s = plan.load(), plan.fit_settings()
    assert (len(split.x_train), len(split.x_test)) == (4000, 4000)
    assert (plan.features, plan.T, plan.seed, plan.init) == (4, 2.0, 3, Normal())
    assert (s.epochs, s.batch, s.lr, s.beta2, s.alternate, s.validation) == (50, 125, 0.05, 0.999, 10, 0.0)
    assert (s.schedule, s.penalty.smoothness, s.penalty.head, s.penalty.scaling) == ("epoch-count", 5e-4, 1e-4, "hdnn")
    network = plan.network(split)
    assert isinstance(network, Network) and network.flows().__next__().layers == 8


def test_inputs_are_where_the_paper_or_the_script_puts_them() -> None:
    """The paper's state of MS1 is [y; z], ours (z, y): its [x1, x2, 0, 0] is our [0, 0, x1, x2]."""
    for column in COLUMNS:
        places = []
        for name in ("front", "ends"):
            plan = plan_of(Config("double-moons", column, 1, name, 2.0, 0, 0))
            split = plan.load()
            y = plan.network(split).lift(split.x_train[:1])[0]
            places.append([list(split.x_train[0]).index(v) + 1 if v else 0 for v in y])
        assert places == [[0, 0, 1, 2] if column == "MS1" else [1, 2, 0, 0], [1, 0, 0, 2]]


def test_a_run_has_what_the_rendering_reads(tmp_path: Path) -> None:
    for case in cases(1, quick=True)[-2:]:
        values = run(replace(case, epochs=1), tmp_path)
        assert values.keys() == {"accuracy", "validation", "training"}
        assert all(0.0 <= value <= 1.0 for value in values.values())


def test_the_held_out_points_choose_and_the_test_points_do_not() -> None:
    low, high = of(data="swiss-roll", layers=4, column="H1", procedure="ends")[:3:2]
    assert low.T < high.T
    _, ((_, cell),), cells = rendered([record(low, 0.25, validation=0.75), record(high, 0.95, validation=0.5)])
    assert cell == "25.0 / 93.6 (ends, T = 0.8)" and cells == (0, 1)
    _, ((_, cell),), cells = rendered([record(low, 0.25, validation=0.75), record(high, 0.95, validation=0.875)])
    assert cell == "95.0 / 93.6 (ends, T = 2)" and cells == (1, 1)


def test_a_cell_is_met_within_the_range_or_two_points() -> None:
    first, second = of(data="swiss-roll", layers=4, column="H1", procedure="ours", T=2.0)
    for accuracies, good in (((0.916, 0.916), 1), ((0.915, 0.915), 0), ((0.5, 0.936), 1), ((0.5, 0.935), 0)):
        pairs = zip((first, second), accuracies, strict=True)
        assert rendered([record(case, accuracy) for case, accuracy in pairs])[2] == (good, 1)


def test_a_run_that_diverged_counts_as_zero() -> None:
    case = of(data="swiss-roll", layers=4, column="h2", procedure="ours")[0]
    _, ((_, cell),), cells = rendered([Record(case, {"diverged": "at step 3"}, 1.0, {})])
    assert cell == "0.0 / not available (ours, T = 0.8)" and cells == (0, 0)


@pytest.mark.parametrize("accuracy", [0.1234, 0.4321])
def test_no_number_is_typed_by_hand(accuracy: float) -> None:
    """With one accuracy in all records, every percentage shown is that one, the paper's, or a difference of both."""
    rendering = EXPERIMENT.render([record(case, accuracy, accuracy, accuracy) for case in ALL], Path())
    published = {number for row in PUBLISHED.values() for number in row if number is not None}
    ours = f"{100 * accuracy:.1f}"
    known = {ours, *(f"{number:g}" for number in published), *(f"{n - 100 * accuracy:.1f}" for n in published)}
    known |= {"0.8", "2", "4"}  # T
    for table in rendering.tables:
        for row in table.rows:
            for cell in row[1:]:
                assert set(re.findall(r"\d+\.?\d*", cell)) <= known, cell
    assert rendering.cells == (0, 40) and "So chosen, 0 of 40 are met" in rendering.text
    assert set(re.findall(r"\d+\.\d+", rendering.text)) == {"0.8", ours}
    (untrained,) = (part for part in rendering.text.split("\n\n") if part.startswith("Not met because none"))
    assert untrained.count("swiss-roll") == 25 and untrained.count("double-moons") == 15


def test_a_miss_is_put_down_to_training_only_where_the_training_points_are_not_fitted() -> None:
    case = next(c for c in ALL if (c.data, c.column, c.layers) == ("swiss-roll", "H1", 64))
    assert "Not met because none" in EXPERIMENT.render([record(case, 0.5, 0.5, 0.5)], Path()).text
    assert "Not met though the training" in EXPERIMENT.render([record(case, 0.5, 0.5, 1.0)], Path()).text
    assert "Not met" not in EXPERIMENT.render([record(case, 1.0, 1.0, 1.0)], Path()).text
