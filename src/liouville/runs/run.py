"""A run, in its folder or in memory: what was asked, what was measured, the network."""

from __future__ import annotations

__all__ = [
    "CERTIFICATE",
    "CHECKPOINT",
    "CONFIG",
    "FIGURES",
    "FORMAT",
    "HISTORY",
    "LOCK",
    "METRICS",
    "MODEL",
    "REPORT",
    "Run",
    "Trained",
]

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

import torch

from liouville.analysis import Certificate
from liouville.checkpoint import DamagedModelError, load
from liouville.data import Split
from liouville.documents import conform, read, read_lines
from liouville.facts import Facts, Written
from liouville.network import Network
from liouville.report.page import Record
from liouville.runs.certifying import SAMPLES, damaged, drawn, label, measured, sound
from liouville.runs.files import CERTIFICATE, CHECKPOINT, CONFIG, FIGURES, HISTORY, LOCK, METRICS, MODEL, REPORT
from liouville.runs.plan import Plan
from liouville.runs.reporting import record_of
from liouville.runs.spread import Spread
from liouville.train import History
from liouville.version import __version__

FORMAT = "liouville-run-1"


class _Config(TypedDict):
    """What ``config.json`` is; what else is in it was written for people."""

    format: Literal["liouville-run-1"]
    plan: dict[str, Any]
    data: Written


class Trained(NamedTuple):
    """What a training leaves in memory."""

    network: Network
    history: History
    split: Split


@dataclass(frozen=True)
class Run:
    """A run, read back from its folder, or just trained.

    Args:
        path: the folder; None where nothing was written.
        config: ``config.json``.
        metrics: ``metrics.json``; empty where training never came to an end.
        trained: what training left in memory; None for a run that was read back.

    Examples:
        >>> import tempfile
        >>> try:
        ...     Run.open(tempfile.mkdtemp())
        ... except FileNotFoundError as error:
        ...     print(str(error).split(": ")[1])
        it has no config.json; give a folder that `liouville train` or `liouville agents` wrote.
    """

    path: Path | None
    config: dict[str, Any]
    metrics: dict[str, Any]
    trained: Trained | None = field(default=None, compare=False, repr=False)

    @classmethod
    def open(cls, path: str | os.PathLike[str], trained: Trained | None = None) -> Run:
        """Read a run's description; the network is read by `network`.

        Raises:
            FileNotFoundError: there is no such folder, or it is not a run.
            ValueError: a file in it is not what a run has there.
        """
        path = Path(path)
        if not path.is_dir():
            raise FileNotFoundError(f"there is no run folder {path}.")
        if not (path / CONFIG).is_file():
            raise FileNotFoundError(
                f"{path} is not a run: it has no {CONFIG}; give a folder that `liouville train` or `liouville agents` "
                "wrote."
            )
        config = read(path / CONFIG)
        conform(config, dict[str, Any], file=path / CONFIG)
        if config.get("format") != FORMAT:
            raise ValueError(
                f"{path} is not a run: its {CONFIG} has the format {config.get('format')!r}, expected {FORMAT!r}."
            )
        conform(config, _Config, file=path / CONFIG)
        metrics = read(path / METRICS) if os.path.lexists(path / METRICS) else {}
        conform(metrics, dict[str, Any], file=path / METRICS)
        return cls(path, config, metrics, trained)

    @property
    def plan(self) -> Plan:
        """What was run; ``plan.network(run.facts)`` begins it again, and ``plan.load()`` where data have a name."""
        try:
            return Plan.from_dict(self.config["plan"], self._version())
        except ValueError as error:
            raise ValueError(f"{self._file(CONFIG)}: {error}") from error

    @property
    def command(self) -> Literal["train", "agents"]:
        """The sub-command that wrote it, and goes on with it."""
        return "agents" if "agents" in self.config else "train"

    @property
    def asked(self) -> Plan | Spread:
        """The plan; of agents with the graph that its network is spread over."""
        if self.command == "train":
            return self.plan
        return Spread.of_config(self.config, self._file(CONFIG), self._version())

    @property
    def finished(self) -> bool:
        """Whether its training came to its end, and was measured."""
        return "train_loss" in self.metrics

    @property
    def facts(self) -> Facts:
        """What ``config.json`` says of the data."""
        return Facts.from_dict(self.config["data"], "data", self._file(CONFIG))

    def network(self) -> Network:
        """The trained network; it knows its data, by its file or, where that is of an earlier version, by `facts`.

        Raises:
            FileNotFoundError: training has not come far enough to leave one.
            ValueError: the file is damaged, or not a network.
        """
        if self.path is None:
            return self._trained().network
        path = self.path / MODEL
        if not path.is_file():
            raise FileNotFoundError(
                f"{self.path} has no {MODEL}: its training did not come to an end; "
                f"`liouville {self.command} --resume {self.path}` goes on with it."
            )
        network = load(path)
        if not isinstance(network, Network):
            raise ValueError(f"{path} holds a {type(network).__name__}, expected a Network.")
        network.facts = network.facts or self.facts
        return network

    def history(self) -> list[dict[str, Any]]:
        """One record per epoch."""
        if self.path is None:
            return self._trained().history.records()
        path = self.path / HISTORY
        records = read_lines(path)
        for k, record in enumerate(records, 1):
            conform(record, dict[str, float | None], file=f"line {k} of {path}")
        return records

    def certificate(
        self, device: torch.device | str = "cpu", *, split: Split | None = None, samples: int = SAMPLES
    ) -> Certificate:
        """What is guaranteed of the network, that it is the one of the plan, and what some training inputs show.

        Inputs of a run on data of one's own are in memory only while it is trained, and files are not read because
        config.json names them. Without inputs the claims about states are measured at probes, and nothing is said of
        predictions.

        Args:
            device: where a network that is read from a file is measured.
            split: the data; those in memory, else those that the plan makes, if None.
            samples: how many training inputs are measured, at most.

        Raises:
            FileNotFoundError: as `network`.
        """
        asked = self.asked
        if split is None and self.trained is not None:
            split = self.trained.split
        try:
            network = self._trained().network if self.path is None else load(self.path / MODEL).to(device)
        except DamagedModelError as error:
            return damaged(self._file(MODEL), str(error))
        if split is None:
            split = drawn(asked)
        files = () if self.path is None else (sound(),)
        return measured(network, split, *files, label(asked, self.config["data"], network, split), samples=samples)

    def record(self, split: Split | None = None) -> Record:
        """What a report shows of it: ``liouville.report.html(run)`` writes the page.

        Args:
            split: the data; those in memory, else those that the plan makes without reading a file, if None.
        """
        return record_of(self, split)

    def edited(self, network: Network) -> list[str]:
        """What ``config.json`` says of the data otherwise than the file of `network`, or than it was written."""
        if network.facts is not None:
            mine, true = self.facts.as_dict(), network.facts.as_dict()
            if mine != true:
                return [name for name, value in true.items() if mine[name] != value]
        digest = self.config.get("data_sha256")  # of earlier versions, whose model files know nothing of the data
        return ["data"] if digest is not None and digest != _digest(self.config["data"]) else []

    def _trained(self) -> Trained:
        if self.trained is None:
            raise FileNotFoundError("this run is in no folder and no longer in memory; train again, with out=FOLDER.")
        return self.trained

    def _version(self) -> str:
        """Of liouville that wrote the run, as far as ``config.json`` says."""
        versions = self.config.get("versions")
        said = versions.get("liouville") if isinstance(versions, dict) else None
        return said if isinstance(said, str) and said.isprintable() and len(said) < 40 else __version__

    def _file(self, name: str) -> Path:
        return Path(name) if self.path is None else self.path / name


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
