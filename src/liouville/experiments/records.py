"""Records: one line of JSON for every case that was run, with everything needed to run it again.

A line is written when its case ends. A line left incomplete by a killed process is ignored, so an interrupted
experiment loses only the cases that were running.
"""

from __future__ import annotations

__all__ = ["Record", "Store", "provenance", "rounded"]

import functools
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypedDict

from liouville.documents import Rule, conform, content, parse
from liouville.experiments.experiment import Experiment, Record
from liouville.files import without_nan
from liouville.provenance import commit, versions


class _Line(TypedDict):
    case: dict[str, Any]
    values: dict[str, Any]
    seconds: float
    made: dict[str, str]


class _Diverged(TypedDict):
    diverged: str


Seed = Annotated[int, Rule("a seed from 0 to 9999", lambda n: 0 <= n < 10_000)]


class Store:
    """The records of one experiment in ``folder/records.jsonl``.

    Args:
        experiment: the experiment.
        folder: its folder; it need not exist.

    Raises:
        OSError: if the folder cannot be made or read.
        ValueError: if a line is a record that this experiment does not write.
    """

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        self.experiment, self.folder = experiment, folder
        self.path = folder / "records.jsonl"

    def read(self) -> list[Record]:
        """All records, for each case only the last. Records of another version's cases are ignored."""
        found: dict[Any, Record] = {}
        lines = content(self.path).splitlines() if self.path.exists() else ()
        for k, line in enumerate(lines, 1):
            record = self._record(line, f"line {k} of {self.path}")
            if record is not None:
                found[record.case] = record
        return list(found.values())

    def _record(self, line: bytes, name: str) -> Record | None:
        """The record in a line; None if it is incomplete, or from another version's cases."""
        try:
            value = parse(line, name)
        except ValueError:
            return None
        if not isinstance(value, dict) or not isinstance(value.get("case"), dict):
            return None
        try:
            case = self.experiment.read_case(value["case"])
        except ValueError:
            return None
        conform(value, _Line, file=name)
        conform(value["case"], self.experiment.case, "case", name)
        conform(case.seed, Seed, "case.seed", name)
        values = value["values"]
        conform(values, _Diverged if "diverged" in values else self.experiment.values, "values", name)
        return Record(case, values, value["seconds"], value["made"])

    def current(self, quick: bool) -> list[Record]:
        """The records of cases that this version of the experiment runs, with all their seeds."""
        records = self.read()
        seeds = 1 + max((record.case.seed for record in records), default=0)
        known = set(self.experiment.cases(seeds, quick))
        return [record for record in records if record.case in known]

    def append(self, record: Record) -> None:
        """Add one record on a new line, even after an incomplete one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        line = json.dumps(without_nan(asdict(record)), ensure_ascii=False, allow_nan=False)
        with self.path.open("a+b") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            torn = end > 0 and file.read(1) != b"\n"
            file.write(("\n" * torn + line + "\n").encode())

    def clear(self) -> None:
        """Delete all records."""
        self.path.unlink(missing_ok=True)


def rounded(value: float) -> float:
    """The value with four significant digits, enough for a record.

    Examples:
        >>> rounded(2 / 3), rounded(123456.0)
        (0.6667, 123500.0)
    """
    return float(f"{float(value):.4g}")


@functools.cache
def provenance() -> dict[str, str]:
    """The commit of the code, in a checkout, and the versions of its libraries."""
    return {"commit": commit(), **versions()}
