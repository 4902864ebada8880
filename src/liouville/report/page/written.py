"""The page of runs, written into a file."""

from __future__ import annotations

__all__ = ["html"]

import os
from pathlib import Path

from liouville.report.page.document import write
from liouville.report.page.record import Recorded


def html(run: Recorded, *more: Recorded, path: str | os.PathLike[str] | None = None) -> Path:
    """Write the report of a run, or of several beside each other: one HTML file that needs no connection.

    Args:
        run, more: runs, such as those that ``liouville.runs.train`` returns or ``liouville.runs.Run.open`` reads.
        path: the file; ``report.html`` in the folder of the run if None.

    Returns:
        The file.

    Raises:
        ValueError: there is no path, and no folder of one run that it could be in.
        ImportError: plotly or matplotlib is not installed.
        OSError: the file cannot be written.

    Examples:
        >>> from liouville import runs
        >>> plan = runs.Plan.of("swiss-roll").changed(layers=4, epochs=2, data_options={"points": 200})
        >>> html(runs.train(plan, out="runs/reported")).as_posix()
        'runs/reported/report.html'
    """
    folder: Path | None = None if more else getattr(run, "path", None)
    if path is None and folder is None:
        raise ValueError("a report of several runs, or of a run in memory, has no place of its own; give path=FILE.")
    records = [each.record() for each in (run, *more)]
    return write(records, path if path is not None else Path(folder or "") / "report.html")
