"""Example 1: what K does to distances is what its eigenvalues say, and the page says so."""

from liouville.experiments.p1.phase_planes import EXPERIMENT, Config, cases, render, run
from liouville.experiments.records import Record


def records(tmp_path):
    return [Record(case, run(case, tmp_path), 0.1, {}) for case in cases(5, False)]


def test_the_three_matrices_spread_collapse_and_turn(tmp_path):
    of = {r.case.matrix: r.values for r in records(tmp_path)}
    ratios = {name: [pair[-1] / pair[0] for pair in values["distances"]] for name, values in of.items()}
    assert [of[name]["eigenvalues"] for name in ("spread", "collapse")] == [[[2, 0], [2, 0]], [[-2, 0], [-2, 0]]]
    assert sorted(of["rotation"]["eigenvalues"]) == [[0, -1], [0, 1]]
    assert min(ratios["spread"]) > 1 > max(ratios["collapse"])
    assert all(len(pair) == 11 for values in of.values() for pair in values["distances"])
    # |tanh(x)| <= |x|, so no norm grows more than by forward Euler on the linear part; 4 digits are kept
    assert all(1 - 1e-3 <= norms[-1] / norms[0] <= 1.01**5 + 1e-3 for norms in of["rotation"]["norms"])
    assert of["collapse"]["backward"] > 10 > of["rotation"]["backward"]


def test_the_table_has_a_row_for_each(tmp_path):
    rendering = render(records(tmp_path), tmp_path)
    (table,) = rendering.tables
    assert [row[2] for row in table.rows] == ["spread", "collapse", "rotation"]
    assert all(len(row) == len(table.columns) for row in table.rows)
    for picture in rendering.pictures.values():
        picture.draw()


def test_any_one_renders(tmp_path):
    for record in records(tmp_path):
        (table,) = EXPERIMENT.render([record], tmp_path).tables
        assert len(table.rows) == 1 and record.case == Config(record.case.matrix)
