"""Appendix III: determinant 1, linear growth, and the authors' differences tend to the derivatives."""

import pytest
import torch

from liouville.experiments.p2 import counterexample
from liouville.experiments.p2.counterexample import Config, cases, render, run
from liouville.experiments.records import Record


def test_the_script_s_case_is_first_and_complete(tmp_path):
    (case,) = cases(5, True)
    assert (case.eps, case.T, case.size) == (1.0, 20.0, 1.0)
    values = run(case, tmp_path)
    assert values["times"][0] == 0 and values["times"][-1] == 20
    assert [entry[0] for entry in values["entries"]] == [1, 0, 0, 1] == [d[0] for d in values["differences"]]
    a, b, c, d = (torch.tensor(entry, dtype=torch.float64) for entry in values["entries"])
    size = (a * d).abs() + (b * c).abs()
    assert ((a * d - b * c - 1).abs() <= 2e-3 * (1 + size)).all()  # of four digits each
    assert values["log_determinant"] < 1e-12
    assert -0.95 <= values["end"][0] <= -0.7 and 0.25 <= values["end"][1] <= 0.8  # the script's zoom


def test_differences_tend_to_the_derivatives(monkeypatch, tmp_path):
    def largest(distance):
        monkeypatch.setattr(counterexample, "DISTANCE", distance)
        values = run(Config(1.0, 5.0, 1.0), tmp_path)
        exact, differences = (torch.tensor(values[name]) for name in ("entries", "differences"))
        return float((exact - differences).abs().max())

    assert largest(1e-5) < 1e-3 < largest(0.05)  # four digits are kept of entries up to 4


def test_a_straight_line_is_straight():
    t = torch.linspace(0, 10, 101, dtype=torch.float64)
    slope, off = counterexample._line(t, 3 + 2 * t)
    assert slope == pytest.approx(2, abs=1e-12) and off < 1e-12


def test_slow_motion_grows_slower_by_eps(tmp_path):
    fast, slow = (run(Config(eps, T, 1.0), tmp_path)["norms"][-1] for eps, T in ((1.0, 10.0), (0.1, 100.0)))
    assert abs(fast / slow - 1) < 0.1  # the same but for the step: 0.05 in the time of either


def test_records_render(tmp_path):
    records = [Record(case, run(case, tmp_path), 0.1, {}) for case in cases(1, True)]
    rendering = render(records, tmp_path)
    assert "not available" in rendering.tables[0].rows[0][3]
    rendering.pictures["growth"].draw()
