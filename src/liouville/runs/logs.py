"""The logs in a run folder that other programs read: which there are, and where they lie."""

from __future__ import annotations

__all__ = ["LOGS", "loggers", "remove"]

import contextlib
from collections.abc import Sequence
from pathlib import Path

from liouville.names import lookup
from liouville.train import Callback, CSVLogger, TensorBoardLogger

LOGS: dict[str, tuple[type[CSVLogger] | type[TensorBoardLogger], str]] = {
    "csv": (CSVLogger, "history.csv"),
    "tensorboard": (TensorBoardLogger, "tensorboard"),
}
"""By name: who writes it, and its file or folder in the run."""


def loggers(run: Path | None, names: Sequence[str]) -> list[Callback]:
    """Those with these names; none where no run is written.

    Raises:
        ValueError: for an unknown name.
        ModuleNotFoundError: where a package is missing.
    """
    found = [lookup(LOGS, name, "log") for name in dict.fromkeys(names)]
    return [] if run is None else [make(run / place) for make, place in found]


def remove(run: Path) -> None:
    """Remove the logs of a run; what else lies beside them stays."""
    (run / LOGS["csv"][1]).unlink(missing_ok=True)
    folder = run / LOGS["tensorboard"][1]
    if folder.is_symlink():
        folder.unlink()
    elif folder.is_dir():
        for file in folder.glob("events.out.tfevents.*"):
            file.unlink()
        with contextlib.suppress(OSError):
            folder.rmdir()
