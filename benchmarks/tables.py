"""Tables in the documentation that a benchmark writes: the lines between two marks are replaced, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plain(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same for a terminal."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = (zip(row, widths, strict=True) for row in [head, *rows])
    return "\n".join("  ".join(cell.rjust(width) for cell, width in line) for line in lines)


def write(path: Path, name: str, text: str) -> None:
    """Put ``text`` between the marks ``<!-- name -->`` and ``<!-- end name -->`` of the page."""
    page = path.read_text()
    before, begin, rest = page.partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- end {name} -->")
    if not begin or not end:
        raise SystemExit(f"{path} has no marks <!-- {name} --> and <!-- end {name} -->.")
    path.write_text(f"{before}{begin}{text}\n{end}{after}")
