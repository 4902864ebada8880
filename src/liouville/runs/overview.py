"""What runs there are in a folder, and which of them can go on."""

from __future__ import annotations

__all__ = ["Overview", "overview"]

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from liouville.locks import holder
from liouville.runs.run import CONFIG, LOCK, Run

State = Literal["finished", "interrupted", "diverged", "being trained", "damaged"]


@dataclass(frozen=True)
class Overview:
    """One run in a few words; ``resumable`` says whether `liouville COMMAND --resume` goes on with it."""

    path: Path
    data: str
    model: str
    state: State
    epochs: str
    score: str
    resumable: bool
    command: str = "train"


def overview(folder: str | os.PathLike[str]) -> list[Overview]:
    """The runs in a folder, or the one that it is, by name; no weights are read.

    Examples:
        >>> import tempfile
        >>> overview(tempfile.mkdtemp())
        []
    """
    folder = Path(folder)
    inside = (path for path in folder.iterdir() if path.is_dir())
    return [_of(path) for path in sorted((folder, *inside)) if (path / CONFIG).is_file()]


def _of(path: Path) -> Overview:
    try:
        run = Run.open(path)
        plan, done = getattr(run.asked, "plan", run.plan), len(run.history())
    except (OSError, ValueError):
        return Overview(path, "?", "?", "damaged", "?", "", False)
    state: State = "finished" if run.finished else "interrupted"
    if holder(path / LOCK) is not None:
        state = "being trained"
    elif not run.finished and "diverged" in str(run.metrics.get("stopped")):
        state = "diverged"
    score = next((run.metrics[f"test_{name}"] for name in ("accuracy", "r2") if f"test_{name}" in run.metrics), None)
    shown = f"{score:.4f}" if isinstance(score, float) else ""
    epochs = f"{done} of {plan.epochs}" if plan.levels == 1 else f"{done}, at most {plan.epochs} a level"
    if getattr(plan.settings, "steps", None) is not None:
        epochs = str(done)
    nodes = "" if run.command == "train" else f", {run.config['agents']['graph']['nodes']} nodes"
    return Overview(path, plan.subject, plan.model + nodes, state, epochs, shown, state == "interrupted", run.command)
