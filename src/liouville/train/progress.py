"""Progress of a training run: a bar on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

__all__ = ["Progress", "Terminal", "silent"]

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from liouville.train.history import Epoch


class Progress:
    """Shows nothing: the base of what `fit` may be given."""

    class Bar:
        """What one run calls."""

        def step(self, loss: float) -> None:
            """After every optimiser step."""

        def epoch(self, record: Epoch) -> None:
            """After every epoch."""

    @contextlib.contextmanager
    def run(self, epochs: int, steps: int, score_name: str) -> Iterator[Bar]:
        """Around a whole run."""
        yield Progress.Bar()

    def note(self, text: str) -> None:
        """A line between runs that follow each other, such as the levels of `multilevel`."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


silent = Progress()


class Terminal(Progress):
    """A rich progress bar with loss, score and gradient norm on a terminal; a line per tenth of the run elsewhere.

    Args:
        file: where to write; standard error by default, so that results on standard output stay clean.
    """

    def __init__(self, file: Any = None) -> None:
        self.file = sys.stderr if file is None else file

    def note(self, text: str) -> None:
        print(text, file=self.file)

    @contextlib.contextmanager
    def run(self, epochs: int, steps: int, score_name: str) -> Iterator[Progress.Bar]:
        if not self.file.isatty():
            yield _Lines(self.file, epochs, score_name)
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress
        from rich.table import Column

        whole, rest = Column(no_wrap=True), Column(no_wrap=True, overflow="ellipsis", ratio=1)
        columns = (  # in a narrow terminal only the last one is cut
            TextColumn("epoch", table_column=whole),
            MofNCompleteColumn(table_column=whole),
            BarColumn(bar_width=16),
            TimeRemainingColumn(compact=True, table_column=whole),
            TextColumn("left  {task.fields[left]}", table_column=rest),
        )
        with RichProgress(*columns, console=Console(file=self.file), transient=True, expand=True) as rich:
            yield _Rich(rich, epochs, steps, score_name)


def _summary(record: Epoch, score_name: str, gradient: bool = True) -> str:
    score = record.score if record.validation_score is None else record.validation_score
    kind = "train" if record.validation_score is None else "val"
    more = f"  |grad| {record.gradient_norm:.2e}" if gradient else ""
    return f"loss {record.loss:.4f}  {kind} {score_name} {score:.4f}{more}"


class _Lines(Progress.Bar):
    def __init__(self, file: Any, epochs: int, score_name: str) -> None:
        self.file, self.epochs, self.score_name = file, epochs, score_name

    def epoch(self, record: Epoch) -> None:
        if record.epoch == self.epochs or record.epoch % max(1, self.epochs // 10) == 0 or record.epoch == 1:
            print(f"epoch {record.epoch:4d}/{self.epochs}  {_summary(record, self.score_name)}", file=self.file)


class _Rich(Progress.Bar):
    def __init__(self, rich: Any, epochs: int, steps: int, score_name: str) -> None:
        self.rich, self.steps, self.score_name = rich, steps, score_name
        self.task = rich.add_task("train", total=epochs, left="")

    def step(self, loss: float) -> None:
        self.rich.advance(self.task, 1 / self.steps)

    def epoch(self, record: Epoch) -> None:
        self.rich.update(
            self.task, completed=record.epoch, left=_summary(record, self.score_name, self.rich.console.width > 96)
        )
