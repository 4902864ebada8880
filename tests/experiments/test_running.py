"""Records, and running cases: what is known is not run again, and one that fails stops no other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from liouville.experiments.records import Record, Store, provenance
from liouville.experiments.running import Failure, pending, run_all
from toy_experiment import ALONE, TOY, Config
from turns import one_in


class Told:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.started: list[tuple[int, int]] = []
        self.records: list[Record] = []
        self.failures: list[Failure] = []

    def start(self, jobs, processes):
        self.started.append((len(jobs), processes))

    def done(self, experiment, record):
        self.records.append(record)

    def failed(self, failure):
        self.failures.append(failure)


def record(case: Config, **values: object) -> Record:
    return Record(case, values or {"square": case.seed**2}, 1.5, {"commit": "abc", "torch": "2"})


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    store = Store(TOY, tmp_path / "toy")
    assert store.read() == []
    written = [record(Config("square", seed)) for seed in range(3)]
    for each in written:
        store.append(each)
    assert store.read() == written
    assert store.read()[0].case.depths == (1, 2)


def test_the_last_record_of_a_case_counts(tmp_path: Path) -> None:
    store = Store(TOY, tmp_path)
    store.append(record(Config("square", 1), square=1))
    store.append(record(Config("square", 1), square=2))
    assert [r.values["square"] for r in store.read()] == [2]


def test_a_torn_line_is_passed_over_and_the_next_stands_alone(tmp_path: Path) -> None:
    store = Store(TOY, tmp_path)
    store.append(record(Config("square", 1)))
    with store.path.open("a") as file:
        file.write('{"case": {"what": "squ')
    store.append(record(Config("square", 2)))
    assert [r.case.seed for r in store.read()] == [1, 2]


def test_a_case_of_another_version_is_left_aside(tmp_path: Path) -> None:
    store = Store(TOY, tmp_path)
    store.append(record(Config("square", 1)))
    line = json.loads(store.path.read_text())
    line["case"]["more"] = 1
    with store.path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    assert [r.case.seed for r in store.read()] == [1]


def test_pending_leaves_out_what_is_known_and_begins_with_the_longest(tmp_path: Path) -> None:
    Store(TOY, tmp_path / "toy").append(record(Config("square", 1)))
    jobs = pending([ALONE, TOY], tmp_path, 3, quick=False)
    assert [(e.name, c.seed) for e, c in jobs] == [("toy", 2), ("toy", 0), ("alone", 0), ("alone", 1), ("alone", 2)]
    assert len(pending([TOY], tmp_path, 3, quick=True)) == 1


def test_every_case_is_recorded_and_a_failure_stops_no_other(tmp_path: Path) -> None:
    whats = ("fail", "divide", "square", "diverge")
    jobs = [*((TOY, Config(what, 2)) for what in whats), (ALONE, Config("square", 3))]
    told = Told()
    failures = run_all(jobs, tmp_path, 2, told)
    assert failures == told.failures and told.started == [(5, 2)]
    reasons = {"fail": "the data are not there.", "divide": "division by zero"}
    assert {f.case.what: f for f in failures} == {w: Failure(TOY, Config(w, 2), r) for w, r in reasons.items()}
    known = {r.case.what: r for r in Store(TOY, tmp_path / "toy").read()}
    assert known.keys() == {"square", "diverge"}
    assert known["diverge"].values == {"diverged": "training diverged at step 3."} and known["diverge"].diverged
    square = known["square"]
    assert square.values["square"] == 4 and square.values["nan"] is None and not square.diverged
    assert square.values["process"] != os.getpid()
    assert square.made == provenance() and square.made["torch"]
    assert [r.case.seed for r in Store(ALONE, tmp_path / "alone").read()] == [3]
    assert told.records[-1].case.seed == 3  # those that run alone come last


def test_a_process_that_dies_is_named_as_such(tmp_path: Path) -> None:
    (failure,) = run_all([(TOY, Config("die", 0))], tmp_path, 1, Told())
    assert failure.reason == "a process was killed (out of memory?); try --jobs 1."
    assert Store(TOY, tmp_path / "toy").read() == []


@pytest.mark.parametrize(
    "how, wait", one_in(5, [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ["wait", "wait inside"])
)
def test_what_stops_it_stops_its_processes_and_keeps_the_records(
    tmp_path: Path, how: signal.Signals, wait: str
) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from toy_experiment import TOY, Config\n"
        "from test_running import Told\n"
        "from liouville.experiments.running import run_all\n"
        "if __name__ == '__main__':\n"
        "    run_all([(TOY, Config('square', 1)), (TOY, Config('" + wait + "', 0))], Path(sys.argv[1]), 2, Told())\n"
    )
    (tmp_path / "script.py").write_text(code)
    here = Path(__file__).parent
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(here), str(here.parent), *filter(None, sys.path)]))
    words = [sys.executable, str(tmp_path / "script.py"), str(tmp_path), str(here.parent)]
    process = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)
    store, deadline = Store(TOY, tmp_path / "toy"), time.monotonic() + 60
    while not ((tmp_path / "toy" / "started").exists() and store.read()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(how)
    assert process.wait(20) != 0  # at once: it does not wait for the case that sleeps
    assert [r.case.what for r in store.read()] == ["square"]
    waiting, deadline = int((tmp_path / "toy" / "started").read_text()), time.monotonic() + 20
    while alive(waiting):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{process}/stat").exists() or Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
