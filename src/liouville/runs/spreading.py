"""A training of agents into a run folder: history while it goes on, and at the end what every run leaves, and more."""

from __future__ import annotations

__all__ = ["Kept", "before"]

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from liouville.agents.exchange import Exchange
from liouville.agents.network import SpreadNetwork
from liouville.agents.training import collected
from liouville.data import Split
from liouville.files import atomic, without_nan
from liouville.network import Network
from liouville.nodes import NodeHead
from liouville.runs.contents import metrics_of
from liouville.runs.files import CERTIFICATE, CONFIG, LOCALITY
from liouville.runs.folder import Writer
from liouville.runs.nearness import cost
from liouville.runs.run import Run, Trained
from liouville.runs.spread import Spread
from liouville.task import Task
from liouville.train import History
from liouville.train.evaluation import evaluate
from liouville.train.history import Epoch


def before(folder: Path, losses: list[float], score_name: str) -> list[Epoch]:
    """The epochs of a run that goes on, as its history has them; of those that it lacks, the losses.

    Args:
        folder: of the run.
        losses: of the epochs after which it goes on.
        score_name: ``accuracy`` or ``r2``.
    """
    try:
        records = Run.open(folder).history() if (folder / CONFIG).is_file() else []
    except (OSError, ValueError):
        records = []
    known = {record.get("epoch"): record for record in records}
    return [_epoch(known.get(k + 1), k + 1, loss, score_name) for k, loss in enumerate(losses)]


def _epoch(record: Mapping[str, Any] | None, number: int, loss: float, score_name: str) -> Epoch:
    try:
        said = {name.replace(score_name, "score"): v for name, v in (record or {}).items()}
        if said.get("loss") == loss:
            return Epoch(**said)
    except TypeError:
        pass
    lost = math.nan
    return Epoch(number, loss, 0.0, lost, lost, lost, None, None, lost)


@dataclass
class Kept:
    """What a training of agents tells and keeps; only the first process has a ``writer``, and only with a folder.

    Args:
        asked: what is trained.
        network: the central one, before it is spread.
        split: the data, in the dtype of the network.
        writer: of the run folder.
    """

    asked: Spread
    network: Network
    split: Split
    writer: Writer | None = None
    history: History = field(init=False)

    def __post_init__(self) -> None:
        self.history = History("accuracy" if self.split.classes else "r2")

    def resume(self, losses: list[float]) -> None:
        """Take up what was done before."""
        if self.writer is not None:
            self.history.epochs = before(self.writer.path, losses, self.history.score_name)

    def epoch(self, epoch: Epoch) -> None:
        """One more."""
        self.history.epochs.append(epoch)
        if self.writer is not None:
            self.writer.epoch(self.history)

    def locality(self) -> dict[str, Any]:
        """What a decision costs, which goes into the folder before the training."""
        found = cost(self.network)
        if self.writer is not None:
            _write(self.writer.path / LOCALITY, found)
        return found

    def finish(self, local: SpreadNetwork, exchange: Exchange, leader: bool) -> Run | None:
        """The whole network in the folder, measured and certified; None where this process does not measure.

        Args:
            local: the hosted nodes, trained; every process calls it with its own.
            exchange: the one that it was trained with.
            leader: whether this process measures.
        """
        whole = collected(local, exchange)
        if not leader:
            return None
        history, split = self.history, self.split
        history.best_epoch = len(history.epochs)
        history.stopped = f"all {len(history.epochs)} epochs are done"
        history.work = sum(epoch.work for epoch in history.epochs)
        task = Task.of(split.classes, local.width)
        for part, x, y in (("train", split.x_train, split.y_train), ("test", split.x_test, split.y_test)):
            history.metrics |= evaluate(whole, x, y, task, f"{part}_")
        seconds = sum(epoch.seconds for epoch in history.epochs if math.isfinite(epoch.seconds))
        history.metrics |= {"seconds": seconds, "work": float(history.work)}
        more: dict[str, Any] = {"nodes": len(local.placement.graph)}
        if isinstance(whole.head, NodeHead) and not split.classes:
            more["test_r2_by_output"] = self._by_output(whole, whole.head)
        if isinstance(split.classes, tuple):
            more["test_accuracy_by_output"] = self._by_target(whole, task)
        done = Trained(whole.cpu(), history, split.to("cpu"))
        if self.writer is None:
            return Run(None, {}, metrics_of(whole, history, **more), done)
        self.writer.finish(whole, history, **more)
        run = Run.open(self.writer.path, done)
        _write(self.writer.path / CERTIFICATE, run.certificate().as_dict())
        return run

    @torch.no_grad()
    def _by_target(self, whole: Network, task: Task) -> list[dict[str, Any]]:
        """Of several targets of classes."""
        x, y, graph = self.split.x_test, self.split.y_test, self.asked.graph
        right = (task.labels(torch.cat([whole(part) for part in x.split(1000)])) == y).double().mean(0).tolist()
        columns = self.asked.columns or {}
        names = self.split.targets or tuple(map(str, range(len(right))))
        nodes = [graph.label(columns[name]).removeprefix("node ") if name in columns else "all" for name in names]
        found = zip(nodes, names, right, strict=True)
        return [{"node": node, "output": name, "accuracy": share} for node, name, share in found]

    @torch.no_grad()
    def _by_output(self, whole: Network, head: NodeHead) -> list[dict[str, Any]]:
        x, y = self.split.x_test, self.split.y_test
        predicted = torch.cat([whole(part) for part in x.split(1000)])
        names = self.split.targets or (self.split.target or "output",)
        graph = self.asked.graph
        return [
            {"node": graph.label(node).removeprefix("node "), "output": name, "r2": _r2(predicted[:, k], _column(y, k))}
            for k, (node, name) in enumerate(zip(head.outputs, names, strict=True))
        ]


def _column(y: Tensor, k: int) -> Tensor:
    return y if y.ndim == 1 else y[:, k]


def _r2(predicted: Tensor, y: Tensor) -> float:
    return Task("least-squares", 0).score(predicted[:, None], y[:, None])


def _write(file: Path, value: Mapping[str, Any]) -> None:
    with atomic(file) as path:
        text = json.dumps(without_nan(value), indent=2, allow_nan=False, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
