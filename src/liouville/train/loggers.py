"""Loggers: callbacks that write every epoch where other programs read it, a CSV file or TensorBoard."""

from __future__ import annotations

__all__ = ["CSVLogger", "TensorBoardLogger"]

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from liouville.train.callback import Callback
from liouville.train.history import History


class CSVLogger(Callback):
    """A CSV file with a row for every epoch, readable while the training runs.

    The columns are those of `History.records`: ``epoch``, ``loss``, ``penalty``, the score by its name,
    ``gradient_norm``, ``lr``, ``validation_loss``, the validation score, ``seconds``, ``layers`` and ``work``. What is
    not measured is empty. A file that is there is replaced; a resumed training writes its earlier epochs again.

    Args:
        path: the file; its folder is made.

    Raises:
        OSError: the file cannot be written.

    Examples:
        >>> import tempfile
        >>> import liouville as lv
        >>> network = lv.classifier("h2", inputs=2, classes=2, features=4, layers=4, T=1.0)
        >>> file = Path(tempfile.mkdtemp()) / "log.csv"
        >>> data, settings = lv.data.load("double-moons", points=200), lv.train.Settings(epochs=2)
        >>> history = lv.train.fit(network, data, settings, callbacks=[CSVLogger(file)])
        >>> file.read_text().split(",")[:2], len(file.read_text().splitlines())
        (['epoch', 'loss'], 3)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._written = 0

    def on_train_epoch_end(self, history: History) -> None:
        if not history.epochs:
            return
        if not self._written:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        records = history.records()
        with self.path.open("a" if self._written else "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(records[0]), lineterminator="\n")
            if not self._written:
                writer.writeheader()
            writer.writerows(records[self._written :])
        self._written = len(records)


class TensorBoardLogger(Callback):
    """Scalars for TensorBoard, one of every epoch: ``tensorboard --logdir FOLDER`` shows them. Extra ``tensorboard``.

    Their names are ``train/loss``, ``train/penalty``, ``train/accuracy`` (or ``train/r2``), ``train/gradient_norm``,
    ``train/lr``, ``train/seconds``, ``validation/loss`` and ``validation/accuracy``. A resumed training writes its
    earlier epochs again, and TensorBoard drops the first ones of them.

    Args:
        folder: for the event files; it is made at the first epoch.

    Raises:
        ModuleNotFoundError: without the package ``tensorboard``.

    Examples:
        >>> TensorBoardLogger("runs/mine/tensorboard").folder.name
        'tensorboard'
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ModuleNotFoundError(
                "logs for TensorBoard need the package tensorboard: pip install 'liouville[tensorboard]'."
            ) from error
        self.folder = Path(folder)
        self._open: Callable[..., Any] = SummaryWriter
        self._writer: Any = None
        self._written = 0

    def on_train_epoch_end(self, history: History) -> None:
        if self._writer is None:
            self._writer = self._open(str(self.folder), purge_step=1)
        for record in history.records()[self._written :]:
            step = int(record.pop("epoch"))
            for name, value in record.items():
                if value is not None:
                    self._writer.add_scalar(_tag(name), value, step)
        self._written = len(history.epochs)
        self._writer.flush()

    def on_train_end(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _tag(name: str) -> str:
    """``validation_loss`` -> ``validation/loss``; anything else is the training's."""
    part, _, what = name.partition("_")
    return f"validation/{what}" if part == "validation" else f"train/{name}"
