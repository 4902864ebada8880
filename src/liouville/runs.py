"""The run folder: what a training run leaves behind, each file whole or not at all (the history grows line by line).

``config.json`` says what was run, and suffices to run it again; ``history.jsonl`` has a line per epoch, written while
training goes on; ``metrics.json`` has what was measured at the end; ``model.safetensors`` the network; ``figures/``
the pictures.
"""

from __future__ import annotations

__all__ = ["Run", "Writer", "describe_data", "next_free", "require_free"]

import contextlib
import errno
import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import torch
from torch import Tensor

import liouville
from liouville.checkpoint import load, save
from liouville.data import Split
from liouville.documents import Count, Name, Numbers, Rule, Size, conform, read, read_lines
from liouville.files import atomic, without_nan
from liouville.network import Network
from liouville.plan import Plan
from liouville.train import History

FORMAT = "liouville-run-1"


class _Data(TypedDict):
    """What `describe_data` says."""

    name: Name
    shape: Annotated[list[Size], Rule("the sizes of one sample, 1 to 4 of them", lambda v: 1 <= len(v) <= 4)]
    classes: Annotated[int, Rule("0 for a regression, or a number of classes", lambda n: n == 0 or 2 <= n <= 2**24)]
    label_names: list[Name] | None
    column_names: NotRequired[list[Name] | None]  # runs of earlier versions have none
    train_samples: Count
    test_samples: Count
    offset: Numbers | None
    scale: Numbers | None
    target_offset: Numbers | None
    target_scale: Numbers | None


class _Config(TypedDict):
    """What ``config.json`` is; what else is in it was written for people."""

    format: Literal["liouville-run-1"]
    plan: dict[str, Any]
    data: _Data


CERTIFICATE, CONFIG, HISTORY, METRICS, MODEL, FIGURES = (
    "certificate.json",
    "config.json",
    "history.jsonl",
    "metrics.json",
    "model.safetensors",
    "figures",
)


class Writer:
    """A run folder that is being written.

    Args:
        path: the folder; it is made, and its parents too.
        plan: what will be run.
        split: the data.
        network: before training.
        command: the words that were typed, if any.
        force: replace the run that ``path`` holds; whatever else lies in that folder stays.

    Raises:
        FileExistsError: ``path`` is not an empty folder, and ``force`` does not help.
        OSError: the folder cannot be written to.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        plan: Plan,
        split: Split,
        network: Network,
        *,
        command: list[str] | None = None,
        force: bool = False,
    ) -> None:
        self.path = Path(path)
        require_free(self.path, force)
        config = {
            "format": FORMAT,
            "command": command,
            "plan": plan.as_dict(),
            "data": (data := without_nan(describe_data(split))),
            "data_sha256": _digest(data),
            "parameters": sum(p.numel() for p in network.parameters()),
            "threads": torch.get_num_threads(),
            "device": str(next(network.parameters()).device),
            "versions": _versions(),
        }
        self._made = not self.path.exists()
        try:
            with _writing(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                _remove_run(self.path)
            self._json(CONFIG, config)
            with _writing(self.path / HISTORY):
                (self.path / HISTORY).write_text("")
        except OSError:
            self.discard()
            raise

    def discard(self) -> None:
        """Take back what was written of a run that came to nothing, and the folder if it was made for it."""
        with contextlib.suppress(OSError):
            _remove_run(self.path)
            if self._made:
                self.path.rmdir()

    def epoch(self, history: History) -> None:
        """Append the last epoch to the history; what `liouville.train.fit` calls ``on_epoch``."""
        line = json.dumps(without_nan(history.records()[-1]))
        path = self.path / HISTORY
        with _writing(path), path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def finish(self, network: Network, history: History, **more: Any) -> None:
        """Write the network and the metrics; ``more`` goes into the latter."""
        path = self.path / MODEL
        with _writing(path):
            save(network, path)
        metrics = {
            **history.metrics,
            "best_epoch": history.best_epoch,
            "epochs": len(history.epochs),
            "stopped": history.stopped,
            "parameters": sum(p.numel() for p in network.parameters()),
            **more,
        }
        self._json(METRICS, metrics)

    def figures(self) -> Path:
        """The folder for figures, made now."""
        folder = self.path / FIGURES
        with _writing(folder):
            folder.mkdir(exist_ok=True)
        return folder

    def _json(self, name: str, value: Mapping[str, Any]) -> None:
        target = self.path / name
        text = json.dumps(without_nan(value), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        with _writing(target), atomic(target) as path:
            path.write_text(text, encoding="utf-8", errors="backslashreplace")  # undecodable words of a command


@dataclass(frozen=True)
class Run:
    """A run folder, read back.

    Args:
        path: the folder.
        config: ``config.json``.
        metrics: ``metrics.json``; empty where training never came to an end.

    Examples:
        >>> import tempfile
        >>> try:
        ...     Run.open(tempfile.mkdtemp())
        ... except FileNotFoundError as error:
        ...     print(str(error).split(": ")[1])
        it has no config.json; give a folder that `liouville train` wrote.
    """

    path: Path
    config: dict[str, Any]
    metrics: dict[str, Any]

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
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
                f"{path} is not a run: it has no {CONFIG}; give a folder that `liouville train` wrote."
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
        return cls(path, config, metrics)

    @property
    def plan(self) -> Plan:
        """What was run; ``plan.load()`` and ``plan.network(split)`` begin it again."""
        try:
            return Plan.from_dict(self.config["plan"])
        except ValueError as error:
            raise ValueError(f"{self.path / CONFIG}: {error}") from error

    def network(self) -> Network:
        """The trained network.

        Raises:
            FileNotFoundError: training has not come far enough to leave one.
            ValueError: the file is damaged, or not a network.
        """
        path = self.path / MODEL
        if not path.is_file():
            raise FileNotFoundError(f"{self.path} has no {MODEL}: its training did not come to an end; train again.")
        network = load(path)
        if not isinstance(network, Network):
            raise ValueError(f"{path} holds a {type(network).__name__}, expected a Network.")
        return network

    def history(self) -> list[dict[str, Any]]:
        """One record per epoch."""
        path = self.path / HISTORY
        records = read_lines(path)
        for k, record in enumerate(records, 1):
            conform(record, dict[str, float | None], file=f"line {k} of {path}")
        return records

    @property
    def edited(self) -> bool:
        """Whether what ``config.json`` says of the data is no longer what was written."""
        written = self.config.get("data_sha256")
        return written is not None and written != _digest(self.config["data"])

    def require_answers(self) -> None:
        """Raise where what ``config.json`` says of the data cannot scale inputs and name answers.

        Raises:
            ValueError: lengths that do not fit together, or a scale of 0.
        """
        data, file = self.config["data"], self.path / CONFIG
        sizes = data["shape"]
        names = data["label_names"]
        if names is not None and len(names) != data["classes"]:
            raise ValueError(f"{file} is damaged: {len(names)} label_names for {data['classes']} classes.")
        columns = data.get("column_names")
        if columns is not None and ([len(columns)] != sizes or len(set(columns)) < len(columns)):
            raise ValueError(
                f"{file} is damaged: data.column_names must be different names, one for each of {sizes[-1]} columns."
            )
        for offset, scale in (("offset", "scale"), ("target_offset", "target_scale")):
            if (data[offset] is None) != (data[scale] is None):
                raise ValueError(f"{file} is damaged: data.{offset} and data.{scale} belong together, one is null.")
        for name in ("offset", "scale"):
            value = self.tensor(name)
            one = (
                value is not None
                and value.ndim <= len(sizes)
                and all(mine in (1, size) for mine, size in zip(reversed(value.shape), reversed(sizes), strict=False))
            )
            if value is not None and not one:
                wanted = " x ".join(map(str, sizes))
                raise ValueError(
                    f"{file} is damaged: data.{name} must be a number, or numbers for samples of {wanted}, got "
                    f"{' x '.join(map(str, value.shape))}."
                )
        for name in ("scale", "target_scale"):
            value = self.tensor(name)
            if value is not None and not value.all():
                raise ValueError(f"{file} is damaged: data.{name} has a 0, and inputs are divided by it.")

    def tensor(self, name: str) -> Tensor | None:
        """``offset``, ``scale``, ``target_offset`` or ``target_scale`` of the data, in float64; None without one."""
        value = self.config["data"].get(name)
        return None if value is None else torch.tensor(value, dtype=torch.float64)


def describe_data(split: Split) -> dict[str, Any]:
    """What has to be known of the data to use the network: shapes, labels, and how raw inputs were transformed."""
    transform = {name: getattr(split, name) for name in ("offset", "scale", "target_offset", "target_scale")}
    return {
        "name": split.name,
        "shape": list(split.x_train.shape[1:]),
        "classes": split.classes,
        "label_names": None if split.label_names is None else list(split.label_names),
        "column_names": None if split.column_names is None else list(split.column_names),
        "train_samples": len(split.x_train),
        "test_samples": len(split.x_test),
        **{name: None if t is None else t.tolist() for name, t in transform.items()},
    }


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
        if not any(path.iterdir()):
            return
    if not force:
        raise FileExistsError(f"{path} exists already; choose another --out, or replace it with --force.")
    try:
        Run.open(path)
    except (OSError, ValueError) as error:
        raise FileExistsError(f"{path} is not a run, so --force leaves it alone; choose another --out.") from error


def _remove_run(path: Path) -> None:
    """Remove the files of a run by name; anything else in the folder is somebody's, and stays."""
    for name in (CERTIFICATE, MODEL, METRICS, HISTORY, CONFIG):
        (path / name).unlink(missing_ok=True)
    figures = path / FIGURES
    if figures.is_dir() and not figures.is_symlink():
        for file in (*figures.glob("*.png"), *figures.glob("*.svg")):
            file.unlink()
        with contextlib.suppress(OSError):
            figures.rmdir()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn an error of the operating system into one sentence that names the file and says what to do."""
    try:
        yield
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


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _versions() -> dict[str, str]:
    return {
        "liouville": liouville.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
    }
