"""Tables for people on a terminal, the same words as plain text elsewhere."""

from __future__ import annotations

__all__ = ["say", "table"]

import shutil
import sys
import textwrap
from collections.abc import Sequence

import click

from liouville.terminal import printable


def say(text: str = "") -> None:
    """Lines on standard output, in the encoding that it has: click would take another in place of ASCII.

    On a terminal a line that is too long goes on below, indented; no word is cut.
    """
    text = printable(text)
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        text = "\n".join(_folded(line, width) for line in text.split("\n"))
    click.echo(text, file=sys.stdout)


def _folded(line: str, width: int) -> str:
    if len(line) <= width:
        return line
    inside = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.fill(line, width, subsequent_indent=inside, break_long_words=False, break_on_hyphens=False)


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], note: str = "", *, heads: bool = False
) -> None:
    """A table with a title; the first column is the name; a note below; as plain text with ``heads`` if asked."""
    if not sys.stdout.isatty():
        _plain(title, [columns, *rows] if heads else rows, note)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(
        title=Text(printable(title)), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for i, column in enumerate(columns):
        grid.add_column(column, style="cyan" if i == 0 else None, no_wrap=i == 0, overflow="fold")
    for row in rows:
        grid.add_row(*(Text(printable(cell)) for cell in row))
    console = Console(highlight=False)
    console.print(grid)
    if note:
        console.print(Text(printable(note), style="dim"))


def _plain(title: str, rows: Sequence[Sequence[str]], note: str) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    say(title)
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        say(("  " + "  ".join(cells)).rstrip())
    say(f"  ({note})\n" if note else "")
