"""What holds of every experiment."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from liouville.experiments import EXPERIMENTS, load
from liouville.experiments.experiment import Rendering
from liouville.experiments.records import Store

DOCS = Path(__file__).parent.parent.parent / "docs"
RECORDS = pytest.mark.skipif(not (DOCS / "reproduce").is_dir(), reason="an sdist has no records")
ALL = pytest.mark.parametrize("name", EXPERIMENTS)


@ALL
def test_it_says_what_it_is(name: str) -> None:
    experiment = load(name)
    assert experiment.name == name and experiment.title and experiment.source
    assert (sys.modules[experiment.run.__module__].__doc__ or "").strip()
    assert dataclasses.is_dataclass(experiment.case) and experiment.case.__dataclass_params__.frozen


@ALL
@pytest.mark.parametrize("quick", [False, True])
def test_cases_differ_and_are_json(name: str, quick: bool) -> None:
    experiment = load(name)
    cases = experiment.cases(5, quick)
    assert cases and len(set(cases)) == len(cases)
    for case in cases:
        value = json.loads(json.dumps(dataclasses.asdict(case)))
        assert experiment.read_case(value) == case and isinstance(case.seed, int)
        assert 0 < experiment.cost(case) < 3600


@ALL
def test_more_seeds_are_more_cases_of_the_same(name: str) -> None:
    cases = load(name).cases
    assert set(cases(1, False)) <= set(cases(2, False)) <= set(cases(5, False))


@ALL
def test_it_renders_without_records(name: str, tmp_path: Path) -> None:
    rendering = load(name).render([], tmp_path)
    assert isinstance(rendering, Rendering) and not rendering.pictures
    for table in rendering.tables:
        assert all(len(row) == len(table.columns) for row in table.rows)


@RECORDS
def test_the_committed_records_are_of_five_seeds_and_add_up_to_less_than_six_hours_on_two_cores() -> None:
    seconds = 0.0
    for name in EXPERIMENTS:
        records = {r.case: r.seconds for r in Store(load(name), DOCS / "reproduce" / name).read()}
        seconds += sum(records[case] for case in load(name).cases(5, quick=False))
    assert seconds / 2 < 6 * 3600  # as recorded, many of them on a machine with other work


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_quick_runs_every_experiment_within_ten_minutes(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "liouville", "reproduce", "--all", "--quick", "--jobs", "2", "--out", str(tmp_path)]
    subprocess.run(words, check=True, timeout=600)
    text = (tmp_path / "reproduce-quick.md").read_text()
    for name in EXPERIMENTS:
        assert f'<a id="{name}">' in text
        assert len((tmp_path / "reproduce-quick" / name / "records.jsonl").read_text().splitlines()) == len(
            load(name).cases(5, True)
        )
