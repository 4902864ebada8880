"""The run folder: the files of a training run, each whole or not there (the history grows line by line).

``config.json`` says what was run, and suffices to run it again; ``history.jsonl`` has a line per epoch, written while
training goes on; ``metrics.json`` has what was measured at the end; ``model.safetensors`` the network; ``figures/``
the pictures, ``report.html`` the page that shows all of it. While it is trained, ``checkpoint.safetensors`` has its
whole state, and ``lock`` names the process.
"""

from __future__ import annotations

__all__ = ["Writer", "figures", "next_free", "require_free", "tidy"]

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from liouville.checkpoint import save
from liouville.facts import Facts
from liouville.files import append_whole, atomic, remove_left_over, reserve, without_nan
from liouville.locks import Lock, LockedError
from liouville.network import Network
from liouville.runs import logs
from liouville.runs.contents import config_of, metrics_of
from liouville.runs.files import (
    CERTIFICATE,
    CHECKPOINT,
    CONFIG,
    FIGURES,
    HISTORY,
    LOCALITY,
    LOCK,
    METRICS,
    MODEL,
    REPORT,
)
from liouville.runs.plan import Plan
from liouville.runs.run import Run
from liouville.runs.spread import Spread
from liouville.train import Checkpoint, History

RESERVE = ".reserve"
_SMALL, _LARGEST = 1 << 18, 1 << 30  # bytes of the reserve: room for metrics and history, and at most


class Writer:
    """A run folder that is being written, by this process and no other, until `finish` or `release`.

    Room for the weights is set aside at once, so that a disk that fills up later does not lose them.

    Args:
        path: the folder; it is made, and its parents too.
        plan: what will be run; of agents with its graph.
        facts: of the data.
        network: before training.
        command: the words that were typed, if any.
        force: replace the run that ``path`` holds; whatever else lies in that folder stays.
        resume: go on with the run that ``path`` holds, whose plan and facts these are.

    Raises:
        FileExistsError: ``path`` is not an empty folder, and ``force`` does not help.
        OSError: the folder cannot be written to, or another process writes it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        plan: Plan | Spread,
        facts: Facts,
        network: Network,
        *,
        command: list[str] | None = None,
        force: bool = False,
        resume: bool = False,
    ) -> None:
        self.path, self.facts, self.resumed = Path(path), facts, resume
        self._epochs: int | None = None if resume else 0  # in the history; not known of a run that goes on
        if not resume:
            require_free(self.path, force)
        self._config = config_of(plan, facts, network, command)
        self._made = not self.path.exists()
        self._lock: Lock | None = None
        try:
            with _writing(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                self._lock = Lock(self.path / LOCK, str(self.path))
                remove_left_over(self.path, CONFIG, HISTORY, METRICS, MODEL, REPORT)
            if not resume:
                with _writing(self.path):
                    _remove_run(self.path)
                self._json(CONFIG, self._config)
                with _writing(self.path / HISTORY):
                    (self.path / HISTORY).write_text("")
            size = sum(t.nbytes for t in network.state_dict().values()) * 2 ** (getattr(plan, "levels", 1) - 1)
            with _writing(self.path / RESERVE):
                reserve(self.path / RESERVE, min(2 * size + _SMALL, _LARGEST))
        except OSError:
            self.discard()
            raise

    @property
    def begun(self) -> bool:
        """Whether there is more to write than there is: not of a run that goes on, before it was taken up."""
        return self._epochs is not None

    def checkpoint(self, every: float = 300.0) -> Checkpoint:
        """Where the state of the training goes."""
        return Checkpoint(self.path / CHECKPOINT, every)

    def renew(self) -> None:
        """Write ``config.json`` anew, of a run that goes on for longer or that an earlier version began without one."""
        self._json(CONFIG, self._config)

    def release(self) -> None:
        """Let others have the folder."""
        with contextlib.suppress(OSError):
            (self.path / RESERVE).unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.release()

    def discard(self) -> None:
        """Take back what was written of a run that came to nothing, and the folder if it was made for it."""
        if self._lock is not None and not self.resumed:
            with contextlib.suppress(OSError):
                _remove_run(self.path)
        self.release()
        if self._made:
            with contextlib.suppress(OSError):
                self.path.rmdir()

    def epoch(self, history: History) -> None:
        """Append the last epoch to the history; what `liouville.train.fit` calls ``on_epoch``."""
        self._append(history)

    def finish(self, network: Network, history: History, **more: Any) -> None:
        """Write the network, the metrics and what is missing of the history; ``more`` goes into the metrics.

        Others may have the folder then.
        """
        path = self.path / MODEL
        (self.path / RESERVE).unlink(missing_ok=True)
        self._require_folder()
        with _writing(path):
            save(network, path, facts=self.facts)
        self._json(METRICS, metrics_of(network, history, **more))
        try:
            self._append(history)  # last: a disk that is full has no room for it, and perhaps for the weights
        except OSError:
            if history.metrics:  # else that is what ended the training, and has been said
                raise
        if history.metrics:  # it came to its end, from which nothing goes on
            self.checkpoint().remove()
        self.release()

    def _require_folder(self) -> None:
        """Make the folder again if somebody removed it while the training went on."""
        if (self.path / CONFIG).is_file():
            return
        with _writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            if self._lock is not None:
                self._lock.release()
            self._lock = Lock(self.path / LOCK, str(self.path))
        self._json(CONFIG, self._config)

    def _append(self, history: History) -> None:
        """The epochs that are not written yet, whole lines or none."""
        self._require_folder()
        path = self.path / HISTORY
        whole = self._epochs is None or not path.exists()
        more = history.epochs[0 if whole else self._epochs :]
        lines = [json.dumps(without_nan(history.record(epoch))) + "\n" for epoch in more]
        content = "".join(lines).encode()
        with _writing(path):
            if whole:  # epochs after the state that a training goes on from are trained again
                with atomic(path) as temporary:
                    temporary.write_bytes(content)
            elif content:
                append_whole(path, content)
        self._epochs = len(history.epochs)

    def _json(self, name: str, value: Mapping[str, Any]) -> None:
        target = self.path / name
        text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        with _writing(target), atomic(target) as path:
            path.write_text(text, encoding="utf-8", errors="backslashreplace")  # undecodable words of a command


def tidy(path: Path | None) -> None:
    """Remove from a finished run what a process that was killed at its very end left: checkpoint, reserve and lock."""
    if path is None:
        return
    checkpoint = Checkpoint(path / CHECKPOINT)
    if not checkpoint.exists() and not any((path / name).exists() for name in (LOCK, RESERVE)):
        return
    with contextlib.suppress(OSError):  # another process has it, or nothing can be written there
        lock = Lock(path / LOCK, str(path))
        checkpoint.remove()
        (path / RESERVE).unlink(missing_ok=True)
        lock.release()


def figures(run: Path) -> Path:
    """The folder for a run's figures, made now."""
    folder = run / FIGURES
    with _writing(folder):
        if folder.is_symlink():  # what lies beyond it is somebody's
            folder.unlink()
        folder.mkdir(exist_ok=True)
    return folder


def next_free(parent: str | os.PathLike[str], stem: str) -> Path:
    """``parent/stem-k`` with the smallest k = 1, 2, ... that does not exist."""
    k = 1
    while os.path.lexists(path := Path(parent) / f"{stem}-{k}"):
        k += 1
    return path


def require_free(path: Path, force: bool = False) -> None:
    """Raise where a run must not be written to ``path``: it holds something already.

    Raises:
        FileExistsError: a file, a folder with something in it, or, with ``force``, one that is not a run.
        OSError: the folder cannot be read.
        ValueError: a name that is no text, under which the network could be written and not be read.
    """
    if any("\ud800" <= c <= "\udfff" for c in str(path)):
        raise ValueError(f"the name {str(path)!r} is not in UTF-8, as that of a run must be; choose another --out.")
    with _writing(path):
        if not os.path.lexists(path):
            return
        if not path.is_dir():
            raise FileExistsError(f"{path} is not a folder; choose another --out.")
        if all(file.name in (LOCK, RESERVE) or file.name.startswith(f".{CONFIG}.") for file in path.iterdir()):
            return  # nothing, or what a process left that was killed before its first file was whole
    if not force:
        raise FileExistsError(f"{path} exists already; choose another --out, or replace it with --force.")
    try:
        Run.open(path)
    except (OSError, ValueError) as error:
        raise FileExistsError(f"{path} is not a run, so --force leaves it alone; choose another --out.") from error


def _remove_run(path: Path) -> None:
    """Remove the files of a run by name; anything else in the folder is somebody's, and stays."""
    for name in (REPORT, CERTIFICATE, LOCALITY, MODEL, METRICS, HISTORY, CONFIG, RESERVE):
        (path / name).unlink(missing_ok=True)
    Checkpoint(path / CHECKPOINT).remove()
    logs.remove(path)
    figures = path / FIGURES
    if figures.is_symlink():  # what lies beyond it is somebody's, and new figures would be written there
        figures.unlink()
    if figures.is_dir():
        for file in (*figures.glob("*.png"), *figures.glob("*.svg")):
            file.unlink()
        with contextlib.suppress(OSError):
            figures.rmdir()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn an error of the operating system into one sentence that names the file and says what to do."""
    try:
        yield
    except LockedError:
        raise
    except FileExistsError as error:
        if error.errno is None:
            raise
        raise OSError(f"cannot write {path}: {error.filename} is a file; choose another --out.") from error
    except OSError as error:
        advice = "free some space, or choose another --out" if _full(error) else "choose another --out"
        raise OSError(f"cannot write {path}: {error.strerror or error}; {advice}.") from error
    except RecursionError as error:
        raise OSError("cannot write a run in so many folders of folders; choose another --out.") from error


def _full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
